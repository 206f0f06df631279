//! The file: a redb database, and what is in it.
//!
//! A store is small (entries are purged once they are in a snapshot), so all of it is read at the
//! start and kept in memory; after that the file is only written.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use crc::{CRC_32_ISCSI, Crc};
use redb::backends::{FileBackend, InMemoryBackend};
use redb::{
    BackendError, Database, Durability, ReadableDatabase, ReadableTable, StorageBackend,
    TableDefinition, TableError,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Contents;
use crate::files::at;

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const RECORDS: TableDefinition<&str, &[u8]> = TableDefinition::new("records");
/// No store of ours comes near, in bytes: whatever is larger is none.
const MAX_SIZE: u64 = 256 * 1024 * 1024;
/// Bytes of pages that redb keeps in memory. We read nothing after the start.
const CACHE: usize = 1024 * 1024;

/// The name of the record that every store has, and what it says.
const FORMAT: (&str, &str) = ("format", "litepilot raft 1");
pub(crate) const IDENTITY: &str = "identity";
pub(crate) const SEEN: &str = "seen";
pub(crate) const VOTE: &str = "vote";
pub(crate) const COMMITTED: &str = "committed";
pub(crate) const PURGED: &str = "purged";
pub(crate) const SNAPSHOT: &str = "snapshot";

/// Gives access to the file, each time it is opened.
pub(crate) struct Source {
    /// `None` if it is kept in memory.
    path: Option<PathBuf>,
    open: Box<dyn Fn() -> io::Result<Backend> + Send>,
}

/// A change of the file. Several make one transaction.
pub(crate) enum Change {
    Put(&'static str, Vec<u8>),
    /// Adds an entry to the log.
    Append(u64, Vec<u8>),
    /// Removes this entry and all after it.
    Truncate(u64),
    /// Removes this entry and all before it.
    Purge(u64),
}

pub(crate) struct Disk(Database);

impl Disk {
    /// Opens the file and reads all of it; begins one if there is none.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is in use, damaged, or something else. Then nothing was written.
    pub(crate) fn open(source: &Source) -> io::Result<(Self, Contents)> {
        let backend = (source.open)()?;
        let copied = copy(&backend)?;
        if let Some(copy) = copied {
            // redb writes as it opens: what is damaged must stay as it is, so a copy goes first.
            // Where its pages make no sense redb may panic; nothing of the copy is used after that.
            match catch_unwind(AssertUnwindSafe(|| examine(copy))) {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(format))) => return Err(of_another_version(&format)),
                Ok(Err(error)) => return Err(damaged(&error.to_string())),
                Err(_) => return Err(damaged("its pages make no sense")),
            }
        }
        let database = builder().create_with_backend(backend).map_err(of_redb)?;
        let contents = read(&database).map_err(of_redb)?;
        let mut disk = Self(database);
        if contents.is_none() {
            disk.write(&[Change::Put(FORMAT.0, encode(&FORMAT.1)?)], true)?;
        }
        Ok((disk, contents.unwrap_or_default()))
    }

    /// One transaction. If it is not `durable`, the next that is carries it to the disk; until then
    /// a crash undoes it.
    ///
    /// # Errors
    ///
    /// When the file cannot be written. Then it has to be opened anew.
    pub(crate) fn write(&mut self, changes: &[Change], durable: bool) -> io::Result<()> {
        commit(&self.0, changes, durable).map_err(of_redb)
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    builder
}

fn commit(database: &Database, changes: &[Change], durable: bool) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(if durable { Durability::Immediate } else { Durability::None })?;
    {
        let mut log = transaction.open_table(LOG)?;
        let mut records = transaction.open_table(RECORDS)?;
        for change in changes {
            match change {
                Change::Put(name, value) => drop(records.insert(*name, value.as_slice())?),
                Change::Append(index, value) => drop(log.insert(index, value.as_slice())?),
                Change::Truncate(from) => log.retain_in::<u64, _>(*from.., |_, _| false)?,
                Change::Purge(to) => log.retain_in::<u64, _>(..=*to, |_, _| false)?,
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Whether all of it makes sense; or in which other format it is.
fn examine(copy: InMemoryBackend) -> Result<Option<String>, redb::Error> {
    let mut database = builder().create_with_backend(copy)?;
    if let Some(other) = format(&database)?.filter(|format| format != FORMAT.1) {
        return Ok(Some(other));
    }
    read(&database)?;
    match database.check_integrity()? {
        true => Ok(None),
        false => Err(corrupted("its pages do not fit together".to_owned())),
    }
}

fn format(database: &Database) -> Result<Option<String>, redb::Error> {
    match database.begin_read()?.open_table(RECORDS) {
        Ok(records) => optional(records.get(FORMAT.0)?),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// All that is in the file; `None` if nothing ever was.
fn read(database: &Database) -> Result<Option<Contents>, redb::Error> {
    let transaction = database.begin_read()?;
    let records = match transaction.open_table(RECORDS) {
        Ok(records) => records,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if format(database)?.is_none() {
        return Err(corrupted("it does not say what it is".to_owned()));
    }
    let record = |name: &str| records.get(name);
    let mut log = BTreeMap::new();
    for entry in transaction.open_table(LOG)?.iter()? {
        let (index, value) = entry?;
        log.insert(index.value(), decode(value.value())?);
    }
    if let (Some((first, _)), Some((last, _))) = (log.first_key_value(), log.last_key_value())
        && last - first + 1 != log.len() as u64
    {
        return Err(corrupted("entries of the log are missing".to_owned()));
    }
    Ok(Some(Contents {
        identity: optional(record(IDENTITY)?)?,
        seen: optional(record(SEEN)?)?.unwrap_or_default(),
        vote: optional(record(VOTE)?)?,
        committed: optional(record(COMMITTED)?)?,
        purged: optional(record(PURGED)?)?,
        snapshot: optional(record(SNAPSHOT)?)?,
        log,
    }))
}

fn optional<T: DeserializeOwned>(
    value: Option<redb::AccessGuard<'_, &'static [u8]>>,
) -> Result<Option<T>, redb::Error> {
    value.map(|value| decode(value.value())).transpose()
}

/// A value as it is kept: its checksum, for redb does not look at its own while reading, and JSON.
///
/// # Errors
///
/// When it cannot be written as JSON.
pub(crate) fn encode(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(value).map_err(io::Error::other)?;
    Ok([&CRC.checksum(&json).to_le_bytes(), json.as_slice()].concat())
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, redb::Error> {
    let (checksum, json) = match bytes.split_first_chunk::<4>() {
        Some((checksum, json)) => (u32::from_le_bytes(*checksum), json),
        None => return Err(corrupted("a value is cut off".to_owned())),
    };
    if CRC.checksum(json) != checksum {
        return Err(corrupted("a checksum does not match".to_owned()));
    }
    serde_json::from_slice(json).map_err(|error| corrupted(error.to_string()))
}

/// The bytes of a file that is there, in memory.
fn copy(backend: &Backend) -> io::Result<Option<InMemoryBackend>> {
    let whole = (Bound::Unbounded, Bound::Unbounded);
    match backend.try_lock_range(whole.0, whole.1) {
        Ok(true) | Err(BackendError::Unsupported) => {}
        Ok(false) => return Err(in_use()),
        Err(error) => return Err(error.into()),
    }
    let length = backend.len()?;
    if length > MAX_SIZE {
        return Err(damaged("it is far larger than a store ever is"));
    }
    let copy = InMemoryBackend::new();
    if length > 0 {
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        backend.read(0, &mut bytes)?;
        copy.set_len(length)?;
        copy.write(0, &bytes)?;
    }
    match backend.unlock_range(whole.0, whole.1) {
        Ok(()) | Err(BackendError::Unsupported) => Ok((length > 0).then_some(copy)),
        Err(error) => Err(error.into()),
    }
}

fn corrupted(why: String) -> redb::Error {
    redb::Error::Corrupted(why)
}

fn of_redb(error: impl Into<redb::Error>) -> io::Error {
    match error.into() {
        redb::Error::Io(error) => error,
        redb::Error::DatabaseAlreadyOpen => in_use(),
        other => io::Error::other(other),
    }
}

fn in_use() -> io::Error {
    let message = "another litepilot runs with this data_dir: give each its own";
    io::Error::new(io::ErrorKind::ResourceBusy, message)
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "this is no Raft store of Litepilot's, or it is damaged ({why}); it was left as it is. \
             Move it away and start again: this node then comes back empty, and if it was a member \
             before, tell the others so with `litepilot members replace` and its name"
        ),
    )
}

fn of_another_version(format: &str) -> io::Error {
    let known = FORMAT.1;
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "another version of Litepilot wrote this: its format is {format:?}, this one knows {known:?}; \
             it was left as it is. Start that version again, or a newer one. To go on with this one, move \
             the file away: this node then comes back empty, and the others have to be told so with \
             `litepilot members replace` and its name"
        ),
    )
}

impl Source {
    /// A file on a disk.
    pub(crate) fn file(path: PathBuf) -> Self {
        let opened = path.clone();
        let open = Box::new(move || {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false).open(&opened)?;
            Ok(Backend(Box::new(FileBackend::new(file).map_err(of_redb)?)))
        });
        Self { path: Some(path), open }
    }

    /// Whatever `backend` gives.
    pub(crate) fn backend<B: StorageBackend>(
        backend: impl Fn() -> io::Result<B> + Send + 'static,
    ) -> Self {
        Self { path: None, open: Box::new(move || Ok(Backend(Box::new(backend()?)))) }
    }

    /// An error, with the file that it is about.
    pub(crate) fn named(&self, error: io::Error) -> io::Error {
        match &self.path {
            Some(path) => at(path, error),
            None => error,
        }
    }
}

/// Any backend of redb's.
#[derive(Debug)]
pub(crate) struct Backend(Box<dyn StorageBackend>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }
}
