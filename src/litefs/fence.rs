//! Keeps everybody from writing the database in the mount, whichever way they come, by SQLite's own
//! write lock, held by a connection of ours.
//!
//! A LiteFS that loses its lease in the middle of a WAL commit exits, and the application has been told
//! that the commit succeeded. So before a demotion that we cause, nobody may be in one.
//!
//! It is taken and held on a thread of its own: a file system whose LiteFS hangs blocks whoever touches
//! it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Between two tries. A busy writer leaves only moments between two transactions.
const AGAIN: Duration = Duration::from_millis(1);
/// How long letting go may take. Reached only if LiteFS hangs; it is then killed.
const LIFTING: Duration = Duration::from_secs(1);

/// The write lock. Dropping it lets go of it, a little later.
#[derive(Debug)]
pub struct Fence(Sender<oneshot::Sender<()>>);

impl Fence {
    /// Waits for the writers' end, and keeps others from beginning. Of a database that is not there
    /// yet there is nothing to hold.
    ///
    /// # Errors
    ///
    /// When somebody still wrote after `limit`, or the database cannot be opened.
    pub async fn raise(database: &Path, limit: Duration) -> io::Result<Self> {
        let (raised, answer) = oneshot::channel();
        let (lift, lifted) = channel();
        let database = database.to_owned();
        let deadline = Instant::now() + limit;
        let late = format!("writers were still at work in {} after {limit:?}", database.display());
        thread::Builder::new().name("litefs-fence".to_owned()).spawn(move || {
            hold(database, deadline, raised, &lifted);
        })?;
        match timeout(limit, answer).await {
            Ok(Ok(Ok(()))) => Ok(Self(lift)),
            Ok(Ok(Err(error))) if error.kind() != io::ErrorKind::ResourceBusy => Err(error),
            Ok(Err(_)) => Err(io::Error::other("the fence's thread has ended")),
            Ok(Ok(Err(_))) | Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, late)),
        }
    }

    /// Lets everybody write again, if LiteFS lets them.
    ///
    /// # Errors
    ///
    /// When letting go takes too long; it will still happen once LiteFS answers or ends.
    pub async fn lift(self) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        let _ = self.0.send(done);
        match timeout(LIFTING, answer).await {
            Ok(_) => Ok(()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// The life of the thread. Whoever gave up waiting for the lock is not in the way: it is let go of.
fn hold(
    database: PathBuf,
    deadline: Instant,
    raised: oneshot::Sender<io::Result<()>>,
    lifted: &Receiver<oneshot::Sender<()>>,
) {
    let connection = match take(&database, deadline, || raised.is_closed()) {
        Ok(connection) => connection,
        Err(error) => return drop(raised.send(Err(error))),
    };
    if raised.send(Ok(())).is_err() {
        return;
    }
    // An error means that the fence was dropped.
    let done = lifted.recv();
    if let Some(connection) = connection {
        // Nothing was written, so there is nothing that could be lost. Closing lets go as well.
        let _ = connection.execute_batch("ROLLBACK");
        drop(connection);
    }
    if let Ok(done) = done {
        let _ = done.send(());
    }
}

/// The lock; nothing if there is no database.
fn take(
    database: &Path,
    deadline: Instant,
    given_up: impl Fn() -> bool,
) -> io::Result<Option<Connection>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if !database.try_exists()? {
        return Ok(None);
    }
    let connection = Connection::open_with_flags(database, flags).map_err(explain)?;
    connection.busy_timeout(Duration::ZERO).map_err(explain)?;
    loop {
        match connection.execute_batch("BEGIN IMMEDIATE").map_err(explain) {
            Ok(()) => return Ok(Some(connection)),
            Err(error) if error.kind() != io::ErrorKind::ResourceBusy => return Err(error),
            Err(error) if Instant::now() >= deadline || given_up() => return Err(error),
            Err(_) => thread::sleep(AGAIN),
        }
    }
}

fn explain(error: rusqlite::Error) -> io::Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            io::Error::new(io::ErrorKind::ResourceBusy, error)
        }
        _ => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);
    const SHORT: Duration = Duration::from_millis(20);

    fn database(dir: &Path, mode: &str) -> (PathBuf, Connection) {
        let path = dir.join(mode);
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "journal_mode", mode).unwrap();
        connection.execute_batch("CREATE TABLE t (x)").unwrap();
        connection.busy_timeout(Duration::ZERO).unwrap();
        (path, connection)
    }

    #[tokio::test]
    async fn nobody_writes_while_it_is_up_and_everybody_reads() {
        let dir = tempfile::tempdir().unwrap();
        for mode in ["wal", "delete"] {
            let (path, app) = database(dir.path(), mode);
            let fence = Fence::raise(&path, LIMIT).await.unwrap();
            assert!(app.execute("INSERT INTO t VALUES (1)", []).is_err(), "{mode}");
            let count = || app.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
            assert_eq!(count().unwrap(), 0);
            fence.lift().await.unwrap();
            app.execute("INSERT INTO t VALUES (1)", []).unwrap();
            assert_eq!(count().unwrap(), 1);
        }
    }

    #[tokio::test]
    async fn it_waits_for_writers_and_gives_up_in_time() {
        let dir = tempfile::tempdir().unwrap();
        for mode in ["wal", "delete"] {
            let (path, app) = database(dir.path(), mode);
            app.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").unwrap();
            let error = Fence::raise(&path, SHORT).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            let raising = tokio::spawn(async move { Fence::raise(&path, LIMIT).await });
            tokio::task::yield_now().await;
            app.execute_batch("COMMIT").unwrap();
            raising.await.unwrap().unwrap().lift().await.unwrap();
        }
    }

    #[tokio::test]
    async fn one_that_was_dropped_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let (path, app) = database(dir.path(), "wal");
        drop(Fence::raise(&path, LIMIT).await.unwrap());
        app.busy_timeout(LIMIT).unwrap();
        app.execute("INSERT INTO t VALUES (1)", []).unwrap();
    }

    #[tokio::test]
    async fn without_a_database_there_is_nothing_to_hold() {
        let dir = tempfile::tempdir().unwrap();
        let fence = Fence::raise(&dir.path().join("none"), LIMIT).await.unwrap();
        fence.lift().await.unwrap();
        assert!(!dir.path().join("none").exists(), "and none is made");
        std::fs::write(dir.path().join("text"), "no database at all, but long enough").unwrap();
        let error = Fence::raise(&dir.path().join("text"), LIMIT).await.unwrap_err();
        assert_ne!(error.kind(), io::ErrorKind::TimedOut);
    }
}
