//! What an application's response becomes on its way to the client.

use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use http::response::Parts;
use http::{HeaderMap, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use super::body::{Answer, Attached};
use super::client::Client;
use super::exchange::{Call, ClientResponse, Exchange};
use super::headers;
use super::problem::{Kind, Problem};
use super::route::{self, Route};
use super::tunnel;
use super::upstream::{Connection, Reply};
use crate::cluster::ClusterView;
use crate::config::Consistency;
use crate::rules::Class;
use crate::telemetry::metrics::WorkerMetrics;
use crate::txid::{Position, Token};

const FLY_REPLAY: HeaderName = HeaderName::from_static("fly-replay");
const LITEPILOT_REPLAY: HeaderName = HeaderName::from_static("litepilot-replay");

/// Lives as long as a response is on its way; then counts it and frees what it held.
pub struct Finish {
    connection: Option<Connection>,
    client: Rc<Client>,
    metrics: Arc<WorkerMetrics>,
    class: Class,
    route: Route,
    status: StatusCode,
    started: Instant,
}

impl Finish {
    /// For the answer to `exchange`; `connection` is given back once the body has come whole.
    pub fn new(exchange: &Exchange, status: StatusCode, connection: Option<Connection>) -> Self {
        Self {
            connection,
            client: exchange.client.clone(),
            metrics: exchange.worker.metrics.clone(),
            class: exchange.class,
            route: exchange.route,
            status,
            started: exchange.started,
        }
    }
}

impl Attached for Finish {
    fn complete(mut self) {
        if let Some(connection) = self.connection.take() {
            connection.give_back();
        }
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        self.client.activity.idle();
        self.metrics.request(self.class, self.route, self.status, self.started.elapsed());
    }
}

/// A request that has been answered by an application.
pub struct Outcome<'a> {
    pub(super) exchange: &'a mut Exchange,
    pub(super) call: Call,
    /// The view under which it was sent.
    pub(super) view: &'a ClusterView,
}

impl Outcome<'_> {
    /// Makes the client's response of it.
    pub async fn answer(mut self, reply: Reply) -> Result<ClientResponse, Problem> {
        let Reply { mut response, connection } = reply;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(response);
        }
        self.check_replay(response.headers_mut())?;
        headers::remove_hop_by_hop(response.headers_mut());
        headers::remove_ours(response.headers_mut());
        let (mut head, body) = response.into_parts();
        // The application's protocol version is its connection's, not the client's.
        head.version = Version::HTTP_11;
        match self.exchange.class {
            Class::Write => self.acknowledge(&mut head).await?,
            Class::Read => self.tell_position(&mut head).await,
            Class::Passthrough => {}
        }
        self.exchange.mark(&mut head.headers);
        let finish = Finish::new(self.exchange, head.status, Some(connection));
        let limit = self.exchange.worker.shared.config.body_timeout;
        Ok(Response::from_parts(head, Answer::app(body, limit, finish)))
    }

    /// An application that asks for a replay on the primary itself would ask forever.
    fn check_replay(&self, response: &mut HeaderMap) -> Result<(), Problem> {
        if self.exchange.class == Class::Passthrough {
            response.remove(FLY_REPLAY);
            return Ok(());
        }
        let asked = response.remove(LITEPILOT_REPLAY).is_some_and(|to| to == "primary");
        let fly = response.remove(FLY_REPLAY);
        if asked || fly.is_some_and(|fly| asks_for_primary(fly.as_bytes())) {
            return Err(Problem::new(
                Kind::LoopDetected,
                "the application on the primary asked for a replay on the primary: it takes this node \
                 for a replica, or its database is not writable",
            ));
        }
        Ok(())
    }

    /// The answer rule of writes: success is passed on only if the position can be read and this
    /// node is still the primary of the same epoch. Then that position is the client's token.
    async fn acknowledge(&mut self, head: &mut Parts) -> Result<(), Problem> {
        let position = self.exchange.worker.shared.engine.read_position().await;
        let now = self.exchange.worker.seen();
        let same_reign = now.view.writable && now.view.epoch() == self.view.epoch();
        match position {
            Ok(position) if same_reign => {
                self.set_token(Position { epoch: self.view.epoch(), ..position }, head);
                Ok(())
            }
            // An error of the application acknowledges nothing.
            _ if head.status.is_client_error() || head.status.is_server_error() => Ok(()),
            Ok(_) => Err(Problem::new(
                Kind::WriteOutcomeUnknown,
                "this node ceased to be primary while the application did the write",
            )),
            Err(why) => {
                tracing::error!(%why, "cannot read the position after a write");
                Err(Problem::new(
                    Kind::WriteOutcomeUnknown,
                    format!("the application has answered, but the database cannot be read: {why}"),
                ))
            }
        }
    }

    /// Reads tell a position where the client asked for monotonic reads, or holds a token that only
    /// the primary may find impossible and replace.
    async fn tell_position(&self, head: &mut Parts) {
        let engine = &self.exchange.worker.shared.engine;
        let suspicious = self.view.writable
            && (self.call.carried.malformed
                || self.call.ask.token.is_some_and(|t| {
                    let position = engine.position().get();
                    route::with_epoch(t, position) > position
                }));
        if !suspicious && self.call.ask.consistency != Consistency::Monotonic {
            return;
        }
        let Ok(position) = engine.read_position().await else { return };
        let impossible = suspicious
            && (self.call.carried.malformed
                || self.call.ask.token.is_some_and(|t| route::with_epoch(t, position) > position));
        if impossible {
            use crate::telemetry::metrics::ReadWait;
            self.exchange.worker.metrics.read_wait(ReadWait::Impossible);
        }
        if impossible || self.call.ask.consistency == Consistency::Monotonic {
            self.set_token(position, head);
        }
    }

    fn set_token(&self, token: Token, head: &mut Parts) {
        self.exchange.worker.cookies.set(token, self.call.over_tls, &mut head.headers);
    }

    /// 101: from here on bytes flow both ways.
    fn switch(mut self, mut response: Response<Incoming>) -> Result<ClientResponse, Problem> {
        let Some(client_side) = self.call.upgrade.take() else {
            return Err(Problem::new(
                Kind::AppUnreachable,
                "the application switched protocols without having been asked to",
            ));
        };
        let app_side: OnUpgrade = hyper::upgrade::on(&mut response);
        let (mut head, _) = response.into_parts();
        headers::remove_hop_by_hop(&mut head.headers);
        headers::remove_ours(&mut head.headers);
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        self.exchange.mark(&mut head.headers);
        let tied = (self.exchange.class == Class::Write).then(|| self.view.epoch());
        self.exchange.client.activity.tunnel();
        tunnel::spawn(
            &self.exchange.worker,
            self.exchange.client.clone(),
            client_side,
            app_side,
            tied,
        );
        let finish = Finish::new(self.exchange, head.status, None);
        Ok(Response::from_parts(head, Answer::whole(bytes::Bytes::new(), finish)))
    }
}

/// Whether `fly-replay` names a machine or a region, for which our primary stands; `app=` and
/// `elsewhere=` mean something that we are not.
pub fn asks_for_primary(fly_replay: &[u8]) -> bool {
    let keys = || {
        fly_replay
            .split(|b| *b == b';')
            .map(|field| field.split(|b| *b == b'=').next().unwrap_or_default().trim_ascii())
    };
    keys().any(|key| key == b"instance" || key == b"region")
        && !keys().any(|key| key == b"app" || key == b"elsewhere")
}

#[cfg(test)]
mod tests {
    use super::asks_for_primary;

    #[test]
    fn replays_that_concern_us() {
        for yes in ["instance=abc", "region=ams;state=x", "instance=a; timeout=5s"] {
            assert!(asks_for_primary(yes.as_bytes()), "{yes}");
        }
        for no in ["app=other", "elsewhere=true", "app=other;region=ams", "", "state=x"] {
            assert!(!asks_for_primary(no.as_bytes()), "{no}");
        }
    }
}
