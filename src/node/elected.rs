//! `election: raft`: a node's part in a cluster that elects its primary, and the view that requests are
//! routed by.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::agreement;
use super::context::NodeContext;
use super::peers::{Peering, ReportSources, data_protocols};
use super::replication::Follower;
use super::status::Roster;
use super::steering::Steering;
use crate::claim::Claim;
use crate::cluster::{ClusterView, Epoch, NodeId, Role};
use crate::config::{Ack, Config, EngineKind};
use crate::election::clock::SystemClock;
use crate::election::context::ElectionContext;
use crate::election::raft::{Leadership, Member, Raft, Setup, Store};
use crate::election::table::Table;
use crate::election::times::Times;
use crate::election::transport::{self, PeerTransport};
use crate::election::view::{self, Known};
use crate::election::{Election, PATIENCE};
use crate::engine::Engine;
use crate::litefs::agreement::Agreement;
use crate::peer::gossip::Peers;
use crate::peer::{self, Credentials, Dialer, Protocol};
use crate::process::health::AppHealth;
use crate::proxy::PeerDoor;
use crate::publish;
use crate::telemetry::events::Events;
use crate::telemetry::metrics::Metrics;

/// How often the view is made anew when nothing is known to have changed: contact is lost without a
/// word.
const LOOK: Duration = Duration::from_millis(250);
/// After an engine has ceased to be primary: until it is told to be a replica's.
const UNTIL_TOLD: Duration = Duration::from_millis(50);
/// A LiteFS that somebody else runs may notice this late that it has lost its lease.
const UNFENCED: Duration = Duration::from_secs(1);
/// How often an application that is down is looked at for `down_after`.
const WATCH_APP: Duration = Duration::from_millis(100);

/// Before the engine and the data plane are there.
pub(crate) struct ElectedMembership {
    /// To the other nodes.
    pub(crate) peering: Peering,
    view: watch::Sender<ClusterView>,
}

/// A running part in an election. It ends when this is dropped.
pub(crate) struct Part {
    election: Election,
    raft: Raft,
    tasks: JoinSet<()>,
}

impl ElectedMembership {
    /// Nobody is primary yet.
    pub(crate) fn new(
        config: &Config,
        credentials: Option<Arc<Credentials>>,
        draining: watch::Receiver<bool>,
    ) -> Self {
        let role = if config.is_witness() { Role::Witness } else { Role::Replica };
        let view = ClusterView {
            role,
            primary: None,
            writable: false,
            claim: Claim::none(),
            quorum: false,
            elected: true,
            ..ClusterView::single(config.node.clone(), Epoch(0))
        };
        Self {
            peering: Peering::new(config, role, credentials, draining),
            view: watch::Sender::new(view),
        }
    }

    /// The view that requests are routed by.
    pub(crate) fn view(&self) -> watch::Receiver<ClusterView> {
        self.view.subscribe()
    }

    /// Opens the peer port and takes part.
    ///
    /// # Errors
    ///
    /// When the port cannot be had, or what is on disk cannot be used.
    pub(crate) async fn run(
        self,
        config: &Config,
        context: NodeContext,
        door: Option<PeerDoor>,
        agreement: Agreement,
    ) -> io::Result<Part> {
        let Self { peering, view } = self;
        let (election, raft) = start_election(config, &context, &peering).await?;
        let (heard, dialer) = (peering.heard.clone(), peering.dialer.clone());
        let has_data = door.is_some();
        let mut protocols = door.map(|door| data_protocols(&context, door)).unwrap_or_default();
        let handler = transport::handler(Arc::new(election.clone()));
        protocols.push(Protocol { name: peer::RAFT, limits: transport::LIMITS, handler });
        let sources = ReportSources::new(&context);
        let mut tasks = peering.open(config, members(&raft), protocols, sources).await?;
        let (source, primaries) = watch::channel(None);
        let publisher = Publisher {
            node: config.node.clone(),
            witness: config.is_witness(),
            ttl: config.cluster.lease_ttl,
            election: election.clone(),
            raft: raft.clone(),
            heard,
            view,
            source,
            metrics: context.metrics,
            events: context.events.clone(),
            without: None,
            split: None,
        };
        tasks.spawn(publisher.run());
        tasks.spawn(keep_addresses(raft.clone(), dialer.clone()));
        if has_data {
            tasks.spawn(follow(primaries, Follower::new(context.engine.clone(), dialer)));
            tasks.spawn(watch_engine(election.clone(), context.engine));
            tasks.spawn(agreement::by_election(agreement, election.clone()));
        }
        tasks.spawn(election.clone().run());
        let NodeContext { health, view, events, .. } = context;
        tasks.spawn(watch_app(election.clone(), health, view, events, config.app.down_after));
        Ok(Part { election, raft, tasks })
    }
}

async fn start_election(
    config: &Config,
    context: &NodeContext,
    peering: &Peering,
) -> io::Result<(Election, Raft)> {
    let network = Arc::new(PeerTransport::new(peering.dialer.clone()));
    let store = Store::open(&config.data_dir.join("raft"))?;
    let raft = Raft::start(setup(config), store, network.clone()).await?;
    let election = Election::new(ElectionContext {
        own: config.node.clone(),
        candidate: config.cluster.candidate,
        witness: config.is_witness(),
        strict: config.cluster.ack == Ack::Majority,
        times: times(config),
        raft: raft.clone(),
        transport: network,
        clock: Arc::new(SystemClock),
        engine: context.engine.clone(),
        acks: context.acks.clone(),
        callbacks: Arc::new(context.clone()),
    });
    Ok((election, raft))
}

impl Part {
    /// Every member with its role, as far as that never changes.
    pub(crate) fn roster(&self) -> Roster {
        let members = self.raft.members();
        Arc::new(move || {
            let role = |witness| if witness { Role::Witness } else { Role::Replica };
            let members = members.borrow();
            members.iter().map(|l| (l.member.name.clone(), role(l.member.witness))).collect()
        })
    }

    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.raft.leadership()
    }

    pub(crate) fn steering(
        &self,
        config: &Config,
        engine: Arc<dyn Engine>,
        view: watch::Receiver<ClusterView>,
    ) -> Steering {
        Steering {
            own: config.node.clone(),
            election: self.election.clone(),
            raft: self.raft.clone(),
            ttl: config.cluster.lease_ttl,
            engine,
            view,
        }
    }

    /// Hands over, if this node is the primary and another can be; and has another voter lead Raft.
    pub(crate) async fn resign(&self, patience: Duration) {
        if self.election.own().borrow().holding
            && let Err(why) = self.election.resign(patience).await
        {
            tracing::warn!(%why, "this primary stops without a successor");
        }
        self.election.pass_leadership_on().await;
    }

    /// Gives the lease back, if this node still holds it.
    pub(crate) async fn abdicate(&self) {
        self.election.abdicate().await;
    }

    /// Ends this node's part.
    pub(crate) async fn stop(mut self) {
        self.tasks.shutdown().await;
        self.raft.stop().await;
    }
}

fn members(raft: &Raft) -> peer::Members {
    let peers = raft.peers();
    Arc::new(move |node: &NodeId| peers.borrow().contains_key(node))
}

/// Where members are is agreed upon; the configuration only says where they were at first.
async fn keep_addresses(raft: Raft, dialer: Arc<Dialer>) {
    let mut peers = raft.peers();
    loop {
        let addresses: Vec<_> = peers
            .borrow_and_update()
            .iter()
            .filter_map(|(node, member)| Some((node.clone(), member.address()?)))
            .collect();
        dialer.set_peers(&addresses);
        if peers.changed().await.is_err() {
            return;
        }
    }
}

/// Has the engine follow whoever is the primary, unless this node is: then the election tells it what to
/// do.
async fn follow(mut primaries: watch::Receiver<Option<(NodeId, Epoch)>>, follower: Follower) {
    loop {
        let now = primaries.borrow_and_update().clone();
        let follows = async {
            let Some((primary, epoch)) = now else { return std::future::pending().await };
            follower.follow(&primary, epoch).await;
        };
        tokio::select! {
            () = follows => {}
            changed = primaries.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// Ends this node's tenure when its engine does.
async fn watch_engine(election: Election, engine: Arc<dyn Engine>) {
    let mut own = election.own();
    loop {
        let epoch = engine.lost().await;
        election.engine_lost(epoch);
        // An error means that the election is gone.
        if own.wait_for(|own| own.epoch > epoch || !own.holding).await.is_err() {
            return;
        }
        // The engine is told to be a replica's as the last thing of a tenure.
        sleep(UNTIL_TOLD).await;
    }
}

fn setup(config: &Config) -> Setup {
    let member = |(name, address): &(NodeId, crate::config::HostPort)| Member {
        name: name.clone(),
        generation: 0,
        address: address.to_string(),
        witness: config.cluster.witnesses.contains(name),
    };
    Setup {
        own: config.node.clone(),
        seeds: config.cluster.peers.iter().map(member).collect(),
        ttl: config.cluster.lease_ttl,
    }
}

fn times(config: &Config) -> Times {
    let unfenced = match config.litefs.engine {
        EngineKind::External => UNFENCED,
        EngineKind::Embedded | EngineKind::Litefs => Duration::ZERO,
    };
    Times::of(config.cluster.lease_ttl, unfenced)
}

/// Publishes what this node knows, and tells operators what has changed.
pub(crate) struct Publisher {
    node: NodeId,
    witness: bool,
    ttl: Duration,
    election: Election,
    raft: Raft,
    heard: watch::Receiver<Peers>,
    view: watch::Sender<ClusterView>,
    source: watch::Sender<Option<(NodeId, Epoch)>>,
    metrics: Arc<Metrics>,
    events: Arc<Events>,
    /// Since when nobody takes writes.
    without: Option<Instant>,
    /// The epoch of which a split brain was told.
    split: Option<Epoch>,
}

impl Publisher {
    async fn run(mut self) {
        let (mut table, mut own) = (self.election.table(), self.election.own());
        loop {
            self.publish(&table.borrow_and_update().clone(), &own.borrow_and_update().clone());
            tokio::select! {
                _ = table.changed() => {}
                _ = own.changed() => {}
                _ = self.heard.changed() => {}
                () = sleep(LOOK) => {}
            }
        }
    }

    fn publish(&mut self, table: &Table, own: &crate::election::tenure::Own) {
        let peers = self.heard.borrow_and_update().clone();
        let known = Known {
            node: &self.node,
            witness: self.witness,
            table,
            own,
            peers: &peers,
            quorum: self.raft.in_contact(self.ttl),
        };
        let before = self.view.borrow().clone();
        let now = view::view(&known, Some(&before), SystemTime::now());
        let source = view::source(&known).filter(|_| !own.holding);
        if let Some(epoch) = view::split_brain(&known).filter(|epoch| self.split != Some(*epoch)) {
            self.split = Some(epoch);
            self.metrics.node().split_brain.inc();
            let text = format!("two nodes claim to be primary in epoch {epoch}");
            self.events.record("split-brain", text);
        }
        self.note_changes(&before, &now);
        publish::if_changed(&self.source, source);
        publish::if_changed(&self.view, now);
    }

    fn note_changes(&mut self, before: &ClusterView, now: &ClusterView) {
        if before.quorum != now.quorum {
            let (kind, text) = match now.quorum {
                true => ("quorum", "a majority of the voters is in contact"),
                false => ("no-quorum", "contact with a majority of the voters was lost"),
            };
            self.events.record(kind, text);
            if !now.quorum {
                self.metrics.node().quorum_losses.inc();
            }
        }
        match (&before.primary, &now.primary) {
            (Some(_), None) => self.without = Some(Instant::now()),
            (_, Some(primary)) if before.primary.as_ref() != Some(primary) => {
                self.metrics.node().elections.inc();
                if let Some(since) = self.without.take() {
                    self.metrics.node().failover(since.elapsed());
                }
                let text = format!("{} is primary in epoch {}", primary.node, primary.epoch);
                self.events.record("primary-changed", text);
            }
            _ => {}
        }
    }
}

/// Hands over when this node's application has been down for `down_after` while it is the primary.
async fn watch_app(
    election: Election,
    health: AppHealth,
    view: watch::Receiver<ClusterView>,
    events: Arc<Events>,
    down_after: Duration,
) {
    let mut reports = health.watch();
    // An error means that nobody checks any more.
    while reports.wait_for(|report| !report.up).await.is_ok() {
        sleep(WATCH_APP).await;
        let down = health.down_since().map(|since| since.elapsed());
        let is_primary = view.borrow().takes_writes();
        if !is_primary || down.is_none_or(|down| down < down_after) {
            continue;
        }
        events.record("app-down", "this primary's application is down: another node takes over");
        if let Err(why) = election.resign(PATIENCE).await {
            tracing::warn!(%why, "cannot hand over; trying again");
            sleep(down_after).await;
        }
    }
}
