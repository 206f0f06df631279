//! The programs that this node runs, the application and its services, and when each of them runs.
//!
//! What runs on the primary only has a deadline of its own with the guards: it lies in the past while
//! this node is not the primary. So whatever has not ended by itself when a tenure is over is killed
//! before another node can start the same.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::claim::BootTime;
use crate::cluster::ClusterView;
use crate::config::{Config, Election, OnPromote, RunOn};
use crate::engine::Engine;
use crate::process::child::{self, ChildHandle, ChildState, Phase, Spec};
use crate::process::guard::{Deadline, Guard, SharedDeadline};
use crate::process::health::AppHealth;
use crate::process::{app, service};
use crate::proxy::writes::Writes;
use crate::shutdown;

/// How long the primary's programs have to end once its requests are held: clients wait meanwhile.
const WHILE_HELD: Duration = Duration::from_secs(1);
/// A claim that has ended leaves no more time than this to writes under way.
const LAST_WRITES: Duration = Duration::from_secs(1);
/// Before anything that can be killed was started.
const PAST: Deadline = Deadline::At(BootTime(0));

/// All of them. Cheap to copy.
#[derive(Clone)]
pub(crate) struct Programs(Arc<Inner>);

struct Inner {
    app: Option<Program>,
    services: Vec<(String, Program)>,
    restart_app: bool,
    /// Of what runs on the primary only.
    deadline: SharedDeadline,
    promotions: watch::Sender<Option<Promotion>>,
    health: AppHealth,
}

struct Program {
    run_on: RunOn,
    child: ChildHandle,
}

/// This node's last promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Promotion {
    pub(crate) at: Instant,
    /// Checks of the application that began before are of another life of it.
    pub(crate) check: u64,
}

/// What a node's programs are started with.
pub(crate) struct ProgramInputs<'a> {
    pub(crate) config: &'a Config,
    /// Kills them when we cannot.
    pub(crate) guard: Option<Guard>,
    pub(crate) engine: &'a Arc<dyn Engine>,
    /// Whether the application answers.
    pub(crate) health: AppHealth,
}

impl Programs {
    /// All of them, at rest.
    pub(crate) fn new(inputs: &ProgramInputs<'_>) -> Self {
        let ProgramInputs { config, guard, engine, health } = inputs;
        let deadline = SharedDeadline::default();
        if config.cluster.election == Election::Raft {
            deadline.set(PAST);
        }
        let guard = |run_on| {
            guard.clone().map(|guard| match run_on {
                RunOn::EveryNode => guard,
                RunOn::Primary => Guard { shared_deadline: deadline.clone(), ..guard },
            })
        };
        let environment = vec![("LITEPILOT_NODE".to_owned(), config.node.to_string())];
        let start = |run_on, spec: Spec| Program {
            run_on,
            child: child::start_resting(Spec { needs: engine.mounted(), ..spec }),
        };
        let run_on = config.app.run_on;
        let app = app::spec(&config.app, environment.clone(), guard(run_on), Some(health.clone()));
        let services = config.services.iter().filter(|_| !config.is_witness()).map(|service| {
            let spec = service::spec(service, environment.clone(), guard(service.run_on));
            (service.name.clone(), start(service.run_on, spec))
        });
        Self(Arc::new(Inner {
            services: services.collect(),
            app: app.filter(|_| !config.is_witness()).map(|spec| start(run_on, spec)),
            // Without an election nobody has run as a replica's before.
            restart_app: config.app.on_promote == OnPromote::Restart
                && config.cluster.election == Election::Raft,
            deadline,
            promotions: watch::Sender::new(None),
            health: health.clone(),
        }))
    }

    /// The application's process, if it is ours.
    pub(crate) fn app(&self) -> Option<watch::Receiver<ChildState>> {
        self.0.app.as_ref().map(|app| app.child.state())
    }

    /// Whether the application does not run since this node is not the primary.
    pub(crate) fn app_rests(&self) -> bool {
        let rests = |app: &Program| {
            app.run_on == RunOn::Primary && app.child.state().borrow().state == Phase::Resting
        };
        self.0.app.as_ref().is_some_and(rests)
    }

    /// Each service by its name, with its process.
    pub(crate) fn services(&self) -> impl Iterator<Item = (&str, watch::Receiver<ChildState>)> {
        self.0.services.iter().map(|(name, service)| (name.as_str(), service.child.state()))
    }

    /// Whether the application is started at each promotion, which takes its time.
    pub(crate) fn starts_app_at_promotions(&self) -> bool {
        let on_primary = |app: &Program| app.run_on == RunOn::Primary;
        self.0.restart_app || self.0.app.as_ref().is_some_and(on_primary)
    }

    /// This node's last promotion.
    pub(crate) fn promotions(&self) -> watch::Receiver<Option<Promotion>> {
        self.0.promotions.subscribe()
    }

    /// Whether anything runs on replicas.
    pub(crate) fn any_on_every_node(&self) -> bool {
        self.on(RunOn::EveryNode).next().is_some()
    }

    /// Starts what runs on every node.
    pub(crate) fn begin(&self) {
        self.on(RunOn::EveryNode).for_each(|program| program.child.run_now());
    }

    /// This node is about to take writes: starts what runs on the primary only, and the application too
    /// if it waits to be started again.
    pub(crate) async fn promoted(&self) {
        if self.0.restart_app
            && let Some(app) = self.0.app.as_ref().filter(|app| app.run_on == RunOn::EveryNode)
        {
            app.child.restart(WHILE_HELD).await;
        }
        let promotion = Promotion { at: Instant::now(), check: self.0.health.begun() };
        self.0.promotions.send_replace(Some(promotion));
        self.begin();
        self.begin_primary();
    }

    fn begin_primary(&self) {
        self.on(RunOn::Primary).for_each(|program| program.child.run_now());
    }

    /// Until when the guards let run what runs on the primary only; `None`: this node is not the primary
    /// any more. Whether all of them know.
    pub(crate) fn set_deadline(&self, deadline: Option<BootTime>) -> bool {
        self.0.deadline.set(deadline.map_or(PAST, Deadline::At))
    }

    /// Has what runs on the primary only run while this node takes writes, and rest when it does not:
    /// also when a handoff was called off. Ends when nobody publishes views any more.
    pub(crate) async fn follow(self, mut view: watch::Receiver<ClusterView>, writes: Arc<Writes>) {
        while view.wait_for(|view| view.writable).await.is_ok() {
            self.begin_primary();
            if view.wait_for(|view| !view.writable).await.is_err() {
                return;
            }
            // What the application was asked to write it may finish.
            let _ = timeout(LAST_WRITES, writes.none_under_way()).await;
            self.on(RunOn::Primary).for_each(|program| program.child.rest(WHILE_HELD));
        }
    }

    /// Returns once nothing runs any more that runs on the primary only.
    pub(crate) async fn primary_rests(&self) {
        join_all(self.on(RunOn::Primary).map(|program| program.child.rests())).await;
    }

    /// Ends the primary's services before a handoff: they have up to `limit`, while requests go on.
    pub(crate) async fn wind_down(&self, limit: Duration) {
        let services = self.0.services.iter().map(|(_, service)| service);
        let ending = services.filter(|service| service.run_on == RunOn::Primary).map(|service| {
            service.child.rest(limit);
            service.child.rests()
        });
        join_all(ending).await;
    }

    /// The handoff has not come about, and this node still takes writes.
    pub(crate) fn wind_up(&self) {
        self.begin_primary();
    }

    /// Ends all of them, for good.
    pub(crate) async fn stop(&self, deadline: &shutdown::Deadline) {
        let all = || self.0.services.iter().map(|(_, service)| service).chain(&self.0.app);
        let stopped = async { drop(join_all(all().map(|program| program.child.stop())).await) };
        if !deadline.phase("app", stopped).await {
            join_all(all().map(|program| program.child.kill())).await;
        }
    }

    fn on(&self, run_on: RunOn) -> impl Iterator<Item = &Program> {
        let services = self.0.services.iter().map(|(_, service)| service);
        services.chain(&self.0.app).filter(move |program| program.run_on == run_on)
    }
}

/// Whether a child is at work, as users are told.
pub(crate) fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Resting => "resting",
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Backoff => "backoff",
        Phase::Stopped => "stopped",
        Phase::Failed => "failed",
    }
}
