//! Bringing a request to an application: here, or at the primary, at once or after waiting.
//!
//! Each attempt ends with an answer, with a problem, or with the request in hand again: it provably
//! reached no application, or the application itself asked for the primary's.

use std::io;
use std::time::Duration;

use http::Response;
use tokio::sync::watch;
use tokio::time::{sleep, timeout_at};

use super::answer::{Outcome, ReplayRequest};
use super::claim_watch;
use super::exchange::{Call, ClientResponse, Exchange};
use super::forward::{FLY_REPLAY_SRC, Forwarded, Refusal};
use super::hold::Place;
use super::problem::{Kind, Problem};
use super::route::{self, Decision, Route};
use super::upstream::{Body, Failure, Request, Sending};
use super::worker::Seen;
use crate::cluster::{ClusterView, Primary};
use crate::rules::Class;
use crate::telemetry::metrics::ReadWait;
use crate::txid::Token;

/// Between a refusal and the next attempt, doubled each time; a change of view ends it early.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(160);

/// A request on its way.
pub(crate) struct Delivery<'a> {
    pub(super) exchange: &'a mut Exchange,
    pub(super) call: Box<Call>,
    pub(super) pause: Duration,
}

/// How an attempt ended.
#[expect(clippy::large_enum_variant, reason = "the large one is what nearly always happens")]
pub(crate) enum Attempt {
    Answered(ClientResponse),
    /// Without the request having done anything.
    Again,
}

impl Delivery<'_> {
    /// Sends the request where it belongs now, or waits for that to change. What is rarely done is
    /// boxed: the future of a request is moved, and should be small.
    pub(crate) async fn attempt(&mut self, request: &mut Request) -> Result<Attempt, Problem> {
        let seen = self.exchange.worker.seen();
        let takes_writes = seen.view.takes_writes();
        match self.decide(&seen.view, takes_writes) {
            Decision::Local => return self.here(request, &seen, takes_writes).await,
            Decision::ToPrimary => {
                if let Some(primary) = &seen.view.primary {
                    return Box::pin(self.at_primary(request, &seen.view, primary)).await;
                }
            }
            Decision::LocalAfterPosition(token) => Box::pin(self.wait_for_token(token)).await,
            Decision::LocalAfterRenewal => Box::pin(self.wait_for_renewal(&seen.view)).await?,
            Decision::WaitForPrimary => Box::pin(self.hold_for_primary(&seen.view)).await?,
        }
        Ok(Attempt::Again)
    }

    fn decide(&self, view: &ClusterView, takes_writes: bool) -> Decision {
        let position = self.exchange.worker.shared.engine.position().get();
        let decision = route::decide(&self.call.ask, view, takes_writes, position);
        match decision {
            Decision::LocalAfterPosition(_) if self.call.local_exhausted => route::to_primary(view),
            Decision::LocalAfterRenewal if self.call.claim_confirmed => Decision::Local,
            // Its application is down; the primary's is better than none.
            Decision::Local if self.call.local_exhausted && self.is_elsewhere(view) => {
                Decision::ToPrimary
            }
            decision => decision,
        }
    }

    /// The application here is down, and there is another.
    fn is_elsewhere(&self, view: &ClusterView) -> bool {
        self.has_elsewhere(view) && !self.exchange.worker.shared.app.is_up()
    }

    fn has_elsewhere(&self, view: &ClusterView) -> bool {
        self.exchange.class == Class::Read
            && view.primary.as_ref().is_some_and(|p| p.node != view.node)
    }

    /// `takes_writes`: this node did when that was decided.
    async fn here(
        &mut self,
        request: &mut Request,
        seen: &Seen,
        takes_writes: bool,
    ) -> Result<Attempt, Problem> {
        let exchange = &mut *self.exchange;
        let is_write = exchange.class == Class::Write;
        let under_way = if is_write { exchange.enter(&seen.view) } else { None };
        if is_write && under_way.is_none() {
            return Ok(Attempt::Again);
        }
        request.tell(seen.told.clone());
        exchange.watch(&mut self.call, request, takes_writes);
        // On the primary too: it may cease to be it before the application answers.
        let may_replay =
            exchange.class != Class::Passthrough && exchange.worker.shared.dialer.is_some();
        match exchange.worker.app.send(request, exchange.sending(&self.call)).await {
            Ok(mut response) => {
                if may_replay
                    && !(takes_writes && exchange.worker.seen().view.takes_writes())
                    && let Some(replay) = ReplayRequest::take(response.headers_mut())
                {
                    return self.replay(replay, request);
                }
                exchange.route = match (exchange.class, &self.call.replay) {
                    (Class::Passthrough, _) => Route::Passthrough,
                    (_, Some(_)) => Route::Replayed,
                    _ => Route::Local,
                };
                let outcome = Outcome { exchange, call: &mut self.call, view: &seen.view };
                outcome.of_app(response).await.map(Attempt::Answered)
            }
            Err(Failure::Unreached(why)) if exchange.class != Class::Passthrough => {
                drop(under_way);
                self.call.local_exhausted = true;
                if !self.is_elsewhere(&seen.view) {
                    Box::pin(self.hold_for_app(&why, &seen.view)).await?;
                }
                Ok(Attempt::Again)
            }
            Err(failure) => Err(exchange.failed(&self.call, failure)),
        }
    }

    /// The application here says that it did nothing, and that the primary's has to.
    fn replay(&mut self, replay: ReplayRequest, request: &Request) -> Result<Attempt, Problem> {
        if !request.body().is_intact() {
            return Err(Problem::new(
                Kind::BodyTooLargeToReplay,
                "the application asked for a replay on the primary, but the body is larger than \
                 proxy.replay_body; have a rule call such requests writes",
            ));
        }
        self.exchange.worker.metrics.replay(replay.reason);
        self.exchange.class = Class::Write;
        self.call.ask.class = Class::Write;
        self.call.replay = Some(replay);
        Ok(Attempt::Again)
    }

    async fn at_primary(
        &mut self,
        request: &mut Request,
        view: &ClusterView,
        primary: &Primary,
    ) -> Result<Attempt, Problem> {
        let Some(origin) = self.exchange.worker.peer(&primary.node) else {
            return Err(Problem::new(
                Kind::PrimaryUnreachable,
                "this node knows no address of the primary",
            ));
        };
        self.address_to(request, primary);
        let sending = self.exchange.sending(&self.call);
        let views = self.exchange.worker.shared.view.clone();
        let answered = tokio::select! {
            biased;
            answered = origin.send(request, sending) => answered,
            () = claim_watch::superseded(views, primary.epoch) => return unanswered(request, sending),
        };
        match answered {
            Ok(response) => self.peer_answered(response, request, view).await,
            Err(Failure::Unreached(why)) => {
                let detail = format!("cannot connect to the primary, {}: {why}", primary.node);
                let problem = Problem::new(Kind::PrimaryUnreachable, detail).retry_safe(true);
                self.hold_briefly(problem, view).await?;
                Ok(Attempt::Again)
            }
            Err(Failure::Broken(why)) => {
                let detail =
                    format!("the connection to the primary, {}, broke: {why}", primary.node);
                Err(match sending {
                    Sending::Repeatable => {
                        Problem::new(Kind::PrimaryUnreachable, detail).retry_safe(true)
                    }
                    _ => Problem::new(Kind::WriteOutcomeUnknown, detail),
                })
            }
            Err(failure) => Err(self.exchange.failed(&self.call, failure)),
        }
    }

    async fn peer_answered(
        &mut self,
        response: Response<Body>,
        request: &Request,
        view: &ClusterView,
    ) -> Result<Attempt, Problem> {
        let Some(refusal) = Refusal::of(&response) else {
            let exchange = &mut *self.exchange;
            exchange.route = match self.call.replay {
                Some(_) => Route::Replayed,
                None => Route::Primary,
            };
            let outcome = Outcome { exchange, call: &mut self.call, view };
            return outcome.of_peer(response).map(Attempt::Answered);
        };
        let problem = refused(refusal);
        if !request.body().is_intact() {
            // A part of it has gone already: what is left must not pass for the whole.
            return Err(problem);
        }
        self.hold_briefly(problem, view).await?;
        Ok(Attempt::Again)
    }

    /// Tells the primary what was found out about the request.
    fn address_to(&self, request: &mut Request, primary: &Primary) {
        let forwarded = Forwarded {
            epoch: primary.epoch,
            class: self.exchange.class,
            consistency: self.call.ask.consistency,
            token: self.call.ask.token,
            malformed: self.call.malformed_token,
            ack: self.call.ack,
        };
        request.tell(forwarded.to_lines());
        if let Some(replay) = &self.call.replay {
            request
                .headers_mut()
                .insert(FLY_REPLAY_SRC, replay.source(&self.exchange.worker.shared.node));
        }
    }

    /// Waits here until this node has reached the client's token, or `read_wait` has passed.
    async fn wait_for_token(&mut self, token: Token) {
        self.call.local_exhausted = true;
        let worker = &self.exchange.worker;
        let outcome = match worker.shared.holds.take(Class::Read) {
            None => ReadWait::Full,
            Some(_place) => {
                let _held = self.exchange.count_held();
                let until = self.exchange.started + self.call.read_wait;
                match timeout_at(until, worker.shared.engine.position().wait(token)).await {
                    Ok(()) => ReadWait::Reached,
                    Err(_) => ReadWait::TimedOut,
                }
            }
        };
        worker.metrics.read_wait(outcome);
    }

    /// Waits until this primary is known to be one at this moment, or is one no more.
    async fn wait_for_renewal(&mut self, view: &ClusterView) -> Result<(), Problem> {
        let _place = self.take_place()?;
        let _held = self.exchange.count_held();
        let renewed = timeout_at(self.call.give_up, claim_watch::renewed(&view.claim)).await;
        self.call.claim_confirmed = renewed.map_err(|_| no_quorum())?;
        Ok(())
    }

    /// Waits until the view of the cluster is another one, or this node has what a read needs.
    async fn hold_for_primary(&self, view: &ClusterView) -> Result<(), Problem> {
        let _place = self.take_place()?;
        let worker = &self.exchange.worker;
        let _held = self.exchange.count_held();
        let caught_up = async {
            let position = worker.shared.engine.position();
            match route::needed(&self.call.ask, view, position.get()) {
                Some(needed) if self.exchange.class == Class::Read => position.wait(needed).await,
                _ => std::future::pending().await,
            }
        };
        let change = async {
            tokio::select! {
                () = caught_up => {}
                () = changed(worker.shared.view.clone(), view) => {}
            }
        };
        if timeout_at(self.call.give_up, change).await.is_ok() {
            return Ok(());
        }
        let problem = Problem::new(
            Kind::NoPrimary,
            "no node has become primary in time; the request was not passed on",
        );
        Err(if view.quorum { problem.after_waiting() } else { no_quorum() })
    }

    /// Waits until the application is found to answer again, or the request had better go elsewhere.
    async fn hold_for_app(&self, why: &io::Error, view: &ClusterView) -> Result<(), Problem> {
        let _place = self.take_place()?;
        let _held = self.exchange.count_held();
        let app = &self.exchange.worker.shared.app;
        let mut reports = app.watch();
        let found = async {
            tokio::select! {
                () = app.recovered() => {}
                () = changed(self.exchange.worker.shared.view.clone(), view) => {}
                Ok(_) = reports.wait_for(|r| !r.up), if self.has_elsewhere(view) => {}
            }
        };
        let waited = timeout_at(self.call.give_up, found).await;
        waited.map_err(|_| self.exchange.app_down(why).after_waiting())
    }

    /// Waits a little before the primary is tried again, or until the view is another one than that
    /// under which it was tried. Once the time is up the client is told `problem`.
    async fn hold_briefly(&mut self, problem: Problem, view: &ClusterView) -> Result<(), Problem> {
        let _place = self.take_place()?;
        let worker = &self.exchange.worker;
        let _held = self.exchange.count_held();
        let next_pause = async {
            tokio::select! {
                () = sleep(self.pause) => (self.pause * 2).min(LONGEST_PAUSE),
                // Another primary, which may need a moment more before it takes writes.
                () = changed(worker.shared.view.clone(), view) => FIRST_PAUSE,
            }
        };
        let next_pause = timeout_at(self.call.give_up, next_pause).await;
        self.pause = next_pause.map_err(|_| if view.quorum { problem } else { no_quorum() })?;
        Ok(())
    }

    fn take_place(&self) -> Result<Place, Problem> {
        self.exchange.worker.shared.holds.take(self.exchange.class).ok_or_else(|| {
            let problem = Problem::new(
                Kind::TooManyHeld,
                "as many requests wait already as proxy.held_writes or held_reads allow",
            );
            problem.after_waiting()
        })
    }
}

/// Ready once the view is another one than `from`. Never, if nobody publishes views any more.
async fn changed(mut views: watch::Receiver<ClusterView>, from: &ClusterView) {
    if views.wait_for(|now| now != from).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// There is a later primary, and no answer of the one that was asked: it may be cut off.
fn unanswered(request: &Request, sending: Sending) -> Result<Attempt, Problem> {
    let detail = "another node became the primary before the former one had answered";
    match sending {
        Sending::Repeatable if request.body().is_intact() => Ok(Attempt::Again),
        Sending::Repeatable => Err(Problem::new(Kind::PrimaryUnreachable, detail).retry_safe(true)),
        _ => Err(Problem::new(Kind::WriteOutcomeUnknown, detail)),
    }
}

fn no_quorum() -> Problem {
    let detail = "this node cannot reach a majority of the cluster's nodes";
    Problem::new(Kind::NoQuorum, detail).after_waiting()
}

fn refused(refusal: Refusal) -> Problem {
    let problem = match refusal {
        Refusal::NotPrimary | Refusal::Stopping => Problem::new(
            Kind::NoPrimary,
            "the node that was the primary takes no writes; the request was not passed on",
        ),
        Refusal::AppDown => Problem::new(
            Kind::AppUnreachable,
            "the application on the primary takes no connections",
        ),
    };
    problem.after_waiting()
}
