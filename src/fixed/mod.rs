//! `election: static`: the primary is always the same node.
//!
//! That node begins a new epoch at each start. The others learn it by gossip: for them it is the
//! primary while it is heard and says that it takes writes. There is no failover.

mod epoch;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tracing::{error, warn};

use crate::cluster::{ClusterView, Epoch, NodeId, Primary, Role};
use crate::peer::gossip::Peers;

/// What the configuration says.
#[derive(Clone, Debug)]
pub struct Setup {
    /// This node.
    pub node: NodeId,
    /// The node that is always the primary.
    pub primary: NodeId,
    /// This node holds no data.
    pub witness: bool,
    /// Every node, this one and the witnesses included.
    pub nodes: usize,
}

/// Publishes a node's view of a cluster whose primary is fixed.
pub struct Fixed {
    setup: Setup,
    data_dir: PathBuf,
    /// Of this node's own reign; 0 if it is not the primary.
    epoch: Epoch,
    /// The last reign that was heard of.
    reign: Option<Primary>,
    ready: watch::Receiver<bool>,
    peers: watch::Receiver<Peers>,
    view: watch::Sender<Arc<ClusterView>>,
}

impl Fixed {
    /// On the primary a new epoch begins here, written to `data_dir` before this returns. `ready`:
    /// this node's engine can take writes; it matters on the primary only.
    ///
    /// # Errors
    ///
    /// When the epoch can be neither read nor written.
    pub fn new(
        setup: Setup,
        data_dir: &Path,
        ready: watch::Receiver<bool>,
        peers: watch::Receiver<Peers>,
    ) -> io::Result<Self> {
        let leads = setup.node == setup.primary;
        let epoch = if leads { epoch::begin(data_dir, Epoch(0))? } else { Epoch(0) };
        let first = view(&setup, epoch, false, &Peers::new(), None, SystemTime::now());
        let view = watch::Sender::new(Arc::new(first));
        let data_dir = data_dir.to_owned();
        let fixed = Self { setup, data_dir, epoch, reign: None, ready, peers, view };
        Ok(fixed)
    }

    /// The view, as it changes.
    pub fn view(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.view.subscribe()
    }

    /// Publishes until those who feed it are gone.
    pub async fn run(mut self) {
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
        let reign = self.reign.as_ref();
        let new = view(&self.setup, self.epoch, ready, &peers, reign, SystemTime::now());
        if new.primary.is_some() {
            self.reign.clone_from(&new.primary);
        }
        self.view.send_if_modified(|view| {
            let modified = **view != new;
            *view = Arc::new(new);
            modified
        });
    }

    /// Makes sure that this primary's epoch is no older than any that a peer knows; `false` if it
    /// could not: tokens of an older epoch would be taken for satisfied.
    fn overtake(&mut self, peers: &Peers) -> bool {
        let Some(beyond) = newer_epoch(&self.setup, self.epoch, peers) else { return true };
        match epoch::begin(&self.data_dir, beyond) {
            Ok(epoch) => {
                warn!(%beyond, %epoch, "a peer knows a later epoch than this node's data_dir");
                self.epoch = epoch;
                true
            }
            Err(error) => {
                // Tried again with each gossip; said once.
                if self.view.borrow().writable {
                    error!(%error, %beyond, "no writes: cannot begin an epoch after a peer's");
                }
                false
            }
        }
    }
}

/// The view from what this node knows of itself and has heard of others. `reign` is the last one it
/// heard of. Pure.
fn view(
    setup: &Setup,
    own_epoch: Epoch,
    ready: bool,
    peers: &Peers,
    reign: Option<&Primary>,
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
            .filter(|epoch| reign.is_none_or(|reign| *epoch >= reign.epoch))
    };
    let primary = epoch.map(|epoch| match reign {
        Some(reign) if reign.epoch == epoch => reign.clone(),
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
        primary,
        quorum: in_contact > setup.nodes / 2,
    }
}

/// The latest epoch that a peer knows of, if this node is the primary and its own does not exceed it:
/// its data_dir was lost. Pure.
fn newer_epoch(setup: &Setup, own: Epoch, peers: &Peers) -> Option<Epoch> {
    if setup.node != setup.primary {
        return None;
    }
    let known = peers.values().map(|heard| heard.report.epoch.max(heard.report.position.epoch));
    known.max().filter(|known| *known > own)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::peer::gossip::{Heard, Report};

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn setup(own: &str) -> Setup {
        Setup { node: node(own), primary: node("a"), witness: false, nodes: 3 }
    }

    /// A peer that is heard; `epoch` if it takes writes.
    fn heard(name: &str, epoch: Option<u64>) -> Heard {
        let role = if epoch.is_some() { Role::Primary } else { Role::Replica };
        let mut report = Report::new(node(name), role);
        report.writable = epoch.is_some();
        report.epoch = Epoch(epoch.unwrap_or(0));
        Heard::new(report, Instant::now())
    }

    fn peers<const N: usize>(heard: [Heard; N]) -> Peers {
        heard.into_iter().map(|heard| (heard.report.node.clone(), heard)).collect()
    }

    fn seen(own: &str, peers: &Peers, reign: Option<&Primary>) -> ClusterView {
        view(&setup(own), Epoch(0), false, peers, reign, SystemTime::now())
    }

    #[test]
    fn the_primary_takes_writes_once_its_engine_is_ready() {
        let now = SystemTime::now();
        let waiting = view(&setup("a"), Epoch(3), false, &Peers::new(), None, now);
        assert_eq!((waiting.role, waiting.writable), (Role::Primary, false));
        assert_eq!(waiting.primary, None);
        let ready = view(&setup("a"), Epoch(3), true, &Peers::new(), None, now);
        assert!(ready.writable);
        assert_eq!(ready.primary, Some(Primary { node: node("a"), epoch: Epoch(3), since: now }));
    }

    #[test]
    fn a_replica_sees_the_primary_while_it_is_heard_and_takes_writes() {
        let up = seen("b", &peers([heard("a", Some(3))]), None);
        assert_eq!((up.role, up.writable, up.epoch()), (Role::Replica, false, Epoch(3)));

        let mut silent = heard("a", Some(3));
        silent.reachable = false;
        assert_eq!(seen("b", &peers([silent]), None).primary, None);
        assert_eq!(seen("b", &peers([heard("a", None)]), None).primary, None);
        assert_eq!(seen("b", &Peers::new(), None).primary, None);
    }

    #[test]
    fn nobody_else_is_ever_the_primary() {
        assert_eq!(seen("b", &peers([heard("c", Some(9))]), None).primary, None);
    }

    #[test]
    fn a_reign_keeps_its_beginning_and_never_goes_back() {
        let then = SystemTime::now() - Duration::from_secs(60);
        let reign = Primary { node: node("a"), epoch: Epoch(3), since: then };
        let same = seen("b", &peers([heard("a", Some(3))]), Some(&reign));
        assert_eq!(same.primary, Some(reign.clone()));
        let next = seen("b", &peers([heard("a", Some(4))]), Some(&reign)).primary.unwrap();
        assert!(next.epoch == Epoch(4) && next.since > then);
        assert_eq!(seen("b", &peers([heard("a", Some(2))]), Some(&reign)).primary, None);
    }

    #[test]
    fn quorum_is_a_majority_of_all_nodes() {
        assert!(!seen("b", &Peers::new(), None).quorum);
        assert!(seen("b", &peers([heard("c", None)]), None).quorum);
        let mut silent = heard("c", None);
        silent.reachable = false;
        assert!(!seen("b", &peers([silent]), None).quorum);
        let four = Setup { nodes: 4, ..setup("b") };
        let one_of_three = peers([heard("c", None)]);
        let now = SystemTime::now();
        assert!(!view(&four, Epoch(0), false, &one_of_three, None, now).quorum);
    }

    #[test]
    fn a_witness_stays_one() {
        let witness = Setup { witness: true, ..setup("b") };
        let seen = view(&witness, Epoch(0), false, &Peers::new(), None, SystemTime::now());
        assert_eq!(seen.role, Role::Witness);
    }

    #[tokio::test]
    async fn each_start_of_the_primary_begins_an_epoch() {
        let dir = tempfile::tempdir().unwrap();
        let (ready, is_ready) = watch::channel(false);
        let (_peers, peers) = watch::channel(Peers::new());
        for start in 1..=3 {
            let fixed =
                Fixed::new(setup("a"), dir.path(), is_ready.clone(), peers.clone()).unwrap();
            let mut view = fixed.view();
            let running = tokio::spawn(fixed.run());
            ready.send_replace(true);
            let view = view.wait_for(|view| view.writable).await.unwrap().clone();
            assert_eq!(view.epoch(), Epoch(start));
            running.abort();
            ready.send_replace(false);
        }
    }

    #[tokio::test]
    async fn a_primary_that_lost_its_data_dir_overtakes_what_its_peers_know() {
        let dir = tempfile::tempdir().unwrap();
        let (_ready, is_ready) = watch::channel(true);
        let (gossip, peers_heard) = watch::channel(Peers::new());
        let fixed = Fixed::new(setup("a"), dir.path(), is_ready, peers_heard).unwrap();
        let mut view = fixed.view();
        tokio::spawn(fixed.run());
        assert_eq!(view.wait_for(|view| view.writable).await.unwrap().epoch(), Epoch(1));
        let mut replica = heard("b", None);
        replica.report.position.epoch = Epoch(7);
        gossip.send_replace(peers([replica]));
        let after = view.wait_for(|view| view.epoch() > Epoch(1)).await.unwrap().clone();
        assert_eq!((after.epoch(), after.writable), (Epoch(8), true));
    }

    #[tokio::test]
    async fn replicas_write_no_epoch() {
        let dir = tempfile::tempdir().unwrap();
        let (_ready, is_ready) = watch::channel(true);
        let (_peers, peers) = watch::channel(Peers::new());
        Fixed::new(setup("b"), dir.path(), is_ready, peers).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
