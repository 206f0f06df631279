//! The life of a request: check → classify → decide → send → answer. The deciding and sending is in
//! [`delivery`](super::delivery).

use std::cell::Cell;
use std::convert::Infallible;
use std::mem;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HeaderValue, TE, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Method, Response};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use super::access::Logged;
use super::answer::{Finish, ReplayRequest};
use super::body::{Answer, Outgoing, ReadError};
use super::client::Client;
use super::delivery::{Attempt, Delivery, FIRST_PAUSE};
use super::headers;
use super::health;
use super::misclassified_reads::Watch;
use super::problem::{Kind, Problem};
use super::request::{self, Upgrade};
use super::route::{Ask, Route};
use super::token::{self, Carried};
use super::trace;
use super::upstream::{Failure, RawHeaders, Request, Sending};
use super::worker::Worker;
use super::writes::UnderWay;
use crate::cluster::ClusterView;
use crate::config::{Ack, Consistency};
use crate::rules::Class;
use crate::telemetry::metrics::Held;

/// A response on its way to a client, or to the peer whose client it is.
pub(crate) type ClientResponse = Response<Answer<Finish>>;

/// Bytes that we usually add to the head of a request.
const LINES: usize = 256;
/// How often a request may pass through Litepilots before it is taken for one that goes in a circle,
/// as when `proxy.target` names a Litepilot.
const MAX_HOPS: u64 = 8;

/// One request and what is known of it so far.
pub(crate) struct Exchange {
    pub(super) worker: Rc<Worker>,
    pub(super) client: Rc<Client>,
    pub(super) class: Class,
    pub(super) route: Route,
    pub(super) started: Instant,
    /// It had to wait.
    pub(super) held: Cell<bool>,
    /// What the access log says of it, if there is one.
    pub(super) logged: Option<Box<Logged>>,
}

/// What the request's head says, apart from what is passed on.
pub(crate) struct Call {
    pub(super) ask: Ask,
    pub(super) malformed_token: bool,
    /// Who must hold it before it is answered, if it writes.
    pub(super) ack: Ack,
    pub(super) upgrade: Option<OnUpgrade>,
    pub(super) over_tls: bool,
    pub(super) from_peer: bool,
    /// The application here has asked for the primary's; that is not asked again.
    pub(super) replay: Option<ReplayRequest>,
    /// The rule that decided; `None`: a peer's.
    pub(super) rule: Option<usize>,
    /// Whether it writes although it is called a read.
    pub(super) watch: Option<Watch>,
    pub(super) method: Method,
    pub(super) read_wait: Duration,
    pub(super) give_up: Instant,
    /// This node had its time to reach the token, or its application is down.
    pub(super) local_exhausted: bool,
    /// This node was known to be the primary after the request had come.
    pub(super) claim_confirmed: bool,
}

/// What hyper is given: every request gets an answer.
pub(crate) type Served = Result<ClientResponse, Infallible>;

/// Serves one request of a client.
///
/// What needs no waiting is done before the future is made, and what it needs then is boxed: each
/// connection keeps room for the future of its request, and with many connections small ones stay in
/// the processor's cache.
pub(crate) fn serve(
    worker: Rc<Worker>,
    client: Rc<Client>,
    mut request: http::Request<Incoming>,
) -> impl Future<Output = Served> {
    client.busy();
    let request_id = trace::name(request.headers_mut(), &worker.numbers);
    let mut exchange = Exchange::new(worker, client);
    let (mut head, body) = request.into_parts();
    let begun = exchange.begin(&mut head, &request_id).unwrap_or_else(|problem| {
        let accept = head.headers.get(ACCEPT);
        Begun::Answered(Box::new(exchange.refuse(&problem, accept)))
    });
    let body = (!body.is_end_stream()).then_some(body);
    async move {
        let mut answer = match begun {
            Begun::Answered(response) => *response,
            Begun::Accepted(request, call) => exchange.carry_out(request, call, body).await,
        };
        trace::tell(request_id, answer.headers_mut());
        Ok(answer)
    }
}

/// A request of which the head was looked at.
enum Begun {
    /// It was for us, or is refused.
    Answered(Box<ClientResponse>),
    /// It is for an application.
    Accepted(Box<Request>, Box<Call>),
}

impl Exchange {
    pub(super) fn new(worker: Rc<Worker>, client: Rc<Client>) -> Self {
        let (class, route) = (Class::Read, Route::None);
        let (started, held) = (Instant::now(), Cell::new(false));
        Self { worker, client, class, route, started, held, logged: None }
    }

    fn begin(&mut self, head: &mut Parts, request_id: &HeaderValue) -> Result<Begun, Problem> {
        if self.worker.shared.access_log.any() {
            self.logged = Some(Box::new(Logged {
                client: self.client.name().to_owned(),
                method: head.method.clone(),
                target: head.uri.clone(),
                request_id: request_id.clone(),
            }));
        }
        let upgrade = request::check(head)?;
        if health::is_asked(head) {
            return Ok(Begun::Answered(Box::new(self.own(health::answer(&self.worker)))));
        }
        let speaks_to_us = headers::speak_to_us(&head.headers);
        let hops = if speaks_to_us { hops(&head.headers)? } else { 0 };
        let (mut call, carried) = self.call(head, upgrade, speaks_to_us)?;
        let mut lines = RawHeaders::with_capacity(LINES);
        lines.add(&headers::HOPS, &next_hop(hops));
        let request = self.outgoing(head, &mut call, carried, lines);
        Ok(Begun::Accepted(request, call))
    }

    async fn carry_out(
        &mut self,
        mut request: Box<Request>,
        call: Box<Call>,
        body: Option<Incoming>,
    ) -> ClientResponse {
        match self.deliver(&mut request, call, body).await {
            Ok(response) => response,
            Err(problem) => self.refuse(&problem, request.headers().get(ACCEPT)),
        }
    }

    async fn deliver(
        &mut self,
        request: &mut Request,
        call: Box<Call>,
        body: Option<Incoming>,
    ) -> Result<ClientResponse, Problem> {
        if let Some(body) = body {
            request.set_body(Box::pin(self.read_body(body)).await?);
        }
        // An endless wait is impossible: whatever is tried ends at `give_up` or with an answer.
        let mut delivery = Delivery { exchange: self, call, pause: FIRST_PAUSE };
        loop {
            if let Attempt::Answered(response) = delivery.attempt(request).await? {
                return Ok(response);
            }
        }
    }

    /// Turns a request that came into one that goes on, with `lines` added to it, less the token that
    /// it `carried` and without its body.
    pub(super) fn outgoing(
        &self,
        head: &mut Parts,
        call: &mut Call,
        carried: Carried,
        mut lines: RawHeaders,
    ) -> Box<Request> {
        let mut fields = mem::take(&mut head.headers);
        let found = headers::clean(&mut fields, self.client.trust());
        carried.strip(&mut fields, &mut lines);
        call.over_tls = self.client.is_over_tls(&fields, found);
        self.client.describe(&mut fields, found, &mut lines);
        if call.upgrade.is_some() {
            lines.add(&CONNECTION, &HeaderValue::from_static("upgrade"));
            lines.add(&UPGRADE, &HeaderValue::from_static("websocket"));
        } else if found.trailers {
            lines.add(&TE, &HeaderValue::from_static("trailers"));
            lines.add(&CONNECTION, &HeaderValue::from_static("te"));
        }
        let (method, target) = (mem::take(&mut head.method), mem::take(&mut head.uri));
        Box::new(Request::new(method, target, fields, lines, found.length))
    }

    /// Reads what the head says about the request itself.
    fn call(
        &mut self,
        head: &mut Parts,
        upgrade: Upgrade,
        speaks_to_us: bool,
    ) -> Result<(Box<Call>, Carried), Problem> {
        let rules = self.worker.rules();
        let verdict = rules
            .classify(&head.method, &head.uri, &head.headers)
            .map_err(|why| Problem::new(Kind::BadRequest, why.to_string()))?;
        self.class = verdict.class;
        let config = &self.worker.shared.config;
        let carried = token::find(&head.headers, speaks_to_us);
        let asked = if speaks_to_us { asked_consistency(&head.headers) } else { None };
        let consistency = verdict.consistency.or(asked).unwrap_or(config.consistency);
        let call = Call {
            ask: Ask { class: verdict.class, consistency, token: carried.token },
            malformed_token: carried.malformed,
            ack: verdict.ack.unwrap_or(self.worker.shared.ack.level),
            over_tls: false,
            upgrade: match upgrade {
                Upgrade::WebSocket => head.extensions.remove::<OnUpgrade>(),
                Upgrade::None => None,
            },
            from_peer: false,
            replay: None,
            rule: Some(verdict.rule),
            watch: None,
            method: head.method.clone(),
            read_wait: verdict.read_wait.unwrap_or(config.read_wait),
            give_up: self.started + verdict.write_hold.unwrap_or(config.write_hold),
            local_exhausted: false,
            claim_confirmed: false,
        };
        Ok((Box::new(call), carried))
    }

    /// Reads a body that is small enough. What may have to be sent elsewhere later is kept up to a
    /// larger size than what is not.
    pub(super) async fn read_body(&self, body: Incoming) -> Result<Outgoing, Problem> {
        let config = &self.worker.shared.config;
        let shared = &self.worker.shared;
        let elsewhere = shared.dialer.is_some() && !self.worker.seen().view.takes_writes();
        let settled = self.class == Class::Passthrough || !elsewhere;
        let keep = if settled { config.buffer_body } else { config.replay_body };
        let body = Outgoing::prepare(body, keep, config.body_timeout).await;
        body.map_err(|why| unread(&why))
    }

    /// Counts a write that is about to go to the application here as under way; `None` if this node
    /// has ceased to take writes in the reign that `view` tells of.
    pub(super) fn enter(&self, view: &ClusterView) -> Option<UnderWay> {
        let shared = &self.worker.shared;
        shared.writes.enter(&shared.view, view.epoch())
    }

    /// Counts the request as held until the answer is dropped.
    pub(super) fn count_held(&self) -> Held {
        self.held.set(true);
        self.worker.metrics.held(self.class)
    }

    /// Watches a read that goes to the application of the primary.
    pub(super) fn watch(&self, call: &mut Call, request: &Request, takes_writes: bool) {
        if self.class == Class::Read && takes_writes {
            call.watch = Watch::begin(&self.worker, request.method(), request.target(), call.rule);
        }
    }

    /// A safe method is repeatable whatever it does here; a read is by its rule.
    pub(super) fn sending(&self, call: &Call) -> Sending {
        if call.upgrade.is_some() {
            return Sending::Upgrade;
        }
        let repeatable = match self.class {
            Class::Read => true,
            Class::Write => false,
            Class::Passthrough => call.method.is_safe(),
        };
        if repeatable { Sending::Repeatable } else { Sending::Once }
    }

    /// What a failed attempt means to the client.
    pub(super) fn failed(&self, call: &Call, failure: Failure) -> Problem {
        let repeatable = self.sending(call) == Sending::Repeatable;
        match failure {
            Failure::Unreached(why) => self.app_down(&why),
            Failure::Timeout => {
                Problem::new(Kind::AppTimeout, "the application did not answer in time")
                    .retry_safe(repeatable)
            }
            Failure::Client(why) => unread(&why).retry_safe(repeatable),
            Failure::Broken(why) if repeatable => {
                tracing::debug!(%why, "no answer to a read");
                Problem::new(
                    Kind::AppUnreachable,
                    "the application closed the connection without a valid answer",
                )
            }
            Failure::Broken(why) => {
                tracing::debug!(%why, "no answer to a write");
                Problem::new(
                    Kind::WriteOutcomeUnknown,
                    "the application closed the connection without a valid answer: it may have done the write",
                )
            }
        }
    }

    pub(super) fn app_down(&self, why: &std::io::Error) -> Problem {
        let target = &self.worker.shared.config.target;
        let detail = format!("cannot connect to the application at {target}: {why}");
        Problem::new(Kind::AppUnreachable, detail)
    }

    /// An answer of ours.
    pub(super) fn own(&mut self, response: Response<Bytes>) -> ClientResponse {
        let (mut head, body) = response.into_parts();
        self.mark(&mut head.headers);
        let finish = Finish::new(self, head.status);
        Response::from_parts(head, Answer::whole(body, finish))
    }

    pub(super) fn refuse(
        &mut self,
        problem: &Problem,
        accept: Option<&HeaderValue>,
    ) -> ClientResponse {
        self.route = Route::None;
        self.own(problem.respond(&self.worker.shared.node, accept))
    }

    /// Says who answered and how the request got there.
    pub(super) fn mark(&self, headers: &mut HeaderMap) {
        headers.insert(headers::NODE, self.worker.node.clone());
        headers.insert(headers::ROUTE, HeaderValue::from_static(self.route.as_str()));
    }
}

/// How many Litepilots the request has passed through before this one.
fn hops(fields: &HeaderMap) -> Result<u64, Problem> {
    let hops = fields.get(headers::HOPS).and_then(|h| h.to_str().ok()?.parse().ok()).unwrap_or(0);
    if hops < MAX_HOPS {
        return Ok(hops);
    }
    Err(Problem::new(
        Kind::LoopDetected,
        "the request has passed through Litepilot again and again: does proxy.target name a Litepilot \
         instead of the application?",
    ))
}

/// What the next Litepilot, should there be one, is told. Nearly always there is none.
fn next_hop(hops: u64) -> HeaderValue {
    if hops == 0 { HeaderValue::from_static("1") } else { HeaderValue::from(hops + 1) }
}

/// The level that a client asks for; what is none is ignored.
fn asked_consistency(fields: &HeaderMap) -> Option<Consistency> {
    match fields.get(headers::CONSISTENCY)?.as_bytes() {
        b"eventual" => Some(Consistency::Eventual),
        b"read-your-writes" => Some(Consistency::ReadYourWrites),
        b"strong" => Some(Consistency::Strong),
        _ => None,
    }
}

fn unread(why: &ReadError) -> Problem {
    match why {
        ReadError::Timeout => Problem::new(
            Kind::RequestTimeout,
            "the request's body did not come within proxy.body_timeout",
        ),
        ReadError::Broken => Problem::new(Kind::BadRequest, "the request's body is malformed"),
    }
}
