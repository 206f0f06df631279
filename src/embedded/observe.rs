//! Sees that other connections have committed to the database, without ever changing it.
//!
//! SQLite's `PRAGMA data_version` on a connection of our own differs between two calls if, and only
//! if, some other connection committed in between (or a checkpoint began a new WAL). It takes a
//! read lock for the length of the call.
//!
//! The file is never opened other than through SQLite: POSIX drops *all* locks of a process on a
//! file when that process closes *any* descriptor of it, the locks of SQLite included.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::files::at;

/// How long one look waits for a writer that is in the middle of its commit.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_millis(400);

/// Looks at one database, again and again. Blocks: to be used on a thread of its own.
pub(crate) struct Observer {
    path: PathBuf,
    open: Option<Open>,
}

/// The file that was there when we opened it, and what we last saw in it.
struct Open {
    connection: Connection,
    file: FileId,
    version: i64,
}

/// What tells a file from one that replaced it under the same name.
pub(crate) type FileId = (u64, u64);

/// What one look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// There is a database.
    pub(crate) exists: bool,
    /// It may differ from what the previous look saw. True for the first look at a file.
    pub(crate) changed: bool,
}

impl Observer {
    /// An observer of the database at `path`, which need not exist and is not created.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    /// Looks at the database: whatever was committed before this call is taken into account.
    ///
    /// # Errors
    ///
    /// `ResourceBusy` if it stayed locked for [`BUSY_TIMEOUT`]; others if it cannot be read.
    pub(crate) fn look(&mut self) -> io::Result<Look> {
        let Some(file) = file_at(&self.path)? else {
            let changed = self.open.take().is_some();
            return Ok(Look { exists: false, changed });
        };
        if let Some(open) = self.open.as_mut().filter(|open| open.file == file) {
            let version = data_version(&open.connection);
            let version = version.map_err(|e| explain(&self.path, e))?;
            let changed = version != open.version;
            open.version = version;
            return Ok(Look { exists: true, changed });
        }
        self.open = None;
        let connection = open(&self.path).map_err(|e| explain(&self.path, e))?;
        let version = data_version(&connection).map_err(|e| explain(&self.path, e))?;
        // Replaced while we opened it: which of the two we hold is unknown.
        if file_at(&self.path)? != Some(file) {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!("{} was replaced while it was being opened", self.path.display()),
            ));
        }
        self.open = Some(Open { connection, file, version });
        Ok(Look { exists: true, changed: true })
    }

    /// The connection that the last successful look used.
    pub(crate) fn connection(&self) -> Option<&Connection> {
        self.open.as_ref().map(|open| &open.connection)
    }

    /// Closes our connection. The next look counts as a change.
    pub(crate) fn close(&mut self) {
        self.open = None;
    }
}

/// The file's identity, `None` if there is none.
pub(crate) fn file_at(path: &Path) -> io::Result<Option<FileId>> {
    match path.metadata() {
        Ok(found) if found.is_file() => Ok(Some((found.dev(), found.ino()))),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} is not a file: `proxy.db` names the database file", path.display()),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path, error)),
    }
}

/// Opens the database so that nothing we do can alter it: a read-only connection rolls back no
/// journal, and when it is the last to close it neither writes the WAL back nor deletes it.
///
/// In WAL mode SQLite needs `-wal` and `-shm` beside it, and makes them if nobody has it open. It
/// gives them the database's permissions and, if we are root, its owner.
fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row((), |row| row.get(0))
}

/// SQLite's error with the file's name and, where we know it, the remedy.
pub(crate) fn explain(path: &Path, error: rusqlite::Error) -> io::Error {
    use io::ErrorKind as Kind;
    let unfinished = error
        .sqlite_error()
        .is_some_and(|e| e.extended_code == rusqlite::ffi::SQLITE_READONLY_ROLLBACK);
    let (kind, remedy) = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (Kind::ResourceBusy, "; another connection holds it locked")
        }
        Some(ErrorCode::NotADatabase) => {
            (Kind::InvalidData, "; `proxy.db` has to name the application's SQLite database")
        }
        Some(ErrorCode::DatabaseCorrupt) => (Kind::InvalidData, "; restore it from a backup"),
        _ if unfinished => (
            Kind::ResourceBusy,
            "; a crash left an unfinished transaction, the application rolls it back when it next uses the database",
        ),
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => (
            Kind::PermissionDenied,
            "; run litepilot as the user that owns the database and its directory, or as root",
        ),
        _ => (Kind::Other, ""),
    };
    io::Error::new(kind, format!("{}: {error}{remedy}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct App {
        dir: tempfile::TempDir,
        mode: &'static str,
    }

    impl App {
        fn new(mode: &'static str) -> Self {
            Self { dir: tempfile::tempdir().unwrap(), mode }
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("db.sqlite3")
        }

        fn connect(&self) -> Connection {
            let app = Connection::open(self.path()).unwrap();
            app.pragma_update(None, "journal_mode", self.mode).unwrap();
            app.execute_batch("CREATE TABLE IF NOT EXISTS t (x)").unwrap();
            app
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> = fs::read_dir(self.dir.path())
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    const CHANGED: Look = Look { exists: true, changed: true };
    const SAME: Look = Look { exists: true, changed: false };

    #[test]
    fn sees_each_commit_once_in_both_journal_modes() {
        for mode in ["delete", "wal", "truncate", "persist"] {
            let files = App::new(mode);
            let app = files.connect();
            let mut observer = Observer::new(files.path());
            assert_eq!(observer.look().unwrap(), CHANGED, "{mode}: first look");
            assert_eq!(observer.look().unwrap(), SAME, "{mode}");
            for x in 0..20 {
                app.execute("INSERT INTO t VALUES (?1)", [x]).unwrap();
                assert_eq!(observer.look().unwrap(), CHANGED, "{mode}: commit {x}");
                assert_eq!(observer.look().unwrap(), SAME, "{mode}: no commit since {x}");
            }
            app.execute_batch("BEGIN; INSERT INTO t VALUES (1); ROLLBACK").unwrap();
            assert_eq!(observer.look().unwrap(), SAME, "{mode}: rolled back");
        }
    }

    #[test]
    fn a_missing_database_is_not_created() {
        let files = App::new("delete");
        let mut observer = Observer::new(files.path());
        assert_eq!(observer.look().unwrap(), Look { exists: false, changed: false });
        assert!(files.names().is_empty());
        files.connect();
        assert_eq!(observer.look().unwrap(), CHANGED);
    }

    #[test]
    fn a_deleted_and_a_replaced_file_are_changes() {
        for mode in ["delete", "wal"] {
            let files = App::new(mode);
            drop(files.connect());
            let mut observer = Observer::new(files.path());
            observer.look().unwrap();
            let copy = files.dir.path().join("copy");
            fs::copy(files.path(), &copy).unwrap();
            fs::rename(&copy, files.path()).unwrap();
            assert_eq!(observer.look().unwrap(), CHANGED, "{mode}: replaced");
            fs::remove_file(files.path()).unwrap();
            assert_eq!(observer.look().unwrap(), Look { exists: false, changed: true }, "{mode}");
            assert_eq!(observer.look().unwrap(), Look { exists: false, changed: false }, "{mode}");
        }
    }

    #[test]
    fn a_locked_database_is_an_error_and_its_commit_is_seen_afterwards() {
        let files = App::new("delete");
        let app = files.connect();
        let mut observer = Observer::new(files.path());
        observer.look().unwrap();
        app.execute_batch("BEGIN EXCLUSIVE; INSERT INTO t VALUES (1)").unwrap();
        assert_eq!(observer.look().unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        app.execute_batch("COMMIT").unwrap();
        assert_eq!(observer.look().unwrap(), CHANGED);
    }

    #[test]
    fn what_is_no_database_is_said_to_be_none() {
        let files = App::new("delete");
        fs::write(files.path(), "hello ".repeat(1000)).unwrap();
        let mut observer = Observer::new(files.path());
        let error = observer.look().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("not a database"), "{error}");
        assert!(error.to_string().contains("proxy.db"), "{error}");
        let mut observer = Observer::new(files.dir.path().to_owned());
        assert!(observer.look().unwrap_err().to_string().contains("not a file"));
    }

    #[test]
    fn closing_neither_writes_the_wal_back_nor_deletes_it() {
        let files = App::new("wal");
        let app = files.connect();
        app.execute("INSERT INTO t VALUES (1)", ()).unwrap();
        let mut observer = Observer::new(files.path());
        observer.look().unwrap();
        drop(app);
        let before = fs::read(files.path()).unwrap();
        let wal = fs::read(files.path().with_extension("sqlite3-wal")).unwrap();
        assert!(!wal.is_empty());
        drop(observer);
        assert_eq!(fs::read(files.path()).unwrap(), before);
        assert_eq!(fs::read(files.path().with_extension("sqlite3-wal")).unwrap(), wal);
    }

    #[test]
    fn an_unfinished_transaction_is_left_to_the_application() {
        let files = App::new("delete");
        let app = files.connect();
        app.execute_batch("PRAGMA cache_size = 1; PRAGMA cache_spill = 1; BEGIN; ").unwrap();
        for _ in 0..200 {
            app.execute("INSERT INTO t VALUES (randomblob(1000))", ()).unwrap();
        }
        // What a crash of the application leaves behind: half of a transaction, and its journal.
        let crashed = tempfile::tempdir().unwrap();
        for name in ["db.sqlite3", "db.sqlite3-journal"] {
            fs::copy(files.dir.path().join(name), crashed.path().join(name)).unwrap();
        }
        let path = crashed.path().join("db.sqlite3");
        let before = fs::read(&path).unwrap();
        let mut observer = Observer::new(path.clone());
        let error = observer.look().unwrap_err();
        assert!(error.to_string().contains("unfinished transaction"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
        let rows: i64 = Connection::open(&path)
            .unwrap()
            .query_row("SELECT count(*) FROM t", (), |row| row.get(0))
            .unwrap();
        assert_eq!(rows, 0);
        assert_eq!(observer.look().unwrap(), CHANGED);
    }
}
