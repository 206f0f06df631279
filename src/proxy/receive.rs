//! A request that a peer passes on: handed over to this node's application at once, or refused.

use std::rc::Rc;

use http::Request;
use http::header::EXPECT;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::answer::{Outcome, ReplayRequest};
use super::body::Outgoing;
use super::claim_watch;
use super::client::Client;
use super::exchange::{Call, ClientResponse, Exchange, Served};
use super::forward::{self, Forwarded, Refusal};
use super::problem::{Kind, Problem};
use super::route::{self, Ask, Route};
use super::token::Carried;
use super::upstream::{Failure, RawHeaders, Sending};
use super::worker::Worker;
use crate::rules::Class;

/// Why a forwarded request got no answer of the application.
enum Stop {
    /// It may go elsewhere.
    Refused(Refusal),
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
    client.busy();
    let mut exchange = Exchange::new(worker, client);
    Ok(match exchange.receive(request).await {
        Ok(response) => response,
        Err(Stop::Refused(refusal)) => exchange.own(refusal.respond()),
        Err(Stop::Failed(problem)) => exchange.refuse(&problem, None),
    })
}

impl Exchange {
    async fn receive(&mut self, request: Request<Incoming>) -> Result<ClientResponse, Stop> {
        let (mut head, body) = request.into_parts();
        let Some(forwarded) = Forwarded::take(&mut head.headers) else {
            let problem = Problem::new(Kind::BadRequest, "a peer sent a request without its mark");
            return Err(Stop::Failed(problem));
        };
        let seen = self.worker.seen();
        let takes_writes = seen.view.takes_writes();
        forward::accept(&forwarded, &seen.view, takes_writes, self.worker.is_draining())
            .map_err(Stop::Refused)?;
        self.class = forwarded.class;
        self.route = Route::Local;
        let mut call = self.call_of(forwarded, head.extensions.remove::<OnUpgrade>());
        call.method = head.method.clone();
        if route::is_doubtful(&call.ask, &seen.view)
            && !claim_watch::renewed(&seen.view.claim).await
        {
            return Err(Stop::Refused(Refusal::NotPrimary));
        }
        let body = if head.headers.contains_key(EXPECT) {
            Outgoing::untouched(body, self.worker.shared.config.body_timeout)
        } else {
            self.read_body(body).await.map_err(|_| Stop::Failed(cut_off(true)))?
        };
        let is_write = self.class == Class::Write;
        let under_way = if is_write { self.enter(&seen.view) } else { None };
        if is_write && under_way.is_none() {
            return Err(Stop::Refused(Refusal::NotPrimary));
        }
        let mut request =
            self.outgoing(&mut head, &mut call, Carried::default(), RawHeaders::default());
        request.set_body(body);
        request.tell(seen.told.clone());
        self.watch(&mut call, &request, takes_writes);
        match self.worker.app.send(&request, self.sending(&call)).await {
            Ok(mut response) => {
                if !self.worker.seen().view.takes_writes()
                    && ReplayRequest::take(response.headers_mut()).is_some()
                {
                    // It did nothing, since this node ceased to be the primary meanwhile.
                    return Err(Stop::Refused(Refusal::NotPrimary));
                }
                let outcome = Outcome { exchange: self, call: &mut call, view: &seen.view };
                outcome.of_app(response).await.map_err(Stop::Failed)
            }
            Err(Failure::Unreached(_)) if request.body().is_intact() => {
                Err(Stop::Refused(Refusal::AppDown))
            }
            Err(Failure::Client(_)) => {
                Err(Stop::Failed(cut_off(self.sending(&call) == Sending::Repeatable)))
            }
            Err(failure) => Err(Stop::Failed(self.failed(&call, failure))),
        }
    }

    fn call_of(&self, forwarded: Forwarded, upgrade: Option<OnUpgrade>) -> Call {
        let Forwarded { class, consistency, token, malformed, ack, .. } = forwarded;
        Call {
            ask: Ask { class, consistency, token },
            malformed_token: malformed,
            ack,
            upgrade,
            over_tls: false,
            from_peer: true,
            replay: None,
            rule: None,
            watch: None,
            method: http::Method::GET,
            read_wait: self.worker.shared.config.read_wait,
            give_up: self.started,
            local_exhausted: false,
            claim_confirmed: false,
        }
    }
}

/// The body has not come whole. It is not the client's fault: if it were, the entry would not be there
/// to be told.
fn cut_off(did_nothing: bool) -> Problem {
    let kind = if did_nothing { Kind::PrimaryUnreachable } else { Kind::WriteOutcomeUnknown };
    Problem::new(kind, "the connection between the nodes broke in the middle of the request")
        .retry_safe(did_nothing)
}
