//! Assembles a node on its control thread.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Tuning;
use super::certificates::{Certificates, watch_expiry};
use super::context::NodeContext;
use super::disk::DiskState;
use super::edge::EdgeCertificates;
use super::engines::{self, EngineInputs};
use super::event_recorder::EventRecorder;
use super::hooks::Hooks;
use super::membership::{Membership, Participation};
use super::open_transactions::OpenTransactions;
use super::peers::Peering;
use super::ports::Ports;
use super::primary_file;
use super::status::StatusInputs;
use super::stop::{DataSide, Running};
use crate::acks::Acks;
use crate::admin::{self, Admin, Hosts, token};
use crate::config::Config;
use crate::engine::Engine;
use crate::litefs::agreement::{Agreed, agreement};
use crate::process::app;
use crate::process::child::{self, ChildHandle};
use crate::process::guard::{Guard, SharedDeadline};
use crate::process::health;
use crate::proxy::DataPlane;
use crate::proxy::acceptor::Slots;
use crate::proxy::ack::Acknowledging;
use crate::proxy::hold::Holds;
use crate::proxy::misclassified_reads::MisclassifiedReads;
use crate::proxy::unmoved_writes::UnmovedWrites;
use crate::proxy::worker::WorkerContext;
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
                        let _ = report.send(Ok(()));
                        running.run().await;
                    }
                    Err(why) => drop(report.send(Err(why))),
                }
            });
        };
        let thread = thread::Builder::new().name("control".into()).spawn(control)?;
        started.recv().map_err(io::Error::other)??;
        Ok(Self { thread, alive })
    }
}

/// What the control thread starts with.
pub(super) struct Start {
    pub(super) config: Config,
    pub(super) tuning: Tuning,
    pub(super) token: token::Token,
    pub(super) events: Arc<Events>,
    pub(super) rules: watch::Receiver<Arc<RuleSet>>,
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
        let guard = self.guard(&deadline);
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
        let context = NodeContext {
            hooks: Hooks::new(&self.config, guard.clone(), &self.events, view.clone()),
            engine,
            view,
            health,
            writes: Arc::default(),
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
                let app = self.app(&context, guard);
                let shared = self.shared(&context, peering, suspects.clone());
                let data_plane = DataPlane::start(proxy, Arc::new(shared), workers)?;
                Some(DataSide { data_plane, app })
            }
            None => None,
        };
        let status = self.status(&context, peering, data.as_ref(), suspects);
        let mut tasks = JoinSet::new();
        tasks.spawn(watch_disk);
        if data.is_some() {
            tasks.spawn(check);
            tasks.spawn(record_events(&context, &status));
        }
        self.spawn_tasks(&context, &mut tasks);
        let door = data.as_ref().map(|data| data.data_plane.peer_door());
        let participation =
            membership.run(&self.config, &context, door, agreement, &mut tasks).await?;
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
    fn guard(&self, deadline: &SharedDeadline) -> Option<Guard> {
        let program = self.tuning.guard.clone();
        program.map(|program| Guard { program, shared_deadline: deadline.clone() })
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

    /// The application, if it is ours to start.
    fn app(&self, context: &NodeContext, guard: Option<Guard>) -> Option<ChildHandle> {
        let environment = vec![("LITEPILOT_NODE".to_owned(), self.config.node.to_string())];
        let spec = app::spec(&self.config.app, environment, guard)?;
        Some(child::start(child::Spec { needs: context.engine.mounted(), ..spec }))
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
            suspects,
            unmoved: UnmovedWrites::new(
                config.litefs.mount.join(&config.proxy.db),
                context.warnings.clone(),
            ),
            draining: context.draining.clone(),
        }
    }

    fn status(
        &self,
        context: &NodeContext,
        peering: Option<&Peering>,
        data: Option<&DataSide>,
        suspects: Arc<MisclassifiedReads>,
    ) -> StatusInputs {
        let app = data.and_then(|data| data.app.as_ref());
        StatusInputs {
            node: self.config.node.clone(),
            view: context.view.clone(),
            heard: peering.map(|peering| peering.heard.clone()),
            engine: context.engine.clone(),
            health: context.health.clone(),
            app: app.map(ChildHandle::state),
            suspects,
            warnings: context.warnings.clone(),
        }
    }

    fn spawn_tasks(&self, context: &NodeContext, tasks: &mut JoinSet<()>) {
        tasks.spawn(context.hooks.clone().run());
        if let Some(stalled) = context.engine.stalled() {
            let (warnings, stuck_after) = (context.warnings.clone(), self.config.app.stuck_after);
            tasks.spawn(OpenTransactions { stalled, warnings, stuck_after }.run());
        }
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
            status: status.source(roster, participation.leadership()),
            view: context.view.clone(),
            control: participation.control(&self.config, context),
            metrics: context.metrics.clone(),
            events: context.events.clone(),
            token: self.token.clone(),
            hosts: Hosts::new(&self.config.admin.hosts),
            max_lag: self.config.proxy.max_lag,
        }
    }
}

fn record_events(context: &NodeContext, status: &StatusInputs) -> impl Future<Output = ()> + use<> {
    let event_recorder = EventRecorder {
        events: context.events.clone(),
        metrics: context.metrics.clone(),
        app: status.app.clone(),
        health: context.health.clone(),
        engine: context.engine.clone(),
    };
    event_recorder.run()
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
