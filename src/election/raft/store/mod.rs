//! What a node has to remember: its vote, its log, the snapshot of the table, who it is.
//!
//! Memory holds all of it; the file makes it durable, in the order in which it came. Where openraft
//! has to be sure (a vote, entries, a snapshot), a transaction is on the disk before it is told so.
//! The rest (how far is committed, what was cut off) travels with the next one: after a crash the
//! node merely knows less of what it can learn again.
//!
//! While nothing is proposed and nobody is elected, nothing is written.

mod disk;
mod log;
mod writer;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub(crate) use log::LogStore;

use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use openraft::storage::IOFlushed;
use redb::StorageBackend;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::identity::{Identity, Seen};
use super::types::{Entry, LogId, SnapshotMeta, Types, Vote};
use crate::files::at;
use disk::{Change, Source, encode};
use writer::{Done, Job, Writer, ended};

/// The file's name in its directory.
const FILE: &str = "raft.redb";

/// The open store. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    writer: Writer,
    memory: Mutex<Contents>,
}

/// All that is remembered.
#[derive(Default)]
pub(super) struct Contents {
    pub(crate) identity: Option<Identity>,
    pub(crate) seen: Seen,
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    pub(crate) snapshot: Option<SavedSnapshot>,
    pub(crate) log: BTreeMap<u64, Entry>,
}

/// The table as of an entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SavedSnapshot {
    pub(crate) meta: SnapshotMeta,
    /// The table, as JSON.
    pub(crate) table: String,
}

impl Store {
    /// Opens the store in `dir`, or begins one. Creates `dir` if need be. It is written by a thread
    /// of its own.
    ///
    /// # Errors
    ///
    /// When it cannot be read or locked, or is damaged; then nothing was changed.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir).map_err(|e| at(dir, e))?;
        let store = Self::new(Source::file(dir.join(FILE)), true)?;
        // A file that a crash takes back would be a disk that was lost.
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| at(dir, e))?;
        Ok(store)
    }

    /// A store in whatever `backend` gives, each time it is opened. It is written on the caller's
    /// thread, so that simulated time stands still meanwhile.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub fn with_backend<B, F>(backend: F) -> io::Result<Self>
    where
        B: StorageBackend,
        F: Fn() -> io::Result<B> + Send + 'static,
    {
        Self::new(Source::backend(backend), false)
    }

    fn new(source: Source, threaded: bool) -> io::Result<Self> {
        let (writer, contents) = Writer::open(source, threaded)?;
        Ok(Self(Arc::new(Inner { writer, memory: Mutex::new(contents) })))
    }

    /// Reads everything from the file again, after a failed write.
    pub(super) async fn reopen(&self) -> io::Result<()> {
        let (reply, read) = oneshot::channel();
        self.0.writer.run(Job::Reopen(reply)).await;
        *self.memory() = read.await.map_err(|_| ended())??;
        Ok(())
    }

    pub(super) fn memory(&self) -> MutexGuard<'_, Contents> {
        self.0.memory.lock()
    }

    pub(super) fn identity(&self) -> Option<Identity> {
        self.memory().identity.clone()
    }

    pub(super) async fn save_identity(&self, identity: Identity) -> io::Result<()> {
        self.write(vec![Change::Put(disk::IDENTITY, encode(&identity)?)]).await?;
        self.memory().identity = Some(identity);
        Ok(())
    }

    /// Makes this node a founder: from here on it takes part, and its log begins with `first`.
    pub(super) async fn found(&self, identity: Identity, first: Entry) -> io::Result<()> {
        let changes = vec![
            Change::Put(disk::IDENTITY, encode(&identity)?),
            Change::Append(first.log_id.index, encode(&first)?),
        ];
        self.write(changes).await?;
        let mut memory = self.memory();
        memory.identity = Some(identity);
        memory.log.insert(first.log_id.index, first);
        Ok(())
    }

    pub(super) async fn save_seen(&self, seen: Seen) -> io::Result<()> {
        self.write(vec![Change::Put(disk::SEEN, encode(&seen)?)]).await?;
        self.memory().seen = seen;
        Ok(())
    }

    pub(super) async fn save_snapshot(&self, snapshot: SavedSnapshot) -> io::Result<()> {
        self.write(vec![Change::Put(disk::SNAPSHOT, encode(&snapshot)?)]).await?;
        self.memory().snapshot = Some(snapshot);
        Ok(())
    }

    /// In place of the whole log and the snapshot: this one, as of `last`. The vote stays.
    pub(super) async fn begin_anew(
        &self,
        identity: Identity,
        snapshot: SavedSnapshot,
        last: LogId,
    ) -> io::Result<()> {
        self.write(vec![
            Change::Put(disk::IDENTITY, encode(&identity)?),
            Change::Put(disk::SNAPSHOT, encode(&snapshot)?),
            Change::Put(disk::PURGED, encode(&last)?),
            Change::Put(disk::COMMITTED, encode(&last)?),
            Change::Purge(last.index),
        ])
        .await
    }

    async fn save_vote(&self, vote: &Vote) -> io::Result<()> {
        self.write(vec![Change::Put(disk::VOTE, encode(vote)?)]).await?;
        self.memory().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&self, committed: Option<LogId>) -> io::Result<()> {
        self.memory().committed = committed;
        if let Some(committed) = committed {
            self.note(vec![Change::Put(disk::COMMITTED, encode(&committed)?)]).await;
        }
        Ok(())
    }

    /// The entries can be read at once; `flushed` is called when they are on the disk.
    async fn append(&self, entries: Vec<Entry>, flushed: IOFlushed<Types>) -> io::Result<()> {
        let changes: io::Result<Vec<_>> = entries
            .iter()
            .map(|entry| Ok(Change::Append(entry.log_id.index, encode(entry)?)))
            .collect();
        let changes = changes?;
        self.memory().log.extend(entries.into_iter().map(|entry| (entry.log_id.index, entry)));
        let done = Done::new(|written| flushed.io_completed(written));
        self.0.writer.run(Job::Write { changes, durable: true, done }).await;
        Ok(())
    }

    async fn truncate(&self, from: u64) -> io::Result<()> {
        self.memory().log.split_off(&from);
        self.note(vec![Change::Truncate(from)]).await;
        Ok(())
    }

    async fn purge(&self, to: LogId) -> io::Result<()> {
        {
            let mut memory = self.memory();
            memory.log = memory.log.split_off(&(to.index + 1));
            memory.purged = Some(to);
        }
        let changes = vec![Change::Put(disk::PURGED, encode(&to)?), Change::Purge(to.index)];
        self.note(changes).await;
        Ok(())
    }

    /// Returns once it is on the disk.
    async fn write(&self, changes: Vec<Change>) -> io::Result<()> {
        let (reply, written) = oneshot::channel();
        // Whoever asked may be gone.
        let done = Done::new(|result| drop(reply.send(result)));
        self.0.writer.run(Job::Write { changes, durable: true, done }).await;
        written.await.map_err(|_| ended())?
    }

    /// Is on the disk when the next write is. A failure shows there, too.
    async fn note(&self, changes: Vec<Change>) {
        self.0.writer.run(Job::Write { changes, durable: false, done: Done::new(drop) }).await;
    }
}
