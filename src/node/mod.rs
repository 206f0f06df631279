//! Builds one running node from a configuration. The only place that knows every part.
//!
//! A node has its data-plane threads ([`crate::proxy`]) and one control thread, on which everything
//! else runs: load on the data plane cannot delay it, and nothing that it does delays a request.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::acks::Acks;
use crate::admin::{self, Admin, Hosts, token};
use crate::cluster::{Epoch, Role};
use crate::config::{Config, Election, EngineKind};
use crate::control;
use crate::control::fixed::FixedControl;
use crate::embedded::CopyRole;
use crate::engine::Engine;
use crate::process::app;
use crate::process::child::{self, ChildHandle};
use crate::process::guard::{Guard, SharedDeadline};
use crate::process::health;
use crate::proxy::DataPlane;
use crate::proxy::acceptor::{BACKLOG, Slots};
use crate::proxy::ack::Acknowledging;
use crate::proxy::hold::Holds;
use crate::proxy::misclassified_reads::MisclassifiedReads;
use crate::proxy::worker::WorkerContext;
use crate::proxy::writes::Writes;
use crate::rules::RuleSet;
use crate::shutdown::{self, Urgency};
use crate::telemetry::events::Events;
use crate::telemetry::metrics::{CertificateUse, Metrics};
use crate::yaml::Problem;

mod around;
mod certificates;
mod edge;
mod elected;
mod event_recorder;
mod hooks;
mod kept;
mod membership;
mod null_engine;
mod peers;
mod primary_file;
pub(crate) mod refusals;
mod status;
mod steering;

use certificates::{Certificates, watch_expiry};
use edge::EdgeCertificates;
use elected::{ElectionCallbacks, ElectionInputs};
use event_recorder::EventRecorder;
use hooks::Hooks;
use kept::Kept;
use membership::Beginning;
use null_engine::NullEngine;

/// The epoch of a node on its own: its reign never ends.
const SINGLE_EPOCH: Epoch = Epoch(1);

/// A running node. Dropping it stops it at once.
pub struct Node {
    proxy: SocketAddr,
    admin: SocketAddr,
    urgency: watch::Sender<Urgency>,
    rules: watch::Sender<Arc<RuleSet>>,
    sources: Vec<String>,
    certificates: Option<Arc<Certificates>>,
    edge: Option<Arc<EdgeCertificates>>,
    events: Arc<Events>,
    control: Option<JoinHandle<()>>,
    /// Its sender goes when the control thread ends.
    alive: watch::Receiver<()>,
}

/// What no configuration can set.
#[derive(Clone, Debug, Default)]
pub struct Tuning {
    /// The `litepilot` that guards what this node starts ([`crate::process::guard`]): the program
    /// itself, if we run in it. `None`: what a killed node has started runs on.
    pub guard: Option<PathBuf>,
    /// LiteFS is a stand-in that mounts no file system. For tests.
    pub without_fuse: bool,
    /// The embedded engine of a replica applies what it receives this much later. For tests.
    pub apply_delay: Duration,
}

/// Why a node cannot start.
#[derive(Debug)]
pub enum StartError {
    /// The configuration or a rule file is bad.
    Config(Vec<Problem>),
    /// Something that the configuration names cannot be had; the text says what to do.
    Io(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(problems) => {
                let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
            Self::Io(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for StartError {}

impl Node {
    /// Starts a node. When this returns its ports are open.
    ///
    /// # Errors
    ///
    /// When a port, a directory or a file that the configuration names cannot be had.
    pub fn start(config: Config) -> Result<Self, StartError> {
        Self::start_with(config, Tuning::default())
    }

    /// Starts a node that behaves a little differently.
    ///
    /// # Errors
    ///
    /// See [`Node::start`].
    pub fn start_with(config: Config, tuning: Tuning) -> Result<Self, StartError> {
        let rules = RuleSet::load(&config.proxy.rules).map_err(StartError::Config)?;
        refusals::check(&config).map_err(StartError::Io)?;
        if let Some(surprise) = refusals::surprise(&config, &rules) {
            tracing::warn!("{surprise}");
        }
        let certificates = Certificates::load(&config).map_err(StartError::Config)?.map(Arc::new);
        let edge = EdgeCertificates::load(&config).map_err(StartError::Config)?.map(Arc::new);
        make_data_dir(&config)?;
        let token =
            token::load_or_create(&config).map_err(|why| StartError::Io(why.to_string()))?;
        let proxy = match config.is_witness() {
            true => None,
            false => Some(listen(config.proxy.listen, "proxy.listen")?),
        };
        let admin = listen(config.admin.listen, "admin.listen")?;
        let lease = match config.litefs.engine {
            EngineKind::Litefs | EngineKind::External if proxy.is_some() => {
                Some(listen(config.litefs.lease_listen, "litefs.lease_listen")?)
            }
            _ => None,
        };
        let addresses = match &proxy {
            Some(proxy) => (local(proxy)?, local(&admin)?),
            None => (config.proxy.listen, local(&admin)?),
        };
        match &proxy {
            Some(_) => tracing::info!(
                "node {} listens at {}://{}, admin port at {}",
                config.node,
                if edge.is_some() { "https" } else { "http" },
                addresses.0,
                addresses.1
            ),
            None => tracing::info!(
                "node {} is a witness: it votes and serves nothing, admin port at {}",
                config.node,
                addresses.1
            ),
        }
        let events = Arc::new(Events::default());
        let (urgency, stopping) = watch::channel(Urgency::None);
        let (rules, in_force) = watch::channel(Arc::new(rules));
        let (sources, node_events) = (config.proxy.rules.clone(), events.clone());
        let in_use = (certificates.clone(), edge.clone());
        let (report, started) = std::sync::mpsc::channel();
        let (life, alive) = watch::channel(());
        let control = move || {
            let _life = life;
            let runtime = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(why) => return drop(report.send(Err(why))),
            };
            runtime.block_on(async {
                let (rules, (certificates, edge)) = (in_force, in_use);
                let control = Control {
                    config,
                    tuning,
                    token,
                    events,
                    rules,
                    certificates,
                    edge,
                    lease,
                    stopping,
                };
                match control.start(proxy, admin).await {
                    Ok(running) => {
                        let _ = report.send(Ok(()));
                        running.run().await;
                    }
                    Err(why) => drop(report.send(Err(why))),
                }
            });
        };
        let failed = |why: io::Error| StartError::Io(format!("cannot start: {why}"));
        let control =
            thread::Builder::new().name("control".into()).spawn(control).map_err(failed)?;
        started.recv().map_err(|gone| failed(io::Error::other(gone)))?.map_err(failed)?;
        Ok(Self {
            proxy: addresses.0,
            admin: addresses.1,
            urgency,
            rules,
            sources,
            certificates,
            edge,
            events: node_events,
            control: Some(control),
            alive,
        })
    }

    /// Where clients connect; on a witness nobody listens there.
    pub fn proxy_address(&self) -> SocketAddr {
        self.proxy
    }

    /// Where the admin port is.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// What happened lately.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Loads rules and certificates anew. What is bad is refused and logged, and the old one stays.
    pub fn reload(&self) {
        let rules = RuleSet::load(&self.sources)
            .map(|rules| drop(self.rules.send_replace(Arc::new(rules))));
        self.tell("rules", rules);
        if let Some(certificates) = &self.certificates {
            self.tell("certificates", certificates.reload());
        }
        if let Some(edge) = &self.edge {
            self.tell("certificates of proxy.tls", edge.reload());
        }
    }

    fn tell(&self, what: &str, reloaded: Result<(), Vec<Problem>>) {
        for problem in reloaded.as_ref().err().into_iter().flatten() {
            tracing::error!("{problem}");
        }
        let text = match reloaded {
            Ok(()) => format!("{what} reloaded"),
            Err(_) => format!("{what} not reloaded: the old ones stay in force"),
        };
        self.events.record("reload", text);
    }

    /// Begins to stop: hand off, drain, stop the application. Called again, it gets more urgent.
    pub fn stop(&self, urgency: Urgency) {
        self.urgency.send_if_modified(|now| {
            let more = urgency > *now;
            if more {
                *now = urgency;
            }
            more
        });
    }

    /// Returns once the node has stopped.
    pub fn wait(mut self) {
        self.join();
    }

    /// Ready once the node has stopped.
    pub async fn stopped(&self) {
        while self.alive.clone().changed().await.is_ok() {}
    }

    fn join(&mut self) {
        if self.control.take().is_some_and(|control| control.join().is_err()) {
            tracing::error!("the control thread had panicked");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop(Urgency::AtOnce);
        self.join();
    }
}

/// What the control thread starts with.
struct Control {
    config: Config,
    tuning: Tuning,
    token: token::Token,
    events: Arc<Events>,
    rules: watch::Receiver<Arc<RuleSet>>,
    certificates: Option<Arc<Certificates>>,
    /// Where LiteFS gets its lease, if there is one.
    lease: Option<TcpListener>,
    edge: Option<Arc<EdgeCertificates>>,
    stopping: watch::Receiver<Urgency>,
}

struct Running {
    config: Config,
    /// All but a witness have it.
    data: Option<DataSide>,
    draining: watch::Sender<bool>,
    admin_stop: watch::Sender<bool>,
    admin: tokio::task::JoinHandle<()>,
    stopping: watch::Receiver<Urgency>,
    /// Health checks, and this node's part in the cluster.
    tasks: JoinSet<()>,
    hooks: Hooks,
    /// Its part in an election.
    elected: Option<elected::Part>,
}

/// What serves requests: not on a witness.
struct DataSide {
    kept: Kept,
    data_plane: DataPlane,
    app: Option<ChildHandle>,
}

impl Control {
    async fn start(self, proxy: Option<TcpListener>, admin: TcpListener) -> io::Result<Running> {
        let Self { config, tuning, token, events, rules, certificates, edge, lease, stopping } =
            self;
        let (draining, drain) = watch::channel(false);
        let credentials = certificates.as_ref().map(|own| own.credentials());
        let beginning = Beginning::new(&config, credentials, drain.clone())?;
        let view = beginning.view();
        let role = view.borrow().role;
        // Without an election nobody can take this node's place: it may write for as long as it lives.
        let leash = SharedDeadline::default();
        let guard = tuning.guard.map(|program| Guard { program, leash: leash.clone() });
        let kept = match proxy {
            Some(_) => Some(Kept::start(
                &config,
                kept::Beginning {
                    duty: match role {
                        Role::Primary => {
                            CopyRole::Primary(beginning.epoch().unwrap_or(SINGLE_EPOCH))
                        }
                        Role::Replica | Role::Witness => CopyRole::Replica,
                    },
                    replicated: beginning.epoch().is_some(),
                    dialer: beginning.peering().map(|peering| peering.dialer.clone()),
                    apply_delay: tuning.apply_delay,
                    fuse: !tuning.without_fuse,
                    guard: guard.clone(),
                    lease,
                },
            )?),
            None => None,
        };
        let engine: Arc<dyn Engine> = match &kept {
            Some(kept) => kept.engine(),
            None => Arc::new(NullEngine::default()),
        };

        let (checker, health) = health::channel();
        let check = health::run(checker, config.proxy.target.clone(), config.app.health.clone());
        let app = app::spec(&config.app, app_environment(&config), guard.clone());
        let mounted = kept.as_ref().and_then(Kept::mounted);
        let app =
            app.filter(|_| !config.is_witness()).map(|spec| child::Spec { needs: mounted, ..spec });
        let app = app.map(child::start);
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let metrics = Metrics::new(workers);
        let (writes, acks) = (Arc::<Writes>::default(), Arc::<Acks>::default());
        if config.cluster.election != Election::Raft {
            let epoch = beginning.epoch().unwrap_or(SINGLE_EPOCH);
            acks.begin(epoch, vec![peers::electorate(&config)]);
        }
        let suspects = Arc::new(MisclassifiedReads::new(events.clone()));
        let shared = Arc::new(WorkerContext {
            config: config.proxy.clone(),
            node: config.node.as_str().into(),
            access_log: config.log.access,
            rules,
            view: view.clone(),
            engine: engine.clone(),
            app: health.clone(),
            dialer: beginning.peering().map(|peering| peering.dialer.clone()),
            forwarded: Slots::new(usize::MAX),
            holds: Holds::new(config.proxy.held_writes, config.proxy.held_reads),
            ack: Acknowledging {
                level: config.cluster.ack,
                timeout: config.cluster.ack_timeout,
                acks: acks.clone(),
                alone: beginning.peering().is_none(),
            },
            metrics: metrics.clone(),
            writes: writes.clone(),
            tls: edge.as_ref().map(|edge| edge.config()),
            suspects: suspects.clone(),
            draining: drain,
        });
        let data = match proxy.zip(kept) {
            Some((proxy, kept)) => {
                let data_plane = DataPlane::start(proxy, shared, workers)?;
                Some(DataSide { kept, data_plane, app })
            }
            None => None,
        };
        let mut status = status::Parts {
            node: config.node.clone(),
            roster: status::Parts::configured(&config),
            view: view.clone(),
            heard: beginning.peering().map(|peering| peering.heard.clone()),
            engine: engine.clone(),
            health: health.clone(),
            raft: None,
            app: status::Parts::child(data.as_ref().and_then(|data| data.app.as_ref())),
            suspects,
        };
        let hooks = Hooks::new(&config, guard, &events, view.clone());
        let mut tasks = JoinSet::new();
        if data.is_some() {
            tasks.spawn(check);
            let event_recorder = EventRecorder {
                events: events.clone(),
                metrics: metrics.clone(),
                app: status.app.clone(),
                health: health.clone(),
                engine: engine.clone(),
            };
            tasks.spawn(event_recorder.run());
        }
        tasks.spawn(hooks.clone().run());
        if config.data_dir != config.litefs.mount {
            // Else the engine writes it.
            tasks.spawn(primary_file::publish(config.data_dir.clone(), view.clone()));
        }
        let peers = certificates.map(|own| (CertificateUse::Peers, own.dated()));
        let clients = edge.map(|own| (CertificateUse::Clients, own.dated()));
        for (of, dated) in [peers, clients].into_iter().flatten() {
            tasks.spawn(watch_expiry(of, dated, metrics.clone(), events.clone()));
        }
        let serving = data.as_ref().map(|d| (d.kept.clone(), d.data_plane.peer_door()));
        let mut elected = None;
        match beginning {
            Beginning::Alone(alone) => {
                if let Some((kept, _)) = serving {
                    tasks.spawn(alone.begin(kept, hooks.promoted(SINGLE_EPOCH)));
                }
            }
            Beginning::Fixed(fixed) => {
                let hooks = hooks.clone();
                if let Some((kept, door)) = serving {
                    let part = fixed.run(&config, kept, acks, health, door, hooks).await?;
                    tasks.spawn(async move { drop(part.join_all().await) });
                }
            }
            Beginning::Elected(beginning) => {
                let callbacks = ElectionCallbacks {
                    health,
                    draining: draining.subscribe(),
                    engine: engine.clone(),
                    events: events.clone(),
                    writes,
                    view: view.clone(),
                    hooks: hooks.clone(),
                    leash,
                };
                let metrics = metrics.clone();
                let means = ElectionInputs { serving, acks, metrics, callbacks };
                elected = Some(beginning.run(&config, means).await?);
            }
        }
        if let Some(elected) = &elected {
            status.roster = elected.roster();
            status.raft = Some(elected.leadership());
        }
        let control: Arc<dyn control::Control> = match &elected {
            Some(elected) => Arc::new(elected.steering(&config, engine.clone(), view.clone())),
            None => Arc::new(FixedControl::new(&config)),
        };
        let (admin_stop, mut stop) = watch::channel(false);
        admin.set_nonblocking(true)?;
        let admin = admin::serve(
            tokio::net::TcpListener::from_std(admin)?,
            Admin {
                status: status.source(),
                view,
                control,
                metrics,
                events,
                token,
                hosts: Hosts::new(&config.admin.hosts),
                max_lag: config.proxy.max_lag,
            },
            admin::AdminLimits::default(),
            async move { drop(stop.wait_for(|stop| *stop).await) },
        );
        let admin = tokio::spawn(admin);
        Ok(Running { config, data, draining, admin_stop, admin, stopping, tasks, hooks, elected })
    }
}

impl Running {
    /// Runs until told to stop, then stops the parts in order.
    async fn run(mut self) {
        let _ = self.stopping.wait_for(|urgency| *urgency != Urgency::None).await;
        let deadline = shutdown::Deadline::new(self.config.shutdown_timeout, self.stopping.clone());
        if let Some(elected) = &self.elected {
            // While requests are still taken: nobody is to notice.
            deadline.phase("hand off", elected.resign(self.config.shutdown_timeout / 3)).await;
        }
        // The port closes first, so that clients go elsewhere while those under way are finished.
        self.draining.send_replace(true);
        let kept = match self.data.take() {
            Some(data) => Some(data.stop(&deadline).await),
            None => None,
        };
        if let Some(elected) = &self.elected {
            // Nothing writes any more: others need not wait until the lease expires.
            deadline.phase("lease", elected.abdicate()).await;
        }
        // `on_demote`, if this node was the primary.
        deadline.phase("hooks", self.hooks.settled()).await;
        if let Some(elected) = self.elected.take() {
            elected.stop().await;
        }
        self.tasks.shutdown().await;
        // After the application: it has the database open until it ends.
        if let Some(kept) = kept {
            // Whatever the deadline: it takes a few seconds at most, and a mount that is left behind
            // would be in the way of the next start.
            kept.stop().await;
        }
        // Last, so that the stopping can be watched.
        self.admin_stop.send_replace(true);
        let _ = self.admin.await;
        tracing::info!("stopped");
    }
}

impl DataSide {
    /// Ends requests, then the application. What is left is the engine.
    async fn stop(self, deadline: &shutdown::Deadline) -> Kept {
        deadline.phase("drain", self.data_plane.drained()).await;
        let left = self.data_plane.connections();
        if left > 0 {
            tracing::warn!("{left} client connections are cut: they did not end in time");
        }
        self.data_plane.stop();
        if let Some(app) = &self.app
            && !deadline.phase("app", app.stop()).await
        {
            app.kill().await;
        }
        self.kept
    }
}

/// What the application is told by its environment.
fn app_environment(config: &Config) -> Vec<(String, String)> {
    vec![("LITEPILOT_NODE".to_owned(), config.node.to_string())]
}

fn make_data_dir(config: &Config) -> Result<(), StartError> {
    let dir = &config.data_dir;
    std::fs::create_dir_all(dir).map_err(|why| {
        StartError::Io(format!(
            "cannot make data_dir {}: {why}; name a directory that this user may write to",
            dir.display()
        ))
    })
}

/// Binds a port. `SO_REUSEADDR` is set, so that a restart need not wait for old connections.
fn listen(address: SocketAddr, key: &str) -> Result<TcpListener, StartError> {
    let bind = || {
        use socket2::{Domain, Protocol, Socket, Type};
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        // While we are busy clients wait rather than being refused.
        socket.listen(BACKLOG)?;
        Ok::<TcpListener, io::Error>(socket.into())
    };
    bind().map_err(|why| {
        let advice = match why.kind() {
            io::ErrorKind::AddrInUse => {
                "another program has it: stop that one, or choose another port"
            }
            io::ErrorKind::PermissionDenied => {
                "choose a port above 1023, or give this program CAP_NET_BIND_SERVICE"
            }
            _ => "choose an address of this machine",
        };
        StartError::Io(format!("cannot listen at {key} {address}: {why}; {advice}"))
    })
}

fn local(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|why| StartError::Io(why.to_string()))
}
