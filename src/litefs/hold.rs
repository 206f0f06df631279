//! What holds a [`Fence`](super::fence::Fence): a process of its own, `litepilot hold`.
//!
//! SQLite in WAL mode maps a file of LiteFS' file system into memory. When LiteFS ends, or takes that
//! file away as it changes its role, the next touch of the mapping kills the process (SIGBUS). That must
//! not be Litepilot.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};

/// What it prints once it holds the lock.
pub(crate) const UP: &str = "up";
/// Between two tries. A busy writer leaves only moments between two transactions.
const AGAIN: Duration = Duration::from_millis(1);

/// Takes the write lock of `database` within `limit`, says so, and holds it until standard input ends.
/// Of a database that is not there yet there is nothing to hold.
pub(crate) fn main(database: &Path, limit: Duration) -> ExitCode {
    match take(database, Instant::now() + limit) {
        Ok(connection) => {
            let told = writeln!(io::stdout(), "{UP}").and_then(|()| io::stdout().flush());
            if told.is_ok() {
                // An error, too, means that nobody is there any more.
                let _ = io::stdin().read_to_end(&mut Vec::new());
            }
            if let Some(connection) = connection {
                // Nothing was written, so there is nothing that could be lost. If we end, the lock goes as well.
                let _ = connection.execute_batch("ROLLBACK");
            }
            ExitCode::SUCCESS
        }
        Err(why) => {
            // Nobody is there if this fails.
            let _ = writeln!(io::stdout(), "{why}");
            ExitCode::FAILURE
        }
    }
}

/// The lock; nothing if there is no database.
fn take(database: &Path, deadline: Instant) -> Result<Option<Connection>, String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if !database.try_exists().map_err(|error| error.to_string())? {
        return Ok(None);
    }
    let open = Connection::open_with_flags(database, flags);
    let connection = open.map_err(|error| error.to_string())?;
    connection.busy_timeout(Duration::ZERO).map_err(|error| error.to_string())?;
    loop {
        match connection.execute_batch("BEGIN IMMEDIATE") {
            Ok(()) => return Ok(Some(connection)),
            Err(error) if !is_busy(&error) => return Err(error.to_string()),
            Err(_) if Instant::now() >= deadline => return Err("writers were still at work".into()),
            Err(_) => thread::sleep(AGAIN),
        }
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

    #[test]
    fn it_waits_for_writers_and_gives_up_in_time() {
        let dir = tempfile::tempdir().unwrap();
        for mode in ["wal", "delete"] {
            let path = dir.path().join(mode);
            let app = Connection::open(&path).unwrap();
            app.pragma_update(None, "journal_mode", mode).unwrap();
            app.execute_batch("CREATE TABLE t (x); BEGIN IMMEDIATE; INSERT INTO t VALUES (1)")
                .unwrap();
            assert!(take(&path, Instant::now()).unwrap_err().contains("still at work"));
            app.execute_batch("COMMIT").unwrap();
            let held = take(&path, Instant::now() + LIMIT).unwrap();
            app.busy_timeout(Duration::ZERO).unwrap();
            assert!(app.execute("INSERT INTO t VALUES (1)", []).is_err(), "{mode}");
            drop(held);
            app.execute("INSERT INTO t VALUES (1)", []).unwrap();
        }
    }

    #[test]
    fn without_a_database_there_is_nothing_to_hold() {
        let dir = tempfile::tempdir().unwrap();
        assert!(take(&dir.path().join("none"), Instant::now()).unwrap().is_none());
        assert!(!dir.path().join("none").exists(), "and none is made");
        let text = dir.path().join("text");
        std::fs::write(&text, "no database at all, but long enough to be looked at").unwrap();
        assert!(!take(&text, Instant::now() + LIMIT).unwrap_err().contains("still at work"));
    }
}
