//! The positions of all databases now, from `<db>-pos` in the mount: synchronous with commits.
//!
//! A file system whose LiteFS hangs blocks whoever touches it. So one thread reads, for all who ask at
//! the same time at once, and they wait no longer than they like to.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::databases::Databases;
use super::mount;
use crate::txid::{Checksum, Txid, parse_hex16};

/// Who may wait at once; more than connections are served.
const QUEUE: usize = 16_384;
/// Bytes of `<db>-pos`: `txid/checksum\n`, each of 16 hex digits.
const LENGTH: usize = 34;

/// What LiteFS adds to a database's name.
const OWN_FILES: [&str; 5] = ["-journal", "-wal", "-shm", "-pos", "-lock"];

/// What LiteFS holds of a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LitefsPosition {
    /// The last transaction; 0 if there is none, or no database.
    pub txid: Txid,
    /// Of the whole database.
    pub checksum: Checksum,
}

/// Whether a file of this name in the mount can be a database.
pub(crate) fn is_database(name: &str) -> bool {
    !name.starts_with('.') && !OWN_FILES.iter().any(|end| name.ends_with(end))
}

/// The databases in a mount that have a transaction and were not deleted.
///
/// # Errors
///
/// When the directory cannot be read.
pub(crate) fn list(mount: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in mount.read_dir()? {
        // LiteFS' names are text, and so are those that it is asked for.
        if let Ok(name) = entry?.file_name().into_string()
            && is_database(&name)
        {
            names.push(name);
        }
    }
    Ok(names)
}

type Answer = Result<Databases, (io::ErrorKind, String)>;

/// Reads the positions of the databases. The thread ends with it.
pub(crate) struct Positions {
    ask: SyncSender<oneshot::Sender<Answer>>,
    names: Arc<Mutex<BTreeSet<String>>>,
}

impl Positions {
    /// Of those in `mount` but for the `untracked`; with `fuse`, only if LiteFS' file system is mounted
    /// there.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub(crate) fn start(mount: &Path, untracked: BTreeSet<String>, fuse: bool) -> io::Result<Self> {
        let (ask, asked) = sync_channel(QUEUE);
        let names: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let place = Place { mount: mount.to_owned(), names: names.clone(), untracked, fuse };
        thread::Builder::new()
            .name("litefs-position".to_owned())
            .spawn(move || place.serve(&asked))?;
        Ok(Self { ask, names })
    }

    /// Reads these from now on, too, although LiteFS may not list them: it lists no deleted ones, whose
    /// numbers it keeps.
    pub(crate) fn look_for<'a>(&self, names: impl IntoIterator<Item = &'a String>) {
        self.names.lock().extend(names.into_iter().cloned());
    }

    /// The positions now: whatever was committed before this call is contained.
    ///
    /// # Errors
    ///
    /// When one cannot be read within `limit`. A database that does not exist yet is no error.
    pub(crate) async fn read(&self, limit: Duration) -> io::Result<Databases> {
        let (reply, answer) = oneshot::channel();
        self.ask.try_send(reply).map_err(|refused| match refused {
            TrySendError::Full(_) => {
                io::Error::new(io::ErrorKind::ResourceBusy, "too many wait for LiteFS")
            }
            TrySendError::Disconnected(_) => io::ErrorKind::BrokenPipe.into(),
        })?;
        match timeout(limit, answer).await {
            Ok(Ok(answer)) => answer.map_err(|(kind, why)| io::Error::new(kind, why)),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => {
                let why = format!("LiteFS did not say its position within {limit:?}");
                Err(io::Error::new(io::ErrorKind::TimedOut, why))
            }
        }
    }
}

struct Place {
    mount: PathBuf,
    /// Every one that was ever seen.
    names: Arc<Mutex<BTreeSet<String>>>,
    untracked: BTreeSet<String>,
    fuse: bool,
}

impl Place {
    fn serve(&self, asked: &Receiver<oneshot::Sender<Answer>>) {
        while let Ok(first) = asked.recv() {
            // All of these asked before the read begins, so one is good for all.
            let waiting: Vec<_> = std::iter::once(first).chain(asked.try_iter()).collect();
            let wanted = waiting.iter().any(|reply| !reply.is_closed());
            if !wanted {
                continue;
            }
            let answer = self.read().map_err(|error| (error.kind(), error.to_string()));
            for reply in waiting {
                let _ = reply.send(answer.clone());
            }
        }
    }

    fn read(&self) -> io::Result<Databases> {
        // Listed each time: a write may have made a database, and its token has to count that.
        let listed = list(&self.mount)?;
        let names = {
            let mut names = self.names.lock();
            names.extend(listed);
            names.clone()
        };
        let mut found = Databases::default();
        for name in names.difference(&self.untracked) {
            if let Some(position) = read_one(&self.mount, name)? {
                found.set(name, position);
            }
        }
        // Without LiteFS' file system there are no files, which does not mean that there is no database.
        if found.is_empty() && self.fuse && !mount::is_fuse(&self.mount)? {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "LiteFS is not mounted"));
        }
        Ok(found)
    }
}

/// The position of one database in a mount; `None`: there is no such database.
///
/// # Errors
///
/// When it cannot be read.
pub(crate) fn read_one(mount: &Path, name: &str) -> io::Result<Option<LitefsPosition>> {
    match read(&mount.join(format!("{name}-pos"))) {
        // Not made yet, or never here: others' LiteFS had it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        position => position.map(Some),
    }
}

fn read(path: &Path) -> io::Result<LitefsPosition> {
    let mut text = [0; LENGTH];
    // Opened each time: a file that stays open would keep the file system from being unmounted.
    File::open(path)?.read_exact(&mut text)?;
    parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no position of LiteFS"))
}

pub(super) fn parse(text: &[u8; LENGTH]) -> Option<LitefsPosition> {
    let (txid, rest) = text.split_at(16);
    let (checksum, end) = rest.strip_prefix(b"/")?.split_at(16);
    let txid = Txid(parse_hex16(txid).ok()?);
    let checksum = match parse_hex16(checksum).ok()? {
        // Of a database that has no transaction yet.
        0 => Checksum::default(),
        sum => Checksum(sum),
    };
    (end == b"\n").then_some(LitefsPosition { txid, checksum })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const LIMIT: Duration = Duration::from_secs(10);

    fn at(txid: u64, checksum: u64) -> LitefsPosition {
        LitefsPosition { txid: Txid(txid), checksum: Checksum(checksum) }
    }

    fn start(dir: &Path, fuse: bool) -> Positions {
        let positions =
            Positions::start(dir, BTreeSet::from(["cache.db".to_owned()]), fuse).unwrap();
        positions.look_for(&["app.db".to_owned()]);
        positions
    }

    #[test]
    fn what_a_real_one_says_is_understood() {
        let text = include_bytes!("../../tests/litefs-contract/pos.txt");
        assert_eq!(parse(text), Some(at(3, 0xa7dd_8f28_ea1b_904d)));
        let empty = b"0000000000000000/0000000000000000\n";
        assert_eq!(parse(empty), Some(LitefsPosition::default()));
        assert_eq!(parse(b"0000000000000003/a7dd8f28ea1b904d "), None);
        assert_eq!(parse(b"000000000000000X/a7dd8f28ea1b904d\n"), None);
    }

    #[tokio::test]
    async fn a_database_that_does_not_exist_yet_has_no_transactions() {
        let dir = tempfile::tempdir().unwrap();
        let positions = start(dir.path(), false);
        assert!(positions.read(LIMIT).await.unwrap().is_empty());
        fs::write(dir.path().join("app.db-pos"), "0000000000000002/8000000000000001\n").unwrap();
        let found = positions.read(LIMIT).await.unwrap();
        assert_eq!(found, Databases::one("app.db", at(2, 0x8000_0000_0000_0001)));
        fs::write(dir.path().join("app.db-pos"), "").unwrap();
        assert!(positions.read(LIMIT).await.is_err(), "unreadable is not empty");
    }

    #[tokio::test]
    async fn whatever_is_in_the_mount_counts_but_for_the_untracked() {
        let dir = tempfile::tempdir().unwrap();
        let positions = start(dir.path(), false);
        let write = |name: &str, txid: u64| {
            fs::write(dir.path().join(name), "").unwrap();
            let text = format!("{txid:016x}/8000000000000001\n");
            fs::write(dir.path().join(format!("{name}-pos")), text).unwrap();
        };
        write("app.db", 3);
        write("cache.db", 9);
        write("queue.db", 2);
        assert_eq!(positions.read(LIMIT).await.unwrap().seq(), Txid(5));
        // Deleted, it is not listed, and LiteFS knows it all the same.
        fs::remove_file(dir.path().join("queue.db")).unwrap();
        assert_eq!(positions.read(LIMIT).await.unwrap().seq(), Txid(5));
        write("new.db", 1);
        assert_eq!(positions.read(LIMIT).await.unwrap().seq(), Txid(6));
    }

    #[tokio::test]
    async fn without_litefs_nothing_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let positions = start(dir.path(), true);
        let error = positions.read(LIMIT).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    }

    /// A FIFO that nobody writes stands for a file system whose LiteFS hangs.
    #[tokio::test]
    async fn whoever_asks_waits_no_longer_than_he_likes() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("app.db-pos");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        let positions = start(dir.path(), false);
        for _ in 0..3 {
            let error = positions.read(Duration::from_millis(10)).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
        // It lives again: the thread goes on, and those who gave up are passed over. The writer is left
        // behind in the end, waiting for a reader.
        thread::spawn(move || {
            loop {
                let _ = fs::write(&fifo, "0000000000000007/8000000000000001\n");
            }
        });
        let found = loop {
            if let Ok(found) = positions.read(LIMIT).await {
                break found;
            }
        };
        assert_eq!(found.get("app.db"), at(7, 0x8000_0000_0000_0001));
    }
}
