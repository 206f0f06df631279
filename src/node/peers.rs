//! A node's part in a cluster with a fixed primary: the peer port, gossip, the view that follows
//! from it, and the shipping of the embedded engine's database.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::cluster::{ClusterView, Epoch, NodeId, Role};
use crate::config::Config;
use crate::embedded::Embedded;
use crate::engine::Engine;
use crate::fixed::{Fixed, Setup};
use crate::peer::gossip::{self, Gossip, Peers, Report};
use crate::peer::{self, Credentials, Dialer, Limits, Listener, Times};
use crate::process::health::AppHealth;
use crate::proxy::PeerDoor;

/// Connections that carry forwarded requests.
const HTTP_LIMITS: Limits = Limits { per_peer: 2048, total: 8192 };
/// A replica needs one connection; the others are those it gave up.
const EMBEDDED_LIMITS: Limits = Limits { per_peer: 4, total: 256 };
/// How often a node's own report is made anew; gossip sends it only if it differs.
const REPORT_EVERY: Duration = Duration::from_millis(50);
/// Before a replica dials its primary again.
const FOLLOW_PAUSE: Duration = Duration::from_millis(50);

/// What is known before the engine and the data plane are there.
pub struct Beginning {
    /// Opens connections to the others.
    pub dialer: Arc<Dialer>,
    /// The view that requests are routed by.
    pub view: watch::Receiver<ClusterView>,
    /// What was heard from the others.
    pub heard: watch::Receiver<Peers>,
    gossip: Gossip,
    fixed: Fixed,
    ready: watch::Sender<bool>,
    report: watch::Sender<Report>,
    draining: watch::Receiver<bool>,
    credentials: Option<Arc<Credentials>>,
    times: Times,
}

impl Beginning {
    /// On the primary this begins a new epoch. Once `draining` it is told to the others, so that they
    /// send nothing more.
    ///
    /// # Errors
    ///
    /// When the epoch can be neither read nor written.
    pub fn new(
        config: &Config,
        primary: &NodeId,
        credentials: Option<Arc<Credentials>>,
        draining: watch::Receiver<bool>,
    ) -> io::Result<Self> {
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
        let role = if config.node == *primary { Role::Primary } else { Role::Replica };
        let report = watch::Sender::new(Report::new(config.node.clone(), role));
        let gossip = Gossip::new(report.subscribe());
        let setup = Setup {
            node: config.node.clone(),
            primary: primary.clone(),
            witness: false,
            nodes: config.cluster.peers.len(),
        };
        let (ready, is_ready) = watch::channel(false);
        let fixed = Fixed::new(setup, &config.data_dir, is_ready, gossip.peers())?;
        let (view, heard) = (fixed.view(), gossip.peers());
        Ok(Self { dialer, view, heard, gossip, fixed, ready, report, draining, credentials, times })
    }

    /// The epoch in which this node would reign.
    pub fn epoch(&self) -> Epoch {
        self.fixed.epoch()
    }

    /// Opens the peer port and takes part, in tasks that end when the answer is dropped. If this node
    /// is the primary, it takes writes once `promoted` says so.
    ///
    /// # Errors
    ///
    /// When the port cannot be had.
    pub async fn run(
        self,
        config: &Config,
        engine: Arc<Embedded>,
        health: AppHealth,
        door: PeerDoor,
        promoted: impl Future<Output = bool> + Send + 'static,
    ) -> io::Result<JoinSet<()>> {
        let Self {
            dialer, view, gossip, fixed, ready, report, draining, credentials, times, ..
        } = self;
        let names: Vec<NodeId> =
            config.cluster.peers.iter().map(|(name, _)| name.clone()).collect();
        let members = Arc::new(move |node: &NodeId| names.contains(node));
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
        let enter = Arc::new(move |incoming: peer::Incoming| door.enter(incoming.stream));
        listener.handle(peer::HTTP, HTTP_LIMITS, enter);
        listener.handle(peer::EMBEDDED, EMBEDDED_LIMITS, ship(engine.clone()));

        let mut tasks = JoinSet::new();
        let report = tell(report, view.clone(), engine.clone(), health, draining);
        tasks.spawn(listener.run());
        tasks.spawn(gossip.run(dialer.clone()));
        tasks.spawn(fixed.run());
        tasks.spawn(report);
        tasks.spawn(follow(view, engine, dialer));
        tasks.spawn(async move {
            ready.send_replace(promoted.await);
            // The sender is kept for as long as anybody listens.
            ready.closed().await;
        });
        Ok(tasks)
    }
}

/// Serves each replica that connects.
fn ship(engine: Arc<Embedded>) -> peer::Handler {
    Arc::new(move |incoming| {
        let engine = engine.clone();
        tokio::spawn(async move {
            let replica = incoming.node;
            if let Err(why) = engine.serve(incoming.stream).await {
                tracing::debug!(%replica, %why, "a replica is no longer served");
            }
        });
    })
}

/// Keeps this node's report about itself up to date.
async fn tell(
    report: watch::Sender<Report>,
    view: watch::Receiver<ClusterView>,
    engine: Arc<Embedded>,
    health: AppHealth,
    mut draining: watch::Receiver<bool>,
) {
    let mut ticks = interval(REPORT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut views = view.clone();
    loop {
        // A view that changes is told at once: others wait for it.
        tokio::select! {
            _ = ticks.tick() => {}
            Ok(()) = views.changed() => {}
            Ok(()) = draining.changed() => {}
        }
        let view = view.borrow().clone();
        let stops = *draining.borrow_and_update();
        let state = engine.state();
        report.send_if_modified(|report| {
            let new = Report {
                role: view.role,
                // Whoever stops finishes what it has taken; the others send nothing more.
                writable: view.writable && !stops,
                epoch: report.epoch.max(view.epoch()),
                position: engine.position().get(),
                lag_ms: engine.lag().map(|lag| lag.as_millis() as u64),
                app_up: health.is_up(),
                engine: state.engine.to_owned(),
                engine_state: state.state.clone(),
                ..report.clone()
            };
            let modified = *report != new;
            *report = new;
            modified
        });
    }
}

/// Has the engine do what the view says: reign in its epoch, or follow its primary.
async fn follow(
    mut view: watch::Receiver<ClusterView>,
    engine: Arc<Embedded>,
    dialer: Arc<Dialer>,
) {
    loop {
        let now = view.borrow_and_update().clone();
        let follows = async {
            let primary = now.primary.as_ref().map(|p| (p.node.clone(), p.epoch));
            let done = match &primary {
                Some((node, epoch)) if *node == now.node => {
                    engine.become_primary(*epoch).await.map(drop)
                }
                _ if now.role == Role::Primary => return std::future::pending().await,
                _ => engine.become_replica(primary.as_ref().map(|p| p.0.clone())).await,
            };
            if let Err(why) = done {
                tracing::error!(%why, "the engine cannot change its role; trying again");
                return sleep(FOLLOW_PAUSE * 10).await;
            }
            match primary {
                Some((node, _)) if node != now.node => {
                    follow_primary(&engine, &dialer, &node).await
                }
                _ => std::future::pending().await,
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

/// Follows one primary until the connection ends, and waits a little.
async fn follow_primary(engine: &Embedded, dialer: &Dialer, primary: &NodeId) {
    match dialer.dial(primary, peer::EMBEDDED).await {
        Ok(stream) => {
            if let Err(why) = engine.follow(stream).await {
                tracing::warn!(%primary, %why, "the database is no longer received; dialing again");
            }
        }
        Err(why) => tracing::debug!(%primary, %why, "cannot follow"),
    }
    sleep(FOLLOW_PAUSE).await;
}
