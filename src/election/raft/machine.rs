//! The table as openraft's state machine.
//!
//! It lives in memory; its snapshots are on the disk, and what came after them is in the log.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use tokio::sync::watch;

use super::store::{SavedSnapshot, Store};
use super::types::{Entry, LogId, Snapshot, SnapshotMeta, StoredMembership, Types, term_of};
use crate::election::table::{Applied, Table};

/// What the rest of the node sees of the state machine.
#[derive(Clone)]
pub(crate) struct Published {
    pub(crate) table: watch::Sender<Arc<Table>>,
    /// The entry up to which the table is.
    pub(crate) applied: watch::Sender<Option<LogId>>,
}

/// The state machine, rebuilt at each start.
pub(crate) struct Machine {
    store: Store,
    published: Published,
    table: Arc<Table>,
    applied: Option<LogId>,
    membership: StoredMembership,
}

/// Writes the snapshot of a moment.
pub(crate) struct Builder {
    store: Store,
    table: Arc<Table>,
    meta: SnapshotMeta,
}

impl Machine {
    /// Empty: openraft brings it up to date from the store's snapshot and log.
    pub(crate) fn new(store: Store, published: Published) -> Self {
        Self {
            store,
            published,
            table: Arc::default(),
            applied: None,
            membership: StoredMembership::default(),
        }
    }

    fn apply_one(&mut self, entry: &Entry) -> Applied {
        let log_id = entry.log_id;
        self.applied = Some(log_id);
        if let Some(membership) = entry.get_membership() {
            self.membership = StoredMembership::new(Some(log_id), membership);
        }
        match &entry.payload {
            EntryPayload::Normal(proposal) => {
                Arc::make_mut(&mut self.table).apply(proposal.0.clone(), term_of(&log_id))
            }
            EntryPayload::Blank | EntryPayload::Membership(_) => Applied::Done,
        }
    }

    /// A machine that is being rebuilt is behind what was published before: nobody sees time go back.
    fn publish(&self) {
        if self.applied > *self.published.applied.borrow() {
            self.published.table.send_replace(self.table.clone());
            self.published.applied.send_replace(self.applied);
        }
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        let mut answers = Vec::new();
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            let outcome = self.apply_one(&entry);
            answers.extend(responder.map(|responder| (responder, outcome)));
        }
        // Whoever is answered finds the table as the answer says.
        self.publish();
        for (responder, outcome) in answers {
            responder.send(outcome);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let meta =
            SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() };
        Builder { store: self.store.clone(), table: self.table.clone(), meta }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Vec<u8>) -> io::Result<()> {
        let table: Table = serde_json::from_slice(&snapshot).map_err(io::Error::other)?;
        let saved = self.store.memory().snapshot.as_ref().map(|saved| saved.meta.last_log_id);
        // At a restart it comes from the store.
        if saved != Some(meta.last_log_id) {
            let table = String::from_utf8(snapshot).map_err(io::Error::other)?;
            self.store.save_snapshot(SavedSnapshot { meta: meta.clone(), table }).await?;
        }
        self.table = Arc::new(table);
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let saved = self.store.memory().snapshot.clone();
        Ok(saved.map(|saved| Snapshot { meta: saved.meta, snapshot: saved.table.into_bytes() }))
    }
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let table = serde_json::to_string(&*self.table).map_err(io::Error::other)?;
        let meta = self.meta.clone();
        self.store
            .save_snapshot(SavedSnapshot { meta: meta.clone(), table: table.clone() })
            .await?;
        Ok(Snapshot { meta, snapshot: table.into_bytes() })
    }
}
