//! A node's part in a cluster with a fixed primary: the peer port, gossip, the view that follows
//! from it, and the shipping of the embedded engine's database.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::hooks::Hooks;
use super::kept::{Kept, PAUSE};
use crate::acks::{Acks, Electorate};
use crate::cluster::{ClusterView, Epoch, NodeId, Role};
use crate::config::Config;
use crate::engine::Engine;
use crate::fixed::{Fixed, Setup};
use crate::peer::gossip::{self, Gossip, Peers, Report};
use crate::peer::{self, Credentials, Dialer, Limits, Listener, Times};
use crate::process::health::AppHealth;
use crate::proxy::PeerDoor;
use crate::telemetry::log_throttle::LogThrottle;
use crate::txid::{EpochTxid, Txid};

/// Connections that carry forwarded requests.
const HTTP_LIMITS: Limits = Limits { per_peer: 2048, total: 8192 };
/// How often a node's own report is made anew, whatever has changed; gossip sends it at once if it
/// differs.
const REPORT_EVERY: Duration = Duration::from_millis(250);
/// How often it is made anew while the position moves.
const REPORT_MOVES_EVERY: Duration = Duration::from_millis(50);

/// This node's end of the peer port, before it is open.
pub(crate) struct Peering {
    /// Opens connections to the others.
    pub(crate) dialer: Arc<Dialer>,
    /// What was heard from the others.
    pub(crate) heard: watch::Receiver<Peers>,
    gossip: Gossip,
    report: watch::Sender<Report>,
    draining: watch::Receiver<bool>,
    credentials: Option<Arc<Credentials>>,
    times: Times,
}

/// Who takes the connections of a protocol, and how many of them.
pub(crate) type Protocol = (&'static str, Limits, peer::Handler);

impl Peering {
    /// Once `draining` it is told to the others, so that they send nothing more.
    pub(crate) fn new(
        config: &Config,
        role: Role,
        credentials: Option<Arc<Credentials>>,
        draining: watch::Receiver<bool>,
    ) -> Self {
        let times = Times {
            connect: config.proxy.connect_timeout,
            // Whoever waits for a connection waits for both.
            greeting: config.proxy.connect_timeout,
            // A peer that takes nothing because its client takes nothing is not dead.
            unacknowledged: config.proxy.body_timeout + Duration::from_secs(15),
        };
        let mut dialer = Dialer::new(config.node.clone(), &config.cluster.peers, times);
        if let Some(credentials) = &credentials {
            dialer.secure(credentials.clone());
        }
        let dialer = Arc::new(dialer);
        let report = watch::Sender::new(Report::new(config.node.clone(), role));
        let gossip = Gossip::new(report.subscribe());
        let heard = gossip.peers();
        Self { dialer, heard, gossip, report, draining, credentials, times }
    }

    /// Opens the port to `members` and gossips, in tasks that end when the answer is dropped.
    ///
    /// # Errors
    ///
    /// When the port cannot be had.
    pub(crate) async fn open(
        self,
        config: &Config,
        members: peer::Members,
        protocols: Vec<Protocol>,
        told: Told,
    ) -> io::Result<JoinSet<()>> {
        let Self { dialer, gossip, report, draining, credentials, times, .. } = self;
        let address = config.cluster.listen;
        let bound = Listener::bind(config.node.clone(), address, members, times).await;
        let mut listener = bound.map_err(|why| {
            let advice = "another program may have it: stop that one, or choose another port";
            io::Error::new(why.kind(), format!("cluster.listen {address}: {why}; {advice}"))
        })?;
        if let Some(credentials) = credentials {
            listener.secure(credentials);
        }
        listener.handle(peer::GOSSIP, gossip::LIMITS, gossip.handler());
        for (protocol, limits, handler) in protocols {
            listener.handle(protocol, limits, handler);
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(listener.run());
        tasks.spawn(gossip.run(dialer));
        tasks.spawn(tell(report, told, draining));
        Ok(tasks)
    }
}

/// What a node's report about itself is made of.
pub(crate) struct Told {
    pub(crate) view: watch::Receiver<ClusterView>,
    pub(crate) engine: Arc<dyn Engine>,
    /// Whether the application answers.
    pub(crate) health: AppHealth,
}

/// What serves forwarded requests and replicas.
pub(crate) fn data_protocols(kept: &Kept, acks: &Arc<Acks>, door: PeerDoor) -> Vec<Protocol> {
    let enter = Arc::new(move |incoming: peer::Incoming| door.enter(incoming.stream));
    let mut protocols = kept.protocols(acks);
    protocols.push((peer::HTTP, HTTP_LIMITS, enter));
    protocols
}

/// A node's part in a cluster with a fixed primary, before the engine and the data plane are there.
pub(crate) struct Beginning {
    /// To the other nodes.
    pub(crate) peering: Peering,
    fixed: Fixed,
    ready: watch::Sender<bool>,
}

impl Beginning {
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
        let setup = Setup {
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

    /// The epoch in which this node would reign.
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
        kept: Kept,
        acks: Arc<Acks>,
        health: AppHealth,
        door: PeerDoor,
        hooks: Hooks,
    ) -> io::Result<JoinSet<()>> {
        let Self { peering, fixed, ready } = self;
        let names: Vec<NodeId> =
            config.cluster.peers.iter().map(|(name, _)| name.clone()).collect();
        let members = Arc::new(move |node: &NodeId| names.contains(node));
        let (dialer, view, epoch) = (peering.dialer.clone(), fixed.view(), fixed.epoch());
        let told = Told { view: view.clone(), engine: kept.engine(), health };
        let protocols = data_protocols(&kept, &acks, door);
        let mut tasks = peering.open(config, members, protocols, told).await?;
        tasks.spawn(fixed.run());
        let reign = Tenure { acks, electorate: electorate(config), epoch };
        tasks.spawn(follow(view, kept.clone(), dialer, reign));
        if epoch != Epoch(0) {
            tasks.spawn(async move {
                let open = |open| {
                    ready.send_replace(open);
                };
                reign_for_good(&kept, epoch, hooks.promoted(epoch), open).await;
                // The sender is kept for as long as anybody listens.
                ready.closed().await;
            });
        }
        Ok(tasks)
    }
}

/// Without an election: has the engine reign, and again whenever it has ceased to by itself. `open` is
/// told whether this node takes writes; never `true` unless `promoted`, once the engine reigns, says so.
pub(crate) async fn reign_for_good(
    kept: &Kept,
    epoch: Epoch,
    promoted: impl Future<Output = bool>,
    open: impl Fn(bool),
) {
    let engine = kept.engine();
    kept.reign(epoch).await;
    if !promoted.await {
        return;
    }
    loop {
        open(true);
        engine.lost().await;
        open(false);
        kept.reign(epoch).await;
    }
}

/// Keeps this node's report about itself up to date.
async fn tell(report: watch::Sender<Report>, told: Told, mut draining: watch::Receiver<bool>) {
    let Told { view, engine, health } = told;
    let position = engine.position().clone();
    let moves = |from: EpochTxid| {
        let next = EpochTxid { txid: Txid(from.txid.0.saturating_add(1)), ..from };
        let position = &position;
        async move {
            sleep(REPORT_MOVES_EVERY).await;
            position.wait(next).await;
        }
    };
    let mut moved = pin!(moves(position.get()));
    let mut ticks = interval(REPORT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut views, mut reports) = (view.clone(), health.watch());
    loop {
        // A view that changes is told at once: others wait for it.
        tokio::select! {
            _ = ticks.tick() => {}
            () = &mut moved => moved.set(moves(position.get())),
            Ok(()) = views.changed() => {}
            Ok(()) = reports.changed() => {}
            Ok(()) = draining.changed() => {}
        }
        let view = view.borrow().clone();
        let stops = *draining.borrow_and_update();
        let state = engine.state();
        report.send_if_modified(|report| {
            let new = Report {
                role: view.role,
                // Whoever stops finishes what it has taken; the others send nothing more.
                writable: view.takes_writes() && !stops,
                epoch: report.epoch.max(view.epoch()),
                position: engine.position().get(),
                lag_ms: engine.lag().map(|lag| lag.as_millis() as u64),
                app_up: health.is_up(),
                engine: state.engine.to_owned(),
                engine_state: state.state.clone(),
                ..report.clone()
            };
            // A lag grows all the time: it goes along with the next sign of life.
            report.lag_ms = new.lag_ms;
            let modified = *report != new;
            *report = new;
            modified
        });
    }
}

/// The nodes whose majority counts: there is no witness among them, and this node is left out.
pub(crate) fn electorate(config: &Config) -> Electorate {
    let others = config.cluster.peers.iter().map(|(node, _)| node);
    let holds_data = |node: &&NodeId| !config.cluster.witnesses.contains(node);
    Electorate {
        others: others.filter(|node| **node != config.node).filter(holds_data).cloned().collect(),
    }
}

/// This node's reign, as those who acknowledge its writes know it.
struct Tenure {
    acks: Arc<Acks>,
    electorate: Electorate,
    epoch: Epoch,
}

impl Tenure {
    /// Before the engine gives its first image in `epoch`, so that no acknowledgement is missed.
    fn begin(&mut self, epoch: Epoch) {
        if epoch != self.epoch {
            self.epoch = epoch;
            self.acks.begin(epoch, vec![self.electorate.clone()]);
        }
    }
}

/// Has the engine do what the view says: reign in its epoch, or follow its primary.
async fn follow(
    mut view: watch::Receiver<ClusterView>,
    kept: Kept,
    dialer: Arc<Dialer>,
    mut reign: Tenure,
) {
    let log = LogThrottle::new();
    loop {
        let now = view.borrow_and_update().clone();
        let follows = async {
            match now.primary.as_ref().map(|p| (p.node.clone(), p.epoch)) {
                Some((node, epoch)) if node == now.node => {
                    reign.begin(epoch);
                    kept.reign(epoch).await;
                    std::future::pending().await
                }
                Some((node, epoch)) => kept.follow(&dialer, &node, epoch, &log).await,
                None if now.role == Role::Primary => std::future::pending().await,
                None => {
                    if let Err(why) = kept.engine().become_replica(None).await {
                        tracing::error!(%why, "the engine cannot change its role; trying again");
                        return sleep(PAUSE * 10).await;
                    }
                    std::future::pending().await
                }
            }
        };
        tokio::select! {
            () = follows => {}
            changed = view.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}
