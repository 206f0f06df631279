//! Publishes what this node knows of the cluster, and tells operators what has changed.

use std::time::Duration;

use tokio::sync::watch;

use super::Election;
use super::context::Observation;
use super::table::Table;
use super::tenure::Own;
use super::view::{self, Known};
use crate::claim::BootTime;
use crate::cluster::{ClusterView, Epoch, NodeId};
use crate::peer::gossip::Peers;
use crate::publish;

/// Contact with a majority is lost without an event: this bounds how long that goes unnoticed.
const CONTACT_CHECK: Duration = Duration::from_millis(250);

/// Keeps the view and the source of this node's copy up to date.
pub struct Publisher {
    election: Election,
    view: watch::Sender<ClusterView>,
    source: watch::Sender<Option<(NodeId, Epoch)>>,
    /// Since when nobody takes writes.
    without_primary: Option<BootTime>,
    /// The last epoch of which a split brain was reported.
    split_brain: Option<Epoch>,
}

impl Publisher {
    /// `view` is what requests are routed by, `source` whom the engine follows while this node does not
    /// hold the lease.
    pub fn new(
        election: Election,
        view: watch::Sender<ClusterView>,
        source: watch::Sender<Option<(NodeId, Epoch)>>,
    ) -> Self {
        Self { election, view, source, without_primary: None, split_brain: None }
    }

    /// Publishes until it is dropped.
    pub async fn run(mut self) {
        let (mut table, mut own) = (self.election.table(), self.election.own());
        let mut waiting = self.election.waiting();
        let mut peers = self.election.context().peers.clone();
        let clock = self.election.context().clock.clone();
        loop {
            waiting.mark_unchanged();
            let heard = peers.borrow_and_update().clone();
            let (agreed, by_itself) =
                (table.borrow_and_update().clone(), own.borrow_and_update().clone());
            self.publish(&agreed, &by_itself, &heard);
            // A sender that is gone says nothing any more, and must not make this spin.
            tokio::select! {
                biased;
                Ok(()) = table.changed() => {}
                Ok(()) = own.changed() => {}
                Ok(()) = waiting.changed() => {}
                Ok(()) = peers.changed() => {}
                () = clock.sleep(CONTACT_CHECK) => {}
            }
        }
    }

    fn publish(&mut self, table: &Table, own: &Own, peers: &Peers) {
        let context = self.election.context().clone();
        let known = Known {
            node: &context.own,
            witness: context.witness,
            table,
            own,
            peers,
            quorum: context.raft.in_contact(context.times.ttl),
            waiting: self.election.waiting().borrow().clone(),
        };
        let before = self.view.borrow().clone();
        let now = view::view(&known, Some(&before), context.clock.wall());
        let source = view::source(&known).filter(|_| !own.holding);
        if let Some(epoch) = view::split_brain(&known).filter(|e| self.split_brain != Some(*e)) {
            self.split_brain = Some(epoch);
            context.callbacks.observe(Observation::SplitBrain);
            let text = format!("two nodes claim to be primary in epoch {epoch}");
            context.callbacks.event("split-brain", text);
        }
        self.report_quorum(&before, &now);
        self.report_primary(&before, &now);
        publish::if_changed(&self.source, source);
        publish::if_changed(&self.view, now);
    }

    fn report_quorum(&self, before: &ClusterView, now: &ClusterView) {
        if before.quorum == now.quorum {
            return;
        }
        let callbacks = &self.election.context().callbacks;
        if now.quorum {
            callbacks.event("quorum", "a majority of the voters is in contact".to_owned());
        } else {
            let text = "contact with a majority of the voters was lost";
            callbacks.event("no-quorum", text.to_owned());
            callbacks.observe(Observation::QuorumLost);
        }
    }

    fn report_primary(&mut self, before: &ClusterView, now: &ClusterView) {
        let context = self.election.context();
        match (&before.primary, &now.primary) {
            (Some(_), None) => self.without_primary = Some(context.clock.now()),
            (_, Some(primary)) if before.primary.as_ref() != Some(primary) => {
                let since = self.without_primary.take();
                let failover = since.map(|since| context.clock.now().since(since));
                context.callbacks.observe(Observation::NewPrimary { failover });
                let text = format!("{} is primary in epoch {}", primary.node, primary.epoch);
                context.callbacks.event("primary-changed", text);
            }
            _ => {}
        }
    }
}
