//! `election: static`: the primary is always the same node.
//!
//! That node begins a new epoch at each start. The others learn it by gossip: for them it is the
//! primary while it is heard and says that it takes writes. There is no failover.

mod epoch;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tracing::{error, warn};

use crate::claim::Claim;
use crate::cluster::{ClusterView, Epoch, NodeId, Primary, Role};
use crate::peer::gossip::Peers;
use crate::publish;

/// What the configuration says.
#[derive(Clone, Debug)]
pub(crate) struct FixedPrimary {
    pub(crate) node: NodeId,
    /// The node that is always the primary.
    pub(crate) primary: NodeId,
    /// This node holds no data.
    pub(crate) witness: bool,
    /// Every node, this one and the witnesses included.
    pub(crate) nodes: usize,
}

/// Publishes a node's view of a cluster whose primary is fixed.
pub(crate) struct Fixed {
    setup: FixedPrimary,
    data_dir: PathBuf,
    /// This node's own; 0 if it is not the primary.
    epoch: Epoch,
    /// The last primary that was heard of, with its epoch.
    last: Option<Primary>,
    /// A later epoch is needed and could not be begun; that was said.
    stuck: bool,
    ready: watch::Receiver<bool>,
    peers: watch::Receiver<Peers>,
    view: watch::Sender<ClusterView>,
}

impl Fixed {
    /// On the primary a new epoch begins here, written to `data_dir` before this returns. `ready`:
    /// this node's engine can take writes; it matters on the primary only.
    ///
    /// # Errors
    ///
    /// When the epoch can be neither read nor written.
    pub(crate) fn new(
        setup: FixedPrimary,
        data_dir: &Path,
        ready: watch::Receiver<bool>,
        peers: watch::Receiver<Peers>,
    ) -> io::Result<Self> {
        let leads = setup.node == setup.primary;
        let epoch = if leads { epoch::begin(data_dir, Epoch(0))? } else { Epoch(0) };
        let first = view(&setup, epoch, false, &Peers::new(), None, SystemTime::now());
        Ok(Self {
            setup,
            data_dir: data_dir.to_owned(),
            epoch,
            last: None,
            stuck: false,
            ready,
            peers,
            view: watch::Sender::new(first),
        })
    }

    /// The view, as it changes.
    pub(crate) fn view(&self) -> watch::Receiver<ClusterView> {
        self.view.subscribe()
    }

    /// The epoch that this node began, if it is the primary; else 0.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Publishes until those who feed it are gone.
    pub(crate) async fn run(mut self) {
        loop {
            self.publish();
            tokio::select! {
                Ok(()) = self.ready.changed() => {}
                Ok(()) = self.peers.changed() => {}
                else => return,
            }
        }
    }

    fn publish(&mut self) {
        let peers = self.peers.borrow_and_update().clone();
        let ready = *self.ready.borrow_and_update() && self.overtake(&peers);
        let last = self.last.as_ref();
        let new = view(&self.setup, self.epoch, ready, &peers, last, SystemTime::now());
        if new.primary.is_some() {
            self.last.clone_from(&new.primary);
        }
        publish::if_changed(&self.view, new);
    }

    /// Makes sure that this primary's epoch is no older than any that a peer knows; `false` if it
    /// could not: tokens of an older epoch would be taken for satisfied.
    fn overtake(&mut self, peers: &Peers) -> bool {
        let Some(beyond) = newer_epoch(&self.setup, self.epoch, peers) else { return true };
        match epoch::begin(&self.data_dir, beyond) {
            Ok(epoch) => {
                warn!(%beyond, %epoch, "a peer knows a later epoch than this node's data_dir");
                self.epoch = epoch;
                self.stuck = false;
                true
            }
            Err(error) => {
                // Tried again with each gossip; said once.
                if !std::mem::replace(&mut self.stuck, true) {
                    error!(%error, %beyond, "no writes: cannot begin an epoch after a peer's");
                }
                false
            }
        }
    }
}

/// The view from what this node knows of itself and has heard of others. `last` is the last primary it
/// heard of. Pure.
fn view(
    setup: &FixedPrimary,
    own_epoch: Epoch,
    ready: bool,
    peers: &Peers,
    last: Option<&Primary>,
    now: SystemTime,
) -> ClusterView {
    let leads = setup.node == setup.primary;
    let epoch = if leads {
        ready.then_some(own_epoch)
    } else {
        peers
            .get(&setup.primary)
            .filter(|heard| heard.reachable && heard.report.writable)
            .map(|heard| heard.report.epoch)
            // An epoch that goes back is a primary that lost its data_dir: it will hear of ours.
            .filter(|epoch| last.is_none_or(|last| *epoch >= last.epoch))
    };
    let primary = epoch.map(|epoch| match last {
        Some(last) if last.epoch == epoch => last.clone(),
        _ => Primary { node: setup.primary.clone(), epoch, since: now },
    });
    let in_contact = 1 + peers.values().filter(|heard| heard.reachable).count();
    ClusterView {
        node: setup.node.clone(),
        role: match (leads, setup.witness) {
            (true, _) => Role::Primary,
            (false, true) => Role::Witness,
            (false, false) => Role::Replica,
        },
        writable: leads && primary.is_some(),
        claim: if leads { Claim::unlimited() } else { Claim::none() },
        elected: false,
        starts: Arc::default(),
        primary,
        quorum: in_contact > setup.nodes / 2,
        no_primary: None,
    }
}

/// The latest epoch that a peer knows of, if this node is the primary and its own does not exceed it:
/// its data_dir was lost. Pure.
fn newer_epoch(setup: &FixedPrimary, own: Epoch, peers: &Peers) -> Option<Epoch> {
    if setup.node != setup.primary {
        return None;
    }
    let known = peers.values().map(|heard| heard.report.epoch.max(heard.report.position.epoch));
    known.max().filter(|known| *known > own)
}
