//! What holds a [`Fence`](super::fence::Fence): a process of its own, `litepilot hold`.
//!
//! SQLite in WAL mode maps a file of LiteFS' file system into memory. When LiteFS ends, or takes that
//! file away as it changes its role, the next touch of the mapping kills the process (SIGBUS). That must
//! not be Litepilot.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::position;

/// What it prints once it holds the locks.
pub(crate) const UP: &str = "up";
/// Between two tries. A busy writer leaves only moments between two transactions.
const AGAIN: Duration = Duration::from_millis(1);
/// Between two looks for new databases while the locks are held.
const LOOK: Duration = Duration::from_millis(5);

/// Takes the write locks of all databases in `mount` within `limit`, says so, and holds them, and those of
/// databases that come, until standard input ends. Without a database there is nothing to hold.
pub(crate) fn main(mount: &Path, limit: Duration) -> ExitCode {
    let mut locks = Locks::default();
    if let Err(why) = locks.take_all(mount, Instant::now() + limit) {
        // Nobody is there if this fails.
        let _ = writeln!(io::stdout(), "{why}");
        return ExitCode::FAILURE;
    }
    if writeln!(io::stdout(), "{UP}").and_then(|()| io::stdout().flush()).is_ok() {
        locks.hold(mount, &end_of_input());
    }
    locks.release();
    ExitCode::SUCCESS
}

/// Disconnected once standard input has ended.
fn end_of_input() -> Receiver<()> {
    let (open, ended) = channel();
    thread::spawn(move || {
        let _open = open;
        // An error, too, means that nobody is there any more.
        let _ = io::stdin().read_to_end(&mut Vec::new());
    });
    ended
}

/// By the database's name.
#[derive(Default)]
struct Locks(BTreeMap<String, Connection>);

impl Locks {
    /// Until a last look finds no database that is not held: one may have been made meanwhile.
    fn take_all(&mut self, mount: &Path, deadline: Instant) -> Result<(), String> {
        loop {
            let busy = self.take_new(mount)?;
            if busy == Some(0) {
                return Ok(());
            }
            if busy.is_some_and(|busy| busy > 0) {
                if Instant::now() >= deadline {
                    return Err("writers were still at work".into());
                }
                thread::sleep(AGAIN);
            }
        }
    }

    /// Tries each that is not held yet. How many are busy; `None` if some were taken, so that there may
    /// be more.
    fn take_new(&mut self, mount: &Path) -> Result<Option<usize>, String> {
        let (mut busy, mut taken) = (0, 0);
        for name in position::list(mount).map_err(|error| error.to_string())? {
            if self.0.contains_key(&name) {
                continue;
            }
            match take(&mount.join(&name)).map_err(|why| format!("{name}: {why}"))? {
                Taken::Held(lock) => {
                    self.0.insert(name, lock);
                    taken += 1;
                }
                Taken::Busy => busy += 1,
                Taken::Gone => {}
            }
        }
        Ok((busy > 0 || taken == 0).then_some(busy))
    }

    /// LiteFS' file system tells nobody of a new database, so this looks for them.
    fn hold(&mut self, mount: &Path, ended: &Receiver<()>) {
        while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            // LiteFS may be changing its role by now, and have nothing to say.
            let _ = self.take_new(mount);
        }
    }

    fn release(self) {
        for lock in self.0.values() {
            // Nothing was written, so there is nothing that could be lost. If we end, the lock goes as well.
            let _ = lock.execute_batch("ROLLBACK");
        }
    }
}

enum Taken {
    Held(Connection),
    Busy,
    /// It was deleted meanwhile.
    Gone,
}

fn take(database: &Path) -> Result<Taken, String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = Connection::open_with_flags(database, flags).and_then(|connection| {
        connection.busy_timeout(Duration::ZERO)?;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        Ok(connection)
    });
    match open {
        Ok(connection) => Ok(Taken::Held(connection)),
        Err(error) if is_busy(&error) => Ok(Taken::Busy),
        Err(_) if !database.try_exists().map_err(|error| error.to_string())? => Ok(Taken::Gone),
        Err(error) => Err(error.to_string()),
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn app(dir: &Path, mode: &str) -> Connection {
        let app = Connection::open(dir.join(mode)).unwrap();
        app.pragma_update(None, "journal_mode", mode).unwrap();
        app.busy_timeout(Duration::ZERO).unwrap();
        app.execute_batch("CREATE TABLE t (x)").unwrap();
        app
    }

    fn take_all(dir: &Path, limit: Duration) -> Result<Locks, String> {
        let mut locks = Locks::default();
        locks.take_all(dir, Instant::now() + limit).map(|()| locks)
    }

    #[test]
    fn it_waits_for_the_writers_of_every_database_and_gives_up_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let apps = ["wal", "delete"].map(|mode| app(dir.path(), mode));
        for busy in &apps {
            busy.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").unwrap();
            let why = take_all(dir.path(), Duration::ZERO).err().unwrap();
            assert!(why.contains("still at work"), "{why}");
            busy.execute_batch("COMMIT").unwrap();
        }
        let held = take_all(dir.path(), LIMIT).unwrap();
        let insert = |app: &Connection| app.execute("INSERT INTO t VALUES (1)", []);
        assert!(apps.iter().all(|app| insert(app).is_err()));
        held.release();
        assert!(apps.iter().all(|app| insert(app).is_ok()));
    }

    #[test]
    fn a_database_that_comes_meanwhile_is_held_too() {
        let dir = tempfile::tempdir().unwrap();
        let first = app(dir.path(), "wal");
        let mut held = take_all(dir.path(), LIMIT).unwrap();
        let new = app(dir.path(), "delete");
        assert_eq!(held.take_new(dir.path()), Ok(None), "it was taken");
        assert_eq!(held.take_new(dir.path()), Ok(Some(0)));
        for app in [&first, &new] {
            assert!(app.execute("INSERT INTO t VALUES (1)", []).is_err());
        }
    }

    #[test]
    fn without_a_database_there_is_nothing_to_hold() {
        let dir = tempfile::tempdir().unwrap();
        assert!(take_all(dir.path(), Duration::ZERO).unwrap().0.is_empty());
        let text = dir.path().join("text");
        std::fs::write(&text, "no database at all, but long enough to be looked at").unwrap();
        let why = take_all(dir.path(), LIMIT).err().unwrap();
        assert!(why.starts_with("text: ") && !why.contains("still at work"), "{why}");
    }
}
