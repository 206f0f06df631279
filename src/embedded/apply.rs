//! Writes a replica's database: pages that the primary shipped, and the mark that keeps
//! applications from writing.
//!
//! Everything is one ordinary SQLite transaction on a connection of ours, through `sqlite_dbpage`
//! (as SQLite's own `sqlite3_rsync` does it). So readers in other processes see the old or the new
//! state, in WAL and in rollback mode, and so does whoever opens the file after a crash.
//!
//! The mark is SQLite's file format write version, set to 3: SQLite then reads the database and
//! refuses to write it, whoever asks. It stays set in every committed state, with no gap. We get past
//! it ourselves by SQLITE_DBCONFIG_RESET_DATABASE, which makes a connection ignore it; it is on only
//! while a read transaction is turned into a write transaction, because at the *beginning* of a
//! transaction it would also have SQLite take the database for empty.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::image::{READ_VERSION, Update, WRITE_VERSION, first_page};
use super::observe::explain;

/// How long one try waits for readers (in rollback mode) or for a writer. New readers wait as long
/// for us, so it is well below what applications allow (5 s is the usual).
const BUSY_TIMEOUT: Duration = Duration::from_millis(250);
/// The write version that nobody may write. SQLite knows 1 and 2.
pub(crate) const READ_ONLY: u8 = 3;
/// The WAL is cut to this size, in bytes, when it begins anew.
const WAL_KEPT: i64 = 4 * 1024 * 1024;

const PUT: &str = "INSERT INTO sqlite_dbpage (pgno, data) VALUES (?1, ?2)";
const PUT_STAGED: &str =
    "INSERT INTO sqlite_dbpage (pgno, data) SELECT pgno, data FROM staged ORDER BY pgno";

/// Opens a database to write it past the mark.
pub(crate) fn open(path: &Path) -> io::Result<Connection> {
    let opened = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_size_limit", WAL_KEPT)?;
        connection.pragma_update(None, "temp_store", "memory")?;
        Ok(connection)
    };
    opened().map_err(|e| explain(path, e))
}

/// Makes an empty database file. It belongs to whom the directory belongs to, so that an
/// application that does not run as root can use it although we do.
pub(crate) fn create(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let owner = fs::metadata(dir)?;
    if rustix::process::geteuid().is_root() {
        fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}

/// Whether this build of SQLite can do what this module needs.
pub(crate) fn supported() -> io::Result<()> {
    let asked = Connection::open_in_memory().and_then(|connection| {
        let sql = "SELECT sqlite_compileoption_used('ENABLE_DBPAGE_VTAB')";
        connection.query_row(sql, (), |row| row.get::<_, bool>(0))
    });
    if asked.is_ok_and(|used| used) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "this litepilot was built without what `engine: embedded` needs to replicate: \
         build it with LIBSQLITE3_FLAGS=-DSQLITE_ENABLE_DBPAGE_VTAB in the environment",
    ))
}

/// Applies `update`, atomically. Who reads meanwhile sees the state before, who comes later that
/// after.
pub(crate) fn apply(connection: &Connection, update: &Update) -> rusqlite::Result<()> {
    // Takes effect only on an empty database.
    connection.pragma_update(None, "page_size", update.page_size)?;
    stage(connection, update)?;
    let applied = transaction(connection, || {
        let before: u32 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
        if before > update.count {
            // A page without data cuts the database off before it; it has to come last.
            connection.execute("INSERT INTO staged (pgno) VALUES (?1)", [update.count + 1])?;
        }
        connection.execute(PUT_STAGED, ())
    });
    connection.execute_batch("DROP TABLE temp.staged")?;
    applied.map(drop)
}

/// Applies `update` to a database in which nothing was ever written, whatever the size of its pages.
/// `connection` has to be new, and to be closed afterwards: until then it is the only one.
///
/// # Errors
///
/// `SQLITE_BUSY` while anybody else has the database open in WAL mode, in which that size is fixed;
/// then nothing was changed.
pub(crate) fn replace(connection: &Connection, update: &Update) -> rusqlite::Result<()> {
    connection.pragma_update(None, "locking_mode", "exclusive")?;
    // SQLite takes the database for empty, hence not for one in WAL mode, and makes it so.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_RESET_DATABASE, true)?;
    connection.execute_batch("BEGIN EXCLUSIVE; ROLLBACK")?;
    connection.pragma_update(None, "page_size", update.page_size)?;
    connection.execute_batch("VACUUM")?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_RESET_DATABASE, false)?;
    apply(connection, update)
}

/// Writes the first page of a database that has none; one that has any is left as it is.
/// After an error `connection` is to be closed.
pub(crate) fn fill(connection: &Connection, first: &[u8]) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN")?;
    // Whoever writes it meanwhile keeps us from writing: nothing can come in between.
    if first_page(connection)?.is_none() {
        connection.execute(PUT, (1, first))?;
    }
    connection.execute_batch("COMMIT")
}

/// Sets the mark in a write transaction that `connection` has begun. A database without any page gets
/// `first`, which bears it.
pub(crate) fn mark(connection: &Connection, first: &[u8]) -> rusqlite::Result<()> {
    let mut page = first_page(connection)?.unwrap_or_else(|| first.to_vec());
    page[WRITE_VERSION] = READ_ONLY;
    connection.execute(PUT, (1, page)).map(drop)
}

/// Collects the pages in a table of their own, so that one statement can write them all: between
/// two statements SQLite would read a schema of which half the pages are not there yet.
fn stage(connection: &Connection, update: &Update) -> rusqlite::Result<()> {
    connection.execute_batch(
        "DROP TABLE IF EXISTS temp.staged;
         CREATE TEMP TABLE staged (pgno INTEGER PRIMARY KEY, data BLOB)",
    )?;
    let mut put = connection.prepare("INSERT INTO temp.staged VALUES (?1, ?2)")?;
    for (number, page) in &update.pages {
        let mut page = page.to_vec();
        if let (1, Some(write_version)) = (*number, page.get_mut(WRITE_VERSION)) {
            *write_version = READ_ONLY;
        }
        put.execute((number, page))?;
    }
    Ok(())
}

/// Sets the mark, or removes it in favor of the journal mode that the application had. Waits for
/// writers, so that none is in the middle of a transaction when it is set. Returns whether it had
/// to be changed.
pub(crate) fn set_read_only(connection: &Connection, read_only: bool) -> rusqlite::Result<bool> {
    set_versions(connection, |first| match read_only {
        true => [READ_ONLY, first[READ_VERSION]],
        false => [first[READ_VERSION]; 2],
    })
}

/// Removes the mark, and with it WAL mode, once everybody has closed the database. Returns whether
/// it had to be changed.
pub(crate) fn set_plain(connection: &Connection) -> rusqlite::Result<bool> {
    set_versions(connection, |_| [1, 1])
}

fn set_versions(
    connection: &Connection,
    wanted: impl Fn(&[u8]) -> [u8; 2],
) -> rusqlite::Result<bool> {
    let versions = WRITE_VERSION..=READ_VERSION;
    match first_page(connection)? {
        Some(first) if first[versions.clone()] != wanted(&first) => {}
        _ => return Ok(false),
    }
    transaction(connection, || {
        if let Some(mut first) = first_page(connection)? {
            let wanted = wanted(&first);
            first[versions].copy_from_slice(&wanted);
            connection.execute(PUT, (1, first))?;
        }
        Ok(true)
    })
}

/// Runs `body` in one write transaction, whatever the file says about writing.
fn transaction<T>(
    connection: &Connection,
    body: impl FnOnce() -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.execute_batch("BEGIN")?;
    let done = begin_writing(connection).and_then(|()| body()).and_then(|result| {
        connection.execute_batch("COMMIT")?;
        Ok(result)
    });
    if done.is_err() && !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK")?;
    }
    done
}

fn begin_writing(connection: &Connection) -> rusqlite::Result<()> {
    // Reading it begins the read transaction, in which the header is no longer looked at.
    let Some(first) = first_page(connection)? else { return Ok(()) };
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_RESET_DATABASE, true)?;
    let written = connection.execute(PUT, (1, first));
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_RESET_DATABASE, false)?;
    written.map(drop)
}

#[cfg(test)]
mod tests;
