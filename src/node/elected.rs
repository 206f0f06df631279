//! `election: raft`: a node's part in a cluster that elects its primary, and the view that requests are
//! routed by.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::agreement;
use super::app_judge;
use super::commands;
use super::context::NodeContext;
use super::peers::{Peering, ReportSources, data_protocols};
use super::replication::Follower;
use super::status::{RaftSource, Roster};
use super::steering::Steering;
use crate::claim::Claim;
use crate::cluster::{ClusterView, Epoch, NodeId, Role};
use crate::config::{Ack, Config, EngineKind};
use crate::control::forwarder::Forwarder;
use crate::election::Election;
use crate::election::clock::SystemClock;
use crate::election::context::ElectionContext;
use crate::election::failure::hand_over_on;
use crate::election::publisher::Publisher;
use crate::election::raft::{Leadership, Member, Raft, RaftSetup, Store};
use crate::election::table::Life;
use crate::election::tenure::Patience;
use crate::election::times::Times;
use crate::election::transport::{self, PeerTransport};
use crate::election::watchers::{watch_app, watch_child, watch_engine};
use crate::engine::Engine;
use crate::last_will::testator;
use crate::litefs::agreement::Agreement;
use crate::peer::{self, Credentials, Dialer, Protocol};
use crate::process::child::ChildState;
use crate::process::health::AppHealth;
use crate::proxy::PeerDoor;
use crate::status::RaftStatus;

/// A LiteFS that somebody else runs may notice this late that it has lost its lease.
const UNFENCED: Duration = Duration::from_secs(1);
/// Where Raft keeps its log, in `data_dir`.
pub(super) const RAFT: &str = "raft";
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
    dialer: Arc<Dialer>,
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
        let dialer = peering.dialer.clone();
        let has_data = door.is_some();
        let mut protocols = door.map(|door| data_protocols(&context, door)).unwrap_or_default();
        let handler = transport::handler(Arc::new(election.clone()));
        protocols.push(Protocol { name: peer::RAFT, limits: transport::LIMITS, handler });
        protocols.extend(has_data.then(|| commands::protocol(config, &context)));
        let sources = ReportSources { waiting: election.waiting(), ..ReportSources::new(&context) };
        let mut tasks = peering.open(config, members(&raft), protocols, sources).await?;
        let (source, primaries) = watch::channel(None);
        let publisher = Publisher::new(election.clone(), view, source);
        tasks.spawn(publisher.run());
        tasks.spawn(keep_addresses(raft.clone(), dialer.clone()));
        if has_data {
            tasks.spawn(follow(primaries, Follower::new(context.engine.clone(), dialer.clone())));
            tasks.spawn(watch_engine(election.clone()));
            tasks.spawn(agreement::by_election(agreement, election.clone()));
        }
        tasks.spawn(election.clone().run());
        tasks.spawn(hand_over_on(election.clone(), context.disk.clone()));
        let mut health = context.health.watch();
        if context.programs.starts_app_at_promotions() {
            let (judged, excused) = watch::channel(*health.borrow());
            let promotions = context.programs.promotions();
            tasks.spawn(app_judge::excuse(config.app.run_on, health, promotions, judged));
            health = excused;
        }
        tasks.spawn(watch_app(election.clone(), health, config.app.down_after));
        Ok(Part { election, raft, dialer, tasks })
    }
}

async fn start_election(
    config: &Config,
    context: &NodeContext,
    peering: &Peering,
) -> io::Result<(Election, Raft)> {
    let network = Arc::new(PeerTransport::new(peering.dialer.clone()));
    let store = Store::open(&config.data_dir.join(RAFT))?;
    let raft = Raft::start(setup(config), store, network.clone()).await?;
    let election = Election::new(ElectionContext {
        own: config.node.clone(),
        life: new_life(),
        candidate: config.cluster.candidate,
        witness: config.is_witness(),
        promises: config.cluster.ack == Ack::Majority,
        times: times(config),
        raft: raft.clone(),
        transport: network,
        clock: Arc::new(SystemClock),
        engine: context.engine.clone(),
        acks: context.acks.clone(),
        peers: peering.heard.clone(),
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

    pub(crate) fn raft_status(&self) -> RaftSource {
        let (leadership, removed) = (self.raft.leadership(), self.raft.removed());
        Arc::new(move || {
            let Leadership { leader, term, .. } = leadership.borrow().clone();
            RaftStatus { leader, term: term.0, removed: *removed.borrow() }
        })
    }

    /// Has another node take over while the application, a process of ours, is being started again.
    pub(crate) fn watch_child(
        &self,
        child: watch::Receiver<ChildState>,
        health: AppHealth,
    ) -> impl Future<Output = ()> + use<> {
        watch_child(self.election.clone(), child, health)
    }

    /// What this node leaves to the others should its process die.
    pub(crate) fn will(&self, config: &Config) -> testator::Inputs {
        testator::Inputs {
            node: config.node.clone(),
            life: self.election.life().clone(),
            tls: config.cluster.tls.clone(),
            ttl: config.cluster.lease_ttl,
            raft: self.raft.clone(),
        }
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
            forwarder: Forwarder {
                own: config.node.clone(),
                dial: self.dialer.clone(),
                view: view.clone(),
            },
            raft: self.raft.clone(),
            ttl: config.cluster.lease_ttl,
            hook_timeout: config.app.hook_timeout,
            engine,
            view,
        }
    }

    /// Hands over, if this node is the primary and another can be; and has another voter lead Raft.
    pub(crate) async fn resign(&self, patience: Duration) {
        if self.election.own().borrow().holding {
            let patience = Patience { services: patience, writes: patience };
            if let Err(why) = self.election.resign(patience).await {
                tracing::warn!(%why, "this primary stops without a successor");
            }
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

/// Two lives of a node only have to differ.
fn new_life() -> Life {
    let random = || RandomState::new().build_hasher().finish();
    Life(format!("{:016x}{:016x}", random(), random()))
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

fn setup(config: &Config) -> RaftSetup {
    let member = |(name, address): &(NodeId, crate::config::HostPort)| Member {
        name: name.clone(),
        generation: 0,
        address: address.to_string(),
        witness: config.cluster.witnesses.contains(name),
    };
    RaftSetup {
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
