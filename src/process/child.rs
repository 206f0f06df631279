//! One program kept running: started, watched, started again when it ends, stopped when told.
//!
//! One task owns the program ([`super::supervisor`]); others hold a [`ChildHandle`].

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tokio::sync::watch;

use super::backoff::Backoff;
use super::health::AppHealth;
use super::spawn::Launch;
use super::supervisor::Supervisor;
use crate::config::StopSignal;

/// A program to keep running.
#[derive(Clone)]
pub struct Spec {
    /// What to run.
    pub launch: Launch,
    /// Asks it to end.
    pub stop_signal: StopSignal,
    /// Between that and SIGKILL when it is stopped.
    pub grace: Duration,
    /// Between its end, or a failed start, and the next start.
    pub backoff: Backoff,
    /// Whether it answers: only a run in which it did starts the pauses anew. `None`: one that was long
    /// enough does.
    pub health: Option<AppHealth>,
    /// It runs only while this is true: the file system of its database is there. When that goes, files
    /// that it has open there are dead: it is stopped, and started again with the next one.
    pub needs: Option<watch::Receiver<bool>>,
}

impl Spec {
    /// A program that is asked to end by SIGTERM, of which nobody knows whether it answers, and that
    /// needs nothing.
    pub fn new(launch: Launch, grace: Duration, backoff: Backoff) -> Self {
        let stop_signal = StopSignal::default();
        Self { launch, stop_signal, grace, backoff, health: None, needs: None }
    }
}

/// What a child is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It is [not to run](ChildHandle::rest) for now.
    Resting,
    /// It is being started.
    Starting,
    Running,
    /// It ended by itself and will be started again.
    Backoff,
    /// It was stopped, for good.
    Stopped,
    /// It could not be started; that will be tried again.
    Failed,
}

/// A child's state, as published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ChildState {
    /// What it is doing.
    pub state: Phase,
    /// Its process id (and its group's) while it runs.
    pub pid: Option<u32>,
    /// Starts after the first, failed ones included.
    pub restarts: u64,
    /// Runs in a row that ended by themselves before it had answered; 0 if nobody knows whether it does.
    pub unanswered: u32,
}

/// How the child is to end, if it is. Grows only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) enum Ending {
    No,
    Stop,
    Kill,
}

/// What the child's task is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Orders {
    pub(super) ending: Ending,
    /// It is not to run, and has at most so long to end; `None`: it is to run.
    pub(super) rest: Option<Duration>,
    /// How often it was told to start without a pause.
    pub(super) starts: u64,
    /// How often it was told to start anew, and how long it has to end for that.
    pub(super) restarts: u64,
    pub(super) restart_within: Duration,
}

/// A handle to a child. Dropping it stops the child, as [`ChildHandle::stop`] does.
#[derive(Debug)]
pub struct ChildHandle {
    state: watch::Receiver<ChildState>,
    orders: watch::Sender<Orders>,
}

/// Starts a child in a task of the current runtime, and keeps it running. When that runtime ends,
/// the child and its group are killed.
pub fn start(spec: Spec) -> ChildHandle {
    begin(spec, None)
}

/// As [`start`], of a child that rests until it is told to run.
pub(crate) fn start_resting(spec: Spec) -> ChildHandle {
    begin(spec, Some(Duration::ZERO))
}

fn begin(spec: Spec, rest: Option<Duration>) -> ChildHandle {
    let state = if rest.is_some() { Phase::Resting } else { Phase::Starting };
    let first = ChildState { state, pid: None, restarts: 0, unanswered: 0 };
    let (publish, state) = watch::channel(first);
    let restart_within = spec.grace;
    let orders = Orders { ending: Ending::No, rest, starts: 0, restarts: 0, restart_within };
    let (orders, told) = watch::channel(orders);
    tokio::spawn(Supervisor::new(spec, publish, told).run());
    ChildHandle { state, orders }
}

impl ChildHandle {
    /// The child's state, now and as it changes.
    pub fn state(&self) -> watch::Receiver<ChildState> {
        self.state.clone()
    }

    /// Has it run, if it rests, and at once if it waits for its next start: its circumstances have
    /// changed.
    pub(crate) fn run_now(&self) {
        self.orders.send_modify(|orders| {
            orders.rest = None;
            orders.starts += 1;
        });
    }

    /// Has it end as by [`ChildHandle::stop`], but within `limit`, and not run until it is told to.
    pub(crate) fn rest(&self, limit: Duration) {
        self.orders.send_if_modified(|orders| {
            let news = orders.rest.is_none_or(|given| limit < given);
            if news {
                orders.rest = Some(limit);
            }
            news
        });
    }

    /// Returns once it does not run. Only after [`ChildHandle::rest`] does that last.
    pub(crate) async fn rests(&self) {
        let rests = |state: &ChildState| matches!(state.state, Phase::Resting | Phase::Stopped);
        let _ = self.state.clone().wait_for(rests).await;
    }

    /// Has it end within `limit` and start anew; returns once the new one runs, or could not be started.
    /// One that does not run is just started.
    pub(crate) async fn restart(&self, limit: Duration) {
        let mut state = self.state.clone();
        let before = *state.borrow_and_update();
        self.orders.send_modify(|orders| {
            orders.rest = None;
            orders.restarts += 1;
            orders.restart_within = limit;
        });
        let anew = |now: &ChildState| match now.state {
            Phase::Running => now.pid != before.pid,
            Phase::Failed | Phase::Backoff => now.restarts != before.restarts,
            Phase::Stopped => true,
            Phase::Resting | Phase::Starting => false,
        };
        let _ = state.wait_for(anew).await;
    }

    /// Its stop signal to the program itself; to what it has left behind when it ends; to all of its
    /// group when the grace is over, and soon after that SIGKILL. Returns when all are gone. It may be
    /// given up and called again.
    pub async fn stop(&self) {
        self.give(Ending::Stop).await;
    }

    /// SIGKILL to the whole group at once, also while it is being stopped. Returns when it is gone.
    pub async fn kill(&self) {
        self.give(Ending::Kill).await;
    }

    async fn give(&self, ending: Ending) {
        self.orders.send_if_modified(|orders| {
            let stricter = ending > orders.ending;
            if stricter {
                orders.ending = ending;
            }
            stricter
        });
        let mut state = self.state.clone();
        // An error means that the task is gone, and the child with it.
        let _ = state.wait_for(|state| state.state == Phase::Stopped).await;
    }
}

/// Sends a signal to the program itself, not to the rest of its group; nothing while it does not run.
pub(crate) fn signal(child: &watch::Receiver<ChildState>, signal: Signal) {
    let pid = child.borrow().pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    if let Some(pid) = pid
        && let Err(why) = kill_process(pid, signal)
    {
        tracing::debug!(%why, "cannot pass {signal:?} on");
    }
}
