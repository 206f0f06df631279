//! One program kept running: started, watched, started again when it ends, stopped when told.
//!
//! One task owns the program; others hold a [`ChildHandle`].

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::sleep;

use super::backoff::Backoff;
use super::running::{End, Process};
use super::spawn::{self, Launch};

/// A program to keep running.
#[derive(Clone, Debug)]
pub struct Spec {
    /// What to run.
    pub launch: Launch,
    /// Between SIGTERM and SIGKILL when it is stopped.
    pub grace: Duration,
    /// Between its end, or a failed start, and the next start.
    pub backoff: Backoff,
    /// It runs only while this is true: the file system of its database is there. When that goes, files
    /// that it has open there are dead: it is stopped, and started again with the next one.
    pub needs: Option<watch::Receiver<bool>>,
}

/// What a child is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
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
}

/// What the child's task is told. Orders only ever grow stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Order {
    Run,
    Stop,
    Kill,
}

/// A handle to a child. Dropping it stops the child, as [`ChildHandle::stop`] does.
#[derive(Debug)]
pub struct ChildHandle {
    state: watch::Receiver<ChildState>,
    order: watch::Sender<Order>,
}

/// Starts a child in a task of the current runtime, and keeps it running. When that runtime ends,
/// the child and its group are killed.
pub fn start(spec: Spec) -> ChildHandle {
    let first = ChildState { state: Phase::Starting, pid: None, restarts: 0 };
    let (publish, state) = watch::channel(first);
    let (order, orders) = watch::channel(Order::Run);
    tokio::spawn(Supervisor { spec, publish, orders }.run());
    ChildHandle { state, order }
}

impl ChildHandle {
    /// The child's state, now and as it changes.
    pub fn state(&self) -> watch::Receiver<ChildState> {
        self.state.clone()
    }

    /// SIGTERM to the whole group, SIGKILL to whoever is left after the grace. Returns when all are
    /// gone. It may be given up and called again.
    pub async fn stop(&self) {
        self.give(Order::Stop).await;
    }

    /// SIGKILL to the whole group at once, also while it is being stopped. Returns when it is gone.
    pub async fn kill(&self) {
        self.give(Order::Kill).await;
    }

    async fn give(&self, order: Order) {
        self.order.send_if_modified(|current| {
            let stricter = order > *current;
            if stricter {
                *current = order;
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

struct Supervisor {
    spec: Spec,
    publish: watch::Sender<ChildState>,
    orders: watch::Receiver<Order>,
}

impl Supervisor {
    async fn run(mut self) {
        while self.keep_up().await.is_some() {
            self.publish.send_modify(|state| {
                state.state = Phase::Starting;
                state.restarts += 1;
            });
        }
        self.set(Phase::Stopped, None);
    }

    /// One start, one run, one pause; `None` if told to stop.
    async fn keep_up(&mut self) -> Option<()> {
        let name = self.spec.launch.name;
        if let Some(guard) = &self.spec.launch.guard {
            tokio::select! {
                () = ordered(&mut self.orders, Order::Stop) => return None,
                () = guard.shared_deadline.permits() => {}
            }
        }
        if let Some(needs) = &mut self.spec.needs {
            tokio::select! {
                () = ordered(&mut self.orders, Order::Stop) => return None,
                // An error means that it will never be there: nobody is left who would start it.
                Ok(_) = needs.wait_for(|there| *there) => {}
            }
        }
        match spawn::spawn(&self.spec.launch).await {
            Ok(process) => self.watch_over(process).await?,
            Err(error) => {
                self.set(Phase::Failed, None);
                tracing::error!("{name}: {error}");
            }
        }
        let pause = self.spec.backoff.next(chance());
        tracing::info!("{name}: next start in {} ms", pause.as_millis());
        tokio::select! {
            () = ordered(&mut self.orders, Order::Stop) => None,
            () = sleep(pause) => Some(()),
        }
    }

    /// Returns when the program ended by itself; `None` if it was stopped.
    async fn watch_over(&mut self, mut process: Process) -> Option<()> {
        let name = self.spec.launch.name;
        let since = Instant::now();
        self.set(Phase::Running, Some(process.pid()));
        tracing::info!("{name}: started, pid {}", process.pid());
        let mut needs = self.spec.needs.clone();
        tokio::select! {
            () = ordered(&mut self.orders, Order::Stop) => {
                self.stop(process).await;
                return None;
            }
            () = gone_from(&mut needs) => {
                tracing::warn!("{name}: the file system of its database has gone: it is restarted");
                self.set(Phase::Backoff, None);
                self.stop(process).await;
                return Some(());
            }
            _ = process.wait() => {}
        }
        self.set(Phase::Backoff, None);
        self.spec.backoff.ran_for(since.elapsed());
        match process.end().await {
            Ok(End::Late) => tracing::warn!("{name}: {}", End::Late),
            Ok(end) => tracing::warn!("{name}: ended by itself: {end}"),
            Err(error) => tracing::warn!("{name}: killed, since {error}"),
        }
        Some(())
    }

    /// The group gets its grace as a whole: behind a shell, which dies at once, a server may still
    /// be answering its last requests.
    async fn stop(&mut self, mut process: Process) {
        let (name, grace) = (self.spec.launch.name, self.spec.grace);
        process.group.signal(Signal::TERM);
        tokio::select! {
            () = gone(&mut process) => {}
            () = sleep(grace) => {
                tracing::warn!("{name}: still there {grace:?} after SIGTERM: SIGKILL");
            }
            () = ordered(&mut self.orders, Order::Kill) => {}
        }
        match process.end().await {
            Ok(end) => tracing::info!("{name}: stopped: {end}"),
            Err(error) => tracing::warn!("{name}: stopped: {error}"),
        }
    }

    fn set(&self, state: Phase, pid: Option<u32>) {
        self.publish.send_modify(|current| {
            current.state = state;
            current.pid = pid;
        });
    }
}

/// Returns when what the program needs is there no more.
async fn gone_from(needs: &mut Option<watch::Receiver<bool>>) {
    match needs {
        Some(needs) => drop(needs.wait_for(|there| !*there).await),
        None => std::future::pending().await,
    }
}

/// Returns when the program and every other member of its group are gone.
async fn gone(process: &mut Process) {
    let _ = process.wait().await;
    process.group.emptied().await;
}

/// Returns once the order is at least this one. A handle that was dropped orders to stop.
async fn ordered(orders: &mut watch::Receiver<Order>, least: Order) {
    let dropped = orders.wait_for(|order| *order >= least).await.is_err();
    if dropped && least > Order::Stop {
        std::future::pending::<()>().await;
    }
}

/// Jitter needs no secrecy: without a source of randomness there is simply none.
fn chance() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX)
}
