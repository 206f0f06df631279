//! From a client's head to the facts of its request, and to the head that goes on.

use std::mem;

use http::HeaderMap;
use http::header::{CONNECTION, HeaderValue, TE, UPGRADE};
use http::request::Parts;
use tokio::time::Instant;

use super::client::Client;
use super::facts::RequestFacts;
use super::headers::{self, SenderFields};
use super::health;
use super::look::{self, Doubt};
use super::problem::{Problem, ProblemKind};
use super::request::{self, Upgrade};
use super::token::{self, Carried};
use super::upstream::{RawHeaders, Request, RequestLimits};
use super::worker::Worker;
use crate::config::{Consistency, Trusted};
use crate::rules::{Class, Verdict};

/// Bytes that we usually add to the head of a request.
const ADDED: usize = 256;
/// How often a request may pass through Litepilots before it is taken for one that goes in a circle,
/// as when `proxy.target` names a Litepilot.
const MAX_HOPS: u64 = 8;

/// A head that was read.
pub(super) enum Read {
    /// It asks for this node's own health.
    Health,
    /// It is for an application: what is known of it, and what goes on, without its body.
    Request(RequestFacts, Box<Request>),
}

/// Reads a client's head, which is taken apart. `started`: when it had come.
///
/// # Errors
///
/// What the client is told of a request that is not passed on.
pub(super) fn read(
    worker: &Worker,
    client: &Client,
    head: &mut Parts,
    started: Instant,
) -> Result<Read, Problem> {
    let upgrade = request::check(head)?;
    if health::is_asked(head) {
        return Ok(Read::Health);
    }
    let speaks_to_us = headers::speak_to_us(&head.headers);
    let hops = if speaks_to_us { hops(&head.headers)? } else { 0 };
    let verdict = worker
        .rules()
        .classify(&head.method, &head.uri, &head.headers)
        .map_err(|why| Problem::new(ProblemKind::BadRequest, why.to_string()))?;
    let carried = token::find(&head.headers, speaks_to_us);
    let asked = if speaks_to_us { asked_consistency(&head.headers) } else { None };
    // Rules see what the client sent; from here on only what goes on is there.
    let config = &worker.shared.config;
    let sender = headers::clean(&mut head.headers, client.trust(), &config.trusted_headers);
    let mut facts = RequestFacts {
        method: head.method.clone(),
        upgrade,
        over_tls: client.is_over_tls(&head.headers, sender),
        ..ruled(worker, &verdict, &carried, asked, started)
    };
    // Only where no rule has anything to say.
    if verdict.by_default
        && verdict.class == Class::Read
        && worker.has_learned(&head.method, look::host_of(&head.headers), head.uri.path())
    {
        (facts.class, facts.doubt) = (Class::Write, Some(Doubt::Learned));
    }
    let mut added = RawHeaders::with_capacity(ADDED);
    added.add(&headers::HOPS, &next_hop(hops));
    carried.strip(&mut head.headers, &mut added);
    let request = outgoing(client, head, sender, &facts, added, &config.trusted);
    Ok(Read::Request(facts, request))
}

/// What follows from the rules, the client's token and the configuration.
fn ruled(
    worker: &Worker,
    verdict: &Verdict,
    carried: &Carried,
    asked: Option<Consistency>,
    started: Instant,
) -> RequestFacts {
    let config = &worker.shared.config;
    let consistency = verdict.consistency.or(asked).unwrap_or(config.consistency);
    RequestFacts {
        rule: Some(verdict.rule),
        malformed_token: carried.malformed,
        primary_only: worker.shared.app_on_primary,
        marks: carried.marks,
        ack: verdict.ack.unwrap_or(worker.shared.ack.level),
        read_wait: verdict.read_wait.unwrap_or(config.read_wait),
        replay: verdict.replay.unwrap_or(config.replay),
        limits: RequestLimits {
            piece: verdict.body_timeout.unwrap_or(config.body_timeout),
            response: verdict.response_timeout.unwrap_or(config.response_timeout),
        },
        deadline: started + verdict.write_hold.unwrap_or(config.write_hold),
        ..RequestFacts::plain(verdict.class, consistency, carried.token, started)
    }
}

/// Turns a cleaned head into a request that goes on, with `added` and what the application is to
/// believe of the client.
pub(super) fn outgoing(
    client: &Client,
    head: &mut Parts,
    sender: SenderFields,
    facts: &RequestFacts,
    mut added: RawHeaders,
    trusted: &Trusted,
) -> Box<Request> {
    let mut fields = mem::take(&mut head.headers);
    client.describe(&mut fields, sender, &mut added, trusted);
    if facts.upgrade == Upgrade::WebSocket {
        added.add(&CONNECTION, &HeaderValue::from_static("upgrade"));
        added.add(&UPGRADE, &HeaderValue::from_static("websocket"));
    } else if sender.trailers {
        added.add(&TE, &HeaderValue::from_static("trailers"));
        added.add(&CONNECTION, &HeaderValue::from_static("te"));
    }
    let (method, target) = (mem::take(&mut head.method), mem::take(&mut head.uri));
    Box::new(Request::new(method, target, fields, added, sender.length, facts.limits))
}

/// How many Litepilots the request has passed through before this one.
fn hops(fields: &HeaderMap) -> Result<u64, Problem> {
    let hops = fields.get(headers::HOPS).and_then(|h| h.to_str().ok()?.parse().ok()).unwrap_or(0);
    if hops < MAX_HOPS {
        return Ok(hops);
    }
    Err(Problem::new(
        ProblemKind::LoopDetected,
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
