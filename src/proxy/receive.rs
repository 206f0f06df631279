//! A request that a peer passes on: handed over to this node's application at once, or refused.

use std::rc::Rc;

use http::Request;
use http::header::EXPECT;
use http::request::Parts;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use super::claim_watch;
use super::client::Client;
use super::client_body::ClientBody;
use super::exchange::{ClientResponse, Exchange, Served};
use super::facts::{Progress, RequestFacts};
use super::forward::{self, Forwarded, PeerRefusal};
use super::head;
use super::headers;
use super::problem::{Problem, ProblemKind};
use super::replay::ReplayRequest;
use super::request::Upgrade;
use super::request_body::Outgoing;
use super::route::Decision;
use super::upstream::{Failure, RawHeaders, RequestLimits, Sending};
use super::worker::{ViewSnapshot, Worker};
use crate::telemetry::metrics::Route;

/// Why a forwarded request got no answer of the application.
enum Stop {
    /// It may go elsewhere.
    Refused(PeerRefusal),
    /// It may have been done.
    Failed(Problem),
}

/// Serves one request of a peer. Its client's own preferences are the peer's business: problems are
/// told as JSON.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Served {
    let started = Instant::now();
    let (mut head, body) = request.into_parts();
    let body = client.busy(body);
    let seen = worker.seen();
    let takes_writes = seen.view.takes_writes();
    let (mut exchange, answered) = match accept(&worker, &mut head, &seen, takes_writes) {
        Ok(forwarded) => {
            let mut exchange = Exchange::forwarded(worker, client, forwarded, &mut head, started);
            let answered = exchange.hand_over(head, body, &seen, takes_writes).await;
            (exchange, answered)
        }
        Err(stop) => (Exchange::unread(worker, client, started), Err(stop)),
    };
    Ok(match answered {
        Ok(response) => response,
        Err(Stop::Refused(refusal)) => exchange.own(refusal.respond()),
        Err(Stop::Failed(problem)) => exchange.refuse(&problem, None),
    })
}

fn accept(
    worker: &Worker,
    head: &mut Parts,
    seen: &ViewSnapshot,
    takes_writes: bool,
) -> Result<Forwarded, Stop> {
    let Some(forwarded) = Forwarded::take(&mut head.headers) else {
        let detail = "a peer sent a request without its mark";
        return Err(Stop::Failed(Problem::new(ProblemKind::BadRequest, detail)));
    };
    forward::accept(&forwarded, &seen.view, takes_writes, worker.is_draining())
        .map_err(Stop::Refused)?;
    Ok(forwarded)
}

impl Exchange {
    /// The entry has read the head; it is also the one that waits, so that here nothing is held.
    fn forwarded(
        worker: Rc<Worker>,
        client: Rc<Client>,
        forwarded: Forwarded,
        head: &mut Parts,
        started: Instant,
    ) -> Self {
        let Forwarded { class, consistency, token, malformed, ack, doubt, limits, .. } = forwarded;
        let client_side = head.extensions.remove::<OnUpgrade>();
        let upgrade = if client_side.is_some() { Upgrade::WebSocket } else { Upgrade::None };
        let facts = RequestFacts {
            method: head.method.clone(),
            malformed_token: malformed,
            ack,
            doubt,
            limits: limits.unwrap_or_else(|| RequestLimits::of(&worker.shared.config)),
            upgrade,
            from_peer: true,
            ..RequestFacts::plain(class, consistency, token, started)
        };
        let progress = Progress { route: Route::Local, ..Progress::default() };
        Self { worker, client, facts, progress, client_side, logged: None }
    }

    async fn hand_over(
        &mut self,
        mut head: Parts,
        body: ClientBody,
        seen: &ViewSnapshot,
        takes_writes: bool,
    ) -> Result<ClientResponse, Stop> {
        if self.decide(&seen.view, takes_writes) == Decision::LocalAfterRenewal
            && !claim_watch::renewed(&seen.view.claim).await
        {
            return Err(Stop::Refused(PeerRefusal::NotPrimary));
        }
        let body = if head.headers.contains_key(EXPECT) {
            Outgoing::untouched(body, self.facts.limits.piece)
        } else {
            self.read_body(body).await.map_err(|_| Stop::Failed(cut_off(true)))?
        };
        let Ok(_under_way) = self.enter(&seen.view) else {
            return Err(Stop::Refused(PeerRefusal::NotPrimary));
        };
        let sender = headers::clean(&mut head.headers, self.client.trust(), &[]);
        let added = RawHeaders::default();
        let trusted = &self.worker.shared.config.trusted;
        let mut request =
            head::outgoing(&self.client, &mut head, sender, &self.facts, added, trusted);
        request.set_body(body);
        request.tell(seen.told.clone());
        self.look(&request, takes_writes).await;
        let sent = self.worker.app.send(&request, self.sending()).await;
        let intact = request.body().is_intact();
        let mut response = sent.map_err(|failure| self.no_answer(failure, intact))?;
        if !self.worker.seen().view.takes_writes()
            && ReplayRequest::take(response.headers_mut()).is_some()
        {
            // It did nothing, since this node ceased to be the primary meanwhile.
            return Err(Stop::Refused(PeerRefusal::NotPrimary));
        }
        if self.waits_for_majority(response.status())
            && !Box::pin(self.until_held(&seen.view)).await.map_err(Stop::Failed)?
        {
            return Err(Stop::Refused(PeerRefusal::NotPrimary));
        }
        self.answer_of_app(response, &seen.view).await.map_err(Stop::Failed)
    }

    /// `intact`: the body can still be sent to another application.
    fn no_answer(&self, failure: Failure, intact: bool) -> Stop {
        match failure {
            Failure::Unreached(_) if intact => Stop::Refused(PeerRefusal::AppDown),
            Failure::Client(_) => Stop::Failed(cut_off(self.sending() == Sending::Repeatable)),
            failure => Stop::Failed(self.failed(failure)),
        }
    }
}

/// The body has not come whole. It is not the client's fault: if it were, the entry would not be there
/// to be told.
fn cut_off(did_nothing: bool) -> Problem {
    let kind = if did_nothing {
        ProblemKind::PrimaryUnreachable
    } else {
        ProblemKind::WriteOutcomeUnknown
    };
    Problem::new(kind, "the connection between the nodes broke in the middle of the request")
        .retry_safe(did_nothing)
}
