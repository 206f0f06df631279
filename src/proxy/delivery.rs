//! Bringing a request to an application: here, or at the primary, at once or after waiting.
//!
//! Each attempt ends with an answer, with a problem, or with the request in hand again: it provably
//! reached no application, or the application itself asked for the primary's.

use std::io;

use http::Response;

use super::claim_watch;
use super::exchange::{ClientResponse, Exchange};
use super::forward::{FLY_REPLAY_SRC, Forwarded, PeerRefusal};
use super::inside;
use super::look::Doubt;
use super::problem::{Problem, ProblemKind};
use super::replay::ReplayRequest;
use super::route::{self, Decision, Situation};
use super::upstream::{Body, Failure, Request, RequestLimits, Sending};
use super::worker::ViewSnapshot;
use crate::cluster::{ClusterView, Primary};
use crate::guarantee::ReplayPolicy;
use crate::rules::Class;
use crate::telemetry::metrics::{Replay, Route};

/// How an attempt ended.
#[expect(clippy::large_enum_variant, reason = "the large one is what nearly always happens")]
pub(crate) enum Attempt {
    Answered(ClientResponse),
    /// Without the request having done anything.
    Again,
}

impl Exchange {
    /// Sends the request where it belongs now, or waits for that to change. What is rarely done is
    /// boxed: the future of a request is moved, and should be small.
    pub(super) async fn attempt(&mut self, request: &mut Request) -> Result<Attempt, Problem> {
        let seen = self.worker.seen();
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

    pub(super) fn decide(&self, view: &ClusterView, takes_writes: bool) -> Decision {
        let shared = &self.worker.shared;
        let situation = Situation {
            view,
            takes_writes,
            position: shared.engine.position().get(),
            // Looking takes a lock, and matters only to a request that this node could not serve.
            app_is_up: !self.progress.local_exhausted || shared.app.is_up(),
            lags: !takes_writes && self.class() == Class::Read && self.lags(),
        };
        route::decide(&self.facts, &self.progress, &situation)
    }

    /// Whether this node's copy is too old to be read while the primary's can be.
    fn lags(&self) -> bool {
        let shared = &self.worker.shared;
        !self.progress.primary_unreached
            && shared.engine.lag().is_none_or(|lag| lag > shared.config.max_lag)
    }

    /// `takes_writes`: this node did when that was decided.
    async fn here(
        &mut self,
        request: &mut Request,
        seen: &ViewSnapshot,
        takes_writes: bool,
    ) -> Result<Attempt, Problem> {
        let Ok(under_way) = self.enter(&seen.view) else { return Ok(Attempt::Again) };
        request.tell(seen.told.clone());
        self.look(request, takes_writes).await;
        let refused = (!takes_writes).then(|| self.worker.shared.engine.refused_writes());
        match self.worker.app.send(request, self.sending()).await {
            Ok(mut response) => {
                if self.may_replay(takes_writes)
                    && let Some(replay) = ReplayRequest::take(response.headers_mut())
                {
                    return self.replay(replay, request);
                }
                if self.asks_primary(response.status(), request, &seen.view, refused) {
                    return self.replay(ReplayRequest::failed_read(), request);
                }
                if self.waits_for_majority(response.status())
                    && !Box::pin(self.until_held(&seen.view)).await?
                {
                    self.progress.visit = None;
                    return unanswered(request, self.sending());
                }
                self.progress.route = self.progress.local_route(&self.facts);
                self.answer_of_app(response, &seen.view).await.map(Attempt::Answered)
            }
            Err(Failure::Unreached(why)) if self.may_wait() => {
                drop(under_way);
                self.progress.visit = None;
                Box::pin(self.app_unreached(&why, &seen.view, takes_writes)).await
            }
            Err(failure) => Err(self.failed(failure)),
        }
    }

    /// Whether the request may wait for the application, or go elsewhere: what is passed through is this
    /// node's alone, unless there is one application for all nodes.
    fn may_wait(&self) -> bool {
        self.class() != Class::Passthrough || self.facts.primary_only
    }

    /// Whether the application that was asked here was not the primary's all the time. If it was, a
    /// wish for a replay is a mistake of it.
    fn may_replay(&self, took_writes: bool) -> bool {
        self.class() != Class::Passthrough
            && self.facts.replay != ReplayPolicy::Never
            && self.worker.shared.dialer.is_some()
            && !(took_writes && self.worker.seen().view.takes_writes())
    }

    /// The application here says that it did nothing, or has failed, and the primary's has to do it.
    fn replay(&mut self, replay: ReplayRequest, request: &Request) -> Result<Attempt, Problem> {
        if !request.body().is_intact() {
            return Err(Problem::new(
                ProblemKind::BodyTooLargeToReplay,
                "the application asked for a replay on the primary, but the body is larger than \
                 proxy.replay_body; have a rule call such requests writes",
            ));
        }
        self.worker.metrics.replay(replay.reason);
        self.progress.replay = Some(replay);
        self.progress.visit = None;
        Ok(Attempt::Again)
    }

    /// The application here takes no connections. Unless the request may go elsewhere, it waits.
    async fn app_unreached(
        &mut self,
        why: &io::Error,
        view: &ClusterView,
        takes_writes: bool,
    ) -> Result<Attempt, Problem> {
        self.progress.local_exhausted = true;
        if self.decide(view, takes_writes) == Decision::Local {
            self.hold_for_app(why, view).await?;
        }
        Ok(Attempt::Again)
    }

    async fn at_primary(
        &mut self,
        request: &mut Request,
        view: &ClusterView,
        primary: &Primary,
    ) -> Result<Attempt, Problem> {
        let Some(origin) = self.worker.peer(&primary.node) else {
            return Err(Problem::new(
                ProblemKind::PrimaryUnreachable,
                "this node knows no address of the primary",
            ));
        };
        self.address_to(request, primary);
        let sending = self.sending();
        let views = self.worker.shared.view.clone();
        let answered = tokio::select! {
            biased;
            answered = origin.send(request, sending) => answered,
            () = claim_watch::superseded(views, primary.epoch) => return unanswered(request, sending),
        };
        match answered {
            Ok(response) => self.peer_answered(response, request, view).await,
            Err(Failure::Unreached(why)) => {
                self.progress.primary_unreached = true;
                if self.decide(view, false) == Decision::Local {
                    return Ok(Attempt::Again);
                }
                inside::unreached("the primary", &primary.node, &why);
                let detail = format!("cannot connect to the primary, {}", primary.node);
                let problem = Problem::new(ProblemKind::PrimaryUnreachable, detail);
                self.hold_briefly(problem.retry_safe(true), view).await?;
                Ok(Attempt::Again)
            }
            Err(Failure::Broken(why)) => Err(broken(&why, primary, sending)),
            Err(failure) => Err(self.failed(failure)),
        }
    }

    async fn peer_answered(
        &mut self,
        response: Response<Body>,
        request: &Request,
        view: &ClusterView,
    ) -> Result<Attempt, Problem> {
        let Some(refusal) = PeerRefusal::of(&response) else {
            let replayed = self.progress.replay.is_some();
            self.progress.route = if replayed { Route::Replayed } else { Route::Primary };
            return self.answer_of_peer(response, request, view).map(Attempt::Answered);
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
            class: self.class(),
            consistency: self.facts.consistency,
            token: self.facts.token,
            malformed: self.facts.malformed_token,
            ack: self.facts.ack,
            doubt: self.doubt_elsewhere(),
            limits: self.limits_elsewhere(),
        };
        request.tell(forwarded.headers());
        if let Some(replay) = &self.progress.replay {
            request.headers_mut().insert(FLY_REPLAY_SRC, replay.source(&self.worker.shared.node));
        }
    }

    /// Why the primary cannot know whether the request writes.
    fn doubt_elsewhere(&self) -> Option<Doubt> {
        match &self.progress.replay {
            None => self.facts.doubt,
            Some(replay) if replay.reason == Replay::FailedRead => Some(Doubt::Failed),
            // Of what the rules call a write there is no doubt.
            Some(_) => (self.facts.class == Class::Read).then_some(Doubt::Refused),
        }
    }

    /// The limits of the rule here, if they are none that the primary would think of.
    fn limits_elsewhere(&self) -> Option<RequestLimits> {
        let own = RequestLimits::of(&self.worker.shared.config);
        (self.facts.limits != own).then_some(self.facts.limits)
    }
}

/// There is a later primary, and no answer of the one that was asked: it may be cut off.
fn unanswered(request: &Request, sending: Sending) -> Result<Attempt, Problem> {
    let detail = "another node became the primary before the former one had answered";
    match sending {
        Sending::Repeatable if request.body().is_intact() => Ok(Attempt::Again),
        Sending::Repeatable => {
            Err(Problem::new(ProblemKind::PrimaryUnreachable, detail).retry_safe(true))
        }
        _ => Err(Problem::new(ProblemKind::WriteOutcomeUnknown, detail)),
    }
}

fn broken(why: &io::Error, primary: &Primary, sending: Sending) -> Problem {
    inside::unreached("the primary", &primary.node, why);
    let detail = format!("the connection to the primary, {}, broke", primary.node);
    match sending {
        Sending::Repeatable => {
            Problem::new(ProblemKind::PrimaryUnreachable, detail).retry_safe(true)
        }
        _ => Problem::new(ProblemKind::WriteOutcomeUnknown, detail),
    }
}

fn refused(refusal: PeerRefusal) -> Problem {
    let problem = match refusal {
        PeerRefusal::NotPrimary | PeerRefusal::Stopping => Problem::new(
            ProblemKind::NoPrimary,
            "the node that was the primary takes no writes; the request was not passed on",
        ),
        PeerRefusal::AppDown => Problem::new(
            ProblemKind::AppUnreachable,
            "the application on the primary takes no connections",
        ),
    };
    problem.after_waiting()
}
