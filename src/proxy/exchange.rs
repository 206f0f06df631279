//! The life of a request: read its head → decide → send → answer. The deciding and sending is in
//! [`delivery`](super::delivery), the waiting in [`waiting`](super::waiting), the answering in
//! [`answer`](super::answer).

use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use super::access::Logged;
use super::client::Client;
use super::client_body::ClientBody;
use super::delivery::Attempt;
use super::facts::{Progress, RequestFacts};
use super::finish::Finish;
use super::head;
use super::headers;
use super::health;
use super::inside;
use super::look::{Doubt, Look};
use super::problem::{Problem, ProblemKind};
use super::request::Upgrade;
use super::request_body::{Outgoing, ReadError};
use super::response_body::ResponseBody;
use super::trace;
use super::upstream::{Failure, Request, Sending};
use super::worker::Worker;
use super::writes::UnderWay;
use crate::cluster::ClusterView;
use crate::rules::Class;
use crate::telemetry::metrics::Route;

/// A response on its way to a client, or to the peer whose client it is.
pub(crate) type ClientResponse = Response<ResponseBody<Finish>>;

/// What hyper is given: every request gets an answer.
pub(crate) type Served = Result<ClientResponse, Infallible>;

/// One request: whose it is, what is known of it, and how far it has come.
pub(crate) struct Exchange {
    pub(super) worker: Rc<Worker>,
    pub(super) client: Rc<Client>,
    pub(super) facts: RequestFacts,
    pub(super) progress: Progress,
    /// The client's connection, should the application switch protocols.
    pub(super) client_side: Option<OnUpgrade>,
    /// What the access log says of it, if there is one.
    pub(super) logged: Option<Box<Logged>>,
}

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
    let request_id = trace::name(request.headers_mut(), &worker.numbers);
    let (mut head, body) = request.into_parts();
    let body = client.busy(body);
    let begun = begin(worker, client.clone(), &mut head, &request_id);
    let body = (!body.is_end_stream()).then_some(body);
    async move {
        let mut answer = match begun {
            Begun::Answered(response) => *response,
            Begun::Accepted(mut exchange, request) => exchange.carry_out(request, body).await,
        };
        trace::tell(request_id, answer.headers_mut());
        if client.is_sending() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            // What the client still sends is not read to its end: nothing may follow it.
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(answer)
    }
}

/// A request of which the head was read.
enum Begun {
    /// It was for us, or is refused.
    Answered(Box<ClientResponse>),
    /// It is for an application.
    Accepted(Box<Exchange>, Box<Request>),
}

fn begin(
    worker: Rc<Worker>,
    client: Rc<Client>,
    head: &mut Parts,
    request_id: &HeaderValue,
) -> Begun {
    let started = Instant::now();
    let logged = worker.shared.access_log.any().then(|| {
        Box::new(Logged {
            client: client.name().to_owned(),
            method: head.method.clone(),
            target: head.uri.clone(),
            request_id: request_id.clone(),
        })
    });
    let read = head::read(&worker, &client, head, started);
    if let Ok(head::Read::Request(facts, request)) = read {
        let client_side = match facts.upgrade {
            Upgrade::WebSocket => head.extensions.remove(),
            Upgrade::None => None,
        };
        let progress = Progress::default();
        let exchange = Exchange { worker, client, facts, progress, client_side, logged };
        return Begun::Accepted(Box::new(exchange), request);
    }
    let mut exchange = Exchange { logged, ..Exchange::unread(worker, client, started) };
    let answer = match read {
        Err(problem) => exchange.refuse(&problem, head.headers.get(ACCEPT)),
        Ok(_) => exchange.own(health::answer(&exchange.worker)),
    };
    Begun::Answered(Box::new(answer))
}

/// This node has ceased to take writes in the epoch under whose view the request came.
pub(super) struct NoMoreWrites;

impl Exchange {
    /// Of a request whose head could not be read, or is answered here: it counts as a read.
    pub(super) fn unread(worker: Rc<Worker>, client: Rc<Client>, started: Instant) -> Self {
        let consistency = worker.shared.config.consistency;
        let facts = RequestFacts::plain(Class::Read, consistency, None, started);
        let progress = Progress::default();
        Self { worker, client, facts, progress, client_side: None, logged: None }
    }

    async fn carry_out(
        &mut self,
        mut request: Box<Request>,
        body: Option<ClientBody>,
    ) -> ClientResponse {
        match self.deliver(&mut request, body).await {
            Ok(response) => response,
            Err(problem) => {
                let problem = self.after_failed_read(problem);
                self.refuse(&problem, request.headers().get(ACCEPT))
            }
        }
    }

    async fn deliver(
        &mut self,
        request: &mut Request,
        body: Option<ClientBody>,
    ) -> Result<ClientResponse, Problem> {
        if let Some(body) = body {
            request.set_body(Box::pin(self.read_body(body)).await?);
        }
        // Endless waiting is impossible: whatever is tried ends at the deadline or with an answer.
        loop {
            if let Attempt::Answered(response) = self.attempt(request).await? {
                return Ok(response);
            }
        }
    }

    /// Reads a body that is small enough. What may have to be sent elsewhere later is kept up to a
    /// larger size than what is not.
    pub(super) async fn read_body(&self, body: ClientBody) -> Result<Outgoing, Problem> {
        let config = &self.worker.shared.config;
        let elsewhere =
            self.worker.shared.dialer.is_some() && !self.worker.seen().view.takes_writes();
        let settled = self.facts.class == Class::Passthrough || !elsewhere;
        let keep = if settled { config.buffer_body } else { config.replay_body };
        let body = Outgoing::prepare(body, keep, self.facts.limits.piece).await;
        body.map_err(|why| unread(&why))
    }

    /// What the request does, as far as is known now.
    pub(super) fn class(&self) -> Class {
        self.progress.class(&self.facts)
    }

    /// Counts a request that is about to go to the application here, and a write as under way.
    pub(super) fn enter(&mut self, view: &ClusterView) -> Result<Option<UnderWay>, NoMoreWrites> {
        let shared = &self.worker.shared;
        let under_way = match self.class() {
            Class::Write => {
                let entered = shared.writes.enter(&shared.view, view.epoch());
                Some(entered.ok_or(NoMoreWrites)?)
            }
            Class::Read | Class::Passthrough => None,
        };
        (self.progress.visit, self.progress.look) = (Some(shared.at_app.enter()), None);
        Ok(under_way)
    }

    /// Looks at a request that goes to the application of the primary, if it is not known whether it
    /// writes.
    pub(super) async fn look(&mut self, request: &Request, takes_writes: bool) {
        let doubt = match self.class() {
            Class::Read => Some(Doubt::Read),
            _ => self.facts.doubt,
        };
        if takes_writes && let (Some(doubt), Some(visit)) = (doubt, &self.progress.visit) {
            self.progress.look =
                Look::begin(&self.worker, request, doubt, self.facts.rule, visit).await;
        }
    }

    pub(super) fn sending(&self) -> Sending {
        self.facts.sending(self.class())
    }

    /// What a failed attempt means to the client.
    pub(super) fn failed(&self, failure: Failure) -> Problem {
        let repeatable = self.sending() == Sending::Repeatable;
        match failure {
            Failure::Unreached(why) => self.app_down(&why),
            Failure::Timeout => {
                let detail = "the application did not answer in time";
                Problem::new(ProblemKind::AppTimeout, detail).retry_safe(repeatable)
            }
            Failure::Client(why) => unread(&why).retry_safe(repeatable),
            Failure::Broken(why) => {
                inside::no_answer(&why);
                let (kind, done) = match repeatable {
                    true => (ProblemKind::AppUnreachable, ""),
                    false => (ProblemKind::WriteOutcomeUnknown, "; it may have done the write"),
                };
                Problem::new(kind, format!("{}{done}", inside::said_of(&why)))
            }
        }
    }

    pub(super) fn app_down(&self, why: &std::io::Error) -> Problem {
        inside::unreached("the application", &self.worker.shared.config.target, why);
        let detail = "the application takes no connections; its node's log says why";
        Problem::new(ProblemKind::AppUnreachable, detail)
    }

    /// An answer of ours.
    pub(super) fn own(&mut self, response: Response<Bytes>) -> ClientResponse {
        let (mut head, body) = response.into_parts();
        self.mark(&mut head.headers);
        let finish = Finish::new(self, head.status);
        Response::from_parts(head, ResponseBody::whole(body, finish))
    }

    pub(super) fn refuse(
        &mut self,
        problem: &Problem,
        accept: Option<&HeaderValue>,
    ) -> ClientResponse {
        self.progress.route = Route::None;
        let pages = self.worker.error_pages();
        let mut response = problem.respond(&self.worker.shared.node, accept, &pages);
        if let Some(token) = problem.token() {
            self.set_token(token, response.headers_mut());
        }
        self.own(response)
    }

    /// Says who answered and how the request got there.
    pub(super) fn mark(&self, headers: &mut HeaderMap) {
        headers.insert(headers::NODE, self.worker.node.clone());
        headers.insert(headers::ROUTE, self.route_header());
    }

    pub(super) fn route_header(&self) -> HeaderValue {
        HeaderValue::from_static(self.progress.route.as_str())
    }
}

fn unread(why: &ReadError) -> Problem {
    match why {
        ReadError::Timeout => Problem::new(
            ProblemKind::RequestTimeout,
            "the request's body did not come within proxy.body_timeout",
        ),
        ReadError::Broken => {
            Problem::new(ProblemKind::BadRequest, "the request's body is malformed")
        }
    }
}
