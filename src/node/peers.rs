//! A node's end of the peer port, and what it tells the others of itself.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::context::NodeContext;
use super::disk::DiskState;
use super::programs::Programs;
use crate::acks::Electorate;
use crate::cluster::{ClusterView, NodeId, Role};
use crate::config::Config;
use crate::engine::Engine;
use crate::peer::gossip::{self, Gossip, Peers, Report, Routes};
use crate::peer::{self, ConnectionLimits, Credentials, Dialer, Listener, Protocol, Times};
use crate::process::health::AppHealth;
use crate::proxy::PeerDoor;
use crate::proxy::learned::LearnedRoutes;
use crate::txid::{EpochTxid, Txid};

/// Connections that carry forwarded requests.
const HTTP_LIMITS: ConnectionLimits = ConnectionLimits { per_peer: 2048, total: 8192 };
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
        let candidate = config.cluster.candidate;
        let address = own_address(config);
        let report = Report { candidate, address, ..Report::new(config.node.clone(), role) };
        let report = watch::Sender::new(report);
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
        sources: ReportSources,
    ) -> io::Result<JoinSet<()>> {
        let Self { dialer, heard, gossip, report, draining, credentials, times } = self;
        let address = config.cluster.listen;
        let bound = Listener::bind(config.node.clone(), address, members, times).await;
        let mut listener = bound.map_err(|why| {
            let advice = "another program may have it: stop that one, or choose another port";
            io::Error::new(why.kind(), format!("cluster.listen {address}: {why}; {advice}"))
        })?;
        if let Some(credentials) = credentials {
            listener.secure(credentials);
        }
        listener.knows_those_of(&dialer);
        listener.handle(peer::GOSSIP, gossip::LIMITS, gossip.handler());
        for Protocol { name, limits, handler } in protocols {
            listener.handle(name, limits, handler);
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(listener.run());
        tasks.spawn(believe_addresses(heard, dialer.clone()));
        tasks.spawn(gossip.run(dialer));
        tasks.spawn(tell(report, sources, draining));
        Ok(tasks)
    }
}

/// How others reach this node, as its own configuration says; nothing if that does not.
fn own_address(config: &Config) -> String {
    let own = config.cluster.peers.iter().find(|(node, _)| *node == config.node);
    own.map(|(_, at)| at.to_string()).unwrap_or_default()
}

/// Looks for the others where they say that they are, too: one that has moved need not be written into
/// every configuration before it is found.
async fn believe_addresses(mut heard: watch::Receiver<Peers>, dialer: Arc<Dialer>) {
    loop {
        for (node, heard) in heard.borrow_and_update().iter() {
            if let Ok(at) = heard.report.address.parse() {
                dialer.announce(node, at);
            }
        }
        if heard.changed().await.is_err() {
            return;
        }
    }
}

/// What a node's report about itself is made of.
pub(crate) struct ReportSources {
    pub(crate) view: watch::Receiver<ClusterView>,
    pub(crate) engine: Arc<dyn Engine>,
    /// Whether the application answers.
    pub(crate) health: AppHealth,
    pub(crate) programs: Programs,
    pub(crate) app_wrote: watch::Receiver<Option<EpochTxid>>,
    /// Why nobody is chosen, while this node is to choose a primary.
    pub(crate) waiting: watch::Receiver<Option<Arc<str>>>,
    pub(crate) learned: Arc<LearnedRoutes>,
    pub(crate) disk: DiskState,
}

impl ReportSources {
    pub(crate) fn new(context: &NodeContext) -> Self {
        let NodeContext { view, engine, health, programs, app_wrote, learned, disk, .. } =
            context.clone();
        let (app_wrote, waiting) = (app_wrote.subscribe(), watch::channel(None).1);
        Self { view, engine, health, programs, app_wrote, waiting, learned, disk }
    }
}

/// What serves forwarded requests and replicas.
pub(crate) fn data_protocols(context: &NodeContext, door: PeerDoor) -> Vec<Protocol> {
    let mut protocols = context.engine.clone().protocols(context.acks.clone());
    let handler = Arc::new(move |incoming: peer::Incoming| door.enter(incoming.stream));
    protocols.push(Protocol { name: peer::HTTP, limits: HTTP_LIMITS, handler });
    protocols
}

/// Keeps this node's report about itself up to date.
async fn tell(
    report: watch::Sender<Report>,
    sources: ReportSources,
    mut draining: watch::Receiver<bool>,
) {
    let position = sources.engine.position().clone();
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
    let (mut views, mut reports) = (sources.view.clone(), sources.health.watch());
    let (mut app_wrote, mut waiting) = (sources.app_wrote.clone(), sources.waiting.clone());
    let mut routes = sources.learned.known();
    let mut told = Routes::default();
    loop {
        // A view that changes is told at once: others wait for it.
        tokio::select! {
            _ = ticks.tick() => {}
            () = &mut moved => moved.set(moves(position.get())),
            Ok(()) = views.changed() => {}
            Ok(()) = reports.changed() => {}
            Ok(()) = app_wrote.changed() => {}
            Ok(()) = waiting.changed() => {}
            Ok(()) = draining.changed() => {}
            Ok(()) = routes.changed() => told = sources.learned.told().into(),
        }
        let stops = *draining.borrow_and_update();
        report.send_if_modified(|report| {
            let new = sources.now(stops, &told, report);
            // A lag grows all the time: it goes along with the next sign of life.
            report.lag_ms = new.lag_ms;
            let modified = *report != new;
            *report = new;
            modified
        });
    }
}

impl ReportSources {
    /// What there is to report, after `before`.
    fn now(&self, stops: bool, told: &Routes, before: &Report) -> Report {
        let view = self.view.borrow().clone();
        let state = self.engine.state();
        Report {
            role: view.role,
            // Whoever stops finishes what it has taken; the others send nothing more.
            writable: view.takes_writes() && !stops,
            epoch: before.epoch.max(view.epoch()),
            position: self.engine.position().get(),
            lag_ms: self.engine.lag().map(|lag| lag.as_millis() as u64),
            app_up: self.health.is_up() || self.programs.app_rests(),
            app_wrote: *self.app_wrote.borrow(),
            no_primary: self.waiting.borrow().clone(),
            learned: view.takes_writes().then(|| told.clone()),
            engine: state.engine.to_owned(),
            engine_state: state.state.clone(),
            disk_full: self.disk.is_full(),
            ..before.clone()
        }
    }
}

/// The nodes whose majority counts: there is no witness among them, and this node is left out.
pub(crate) fn electorate(config: &Config) -> Electorate {
    let others = config.cluster.peers.iter().map(|(node, _)| node);
    let holds_data = |node: &&NodeId| !config.cluster.witnesses.contains(node);
    Electorate {
        others: others.filter(|node| **node != config.node).filter(holds_data).cloned().collect(),
        unheard: 0,
        own: true,
    }
}
