//! What an application's response becomes on its way to the client.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use http::response::Parts;
use http::{HeaderMap, Response, StatusCode};
use tokio::time::Instant;

use super::access::Logged;
use super::body::Answer;
use super::claim_watch;
use super::client::Client;
use super::exchange::{Call, ClientResponse, Exchange};
use super::forward;
use super::headers;
use super::problem::{Kind, Problem};
use super::route::{self, Route};
use super::token;
use super::tunnel::{self, Tied};
use super::upstream::Body;
use crate::cluster::{ClusterView, Epoch};
use crate::config::{Access, Ack, Consistency};
use crate::rules::Class;
use crate::telemetry::metrics::{ReadWait, Replay, WorkerMetrics};
use crate::txid::{EpochTxid, Token};

const FLY_REPLAY: HeaderName = HeaderName::from_static("fly-replay");
const LITEPILOT_REPLAY: HeaderName = HeaderName::from_static("litepilot-replay");

/// Lives as long as a response is on its way; then counts it and frees what it held.
pub(crate) struct Finish {
    client: Rc<Client>,
    metrics: Arc<WorkerMetrics>,
    class: Class,
    route: Route,
    status: StatusCode,
    started: Instant,
    held: bool,
    access_log: Access,
    logged: Option<Box<Logged>>,
}

impl Finish {
    /// For the answer to `exchange`.
    pub(crate) fn new(exchange: &mut Exchange, status: StatusCode) -> Self {
        Self {
            client: exchange.client.clone(),
            metrics: exchange.worker.metrics.clone(),
            class: exchange.class,
            route: exchange.route,
            status,
            started: exchange.started,
            held: exchange.held.get(),
            access_log: exchange.worker.shared.access_log,
            logged: exchange.logged.take(),
        }
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        let now = Instant::now();
        self.client.idle(now);
        let took = now.duration_since(self.started);
        self.metrics.request(self.class, self.route, self.status, took);
        if self.held {
            self.metrics.held_request(took);
        }
        if let Some(logged) = &self.logged
            && self.access_log.has(self.class)
        {
            logged.write(self.class, self.route, self.status, took);
        }
    }
}

/// A request that has been answered.
pub(crate) struct Outcome<'a> {
    pub(super) exchange: &'a mut Exchange,
    pub(super) call: &'a mut Call,
    /// The view under which it was sent.
    pub(super) view: &'a ClusterView,
}

impl Outcome<'_> {
    /// The answer to what was sent to this node's application.
    pub(crate) async fn of_app(
        self,
        mut response: Response<Body>,
    ) -> Result<ClientResponse, Problem> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            headers::remove_ours(response.headers_mut());
            let tied = self.tied(Tied::ToClaim);
            return self.switch(response, tied);
        }
        let asks_for_replay = ReplayRequest::take(response.headers_mut()).is_some();
        if asks_for_replay && self.exchange.class != Class::Passthrough {
            return Err(Problem::new(
                Kind::LoopDetected,
                "the application on the primary asked for a replay on the primary: it takes this node \
                 for a replica, or its database is not writable",
            ));
        }
        if let Some(watch) = self.call.watch.take() {
            watch.end(&self.exchange.worker);
        }
        headers::remove_ours(response.headers_mut());
        let (mut head, body) = response.into_parts();
        match self.exchange.class {
            Class::Write => Box::pin(self.acknowledge(&mut head)).await?,
            Class::Read if self.is_position_wanted() => {
                Box::pin(self.tell_position(&mut head)).await
            }
            Class::Read | Class::Passthrough => {}
        }
        self.exchange.mark(&mut head.headers);
        Ok(self.pass_on(head, body))
    }

    /// The answer to what was sent to the primary through its Litepilot, which has applied the rules
    /// above. The cookies are ours to set: only this node knows how the client came.
    pub(crate) fn of_peer(self, response: Response<Body>) -> Result<ClientResponse, Problem> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let tied = self.tied(Tied::ToReign);
            return self.switch(response, tied);
        }
        let (mut head, body) = response.into_parts();
        if let Some(token) = forward::token_of(&head.headers) {
            self.set_token(token, &mut head);
        }
        let route = HeaderValue::from_static(self.exchange.route.as_str());
        head.headers.insert(headers::ROUTE, route);
        Ok(self.pass_on(head, body))
    }

    fn pass_on(self, head: Parts, body: Body) -> ClientResponse {
        let finish = Finish::new(self.exchange, head.status);
        let limit = self.exchange.worker.shared.config.body_timeout;
        Response::from_parts(head, Answer::app(body, limit, finish))
    }

    /// The answer rule of writes: success is passed on only if the position can be read, as many
    /// nodes hold it as were asked for, and this node is still the primary of the same epoch. Then
    /// that position is the client's token.
    async fn acknowledge(&self, head: &mut Parts) -> Result<(), Problem> {
        let position = self.exchange.worker.shared.engine.read_position().await;
        // An error of the application acknowledges nothing.
        let failed = head.status.is_client_error() || head.status.is_server_error();
        let position = match position {
            Ok(position) if self.still_reigns() => position,
            _ if failed => return Ok(()),
            Ok(_) => return Err(deposed()),
            Err(why) => {
                tracing::error!(%why, "cannot read the position after a write");
                return Err(Problem::new(
                    Kind::WriteOutcomeUnknown,
                    format!("the application has answered, but the database cannot be read: {why}"),
                ));
            }
        };
        if !failed && let Some(held_by) = self.wait_for_acks(position).await? {
            head.headers.insert(headers::ACK, held_by);
        }
        if self.is_lost(position) {
            self.tell_loss(head);
        }
        self.set_token(position, head);
        Ok(())
    }

    /// Waits for the acknowledgements that were asked for, and says what came of it.
    async fn wait_for_acks(&self, position: EpochTxid) -> Result<Option<HeaderValue>, Problem> {
        if self.call.ack == Ack::Primary {
            return Ok(None);
        }
        let shared = &self.exchange.worker.shared;
        let heard = tokio::select! {
            heard = shared.ack.wait(self.call.ack, position, shared.metrics.node()) => heard,
            () = claim_watch::over(shared.view.clone(), self.view) => return Err(deposed()),
        };
        // Time has passed, and the claim may have with it.
        if self.still_reigns() { heard } else { Err(deposed()) }
    }

    /// Whether the reign goes on in which this node's application was asked.
    fn still_reigns(&self) -> bool {
        self.view.still_acknowledges(&self.exchange.worker.seen().view)
    }

    /// Reads tell a position where the client asked for monotonic reads, or holds a token of
    /// something that was lost, or one that only the primary may find impossible.
    fn is_position_wanted(&self) -> bool {
        let position = self.exchange.worker.shared.engine.position();
        self.call.ask.consistency == Consistency::Monotonic
            || self.is_lost(position.get())
            || self.is_token_suspicious()
    }

    /// Whether a failover lost what the client's token stands for, and a copy at `position` follows
    /// a reign that began without it. Until it does so, the loss is not this node's to tell.
    fn is_lost(&self, position: EpochTxid) -> bool {
        self.call.ask.token.is_some_and(|token| {
            position.epoch > token.epoch && self.exchange.worker.seen().view.lost(token)
        })
    }

    fn tell_loss(&self, head: &mut Parts) {
        head.headers.insert(headers::LOST_WRITE, HeaderValue::from_static("true"));
        self.exchange.worker.shared.metrics.node().lost_writes.inc();
    }

    fn is_token_suspicious(&self) -> bool {
        let unknown = |token| {
            let position = self.exchange.worker.shared.engine.position();
            !position.reached(route::with_epoch(token, position.get()))
        };
        (self.call.malformed_token || self.call.ask.token.is_some_and(unknown))
            && self.still_reigns()
    }

    async fn tell_position(&self, head: &mut Parts) {
        let position = self.exchange.worker.shared.engine.read_position().await;
        let Ok(position) = position else { return };
        let ahead = |token| route::with_epoch(token, position) > position;
        let ahead = self.call.ask.token.is_some_and(ahead);
        // A later primary may have given what this node would find impossible.
        let impossible = (self.call.malformed_token || ahead) && self.still_reigns();
        if impossible {
            self.exchange.worker.metrics.read_wait(ReadWait::Impossible);
        }
        let lost = self.is_lost(position);
        if lost {
            self.tell_loss(head);
        }
        let newer = self.call.ask.consistency == Consistency::Monotonic && !ahead;
        if newer || lost || impossible {
            self.set_token(position, head);
        }
    }

    fn set_token(&self, token: Token, head: &mut Parts) {
        if self.call.from_peer {
            token::set_headers(token, &mut head.headers);
        } else {
            self.exchange.worker.cookies.set(token, self.call.over_tls, &mut head.headers);
        }
    }

    /// What a socket is tied to if it writes.
    fn tied(&self, to: fn(Epoch) -> Tied) -> Tied {
        if self.exchange.class == Class::Write { to(self.view.epoch()) } else { Tied::Freely }
    }

    /// 101: from here on bytes flow both ways.
    fn switch(self, response: Response<Body>, tied: Tied) -> Result<ClientResponse, Problem> {
        let (mut head, body) = response.into_parts();
        let Some((client_side, app_side)) = self.call.upgrade.take().zip(body.into_tunnel()) else {
            return Err(Problem::new(
                Kind::AppUnreachable,
                "the application switched protocols without having been asked to",
            ));
        };
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        if !head.headers.contains_key(headers::NODE) {
            self.exchange.mark(&mut head.headers);
        }
        let route = HeaderValue::from_static(self.exchange.route.as_str());
        head.headers.insert(headers::ROUTE, route);
        let client = self.exchange.client.clone();
        client.tunnel();
        tunnel::spawn(&self.exchange.worker, client, client_side, app_side, tied);
        let finish = Finish::new(self.exchange, head.status);
        Ok(Response::from_parts(head, Answer::whole(Bytes::new(), finish)))
    }
}

fn deposed() -> Problem {
    let detail = "this node ceased to be primary while the application did the write";
    Problem::new(Kind::WriteOutcomeUnknown, detail)
}

/// An application's wish that the primary's application gets the request instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplayRequest {
    /// What it was said with.
    pub(crate) reason: Replay,
    /// `state=…` of `fly-replay`, to be handed back with the replay.
    state: Option<String>,
}

impl ReplayRequest {
    /// Takes such a wish off a response. Its fields never reach a client, whatever they say.
    pub(crate) fn take(response: &mut HeaderMap) -> Option<Self> {
        // Looking at the few names is cheaper than looking up two.
        if !response.keys().any(|name| *name == LITEPILOT_REPLAY || *name == FLY_REPLAY) {
            return None;
        }
        let asked = response.remove(LITEPILOT_REPLAY).is_some_and(|to| to == "primary");
        let fly = response.remove(FLY_REPLAY);
        if asked {
            return Some(Self { reason: Replay::Litepilot, state: None });
        }
        Self::parse(fly?.to_str().ok()?)
    }

    /// `fly-replay` may name a machine or a region, for which our primary stands; `app=` and
    /// `elsewhere=` mean something that we are not.
    fn parse(fly: &str) -> Option<Self> {
        let fields: Vec<(&str, &str)> = fly
            .split(';')
            .map(|field| field.split_once('=').unwrap_or((field, "")))
            .map(|(key, value)| (key.trim(), value.trim()))
            .collect();
        let value = |key| fields.iter().find(|(k, _)| *k == key).map(|(_, value)| *value);
        if value("app").is_some() || value("elsewhere").is_some() {
            return None;
        }
        let reason = match (value("instance"), value("region")) {
            (Some(_), _) => Replay::FlyInstance,
            (None, Some(_)) => Replay::FlyRegion,
            (None, None) => return None,
        };
        Some(Self { reason, state: value("state").map(str::to_owned) })
    }

    /// `fly-replay-src`, by which the application that gets the replay knows it for one.
    pub(crate) fn source(&self, node: &str) -> HeaderValue {
        let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_micros());
        let mut text = format!("instance={node};region={node};t={micros}");
        if let Some(state) = &self.state {
            text.push_str(";state=");
            text.push_str(state);
        }
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("instance=unknown"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replays_that_concern_us() {
        for (text, reason) in [
            ("instance=abc", Replay::FlyInstance),
            ("region=ams;state=x", Replay::FlyRegion),
            ("instance=a; timeout=5s", Replay::FlyInstance),
        ] {
            assert_eq!(ReplayRequest::parse(text).unwrap().reason, reason, "{text}");
        }
        for no in ["app=other", "elsewhere=true", "app=other;region=ams", "", "state=x"] {
            assert_eq!(ReplayRequest::parse(no), None, "{no}");
        }
    }

    #[test]
    fn the_state_comes_back() {
        let source = ReplayRequest::parse("region=ams;state=abc").unwrap().source("n1");
        let source = source.to_str().unwrap();
        assert!(source.starts_with("instance=n1;") && source.ends_with(";state=abc"), "{source}");
    }

    #[test]
    fn what_asks_for_a_replay_never_stays() {
        let mut headers = HeaderMap::new();
        headers.insert(LITEPILOT_REPLAY, HeaderValue::from_static("primary"));
        headers.insert(FLY_REPLAY, HeaderValue::from_static("app=x"));
        assert_eq!(ReplayRequest::take(&mut headers).unwrap().reason, Replay::Litepilot);
        assert!(headers.is_empty());
    }
}
