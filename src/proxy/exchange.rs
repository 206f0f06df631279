//! The life of a request: check → classify → decide → send → answer.

use std::rc::Rc;

use bytes::Bytes;
use http::header::{
    ACCEPT, CONNECTION, CONTENT_LENGTH, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::{Instant, timeout_at};

use super::answer::{Finish, Outcome};
use super::body::{Answer, Outgoing, ReadError};
use super::client::Client;
use super::headers;
use super::health;
use super::problem::{Kind, Problem};
use super::request::{self, Upgrade};
use super::route::{self, Ask, Decision, Route};
use super::token::{self, Carried};
use super::upstream::{Failure, Reply, Sending};
use super::worker::Worker;
use crate::cluster::ClusterView;
use crate::config::Consistency;
use crate::rules::{Class, Verdict};

/// A response on its way to a client.
pub type ClientResponse = Response<Answer<Finish>>;

/// One request and what is known of it so far.
pub struct Exchange {
    pub(super) worker: Rc<Worker>,
    pub(super) client: Rc<Client>,
    pub(super) class: Class,
    pub(super) route: Route,
    pub(super) started: Instant,
}

/// What the request's head says, apart from what is passed on.
pub struct Call {
    pub(super) verdict: Verdict,
    pub(super) ask: Ask,
    pub(super) carried: Carried,
    pub(super) upgrade: Option<OnUpgrade>,
    pub(super) over_tls: bool,
    method: Method,
}

/// Serves one request of a client.
pub async fn serve(
    worker: Rc<Worker>,
    client: Rc<Client>,
    request: Request<Incoming>,
) -> ClientResponse {
    client.activity.busy();
    let accept = request.headers().get(ACCEPT).cloned();
    let mut exchange = Exchange {
        worker,
        client,
        class: Class::Read,
        route: Route::None,
        started: Instant::now(),
    };
    match exchange.run(request).await {
        Ok(response) => response,
        Err(problem) => exchange.refuse(&problem, accept.as_ref()),
    }
}

impl Exchange {
    async fn run(&mut self, request: Request<Incoming>) -> Result<ClientResponse, Problem> {
        let (mut head, body) = request.into_parts();
        let upgrade = request::check(&mut head)?;
        if health::is_asked(&head) {
            return Ok(self.own(health::answer(&self.worker)));
        }
        let call = self.call(&mut head, upgrade)?;
        let request = self.outgoing(&call, head, body).await?;
        self.deliver(call, request).await
    }

    /// Reads what the head says about the request itself.
    fn call(&mut self, head: &mut Parts, upgrade: Upgrade) -> Result<Call, Problem> {
        let rules = self.worker.rules();
        let verdict = rules
            .classify(&head.method, &head.uri, &head.headers)
            .map_err(|why| Problem::new(Kind::BadRequest, why.to_string()))?;
        self.class = verdict.class;
        let carried = token::find(&head.headers);
        let consistency = verdict.consistency.or_else(|| asked_consistency(&head.headers));
        let consistency = consistency.unwrap_or(self.worker.shared.config.consistency);
        Ok(Call {
            ask: Ask { class: verdict.class, consistency, token: carried.token },
            verdict,
            carried,
            over_tls: self.client.headers.over_tls(&head.headers),
            upgrade: match upgrade {
                Upgrade::WebSocket => head.extensions.remove::<OnUpgrade>(),
                Upgrade::None => None,
            },
            method: head.method.clone(),
        })
    }

    /// Turns the client's request into the one that the application gets.
    async fn outgoing(
        &self,
        call: &Call,
        head: Parts,
        body: Incoming,
    ) -> Result<Request<Outgoing>, Problem> {
        let config = &self.worker.shared.config;
        let body = Outgoing::prepare(body, config.buffer_body, config.body_timeout).await;
        let body = body.map_err(|why| unread(&why))?;
        let mut fields = head.headers;
        call.carried.strip(&mut fields);
        let takes_trailers = fields.get(TE).is_some_and(|te| te.as_bytes() == b"trailers");
        let had_length = headers::remove_framing(&mut fields);
        headers::remove_hop_by_hop(&mut fields);
        self.client.headers.apply(&mut fields);
        if takes_trailers {
            fields.insert(TE, HeaderValue::from_static("trailers"));
            fields.insert(CONNECTION, HeaderValue::from_static("te"));
        }
        if call.upgrade.is_some() {
            fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
        }
        match body.length() {
            None => {
                fields.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            Some(0) if !had_length => {}
            Some(length) => {
                fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
        }
        let mut request = Request::new(body);
        *request.method_mut() = head.method;
        *request.uri_mut() = head.uri;
        *request.headers_mut() = fields;
        Ok(request)
    }

    /// Brings the request to an application, waiting as long as its class allows.
    async fn deliver(
        &mut self,
        call: Call,
        mut request: Request<Outgoing>,
    ) -> Result<ClientResponse, Problem> {
        let config = &self.worker.shared.config;
        let give_up = self.started + call.verdict.write_hold.unwrap_or(config.write_hold);
        loop {
            let seen = self.worker.seen();
            let position = self.worker.shared.engine.position().get();
            match route::decide(&call.ask, &seen.view, position) {
                Decision::Here => {}
                Decision::HereAfter(_) | Decision::ToPrimary | Decision::Hold => {
                    self.hold_for_primary(&seen.view, give_up).await?;
                    continue;
                }
            }
            tell_role(request.headers_mut(), &seen.role, seen.primary.as_ref());
            match self.worker.app.send(request, self.sending(&call)).await {
                Ok(reply) => return self.answer(call, reply, &seen.view).await,
                Err(Failure::Unreached(unsent, why)) if self.class != Class::Passthrough => {
                    request = *unsent;
                    self.hold_for_app(give_up, &why).await?;
                }
                Err(failure) => return Err(self.failed(&call, failure)),
            }
        }
    }

    async fn answer(
        &mut self,
        call: Call,
        reply: Reply,
        view: &ClusterView,
    ) -> Result<ClientResponse, Problem> {
        self.route =
            if self.class == Class::Passthrough { Route::Passthrough } else { Route::Local };
        Outcome { exchange: self, call, view }.answer(reply).await
    }

    /// A safe method is repeatable whatever it does here; a read is by its rule.
    fn sending(&self, call: &Call) -> Sending {
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

    /// Waits until the view of the cluster is another one.
    async fn hold_for_primary(&self, view: &ClusterView, give_up: Instant) -> Result<(), Problem> {
        let _place = self.take_place()?;
        let _held = self.worker.metrics.held(self.class);
        let mut views = self.worker.shared.view.clone();
        let changed = views.wait_for(|now| now != view);
        if timeout_at(give_up, changed).await.is_ok_and(|changed| changed.is_ok()) {
            return Ok(());
        }
        let (kind, detail) = if view.quorum {
            (Kind::NoPrimary, "no node has become primary in time; the request was not passed on")
        } else {
            (Kind::NoQuorum, "this node cannot reach a majority of the cluster's nodes")
        };
        Err(Problem::new(kind, detail).after_waiting())
    }

    /// Waits until the application is found to answer again.
    async fn hold_for_app(&self, give_up: Instant, why: &std::io::Error) -> Result<(), Problem> {
        let _place = self.take_place()?;
        let _held = self.worker.metrics.held(self.class);
        // A connection that took its whole time leaves none to wait in; it is tried again once.
        let recovered = self.worker.shared.app.recovered();
        timeout_at(give_up, recovered).await.map_err(|_| self.app_down(why).after_waiting())
    }

    fn take_place(&self) -> Result<super::hold::Place, Problem> {
        self.worker.shared.holds.take(self.class).ok_or_else(|| {
            let problem = Problem::new(
                Kind::TooManyHeld,
                "as many requests wait already as proxy.held_writes or held_reads allow",
            );
            problem.after_waiting()
        })
    }

    fn app_down(&self, why: &std::io::Error) -> Problem {
        let target = &self.worker.shared.config.target;
        let detail = format!("cannot connect to the application at {target}: {why}");
        Problem::new(Kind::AppUnreachable, detail)
    }

    /// What a failed attempt means to the client.
    fn failed(&self, call: &Call, failure: Failure) -> Problem {
        let repeatable = self.sending(call) == Sending::Repeatable;
        match failure {
            Failure::Unreached(_, why) => self.app_down(&why),
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

    /// An answer of ours.
    pub(super) fn own(&self, response: Response<Bytes>) -> ClientResponse {
        let (mut head, body) = response.into_parts();
        self.mark(&mut head.headers);
        let finish = Finish::new(self, head.status, None);
        Response::from_parts(head, Answer::whole(body, finish))
    }

    fn refuse(&mut self, problem: &Problem, accept: Option<&HeaderValue>) -> ClientResponse {
        self.route = Route::None;
        self.own(problem.respond(&self.worker.shared.node, accept))
    }

    /// Says who answered and how the request got there.
    pub(super) fn mark(&self, headers: &mut HeaderMap) {
        headers.insert(headers::NODE, self.worker.node.clone());
        headers.insert(headers::ROUTE, HeaderValue::from_static(self.route.as_str()));
    }
}

/// Tells the application what this node is at this moment.
fn tell_role(fields: &mut HeaderMap, role: &HeaderValue, primary: Option<&HeaderValue>) {
    fields.insert(headers::ROLE, role.clone());
    match primary {
        Some(primary) => fields.insert(headers::PRIMARY, primary.clone()),
        None => fields.remove(headers::PRIMARY),
    };
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
