//! What an application's response becomes on its way to the client. `view` is always the one under
//! which the request was sent.

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::response::Parts;
use http::{HeaderMap, Response, StatusCode};

use super::claim_watch;
use super::exchange::{ClientResponse, Exchange};
use super::finish::Finish;
use super::forward;
use super::headers;
use super::problem::{Problem, ProblemKind};
use super::replay::ReplayRequest;
use super::response_body::ResponseBody;
use super::route;
use super::token;
use super::tunnel::{self, Tied};
use super::upstream::{Body, Request};
use crate::cluster::{ClusterView, Epoch};
use crate::config::{Ack, Consistency};
use crate::guarantee::ReplayPolicy;
use crate::rules::Class;
use crate::telemetry::log_throttle::may_say;
use crate::telemetry::metrics::ReadWait;
use crate::txid::{EpochTxid, Token};

impl Exchange {
    /// The answer to what was sent to this node's application.
    pub(super) async fn answer_of_app(
        &mut self,
        mut response: Response<Body>,
        view: &ClusterView,
    ) -> Result<ClientResponse, Problem> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            headers::remove_ours(response.headers_mut());
            return self.switch(response, self.tied(Tied::ToClaim, view));
        }
        let asks_for_replay = ReplayRequest::take(response.headers_mut()).is_some();
        let replays =
            self.class() != Class::Passthrough && self.facts.replay != ReplayPolicy::Never;
        if asks_for_replay && replays {
            return Err(Problem::new(
                ProblemKind::LoopDetected,
                "the application on the primary asked for a replay on the primary: it takes this node \
                 for a replica, or its database is not writable",
            ));
        }
        headers::remove_ours(response.headers_mut());
        let (mut head, body) = response.into_parts();
        self.end_look(&mut head).await;
        match self.class() {
            Class::Write => Box::pin(self.acknowledge(&mut head, view)).await?,
            Class::Read if self.is_position_wanted(view) => {
                Box::pin(self.tell_position(&mut head, view)).await
            }
            Class::Read | Class::Passthrough => {}
        }
        self.mark(&mut head.headers);
        Ok(self.pass_on(head, body))
    }

    /// The answer to what was sent to the primary through its Litepilot, which has applied the rules
    /// above. The cookies are ours to set: only this node knows how the client came.
    pub(super) fn answer_of_peer(
        &mut self,
        response: Response<Body>,
        request: &Request,
        view: &ClusterView,
    ) -> Result<ClientResponse, Problem> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(response, self.tied(Tied::ToEpoch, view));
        }
        let (mut head, body) = response.into_parts();
        if head.headers.remove(forward::WROTE).is_some() {
            self.was_refused_here(request);
        }
        if let Some(token) = forward::token_of(&head.headers) {
            self.set_token(token, &mut head.headers);
        }
        head.headers.insert(headers::ROUTE, self.route_header());
        Ok(self.pass_on(head, body))
    }

    fn pass_on(&mut self, head: Parts, body: Body) -> ClientResponse {
        let finish = Finish::new(self, head.status);
        let limit = self.facts.limits.piece;
        Response::from_parts(head, ResponseBody::app(body, limit, finish))
    }

    /// The answer rule of writes (docs/election.md): success is passed on only if the position can be
    /// read, as many nodes hold it as were asked for, and this node is still the primary of the same
    /// epoch. Then that position is the client's token.
    async fn acknowledge(&self, head: &mut Parts, view: &ClusterView) -> Result<(), Problem> {
        let position = self.worker.shared.engine.read_position().await;
        // An error of the application acknowledges nothing.
        let failed = head.status.is_client_error() || head.status.is_server_error();
        let position = match position {
            // What was read a moment later may be of a later epoch.
            Ok(position) if position.epoch <= view.epoch() && self.still_acknowledges(view) => {
                position
            }
            _ if failed => return Ok(()),
            Ok(position) if position.epoch <= view.epoch() => {
                return Err(deposed().with_token(position));
            }
            Ok(_) => return Err(deposed()),
            Err(why) => {
                if let Some(held_back) = may_say("position after a write") {
                    tracing::error!(%why, held_back, "cannot read the position after a write");
                }
                return Err(Problem::new(
                    ProblemKind::WriteOutcomeUnknown,
                    format!("the application has answered, but the database cannot be read: {why}"),
                ));
            }
        };
        if head.status.is_success() {
            self.worker.shared.unmoved.note(position);
        }
        if !failed {
            let acknowledged = self.wait_for_acks(position, view).await;
            if let Some(held_by) = acknowledged.map_err(|why| why.with_token(position))? {
                head.headers.insert(headers::ACK, held_by);
            }
        }
        if self.is_lost(position) {
            self.tell_loss(head);
        }
        self.set_token(position, &mut head.headers);
        Ok(())
    }

    /// Waits for the acknowledgements that were asked for; returns what the answer says of them.
    async fn wait_for_acks(
        &self,
        position: EpochTxid,
        view: &ClusterView,
    ) -> Result<Option<HeaderValue>, Problem> {
        let level = self.facts.ack;
        if level == Ack::Primary {
            return Ok(None);
        }
        let shared = &self.worker.shared;
        let waiting = shared.ack.wait(level, position, shared.metrics.node());
        self.while_primary(view, waiting).await.unwrap_or_else(|| Err(deposed()))
    }

    /// What `waiting` comes to; `None` if this node is not the primary of that epoch any more.
    pub(super) async fn while_primary<T>(
        &self,
        view: &ClusterView,
        waiting: impl Future<Output = T>,
    ) -> Option<T> {
        let done = tokio::select! {
            done = waiting => done,
            () = claim_watch::over(self.worker.shared.view.clone(), view) => return None,
        };
        // Time has passed, and the claim may have with it.
        self.still_acknowledges(view).then_some(done)
    }

    /// Whether this node is still the primary of the epoch in which its application was asked.
    fn still_acknowledges(&self, view: &ClusterView) -> bool {
        view.still_acknowledges(&self.worker.seen().view)
    }

    /// Reads tell a position where the client asked for monotonic reads, or holds a token of
    /// something that was lost, or one that only the primary may find impossible.
    fn is_position_wanted(&self, view: &ClusterView) -> bool {
        let position = self.worker.shared.engine.position();
        self.facts.consistency == Consistency::Monotonic
            || self.is_lost(position.get())
            || self.is_token_suspicious(view)
    }

    /// Whether a failover lost what the client's token stands for, and a copy at `position` follows
    /// an epoch that began without it. Until it does, the loss is not this node's to tell.
    fn is_lost(&self, position: EpochTxid) -> bool {
        self.facts.token.is_some_and(|token| {
            position.epoch > token.epoch && self.worker.seen().view.lost(token)
        })
    }

    fn tell_loss(&self, head: &mut Parts) {
        head.headers.insert(headers::LOST_WRITE, HeaderValue::from_static("true"));
        self.worker.shared.metrics.node().lost_writes.inc();
    }

    fn is_token_suspicious(&self, view: &ClusterView) -> bool {
        let unknown = |token| {
            let position = self.worker.shared.engine.position();
            !position.reached(route::with_epoch(token, position.get()))
        };
        (self.facts.malformed_token || self.facts.token.is_some_and(unknown))
            && self.still_acknowledges(view)
    }

    async fn tell_position(&self, head: &mut Parts, view: &ClusterView) {
        let position = self.worker.shared.engine.read_position().await;
        let Ok(position) = position else { return };
        let ahead = |token| route::with_epoch(token, position) > position;
        let ahead = self.facts.token.is_some_and(ahead);
        // A later primary may have given what this node would find impossible.
        let impossible = (self.facts.malformed_token || ahead) && self.still_acknowledges(view);
        if impossible {
            self.worker.metrics.read_wait(ReadWait::Impossible);
        }
        let lost = self.is_lost(position);
        if lost {
            self.tell_loss(head);
        }
        let newer = self.facts.consistency == Consistency::Monotonic && !ahead;
        if newer || lost || impossible {
            self.set_token(position, &mut head.headers);
        }
    }

    pub(super) fn set_token(&self, token: Token, headers: &mut HeaderMap) {
        if self.facts.from_peer {
            token::set_headers(token, headers);
        } else {
            let (over_tls, marks) = (self.facts.over_tls, &self.facts.marks);
            self.worker.cookies.set(token, over_tls, marks, headers);
        }
    }

    /// What a socket is tied to if it writes.
    fn tied(&self, to: fn(Epoch) -> Tied, view: &ClusterView) -> Tied {
        if self.class() == Class::Write { to(view.epoch()) } else { Tied::Freely }
    }

    /// 101: from here on bytes flow both ways.
    fn switch(&mut self, response: Response<Body>, tied: Tied) -> Result<ClientResponse, Problem> {
        let (mut head, body) = response.into_parts();
        let Some((client_side, app_side)) = self.client_side.take().zip(body.into_tunnel()) else {
            return Err(Problem::new(
                ProblemKind::AppUnreachable,
                "the application switched protocols without having been asked to",
            ));
        };
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        // A peer has named its node already.
        if !head.headers.contains_key(headers::NODE) {
            self.mark(&mut head.headers);
        }
        head.headers.insert(headers::ROUTE, self.route_header());
        let client = self.client.clone();
        client.tunnel();
        tunnel::spawn(&self.worker, client, client_side, app_side, tied);
        let finish = Finish::new(self, head.status);
        Ok(Response::from_parts(head, ResponseBody::whole(Bytes::new(), finish)))
    }
}

fn deposed() -> Problem {
    let detail = "this node ceased to be primary while the application did the write";
    Problem::new(ProblemKind::WriteOutcomeUnknown, detail)
}
