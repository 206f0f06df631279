//! What is known of one request: its facts, read once from its head, and how far it has come.

use std::time::Duration;

use http::{Method, StatusCode};
use tokio::time::Instant;

use super::at_app::Visit;
use super::look::{Doubt, Look};
use super::replay::ReplayRequest;
use super::request::Upgrade;
use super::token::Marks;
use super::upstream::{RequestLimits, Sending};
use super::waiting::FIRST_PAUSE;
use crate::config::{Ack, Consistency};
use crate::guarantee::ReplayPolicy;
use crate::rules::Class;
use crate::telemetry::metrics::Route;
use crate::txid::Token;

/// What a request's head, the rules and the configuration say of it. Never changes.
pub struct RequestFacts {
    /// When its head had come.
    pub(crate) started: Instant,
    pub(crate) method: Method,
    /// What the rules call it. What it turned out to be is [`Progress::class`].
    pub(crate) class: Class,
    /// The rule that decided; `None`: a peer's.
    pub(crate) rule: Option<usize>,
    /// Why it is not known whether it writes, beyond what its class says.
    pub(crate) doubt: Option<Doubt>,
    /// What a read must see.
    pub(crate) consistency: Consistency,
    /// What its client last saw.
    pub(crate) token: Option<Token>,
    /// Something in the token's place was no token.
    pub(crate) malformed_token: bool,
    /// The application runs on the primary only, so whatever the request does goes there.
    pub(crate) primary_only: bool,
    /// The cookies that it came by.
    pub(crate) marks: Marks,
    /// Who must hold it before it is answered, if it writes.
    pub(crate) ack: Ack,
    pub(crate) upgrade: Upgrade,
    /// A peer passes it on for its client.
    pub(crate) from_peer: bool,
    /// The client came over TLS, here or at a trusted proxy.
    pub(crate) over_tls: bool,
    /// How long, from `started`, a read waits here for its token.
    pub(crate) read_wait: Duration,
    /// Until when it is held, whatever it is held for.
    pub(crate) deadline: Instant,
    /// When it is sent again to the primary.
    pub(crate) replay: ReplayPolicy,
    pub(crate) limits: RequestLimits,
}

/// How far a request has come.
pub struct Progress {
    /// Where its answer came from.
    pub(crate) route: Route,
    /// It had to wait.
    pub(crate) held: bool,
    /// This node had its time to reach the token, or its application is down.
    pub(crate) local_exhausted: bool,
    /// The primary took no connection: what this node has is better than nothing.
    pub(crate) primary_unreached: bool,
    /// This node was known to be the primary after the request had come.
    pub(crate) claim_confirmed: bool,
    /// The application here has asked for the primary's, or has failed; it is not asked again.
    pub(crate) replay: Option<ReplayRequest>,
    /// What the application here answered, if it failed.
    pub(crate) failed_here: Option<StatusCode>,
    /// It is at the application here.
    pub(crate) visit: Option<Visit>,
    /// Whether it writes, if that is not known.
    pub(crate) look: Option<Look>,
    /// Before the next attempt at a primary that could not take it.
    pub(crate) pause: Duration,
}

impl RequestFacts {
    /// Those of a GET that no rule says anything particular about, and that may not be held.
    pub fn plain(
        class: Class,
        consistency: Consistency,
        token: Option<Token>,
        started: Instant,
    ) -> Self {
        Self {
            started,
            method: Method::GET,
            class,
            rule: None,
            doubt: None,
            consistency,
            token,
            malformed_token: false,
            primary_only: false,
            marks: Marks::default(),
            ack: Ack::Primary,
            upgrade: Upgrade::None,
            from_peer: false,
            over_tls: false,
            read_wait: Duration::ZERO,
            deadline: started,
            replay: ReplayPolicy::default(),
            limits: RequestLimits::default(),
        }
    }

    /// How a request of that class is sent. A safe method is repeatable whatever it does here; a read
    /// is by its rule.
    pub(super) fn sending(&self, class: Class) -> Sending {
        if self.upgrade == Upgrade::WebSocket {
            return Sending::Upgrade;
        }
        let repeatable = match class {
            Class::Read => true,
            Class::Write => false,
            Class::Passthrough => self.method.is_safe(),
        };
        if repeatable { Sending::Repeatable } else { Sending::Once }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            route: Route::None,
            held: false,
            local_exhausted: false,
            primary_unreached: false,
            claim_confirmed: false,
            replay: None,
            failed_here: None,
            visit: None,
            look: None,
            pause: FIRST_PAUSE,
        }
    }
}

impl Progress {
    /// What the request does, as far as is known: an application that asks for a replay says that it
    /// writes, and a read that failed may have.
    pub(super) fn class(&self, facts: &RequestFacts) -> Class {
        if self.replay.is_some() { Class::Write } else { facts.class }
    }

    /// How an answer of this node's application is labelled.
    pub(super) fn local_route(&self, facts: &RequestFacts) -> Route {
        match (self.class(facts), &self.replay) {
            (Class::Passthrough, _) => Route::Passthrough,
            (_, Some(_)) => Route::Replayed,
            _ => Route::Local,
        }
    }
}
