//! The position of the database now, from `<db>-pos` in the mount: synchronous with commits.
//!
//! A file system whose LiteFS hangs blocks whoever touches it. So one thread reads, for all who ask at
//! the same time at once, and they wait no longer than they like to.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::mount;
use crate::txid::{Checksum, Txid, parse_hex16};

/// Who may wait at once; more than connections are served.
const QUEUE: usize = 16_384;
/// Bytes of `<db>-pos`: `txid/checksum\n`, each of 16 hex digits.
const LENGTH: usize = 34;

/// What LiteFS holds of a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LitefsPosition {
    /// The last transaction; 0 if there is none, or no database.
    pub(crate) txid: Txid,
    /// Of the whole database.
    pub(crate) checksum: Checksum,
}

type Answer = Result<LitefsPosition, (io::ErrorKind, String)>;

/// Reads the position of one database. The thread ends with it.
pub(crate) struct Positions(SyncSender<oneshot::Sender<Answer>>);

impl Positions {
    /// Of `db` in `mount`; with `fuse`, only if LiteFS' file system is mounted there.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub(crate) fn start(mount: &Path, db: &Path, fuse: bool) -> io::Result<Self> {
        let (sender, asked) = sync_channel(QUEUE);
        let mut name = mount.join(db).into_os_string();
        name.push("-pos");
        let place = Place { mount: mount.to_owned(), file: name.into(), fuse };
        thread::Builder::new()
            .name("litefs-position".to_owned())
            .spawn(move || place.serve(&asked))?;
        Ok(Self(sender))
    }

    /// The position now: whatever was committed before this call is contained.
    ///
    /// # Errors
    ///
    /// When it cannot be read within `limit`. A database that does not exist yet is no error.
    pub(crate) async fn read(&self, limit: Duration) -> io::Result<LitefsPosition> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(reply).map_err(|refused| match refused {
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
    file: PathBuf,
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

    fn read(&self) -> io::Result<LitefsPosition> {
        match read(&self.file) {
            // Without LiteFS' file system there are no files, which does not mean that there is no
            // database.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if self.fuse && !mount::is_fuse(&self.mount)? {
                    return Err(io::Error::new(
                        io::ErrorKind::NotConnected,
                        "LiteFS is not mounted",
                    ));
                }
                Ok(LitefsPosition::default())
            }
            found => found,
        }
    }
}

fn read(path: &Path) -> io::Result<LitefsPosition> {
    let mut text = [0; LENGTH];
    // Opened each time: a file that stays open would keep the file system from being unmounted.
    File::open(path)?.read_exact(&mut text)?;
    parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no position of LiteFS"))
}

fn parse(text: &[u8; LENGTH]) -> Option<LitefsPosition> {
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
        let positions = Positions::start(dir.path(), Path::new("app.db"), false).unwrap();
        assert_eq!(positions.read(LIMIT).await.unwrap(), LitefsPosition::default());
        fs::write(dir.path().join("app.db-pos"), "0000000000000002/8000000000000001\n").unwrap();
        assert_eq!(positions.read(LIMIT).await.unwrap(), at(2, 0x8000_0000_0000_0001));
        fs::write(dir.path().join("app.db-pos"), "").unwrap();
        assert!(positions.read(LIMIT).await.is_err(), "unreadable is not empty");
    }

    #[tokio::test]
    async fn without_litefs_nothing_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let positions = Positions::start(dir.path(), Path::new("app.db"), true).unwrap();
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
        let positions = Positions::start(dir.path(), Path::new("app.db"), false).unwrap();
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
        assert_eq!(found, at(7, 0x8000_0000_0000_0001));
    }
}
