//! What operators ask of a cluster that elects its primary.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::cluster::{ClusterView, Epoch, NodeId};
use crate::control::command::ForwardedCommand;
use crate::control::forwarder::Forwarder;
use crate::control::{Control, ControlError, MemberChange, MemberStatus, OnceKey, Promoted};
use crate::election::Election;
use crate::election::error::ElectionError;
use crate::election::raft::Raft;
use crate::election::table::{Command, Table};
use crate::engine::replication::Stream;
use crate::engine::{BoxFuture, Engine};

/// How long a new primary may take until it takes writes, its `app.on_promote` apart.
const OPENING: Duration = Duration::from_secs(10);
/// How long what is agreed upon may take to get around.
const HEARING: Duration = Duration::from_secs(10);

/// Steers by way of the election.
pub(crate) struct Steering {
    pub(crate) own: NodeId,
    /// Its part in the election.
    pub(crate) election: Election,
    pub(crate) raft: Raft,
    pub(crate) forwarder: Forwarder,
    /// The lease's ttl: contact is lost after it.
    pub(crate) ttl: Duration,
    /// `app.hook_timeout`, which is the other nodes' as a rule.
    pub(crate) hook_timeout: Duration,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) view: watch::Receiver<ClusterView>,
}

impl Steering {
    async fn hand_over(&self, node: Option<NodeId>, force: bool) -> Result<Promoted, ControlError> {
        let node = node.unwrap_or_else(|| self.own.clone());
        let member = self.raft.members().borrow().get(&node).cloned();
        let listed = member.ok_or_else(|| ControlError::UnknownNode(node.clone()))?;
        if listed.member.witness || !listed.voter {
            return Err(ControlError::NotCandidate(node));
        }
        self.in_contact()?;
        if self.election.table().borrow().holder.is_none() && !force {
            return Err(ControlError::NoPrimary);
        }
        let promoted = self.election.promote(&node, force).await;
        promoted
            .map_err(|why| ControlError::NotFit { node: node.clone(), why: why.to_string() })?;
        let opening = until_open(node, self.view.clone(), self.election.table());
        let opened = timeout(OPENING + self.hook_timeout, opening).await;
        opened.unwrap_or(Err(ControlError::NotInTime))
    }

    /// A node that is about to come, or to come back, and has no vote yet.
    fn is_pending(&self, node: &NodeId) -> bool {
        self.raft.members().borrow().get(node).is_some_and(|listed| listed.pending)
    }

    fn is_member(&self) -> Result<(), ControlError> {
        if *self.raft.removed().borrow() {
            let why =
                "this node was removed from the cluster, or its disk was replaced: ask another one";
            return Err(ControlError::Refused(why.to_owned()));
        }
        Ok(())
    }

    fn in_contact(&self) -> Result<(), ControlError> {
        self.is_member()?;
        match self.raft.in_contact(self.ttl) {
            true => Ok(()),
            false => Err(ControlError::NoQuorum),
        }
    }

    /// The table, with everything that was agreed upon before this node's epoch began.
    async fn table(&self) -> Result<Arc<Table>, ControlError> {
        let epoch = self.election.own().borrow().epoch;
        let mut table = self.election.table();
        let known = timeout(self.ttl, table.wait_for(|table| table.last_epoch >= epoch)).await;
        match known {
            Ok(Ok(table)) => Ok(table.clone()),
            Ok(Err(_)) | Err(_) => Err(ControlError::NoQuorum),
        }
    }

    async fn note(&self, key: OnceKey, epoch: Epoch) -> Result<(), ControlError> {
        let position = self.engine.read_position().await;
        let at = position.map_err(|why| ControlError::Failed(why.to_string()))?;
        if at.epoch != epoch {
            return Err(ControlError::NoPrimary);
        }
        let once = Command::Once { key: key.as_str().to_owned(), at };
        self.election.agree(once).await.map_err(ControlError::Failed)?;
        // This node need not be the first to hear of what it was told is agreed upon.
        let mut table = self.election.table();
        let heard = timeout(HEARING, table.wait_for(|table| table.was_done(key.as_str()))).await;
        heard.map_or(Err(ControlError::NotInTime), |_| Ok(()))
    }
}

/// Waits until `node`, which is about to get the lease, takes writes.
///
/// # Errors
///
/// When it gives the lease back instead.
async fn until_open(
    node: NodeId,
    mut views: watch::Receiver<ClusterView>,
    mut tables: watch::Receiver<Arc<Table>>,
) -> Result<Promoted, ControlError> {
    let mut granted = None;
    loop {
        let primary = views.borrow_and_update().primary.clone();
        if let Some(primary) = primary.filter(|primary| primary.node == node) {
            return Ok(Promoted { node: primary.node, epoch: primary.epoch });
        }
        let holder = tables.borrow_and_update().holder.clone();
        granted = match (granted, holder.filter(|holder| holder.node == node)) {
            (Some(epoch), None) => return Err(gave_back(node, epoch)),
            (_, holder) => holder.map(|holder| holder.epoch),
        };
        let changed = tokio::select! {
            changed = views.changed() => changed,
            changed = tables.changed() => changed,
        };
        // They end when this node does.
        changed.map_err(|_| ControlError::NotInTime)?;
    }
}

fn gave_back(node: NodeId, epoch: Epoch) -> ControlError {
    let why = format!(
        "it had the lease in epoch {epoch} and gave it back before it took writes; its log says why"
    );
    ControlError::NotFit { node, why }
}

impl Control for Steering {
    fn promote(
        &self,
        node: Option<NodeId>,
        force: bool,
    ) -> BoxFuture<'_, Result<Promoted, ControlError>> {
        Box::pin(self.hand_over(node, force))
    }

    fn members(&self) -> Result<Vec<MemberStatus>, ControlError> {
        self.is_member()?;
        let members = self.raft.members();
        let members = members.borrow();
        let status = |listed: &crate::election::raft::Listed| {
            Some(MemberStatus {
                node: listed.member.name.clone(),
                address: listed.member.address()?,
                witness: listed.member.witness,
                voter: listed.voter && !listed.pending,
                generation: listed.member.generation,
            })
        };
        Ok(members.iter().filter_map(status).collect())
    }

    fn change_members(&self, change: MemberChange) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            self.in_contact()?;
            let comes = match &change {
                MemberChange::Add { node, .. } | MemberChange::Replace { node, .. } => {
                    Some(node.clone())
                }
                MemberChange::Remove { .. } => None,
            };
            let changed = self.election.change_members(change).await;
            changed.map_err(|why| match why {
                ElectionError::LeaderChanged | ElectionError::Unanswered(_) => {
                    ControlError::NotYet(why.to_string())
                }
                _ if comes.is_some_and(|node| self.is_pending(&node)) => {
                    ControlError::NotYet(why.to_string())
                }
                _ => ControlError::Refused(why.to_string()),
            })
        })
    }

    fn reset_litefs_id(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            self.in_contact()?;
            self.election.agree(Command::ResetLitefsId).await.map_err(ControlError::Failed)
        })
    }

    fn forward(&self, command: ForwardedCommand) -> BoxFuture<'_, Result<Stream, ControlError>> {
        Box::pin(self.forwarder.give(command))
    }

    fn was_done(&self, key: OnceKey) -> BoxFuture<'_, Result<bool, ControlError>> {
        Box::pin(async move { Ok(self.table().await?.was_done(key.as_str())) })
    }

    fn remember(&self, key: OnceKey, epoch: Epoch) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(self.note(key, epoch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::election::table::{Holder, Session};

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn held_by(name: &str, epoch: u64) -> Arc<Table> {
        let session = Session(format!("{name}-1"));
        let holder = Holder { node: node(name), session, epoch: Epoch(epoch) };
        Arc::new(Table { holder: Some(holder), last_epoch: Epoch(epoch), ..Table::default() })
    }

    fn nobody_writes() -> ClusterView {
        ClusterView { primary: None, ..ClusterView::single(node("c"), Epoch(1)) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_primary_is_waited_for_however_long_it_holds_the_lease() {
        let views = watch::Sender::new(nobody_writes());
        let tables = watch::Sender::new(held_by("a", 1));
        let opening = tokio::spawn(until_open(node("b"), views.subscribe(), tables.subscribe()));
        for table in [held_by("b", 2), held_by("b", 2)] {
            tokio::time::sleep(Duration::from_secs(60)).await;
            tables.send_replace(table);
        }
        assert!(!opening.is_finished());
        views.send_replace(ClusterView::single(node("b"), Epoch(2)));
        let promoted = Promoted { node: node("b"), epoch: Epoch(2) };
        assert_eq!(opening.await.unwrap(), Ok(promoted));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_gives_the_lease_back_is_not_waited_for() {
        let views = watch::Sender::new(nobody_writes());
        let tables = watch::Sender::new(held_by("b", 2));
        let opening = tokio::spawn(until_open(node("b"), views.subscribe(), tables.subscribe()));
        tokio::time::sleep(Duration::from_secs(1)).await;
        tables.send_replace(held_by("a", 3));
        let why = opening.await.unwrap().unwrap_err().to_string();
        assert!(why.contains("had the lease in epoch 2 and gave it back"), "{why}");
    }
}
