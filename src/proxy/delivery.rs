//! Bringing a request to an application: here, or at the primary, at once or after waiting.
//!
//! Each attempt ends with an answer, with a problem, or with the request in hand again: it provably
//! reached no application, or the application itself asked for the primary's.

use std::io;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout_at};

use super::answer::{Outcome, ReplayRequest};
use super::exchange::{Call, ClientResponse, Exchange};
use super::forward::{FLY_REPLAY_SRC, Forwarded, Refusal};
use super::hold::Place;
use super::problem::{Kind, Problem};
use super::route::{self, Decision, Route};
use super::upstream::{BoxedRequest, Failure, Request, Sending};
use super::worker::Seen;
use crate::cluster::{ClusterView, Primary};
use crate::rules::Class;
use crate::telemetry::metrics::ReadWait;
use crate::txid::Token;

/// Between a refusal and the next attempt, doubled each time; a change of view ends it early.
pub const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(160);

/// A request on its way.
pub struct Delivery<'a> {
    pub(super) exchange: &'a mut Exchange,
    pub(super) call: Box<Call>,
    pub(super) pause: Duration,
}

/// How an attempt ended.
#[expect(clippy::large_enum_variant, reason = "the large one is what nearly always happens")]
pub enum Attempt {
    /// With an answer.
    Answered(ClientResponse),
    /// Without the request having done anything.
    Again(BoxedRequest),
}

impl Delivery<'_> {
    /// Sends the request where it belongs now, or waits for that to change. What is rarely done is
    /// boxed: the future of a request is moved, and should be small.
    pub async fn attempt(&mut self, request: BoxedRequest) -> Result<Attempt, Problem> {
        let seen = self.exchange.worker.seen();
        match self.decide(&seen.view) {
            Decision::Here => return self.here(request, &seen).await,
            Decision::ToPrimary => {
                if let Some(primary) = &seen.view.primary {
                    return Box::pin(self.at_primary(request, primary)).await;
                }
            }
            Decision::HereAfter(token) => Box::pin(self.wait_for_token(token)).await,
            Decision::Hold => Box::pin(self.hold_for_primary(&seen.view)).await?,
        }
        Ok(Attempt::Again(request))
    }

    fn decide(&self, view: &ClusterView) -> Decision {
        let position = self.exchange.worker.shared.engine.position().get();
        let decision = route::decide(&self.call.ask, view, position);
        match decision {
            Decision::HereAfter(_) if self.call.insist => route::to_primary(view),
            Decision::Here if self.call.replay.is_some() && !view.writable => {
                route::to_primary(view)
            }
            // Its application is down; the primary's is better than none.
            Decision::Here if self.call.insist && self.is_elsewhere(view) => Decision::ToPrimary,
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

    async fn here(&mut self, mut request: BoxedRequest, seen: &Seen) -> Result<Attempt, Problem> {
        request.tell(seen.told.clone());
        let exchange = &mut *self.exchange;
        let may_replay = exchange.class != Class::Passthrough && !seen.view.writable;
        let spare = may_replay.then(|| Box::new(request.copy()));
        match exchange.worker.app.send(request, exchange.sending(&self.call)).await {
            Ok(mut response) => {
                if let Some(spare) = spare
                    && let Some(replay) = ReplayRequest::take(response.headers_mut())
                {
                    return self.replay(replay, spare);
                }
                exchange.route = match (exchange.class, &self.call.replay) {
                    (Class::Passthrough, _) => Route::Passthrough,
                    (_, Some(_)) => Route::Replayed,
                    _ => Route::Local,
                };
                let outcome = Outcome { exchange, call: &mut self.call, view: &seen.view };
                outcome.of_app(response).await.map(Attempt::Answered)
            }
            Err(Failure::Unreached(unsent, why)) if exchange.class != Class::Passthrough => {
                self.call.insist = true;
                if !self.is_elsewhere(&seen.view) {
                    Box::pin(self.hold_for_app(&why, &seen.view)).await?;
                }
                Ok(Attempt::Again(unsent))
            }
            Err(failure) => Err(exchange.failed(&self.call, failure)),
        }
    }

    /// The application here says that it did nothing, and that the primary's has to.
    fn replay(&mut self, replay: ReplayRequest, spare: BoxedRequest) -> Result<Attempt, Problem> {
        if !spare.body().is_intact() {
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
        Ok(Attempt::Again(spare))
    }

    async fn at_primary(
        &mut self,
        mut request: BoxedRequest,
        primary: &Primary,
    ) -> Result<Attempt, Problem> {
        let Some(origin) = self.exchange.worker.peer(&primary.node) else {
            return Err(Problem::new(
                Kind::PrimaryUnreachable,
                "this node knows no address of the primary",
            ));
        };
        self.address_to(&mut request, primary);
        let spare = Box::new(request.copy());
        // A body that is not kept waits until the primary has accepted the request, so that a refused
        // one can still go elsewhere.
        request.body_mut().ask_first();
        let sending = self.exchange.sending(&self.call);
        let exchange = &mut *self.exchange;
        match origin.send(request, sending).await {
            Ok(response) => match Refusal::of(&response) {
                Some(refusal) => {
                    let problem = refused(refusal);
                    if !spare.body().is_intact() {
                        // A part of it has gone already: what is left must not pass for the whole.
                        return Err(problem);
                    }
                    self.hold_briefly(problem).await?;
                    Ok(Attempt::Again(spare))
                }
                None => {
                    exchange.route = match self.call.replay {
                        Some(_) => Route::Replayed,
                        None => Route::Primary,
                    };
                    let view = exchange.worker.seen();
                    let outcome = Outcome { exchange, call: &mut self.call, view: &view.view };
                    outcome.of_peer(response).map(Attempt::Answered)
                }
            },
            Err(Failure::Unreached(unsent, why)) => {
                let detail = format!("cannot connect to the primary, {}: {why}", primary.node);
                let problem = Problem::new(Kind::PrimaryUnreachable, detail).retry_safe(true);
                self.hold_briefly(problem).await?;
                Ok(Attempt::Again(unsent))
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
            Err(failure) => Err(exchange.failed(&self.call, failure)),
        }
    }

    /// Tells the primary what was found out about the request.
    fn address_to(&self, request: &mut Request, primary: &Primary) {
        let forwarded = Forwarded {
            epoch: primary.epoch,
            class: self.exchange.class,
            consistency: self.call.ask.consistency,
            token: self.call.ask.token,
            malformed: self.call.malformed_token,
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
        self.call.insist = true;
        let worker = &self.exchange.worker;
        let outcome = match worker.shared.holds.take(Class::Read) {
            None => ReadWait::Full,
            Some(_place) => {
                let _held = worker.metrics.held(Class::Read);
                let until = self.exchange.started + self.call.read_wait;
                match timeout_at(until, worker.shared.engine.position().wait(token)).await {
                    Ok(()) => ReadWait::Reached,
                    Err(_) => ReadWait::TimedOut,
                }
            }
        };
        worker.metrics.read_wait(outcome);
    }

    /// Waits until the view of the cluster is another one, or this node has what a read needs.
    async fn hold_for_primary(&self, view: &ClusterView) -> Result<(), Problem> {
        let _place = self.take_place()?;
        let worker = &self.exchange.worker;
        let _held = worker.metrics.held(self.exchange.class);
        let caught_up = async {
            match self.call.ask.token {
                Some(token) if self.exchange.class == Class::Read => {
                    let position = worker.shared.engine.position();
                    position.wait(route::with_epoch(token, position.get())).await;
                }
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
        let (kind, detail) = if view.quorum {
            (Kind::NoPrimary, "no node has become primary in time; the request was not passed on")
        } else {
            (Kind::NoQuorum, "this node cannot reach a majority of the cluster's nodes")
        };
        Err(Problem::new(kind, detail).after_waiting())
    }

    /// Waits until the application is found to answer again, or a read had better go elsewhere.
    async fn hold_for_app(&self, why: &io::Error, view: &ClusterView) -> Result<(), Problem> {
        let _place = self.take_place()?;
        let _held = self.exchange.worker.metrics.held(self.exchange.class);
        let app = &self.exchange.worker.shared.app;
        let mut reports = app.watch();
        let found = async {
            tokio::select! {
                () = app.recovered() => {}
                Ok(_) = reports.wait_for(|r| !r.up), if self.has_elsewhere(view) => {}
            }
        };
        let waited = timeout_at(self.call.give_up, found).await;
        waited.map_err(|_| self.exchange.app_down(why).after_waiting())
    }

    /// Waits a little before the primary is tried again, or until the view changes. Once the time is
    /// up the client is told `problem`.
    async fn hold_briefly(&mut self, problem: Problem) -> Result<(), Problem> {
        let _place = self.take_place()?;
        let worker = &self.exchange.worker;
        let _held = worker.metrics.held(self.exchange.class);
        let view = worker.seen();
        let change = async {
            tokio::select! {
                () = sleep(self.pause) => {}
                () = changed(worker.shared.view.clone(), &view.view) => {}
            }
        };
        timeout_at(self.call.give_up, change).await.map_err(|_| problem)?;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
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
