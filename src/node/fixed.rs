//! `election: static`: a node's part in a cluster whose primary is always the same node.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::commands;
use super::context::NodeContext;
use super::peers::{Peering, ReportSources, data_protocols, electorate};
use super::permanent::PermanentPrimary;
use super::replication::{Follower, PAUSE};
use crate::acks::{Acks, Electorate};
use crate::cluster::{ClusterView, Epoch, NodeId, Role};
use crate::config::Config;
use crate::election::context::NodeCallbacks;
use crate::engine::Engine;
use crate::fixed::{Fixed, FixedPrimary};
use crate::peer::Credentials;
use crate::proxy::PeerDoor;

/// Before the engine and the data plane are there.
pub(crate) struct FixedMembership {
    /// To the other nodes.
    pub(crate) peering: Peering,
    fixed: Fixed,
    ready: watch::Sender<bool>,
}

impl FixedMembership {
    /// On the primary this begins a new epoch.
    ///
    /// # Errors
    ///
    /// When the epoch can be neither read nor written.
    pub(crate) fn new(
        config: &Config,
        primary: &NodeId,
        credentials: Option<Arc<Credentials>>,
        draining: watch::Receiver<bool>,
    ) -> io::Result<Self> {
        let role = if config.node == *primary { Role::Primary } else { Role::Replica };
        let peering = Peering::new(config, role, credentials, draining);
        let setup = FixedPrimary {
            node: config.node.clone(),
            primary: primary.clone(),
            witness: false,
            nodes: config.cluster.peers.len(),
        };
        let (ready, is_ready) = watch::channel(false);
        let fixed = Fixed::new(setup, &config.data_dir, is_ready, peering.heard.clone())?;
        Ok(Self { peering, fixed, ready })
    }

    /// The view that requests are routed by.
    pub(crate) fn view(&self) -> watch::Receiver<ClusterView> {
        self.fixed.view()
    }

    /// The epoch of which this node is the primary; 0 if it is not.
    pub(crate) fn epoch(&self) -> Epoch {
        self.fixed.epoch()
    }

    /// Opens the peer port and takes part, in tasks that end when the answer is dropped. If this node
    /// is the primary, it takes writes once `on_promote` has run.
    ///
    /// # Errors
    ///
    /// When the port cannot be had.
    pub(crate) async fn run(
        self,
        config: &Config,
        context: NodeContext,
        primary: PermanentPrimary,
        door: PeerDoor,
    ) -> io::Result<JoinSet<()>> {
        let Self { peering, fixed, ready } = self;
        let names: Vec<NodeId> =
            config.cluster.peers.iter().map(|(name, _)| name.clone()).collect();
        let members = Arc::new(move |node: &NodeId| names.contains(node));
        let (dialer, view, epoch) = (peering.dialer.clone(), fixed.view(), fixed.epoch());
        let mut protocols = data_protocols(&context, door);
        protocols.push(commands::protocol(config, &context));
        let sources = ReportSources::new(&context);
        let mut tasks = peering.open(config, members, protocols, sources).await?;
        tasks.spawn(fixed.run());
        let primary = Arc::new(primary);
        let promoted = context.promoted(epoch);
        let roles = Roles {
            engine: context.engine.clone(),
            primary: primary.clone(),
            follower: Follower::new(context.engine, dialer),
            acks: context.acks,
            electorate: electorate(config),
            epoch,
        };
        tasks.spawn(roles.run(view));
        if epoch != Epoch(0) {
            tasks.spawn(async move {
                let open = |open| {
                    ready.send_replace(open);
                };
                primary.hold(epoch, promoted, open).await;
                // The sender is kept for as long as anybody listens.
                ready.closed().await;
            });
        }
        Ok(tasks)
    }
}

/// Has the engine do what the view says.
struct Roles {
    engine: Arc<dyn Engine>,
    primary: Arc<PermanentPrimary>,
    follower: Follower,
    acks: Arc<Acks>,
    electorate: Electorate,
    /// The last epoch of this node, as those who acknowledge its writes know it.
    epoch: Epoch,
}

impl Roles {
    async fn run(mut self, mut view: watch::Receiver<ClusterView>) {
        loop {
            let now = view.borrow_and_update().clone();
            tokio::select! {
                () = self.play(now) => {}
                changed = view.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Returns when that is to be tried again.
    async fn play(&mut self, view: ClusterView) {
        match view.primary {
            Some(primary) if primary.node == view.node => {
                self.begin(primary.epoch);
                self.primary.become_primary(primary.epoch).await;
                std::future::pending().await
            }
            Some(primary) => self.follower.follow(&primary.node, primary.epoch).await,
            None if view.role == Role::Primary => std::future::pending().await,
            None => match self.engine.become_replica().await {
                Ok(()) => std::future::pending().await,
                Err(why) => {
                    tracing::error!(%why, "the engine cannot change its role; trying again");
                    sleep(PAUSE * 10).await;
                }
            },
        }
    }

    /// Before the engine gives its first image in `epoch`, so that no acknowledgement is missed.
    fn begin(&mut self, epoch: Epoch) {
        if epoch != self.epoch {
            self.epoch = epoch;
            self.acks.begin(epoch, vec![self.electorate.clone()]);
        }
    }
}
