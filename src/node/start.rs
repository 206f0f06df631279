//! Assembles a node on its control thread.

use std::io;
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Tuning;
use super::app_judge;
use super::backup;
use super::certificates::{Certificates, watch_expiry};
use super::context::NodeContext;
use super::disk::DiskState;
use super::edge::EdgeCertificates;
use super::engines::{self, EngineInputs};
use super::epoch_position;
use super::event_recorder;
use super::first_start;
use super::hooks::Hooks;
use super::learning;
use super::membership::{Membership, Participation};
use super::open_transactions;
use super::peers::Peering;
use super::ports::Ports;
use super::primary_file;
use super::program_events;
use super::programs::{ProgramInputs, Programs};
use super::status::{Notes, StatusInputs};
use super::stop::{DataSide, Running};
use super::will;
use crate::acks::Acks;
use crate::admin::{self, Admin, AdminLimits, Hosts, token};
use crate::backup::progress::Progress;
use crate::config::{Config, RunOn};
use crate::engine::Engine;
use crate::last_will::testator::Testator;
use crate::litefs::agreement::{Agreed, agreement};
use crate::peer::gossip::Peers;
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

/// What the other nodes say of themselves.
type Heard = watch::Receiver<Peers>;

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
    pub(super) async fn run(self, ports: Ports) -> io::Result<Running> {
        let (draining, drain) = watch::channel(false);
        let credentials = self.certificates.as_ref().map(|own| own.credentials());
        let membership = Membership::new(&self.config, credentials, drain.clone())?;
        let deadline = SharedDeadline::default();
        let testator = will::testator(&self.config, self.tuning.guard.as_deref());
        let guard = self.guard(&deadline, testator.as_ref());
        let (agreement, agreed) = agreement();
        let engine = self.engine(&membership, guard.clone(), ports.lease, agreed)?;
        let (checker, health) = health::channel();
        let check =
            health::run(checker, self.config.proxy.target.clone(), self.config.app.health.clone());
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let mut tasks = JoinSet::new();
        let heard = membership.peering().map(|peering| peering.heard.clone());
        let warnings = Arc::new(Warnings::new(self.events.clone()));
        let disk = DiskState::watch(&self.config, heard.clone(), warnings.clone(), &mut tasks);
        let context = NodeContext {
            hooks: Hooks::new(&self.config, guard.clone(), &self.events, membership.view()),
            programs: Programs::new(&ProgramInputs {
                config: &self.config,
                guard: guard.clone(),
                engine: &engine,
                health: health.clone(),
            }),
            guard,
            app_wrote: Arc::default(),
            engine,
            view: membership.view(),
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
        let notes = [
            first_start::start(&context, heard.clone(), &mut tasks),
            app_judge::start(&context, &mut tasks),
        ];
        let backup = backup::start(&self.config, &context, ports.backup, &mut tasks)?;
        let status = self.status(&context, peering, notes, suspects, backup);
        if data.is_some() {
            tasks.spawn(check);
            self.keep_data(&context, heard, &mut tasks);
        }
        self.keep_watch(&context, &mut tasks);
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
                let certificates = self.certificates.as_deref();
                will::keep(testator, &self.config, part, certificates, &mut tasks);
            }
        }
        let (admin_stop, stop) = watch::channel(false);
        let admin = self.admin(&context, &participation, status);
        let defaults = AdminLimits::default();
        // A promotion lasts as long as the `on_promote` that it waits for.
        let change_timeout = defaults.change_timeout + self.config.app.hook_timeout;
        let limits = AdminLimits { change_timeout, ..defaults };
        let admin = serve_admin(ports.admin, admin, limits, stop)?;
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
        backup: Option<Arc<Progress>>,
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
            backup,
        }
    }

    /// What runs beside all else on any node.
    fn keep_watch(&self, context: &NodeContext, tasks: &mut JoinSet<()>) {
        tasks.spawn(context.hooks.clone().run());
        open_transactions::start(context, self.config.app.stuck_after, tasks);
        // Here, so that it says that this thread lives.
        tasks.spawn(service_manager::keep_alive());
        primary_file::start(&self.config, context, tasks);
        let peers = self.certificates.as_ref().map(|own| (CertificateUse::Peers, own.dated()));
        let clients = self.edge.as_ref().map(|own| (CertificateUse::Clients, own.dated()));
        for (of, dated) in [peers, clients].into_iter().flatten() {
            let (metrics, events) = (context.metrics.clone(), context.events.clone());
            tasks.spawn(watch_expiry(of, dated, metrics, events));
        }
    }

    /// What runs beside the data plane.
    fn keep_data(&self, context: &NodeContext, heard: Option<Heard>, tasks: &mut JoinSet<()>) {
        event_recorder::start(context, tasks);
        program_events::start(context, tasks);
        tasks.spawn(epoch_position::take_over(context.view.clone(), context.engine.clone()));
        if let Some(heard) = heard.filter(|_| self.config.proxy.learn) {
            let (view, learned) = (context.view.clone(), context.learned.clone());
            tasks.spawn(learning::keep(learned, view, heard));
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

fn serve_admin(
    listener: std::net::TcpListener,
    admin: Admin,
    limits: AdminLimits,
    mut stop: watch::Receiver<bool>,
) -> io::Result<tokio::task::JoinHandle<()>> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
    Ok(tokio::spawn(admin::serve(listener, admin, limits, stopped)))
}
