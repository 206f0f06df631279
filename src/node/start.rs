//! Assembles a node on its control thread.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Tuning;
use super::app_judge;
use super::certificates::{Certificates, watch_expiry};
use super::context::NodeContext;
use super::disk::DiskState;
use super::edge::EdgeCertificates;
use super::elected::Part;
use super::engines::{self, EngineInputs};
use super::epoch_position;
use super::event_recorder::EventRecorder;
use super::first_start;
use super::hooks::Hooks;
use super::learning;
use super::membership::{Membership, Participation};
use super::open_transactions::OpenTransactions;
use super::peers::Peering;
use super::ports::Ports;
use super::primary_file;
use super::program_events;
use super::programs::{ProgramInputs, Programs};
use super::status::{Notes, StatusInputs};
use super::stop::{DataSide, Running};
use crate::acks::Acks;
use crate::admin::{self, Admin, Hosts, token};
use crate::config::{Config, Election, EngineKind, RunOn};
use crate::engine::Engine;
use crate::last_will::testator::Testator;
use crate::litefs::agreement::{Agreed, agreement};
use crate::process::child::ChildState;
use crate::process::guard::{Guard, SharedDeadline};
use crate::process::{health, service_manager};
use crate::proxy::DataPlane;
use crate::proxy::acceptor::Slots;
use crate::proxy::ack::Acknowledging;
use crate::proxy::error_pages::ErrorPages;
use crate::proxy::hold::Holds;
use crate::proxy::misclassified_reads::MisclassifiedReads;
use crate::proxy::replay_budget::ReplayBudget;
use crate::proxy::unmoved_writes::UnmovedWrites;
use crate::proxy::worker::{Front, WorkerContext};
use crate::rules::RuleSet;
use crate::shutdown::Urgency;
use crate::telemetry::events::Events;
use crate::telemetry::metrics::{CertificateUse, Metrics};
use crate::telemetry::warnings::Warnings;

/// The thread on which everything runs but the data plane.
pub(super) struct ControlThread {
    pub(super) thread: JoinHandle<()>,
    /// Its sender goes when the thread ends.
    pub(super) alive: watch::Receiver<()>,
    /// The application, if it is ours.
    pub(super) app: Option<watch::Receiver<ChildState>>,
}

impl ControlThread {
    /// Returns once the node has started, or could not.
    pub(super) fn spawn(start: Start, ports: Ports) -> io::Result<Self> {
        let (report, started) = std::sync::mpsc::channel();
        let (life, alive) = watch::channel(());
        let control = move || {
            let _life = life;
            let runtime = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(why) => return drop(report.send(Err(why))),
            };
            runtime.block_on(async {
                match start.run(ports).await {
                    Ok(running) => {
                        let data = running.data.as_ref();
                        let _ = report.send(Ok(data.and_then(|data| data.programs.app())));
                        running.run().await;
                    }
                    Err(why) => drop(report.send(Err(why))),
                }
            });
        };
        let thread = thread::Builder::new().name("control".into()).spawn(control)?;
        let app = started.recv().map_err(io::Error::other)??;
        Ok(Self { thread, alive, app })
    }
}

/// What the control thread starts with.
pub(super) struct Start {
    pub(super) config: Config,
    pub(super) tuning: Tuning,
    pub(super) token: token::Token,
    pub(super) events: Arc<Events>,
    pub(super) rules: watch::Receiver<Arc<RuleSet>>,
    pub(super) error_pages: watch::Receiver<Arc<ErrorPages>>,
    pub(super) certificates: Option<Arc<Certificates>>,
    pub(super) edge: Option<Arc<EdgeCertificates>>,
    pub(super) stopping: watch::Receiver<Urgency>,
}

impl Start {
    async fn run(self, ports: Ports) -> io::Result<Running> {
        let (draining, drain) = watch::channel(false);
        let credentials = self.certificates.as_ref().map(|own| own.credentials());
        let membership = Membership::new(&self.config, credentials, drain.clone())?;
        let deadline = SharedDeadline::default();
        let testator = self.testator();
        let guard = self.guard(&deadline, testator.as_ref());
        let (agreement, agreed) = agreement();
        let engine = self.engine(&membership, guard.clone(), ports.lease, agreed)?;
        let (checker, health) = health::channel();
        let check =
            health::run(checker, self.config.proxy.target.clone(), self.config.app.health.clone());
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let view = membership.view();
        let warnings = Arc::new(Warnings::new(self.events.clone()));
        let heard = membership.peering().map(|peering| peering.heard.clone());
        let (disk, watch_disk) = DiskState::watch(&self.config, heard, warnings.clone());
        let programs = Programs::new(&ProgramInputs {
            config: &self.config,
            guard: guard.clone(),
            engine: &engine,
            health: health.clone(),
        });
        let context = NodeContext {
            hooks: Hooks::new(&self.config, guard.clone(), &self.events, view.clone()),
            guard,
            programs,
            app_wrote: Arc::default(),
            engine,
            view,
            health,
            writes: Arc::default(),
            learned: Arc::default(),
            acks: Arc::<Acks>::default(),
            metrics: Metrics::new(workers),
            events: self.events.clone(),
            warnings,
            disk,
            deadline,
            draining: drain,
        };
        let suspects = Arc::new(MisclassifiedReads::new(self.events.clone()));
        let peering = membership.peering();
        let data = match ports.proxy {
            Some(proxy) => {
                let shared = self.shared(&context, peering, suspects.clone());
                let data_plane = DataPlane::start(proxy, Arc::new(shared), workers)?;
                Some(DataSide { data_plane, programs: context.programs.clone() })
            }
            None => None,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(watch_disk);
        let notes = self.spawn_programs(&context, peering, &mut tasks);
        let status = self.status(&context, peering, notes, suspects);
        if data.is_some() {
            tasks.spawn(check);
            record_events(&context, &mut tasks);
            tasks.spawn(epoch_position::take_over(context.view.clone(), context.engine.clone()));
            if let Some(peering) = peering.filter(|_| self.config.proxy.learn) {
                let (view, heard) = (context.view.clone(), peering.heard.clone());
                tasks.spawn(learning::keep(context.learned.clone(), view, heard));
            }
        }
        self.spawn_tasks(&context, &mut tasks);
        let door = data.as_ref().map(|data| data.data_plane.peer_door());
        let participation =
            membership.run(&self.config, &context, door, agreement, &mut tasks).await?;
        if let Participation::Elected(part) = &participation {
            // One that runs on the primary only starts again here as soon as elsewhere.
            if self.config.app.run_on == RunOn::EveryNode
                && let Some(app) = context.programs.app()
            {
                tasks.spawn(part.watch_child(app, context.health.clone()));
            }
            if let Some(testator) = testator {
                self.will(testator, part, &mut tasks);
            }
        }
        let (admin_stop, stop) = watch::channel(false);
        let admin = self.admin(&context, &participation, status);
        let admin = serve_admin(ports.admin, admin, stop)?;
        Ok(Running {
            config: self.config,
            data,
            engine: context.engine,
            participation,
            hooks: context.hooks,
            tasks,
            draining,
            admin,
            admin_stop,
            stopping: self.stopping,
        })
    }

    /// Kills what this node starts at the deadline. Without an election there is none: nobody can take
    /// this node's place, so it may write for as long as it lives.
    fn guard(&self, deadline: &SharedDeadline, testator: Option<&Testator>) -> Option<Guard> {
        let program = self.tuning.guard.clone()?;
        let tally = testator.map(Testator::tally);
        Some(Guard { program, shared_deadline: deadline.clone(), tally })
    }

    /// Tells the others should this process die; `None` where they could not know that nothing
    /// commits here any more.
    fn testator(&self) -> Option<Testator> {
        let program = self.tuning.guard.as_ref()?;
        if self.config.cluster.election != Election::Raft || !commits_under_guard(&self.config) {
            return None;
        }
        let started = Testator::start(program);
        started.inspect_err(|why| tracing::warn!(%why, "cannot start litepilot last-will")).ok()
    }

    fn will(&self, testator: Testator, part: &Part, tasks: &mut JoinSet<()>) {
        let (read, reread) = watch::channel(());
        if let Some(certificates) = &self.certificates {
            let mut dated = certificates.dated();
            tasks.spawn(async move {
                while dated.changed().await.is_ok() {
                    read.send_replace(());
                }
            });
        }
        tasks.spawn(testator.keep(part.will(&self.config), reread));
    }

    fn engine(
        &self,
        membership: &Membership,
        guard: Option<Guard>,
        lease: Option<std::net::TcpListener>,
        agreed: Agreed,
    ) -> io::Result<Arc<dyn Engine>> {
        let inputs = EngineInputs {
            primary_of: membership.primary_of(),
            replicated: membership.peering().is_some(),
            apply_delay: self.tuning.apply_delay,
            fuse: !self.tuning.without_fuse,
            guard,
            lease,
            agreed,
        };
        engines::start(&self.config, inputs)
    }

    /// Has the programs run when they are to; what is to be said of the application meanwhile.
    fn spawn_programs(
        &self,
        context: &NodeContext,
        peering: Option<&Peering>,
        tasks: &mut JoinSet<()>,
    ) -> Notes {
        let (programs, view) = (context.programs.clone(), context.view.clone());
        let (waits, waiting) = watch::channel(None);
        let (fails, failing) = watch::channel(None);
        if let Some(app) = programs.app() {
            let events = context.events.clone();
            tasks.spawn(app_judge::watch_starts(app, view.clone(), events, fails));
        }
        let heard = peering.map(|peering| peering.heard.clone());
        tasks.spawn(first_start::begin(context.clone(), heard, waits));
        tasks.spawn(first_start::announce(context.clone()));
        tasks.spawn(programs.follow(view, context.writes.clone()));
        [waiting, failing]
    }

    fn shared(
        &self,
        context: &NodeContext,
        peering: Option<&Peering>,
        suspects: Arc<MisclassifiedReads>,
    ) -> WorkerContext {
        let config = &self.config;
        WorkerContext {
            config: config.proxy.clone(),
            node: config.node.as_str().into(),
            access_log: config.log.access,
            rules: self.rules.clone(),
            view: context.view.clone(),
            engine: context.engine.clone(),
            app: context.health.clone(),
            app_on_primary: config.app.run_on == RunOn::Primary,
            dialer: peering.map(|peering| peering.dialer.clone()),
            forwarded: Slots::new(usize::MAX),
            holds: Holds::new(config.proxy.held_writes, config.proxy.held_reads),
            ack: Acknowledging {
                level: config.cluster.ack,
                timeout: config.cluster.ack_timeout,
                acks: context.acks.clone(),
                alone: peering.is_none(),
            },
            metrics: context.metrics.clone(),
            writes: context.writes.clone(),
            tls: self.edge.as_ref().map(|edge| edge.config()),
            at_app: Arc::default(),
            suspects,
            learned: context.learned.clone(),
            replay_budget: Mutex::new(ReplayBudget::new(Instant::now())),
            unmoved: UnmovedWrites::new(
                config.litefs.mount.join(&config.proxy.db),
                context.warnings.clone(),
            ),
            draining: context.draining.clone(),
            front: Front { error_pages: self.error_pages.clone(), stopping: self.stopping.clone() },
        }
    }

    fn status(
        &self,
        context: &NodeContext,
        peering: Option<&Peering>,
        notes: Notes,
        suspects: Arc<MisclassifiedReads>,
    ) -> StatusInputs {
        StatusInputs {
            node: self.config.node.clone(),
            view: context.view.clone(),
            heard: peering.map(|peering| peering.heard.clone()),
            engine: context.engine.clone(),
            health: context.health.clone(),
            programs: context.programs.clone(),
            run_on: self.config.app.run_on,
            notes,
            suspects,
            learned: context.learned.clone(),
            warnings: context.warnings.clone(),
        }
    }

    fn spawn_tasks(&self, context: &NodeContext, tasks: &mut JoinSet<()>) {
        tasks.spawn(context.hooks.clone().run());
        if let Some(stalled) = context.engine.stalled() {
            let (warnings, stuck_after) = (context.warnings.clone(), self.config.app.stuck_after);
            tasks.spawn(OpenTransactions { stalled, warnings, stuck_after }.run());
        }
        // Here, so that it says that this thread lives.
        tasks.spawn(service_manager::keep_alive());
        if self.config.data_dir != self.config.litefs.mount {
            // Else the engine writes it.
            let dir = self.config.data_dir.clone();
            tasks.spawn(primary_file::publish(dir, context.view.clone()));
        }
        let peers = self.certificates.as_ref().map(|own| (CertificateUse::Peers, own.dated()));
        let clients = self.edge.as_ref().map(|own| (CertificateUse::Clients, own.dated()));
        for (of, dated) in [peers, clients].into_iter().flatten() {
            let (metrics, events) = (context.metrics.clone(), context.events.clone());
            tasks.spawn(watch_expiry(of, dated, metrics, events));
        }
    }

    fn admin(
        &self,
        context: &NodeContext,
        participation: &Participation,
        status: StatusInputs,
    ) -> Admin {
        let roster = participation.roster(&self.config);
        Admin {
            status: status.source(roster, participation.raft()),
            view: context.view.clone(),
            control: participation.control(&self.config, context),
            metrics: context.metrics.clone(),
            events: context.events.clone(),
            token: self.token.clone(),
            hosts: Hosts::new(&self.config.admin.hosts),
            max_lag: self.config.proxy.max_lag,
            stopping: self.stopping.clone(),
        }
    }
}

/// Whether what writes to this node's copy ends with its guard: LiteFS, or over plain directories the
/// application.
fn commits_under_guard(config: &Config) -> bool {
    match config.litefs.engine {
        _ if config.is_witness() => true,
        EngineKind::Litefs => true,
        EngineKind::Embedded => !config.app.command.is_empty(),
        EngineKind::External => false,
    }
}

fn record_events(context: &NodeContext, tasks: &mut JoinSet<()>) {
    let (programs, events) = (&context.programs, &context.events);
    if let Some(app) = programs.app() {
        tasks.spawn(program_events::tell_app(app, events.clone()));
    }
    for (name, service) in programs.services() {
        tasks.spawn(program_events::tell_service(name.to_owned(), service, events.clone()));
    }
    let event_recorder = EventRecorder {
        events: context.events.clone(),
        metrics: context.metrics.clone(),
        health: context.health.clone(),
        engine: context.engine.clone(),
    };
    tasks.spawn(event_recorder.run());
}

fn serve_admin(
    listener: std::net::TcpListener,
    admin: Admin,
    mut stop: watch::Receiver<bool>,
) -> io::Result<tokio::task::JoinHandle<()>> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
    Ok(tokio::spawn(admin::serve(listener, admin, admin::AdminLimits::default(), stopped)))
}
