//! Makes a new cluster of one node whose majority is lost for good: `litepilot recover`.
//!
//! The node does not run. What it knows of the table stays: epochs go on, so that nothing of the old
//! cluster is ever taken for newer. Everything else begins anew: the cluster's name, so that nodes of
//! the old one are told apart; the membership, which is this node alone; and the disks of all others
//! are void, so that they come back as new ones.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use openraft::EntryPayload;
use openraft::entry::RaftEntry;

use super::Member;
use super::identity::DiskId;
use super::store::{Contents, SavedSnapshot, Store};
use super::types::{LogId, Membership, RaftId, SnapshotMeta, StoredMembership, term_of};
use crate::cluster::NodeId;
use crate::election::table::{Command, Table};

/// The store of a node that does not run, with what is to become of it.
pub(crate) struct Recovery {
    store: Store,
    own: Member,
    /// The others, who are lost.
    others: Vec<Member>,
    table: Table,
    last: LogId,
}

impl Recovery {
    /// Reads what is there; changes nothing.
    ///
    /// # Errors
    ///
    /// When the node runs, was never a member, or holds no data.
    pub(crate) fn read(dir: &Path, node: &NodeId) -> io::Result<Self> {
        if !dir.exists() {
            return Err(refused(format!(
                "{} is not there: this node never took part",
                dir.display()
            )));
        }
        let store = Store::open(dir)?;
        let (table, membership, last) = replay(&store.memory())?;
        let last =
            last.ok_or_else(|| refused("its log is empty: this node never took part".into()))?;
        let generation = store.identity().filter(|known| known.node == *node);
        let generation = generation.and_then(|known| known.admitted).ok_or_else(|| {
            refused(format!("its data_dir is not that of a member called {node}"))
        })?;
        let id = RaftId::of(node, generation);
        let own = membership.get_node(&id).cloned();
        let own = own.filter(|_| membership.voter_ids().any(|voter| voter == id));
        let own = own.ok_or_else(|| {
            refused(format!("{node} had no vote: recover the cluster on a node that had one"))
        })?;
        if own.witness {
            return Err(refused(format!("{node} is a witness and holds no data")));
        }
        let others = membership.nodes().map(|(_, member)| member.clone());
        let others = others.filter(|member| member.name != *node).collect();
        Ok(Self { store, own, others, table, last })
    }

    pub(crate) fn others(&self) -> &[Member] {
        &self.others
    }

    /// Makes it so, in one transaction.
    ///
    /// # Errors
    ///
    /// When it cannot be written; then nothing has changed.
    pub(crate) async fn make(self) -> io::Result<()> {
        let Self { store, own, others, mut table, last } = self;
        let term = term_of(&last);
        for Member { name: node, generation, .. } in others {
            table.apply(Command::Outdate { node, generation }, term);
        }
        // Those who are lost can be asked for nothing.
        table.electorates.clear();
        table.unheard.clear();
        let cluster = Some(DiskId::new().to_string());
        table.cluster.clone_from(&cluster);
        let mut identity = store.identity().ok_or_else(|| refused("it has no identity".into()))?;
        identity.cluster = cluster;
        let id = RaftId::of(&own.name, own.generation);
        let membership = Membership::new(vec![[id].into()], BTreeMap::from([(id, own)]))
            .map_err(io::Error::other)?;
        let last_membership = StoredMembership::new(Some(last), membership);
        let meta = SnapshotMeta { last_log_id: Some(last), last_membership };
        let table = serde_json::to_string(&table)?;
        store.begin_anew(identity, SavedSnapshot { meta, table }, last).await
    }
}

/// The table, the membership and the last entry, as the whole log says: what was not committed yet may
/// have been by those who are lost.
fn replay(contents: &Contents) -> io::Result<(Table, StoredMembership, Option<LogId>)> {
    let (mut table, mut membership, mut last) = match &contents.snapshot {
        None => (Table::default(), StoredMembership::default(), None),
        Some(SavedSnapshot { meta, table }) => {
            (serde_json::from_str(table)?, meta.last_membership.clone(), meta.last_log_id)
        }
    };
    let known = last;
    for entry in contents.log.values().filter(|entry| Some(entry.log_id) > known) {
        last = Some(entry.log_id);
        if let Some(changed) = entry.get_membership() {
            membership = StoredMembership::new(last, changed);
        }
        if let EntryPayload::Normal(proposal) = &entry.payload {
            table.apply(proposal.0.clone(), term_of(&entry.log_id));
        }
    }
    Ok((table, membership, last.max(contents.purged)))
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}
