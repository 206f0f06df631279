//! The task that owns one [child](super::child): starts it, watches over it, and stops it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::sync::watch;
use tokio::time::sleep;

use super::child::{ChildState, Ending, Orders, Phase, Spec};
use super::health::AppHealth;
use super::running::{End, Process};
use super::spawn;

/// For workers that were told to end only after the grace of the program that leads them.
const LAST_CALL: Duration = Duration::from_secs(1);

pub(super) struct Supervisor {
    spec: Spec,
    name: Arc<str>,
    publish: watch::Sender<ChildState>,
    orders: watch::Receiver<Orders>,
}

/// How one run came to its end.
enum Ran {
    /// By itself, or it did not start: there is a pause before the next one.
    Over,
    /// By order, and it may run again at once.
    Interrupted,
    /// For good.
    Stopped,
}

impl Supervisor {
    pub(super) fn new(
        spec: Spec,
        publish: watch::Sender<ChildState>,
        orders: watch::Receiver<Orders>,
    ) -> Self {
        Self { name: spec.launch.name.clone(), spec, publish, orders }
    }

    pub(super) async fn run(mut self) {
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
        self.permitted().await?;
        let begun = *self.orders.borrow();
        let ran = match spawn::spawn(&self.spec.launch).await {
            Ok(process) => self.watch_over(process, begun).await,
            Err(error) => {
                self.set(Phase::Failed, None);
                tracing::error!("{}: {error}", self.name);
                Ran::Over
            }
        };
        match ran {
            Ran::Stopped => None,
            Ran::Interrupted => Some(()),
            Ran::Over => self.pause(begun).await,
        }
    }

    /// Returns once it may be started; `None` if told to stop.
    async fn permitted(&mut self) -> Option<()> {
        loop {
            if self.orders.borrow().rest.is_some() {
                self.set(Phase::Resting, None);
                tokio::select! {
                    () = ordered(self.orders.clone(), Ending::Stop) => return None,
                    () = told(self.orders.clone(), |orders| orders.rest.is_none()) => {}
                }
                self.set(Phase::Starting, None);
            }
            tokio::select! {
                () = ordered(self.orders.clone(), Ending::Stop) => return None,
                () = told(self.orders.clone(), |orders| orders.rest.is_some()) => {}
                () = self.spec.conditions() => return Some(()),
            }
        }
    }

    /// Between two runs; `None` if told to stop. Whoever tells it to run now ends the pause.
    async fn pause(&mut self, begun: Orders) -> Option<()> {
        let pause = self.spec.backoff.next(chance());
        tracing::info!("{}: next start in {} ms", self.name, pause.as_millis());
        let changed = |now: &Orders| {
            (now.starts, now.restarts) != (begun.starts, begun.restarts) || now.rest.is_some()
        };
        tokio::select! {
            () = ordered(self.orders.clone(), Ending::Stop) => None,
            () = told(self.orders.clone(), changed) => {
                self.spec.backoff.reset();
                Some(())
            }
            () = sleep(pause) => Some(()),
        }
    }

    async fn watch_over(&mut self, mut process: Process, begun: Orders) -> Ran {
        let since = Instant::now();
        self.set(Phase::Running, Some(process.pid()));
        tracing::info!("{}: started, pid {}", self.name, process.pid());
        let mut needs = self.spec.needs.clone();
        let health = self.spec.health.clone();
        let mut answers = std::pin::pin!(answers(health.as_ref()));
        let mut answered = false;
        loop {
            let restart = |now: &Orders| now.restarts != begun.restarts;
            tokio::select! {
                () = ordered(self.orders.clone(), Ending::Stop) => {
                    self.stop(process, self.spec.grace).await;
                    return Ran::Stopped;
                }
                () = told(self.orders.clone(), |now| now.rest.is_some() || restart(now)) => {
                    let orders = *self.orders.borrow();
                    let limit = orders.rest.unwrap_or(orders.restart_within);
                    self.stop(process, limit.min(self.spec.grace)).await;
                    self.spec.backoff.reset();
                    return Ran::Interrupted;
                }
                () = gone_from(&mut needs) => {
                    let name = &self.name;
                    tracing::warn!("{name}: the file system of its database has gone: it is restarted");
                    self.set(Phase::Backoff, None);
                    self.stop(process, self.spec.grace).await;
                    return Ran::Over;
                }
                () = &mut answers, if !answered => {
                    answered = true;
                    self.spec.backoff.reset();
                    self.publish.send_modify(|state| state.unanswered = 0);
                }
                _ = process.wait() => break,
            }
        }
        self.ended(process, since.elapsed(), answered).await
    }

    /// It has ended by itself.
    async fn ended(&mut self, process: Process, ran: Duration, answered: bool) -> Ran {
        if self.spec.health.is_none() {
            self.spec.backoff.ran_for(ran);
        }
        let asked = self.spec.health.is_some();
        self.publish.send_modify(|state| {
            (state.state, state.pid) = (Phase::Backoff, None);
            if asked && !answered {
                state.unanswered = state.unanswered.saturating_add(1);
            }
        });
        let name = &self.name;
        match process.end().await {
            Ok(End::Late) => tracing::warn!("{name}: {}", End::Late),
            Ok(end) => tracing::warn!("{name}: ended by itself: {end}"),
            Err(error) => tracing::warn!("{name}: killed, since {error}"),
        }
        Ran::Over
    }

    /// The program is asked first: a server that is told along with its workers cannot let these finish
    /// what they do. Behind a shell, which dies at once, the server is told then. A grace that is cut short
    /// leaves no time for a last call: others wait.
    async fn stop(&mut self, mut process: Process, grace: Duration) {
        let (name, signal) = (self.name.clone(), self.spec.stop_signal);
        let last_call = if grace < self.spec.grace { Duration::ZERO } else { LAST_CALL.min(grace) };
        process.signal_leader(signal.into());
        tokio::select! {
            () = gone(&mut process, signal.into()) => {}
            () = sleep(grace) => {
                tracing::warn!("{name}: still there {grace:?} after {signal}: SIGKILL");
                process.group.signal(signal.into());
                tokio::select! {
                    () = gone(&mut process, signal.into()) => {}
                    () = sleep(last_call) => {}
                    () = ordered(self.orders.clone(), Ending::Kill) => {}
                }
            }
            () = ordered(self.orders.clone(), Ending::Kill) => {}
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

impl Spec {
    /// Returns once nothing but orders keeps it from running.
    async fn conditions(&mut self) {
        if let Some(guard) = &self.launch.guard {
            guard.shared_deadline.permits().await;
        }
        if let Some(needs) = &mut self.needs
            && needs.wait_for(|there| *there).await.is_err()
        {
            // It will never be there: nobody is left who would start it.
            std::future::pending().await
        }
    }
}

/// Ready once the program is found to answer. Never, if nobody looks.
async fn answers(health: Option<&AppHealth>) {
    match health {
        Some(health) => health.recovered().await,
        None => std::future::pending().await,
    }
}

/// Returns when what the program needs is there no more.
async fn gone_from(needs: &mut Option<watch::Receiver<bool>>) {
    match needs {
        Some(needs) => drop(needs.wait_for(|there| !*there).await),
        None => std::future::pending().await,
    }
}

/// Returns when the program and every other member of its group are gone. Those that it leaves behind
/// are told to end, too.
async fn gone(process: &mut Process, signal: Signal) {
    let _ = process.wait().await;
    process.group.signal(signal);
    process.group.emptied().await;
}

/// Returns once the order is at least this one. A handle that was dropped orders to stop.
async fn ordered(mut orders: watch::Receiver<Orders>, least: Ending) {
    let dropped = orders.wait_for(|orders| orders.ending >= least).await.is_err();
    if dropped && least > Ending::Stop {
        std::future::pending::<()>().await;
    }
}

/// Returns once the orders are so. Never, if nobody gives any more.
async fn told(mut orders: watch::Receiver<Orders>, so: impl FnMut(&Orders) -> bool) {
    if orders.wait_for(so).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Jitter needs no secrecy: without a source of randomness there is simply none.
fn chance() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX)
}
