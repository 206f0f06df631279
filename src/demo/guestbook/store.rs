//! The guestbook's entries in SQLite.
//!
//! The database is opened for each request: a connection that was opened on a replica would stay
//! read-only after a promotion, and a file that is replaced is found.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row, TransactionBehavior};
use serde::Serialize;

use crate::telemetry::clock::rfc3339;

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY, text TEXT NOT NULL, at TEXT NOT NULL, node TEXT NOT NULL)";

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Entry {
    pub(crate) id: i64,
    pub(crate) text: String,
    /// When, in RFC 3339 and UTC.
    pub(crate) at: String,
    /// The node whose application took it.
    pub(crate) node: String,
}

/// Why there is no answer from the database.
#[derive(Debug)]
pub(crate) enum StoreError {
    /// It may only be read here: this node is a replica.
    ReadOnly,
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::ReadOnly) => Self::ReadOnly,
            _ => Self::Sqlite(error),
        }
    }
}

/// The database at one path. Blocks.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    /// One writer at a time: they queue here rather than poll SQLite's lock.
    writing: Mutex<()>,
}

impl Store {
    /// The database there, which need not exist.
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), writing: Mutex::default() }
    }

    /// The newest entries, the newest first; none while there is no database yet.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub(crate) fn newest(&self, most: u32) -> Result<Vec<Entry>, StoreError> {
        // A read never makes the file: on a replica it comes from the primary.
        if !self.path.exists() {
            return Ok(Vec::new());
        }
        let connection = self.open(OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        if !connection.table_exists(None, "entries")? {
            return Ok(Vec::new());
        }
        let sql = "SELECT id, text, at, node FROM entries ORDER BY id DESC LIMIT ?1";
        let mut query = connection.prepare(sql)?;
        let entries = query.query_map([most], entry)?.collect::<Result<_, _>>();
        Ok(entries?)
    }

    /// Adds an entry, as of now. The first one makes the database.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub(crate) fn add(&self, text: &str, node: &str) -> Result<Entry, StoreError> {
        let _turn = self.writing.lock();
        let create = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let mut connection = self.open(create)?;
        // So that readers and a writer need not wait for each other. It fails while another has
        // the database open; then the next write tries again.
        let _ = connection.pragma_update(None, "journal_mode", "wal");
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(SCHEMA)?;
        let sql = "INSERT INTO entries (text, at, node) VALUES (?1, ?2, ?3)
                   RETURNING id, text, at, node";
        let at = rfc3339(SystemTime::now());
        let added = transaction.query_row(sql, (text, at, node), entry)?;
        transaction.commit()?;
        Ok(added)
    }

    fn open(&self, flags: OpenFlags) -> rusqlite::Result<Connection> {
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        Ok(connection)
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry { id: row.get(0)?, text: row.get(1)?, at: row.get(2)?, node: row.get(3)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_newest_first_and_a_read_makes_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db.sqlite3");
        let store = Store::new(&path);
        assert_eq!(store.newest(10).unwrap(), []);
        assert!(!path.exists());
        let first = store.add("one", "node-1").unwrap();
        assert_eq!((first.id, first.text.as_str(), first.node.as_str()), (1, "one", "node-1"));
        let second = store.add("two", "node-2").unwrap();
        assert_eq!(store.newest(10).unwrap(), [second.clone(), first]);
        assert_eq!(store.newest(1).unwrap(), [second]);
    }

    #[test]
    fn an_empty_file_and_one_without_the_table_have_no_entries() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db.sqlite3");
        std::fs::write(&path, "").unwrap();
        assert_eq!(Store::new(&path).newest(10).unwrap(), []);
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
        assert_eq!(Store::new(&path).newest(10).unwrap(), []);
    }

    #[test]
    fn a_replicas_file_is_read_and_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db.sqlite3");
        let store = Store::new(&path);
        let entry = store.add("one", "node-1").unwrap();
        let connection = crate::embedded::apply::open(&path).unwrap();
        crate::embedded::apply::set_read_only(&connection, true).unwrap();
        assert!(matches!(store.add("two", "node-2"), Err(StoreError::ReadOnly)));
        assert_eq!(store.newest(10).unwrap(), [entry]);
    }
}
