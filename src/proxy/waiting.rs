//! What a request waits for: a position, a renewal, a primary, the application. Each wait takes one of
//! the places for waiting requests, and ends at the request's deadline.

use std::io;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout_at};

use super::claim_watch;
use super::exchange::Exchange;
use super::hold::HoldPlace;
use super::problem::{Problem, ProblemKind};
use super::route;
use crate::cluster::ClusterView;
use crate::rules::Class;
use crate::telemetry::metrics::{Held, ReadWait};
use crate::txid::Token;

/// Between a refusal and the next attempt, doubled each time; a change of view ends it early.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(160);

impl Exchange {
    /// Waits here until this node has reached the client's token, or `read_wait` has passed.
    pub(super) async fn wait_for_token(&mut self, token: Token) {
        self.progress.local_exhausted = true;
        let outcome = match self.worker.shared.holds.take(Class::Read) {
            None => ReadWait::Full,
            Some(_place) => {
                let _held = self.count_held();
                let until = self.facts.started + self.facts.read_wait;
                let reached = self.worker.shared.engine.position().wait(token);
                match timeout_at(until, reached).await {
                    Ok(()) => ReadWait::Reached,
                    Err(_) => ReadWait::TimedOut,
                }
            }
        };
        self.worker.metrics.read_wait(outcome);
    }

    /// Waits until this primary is known to be one at this moment, or is one no more.
    pub(super) async fn wait_for_renewal(&mut self, view: &ClusterView) -> Result<(), Problem> {
        let _waits = self.begin_waiting()?;
        let renewed = timeout_at(self.facts.deadline, claim_watch::renewed(&view.claim)).await;
        self.progress.claim_confirmed = renewed.map_err(|_| no_quorum())?;
        Ok(())
    }

    /// Waits until the view of the cluster is another one, or this node has what a read needs.
    pub(super) async fn hold_for_primary(&mut self, view: &ClusterView) -> Result<(), Problem> {
        let _waits = self.begin_waiting()?;
        let shared = &self.worker.shared;
        let caught_up = async {
            let position = shared.engine.position();
            match route::needed(&self.facts, view, position.get()) {
                // A standby serves nothing, however much it has.
                Some(needed) if self.class() == Class::Read && !self.facts.primary_only => {
                    position.wait(needed).await;
                }
                _ => std::future::pending().await,
            }
        };
        let change = async {
            tokio::select! {
                () = caught_up => {}
                () = changed(shared.view.clone(), view) => {}
            }
        };
        if timeout_at(self.facts.deadline, change).await.is_ok() {
            return Ok(());
        }
        let problem = Problem::new(
            ProblemKind::NoPrimary,
            "no node has become primary in time; the request was not passed on",
        );
        Err(if view.quorum { problem.after_waiting() } else { no_quorum() })
    }

    /// Waits until the application is found to answer again, or the request had better go elsewhere.
    pub(super) async fn hold_for_app(
        &mut self,
        why: &io::Error,
        view: &ClusterView,
    ) -> Result<(), Problem> {
        let _waits = self.begin_waiting()?;
        let shared = &self.worker.shared;
        let mut reports = shared.app.watch();
        let has_elsewhere = self.class() == Class::Read && route::is_primary_elsewhere(view);
        let found = async {
            tokio::select! {
                () = shared.app.recovered() => {}
                () = changed(shared.view.clone(), view) => {}
                Ok(_) = reports.wait_for(|r| !r.up), if has_elsewhere => {}
            }
        };
        let waited = timeout_at(self.facts.deadline, found).await;
        waited.map_err(|_| self.app_down(why).after_waiting())
    }

    /// Waits a little before the primary is tried again, or until the view is another one than that
    /// under which it was tried. Past the deadline the client is told `problem`.
    pub(super) async fn hold_briefly(
        &mut self,
        problem: Problem,
        view: &ClusterView,
    ) -> Result<(), Problem> {
        let _waits = self.begin_waiting()?;
        let pause = self.progress.pause;
        let next_pause = async {
            tokio::select! {
                () = sleep(pause) => (pause * 2).min(LONGEST_PAUSE),
                // Another primary, which may need a moment more before it takes writes.
                () = changed(self.worker.shared.view.clone(), view) => FIRST_PAUSE,
            }
        };
        let next_pause = timeout_at(self.facts.deadline, next_pause).await;
        self.progress.pause =
            next_pause.map_err(|_| if view.quorum { problem } else { no_quorum() })?;
        Ok(())
    }

    /// Takes a place, and counts the request as held, until the answer is dropped.
    fn begin_waiting(&mut self) -> Result<(HoldPlace, Held), Problem> {
        let Some(place) = self.worker.shared.holds.take(self.class()) else {
            let problem = Problem::new(
                ProblemKind::TooManyHeld,
                "as many requests wait already as proxy.held_writes or held_reads allow",
            );
            return Err(problem.after_waiting());
        };
        Ok((place, self.count_held()))
    }

    fn count_held(&mut self) -> Held {
        self.progress.held = true;
        self.worker.metrics.held(self.class())
    }
}

/// Ready once the view is another one than `from`. Never, if nobody publishes views any more.
async fn changed(mut views: watch::Receiver<ClusterView>, from: &ClusterView) {
    if views.wait_for(|now| now != from).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn no_quorum() -> Problem {
    let detail = "this node cannot reach a majority of the cluster's nodes";
    Problem::new(ProblemKind::NoQuorum, detail).after_waiting()
}
