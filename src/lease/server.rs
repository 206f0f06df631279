//! The lease's port: loopback only, a password required, everything bounded.
//!
//! Whoever could reach it could release our lease. LiteFS sends the password of the URL that it was
//! given as the header `X-Consul-Token`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::LeaseSource;
use super::answer::{self, Answer};
use super::request::{Ask, Terms};
use crate::local_http::LocalPort;
use crate::secret::Secret;
use crate::telemetry::log_throttle::may_say;

/// Connections at once. A LiteFS needs one or two.
const CONNECTIONS: usize = 16;
/// Bytes of a request's head; hyper's least buffer.
const MAX_HEAD: usize = 8 * 1024;
/// Bytes of a request's body. The largest is the primary's address.
const MAX_BODY: usize = 4 * 1024;
const BODY: Duration = Duration::from_secs(2);

/// Serves the lease until it is dropped.
pub struct LeaseServer {
    source: Arc<dyn LeaseSource>,
    secret: Secret,
    /// Of the last session: a LiteFS renews the same terms that it asked for.
    terms: Mutex<Terms>,
}

impl LeaseServer {
    /// Whoever knows `secret` is answered what `source` says.
    pub fn new(source: Arc<dyn LeaseSource>, secret: Secret) -> Self {
        Self { source, secret, terms: Mutex::default() }
    }

    /// Serves whoever connects. Never ends.
    pub async fn serve(self, listener: TcpListener) {
        let port = LocalPort {
            name: "the lease's port",
            connections: CONNECTIONS,
            buffer: MAX_HEAD,
            key: ("x-consul-token", self.secret.clone()),
        };
        let server = Arc::new(self);
        let answer = move |request, knows| {
            let server = server.clone();
            async move { reply(server.answer(request, knows).await) }
        };
        port.serve(listener, answer).await;
    }

    async fn answer(&self, request: Request<Incoming>, knows_the_secret: bool) -> Answer {
        let (head, body) = request.into_parts();
        if !knows_the_secret {
            Self::log_stranger(&head.method, &head.uri, "without the password");
            return (StatusCode::FORBIDDEN, "Permission denied".to_owned());
        }
        let body = timeout(BODY, Limited::new(body, MAX_BODY).collect()).await;
        let body = match body {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) | Err(_) => Bytes::new(),
        };
        match Ask::read(&head.method, head.uri.path(), head.uri.query(), &body) {
            Some(ask) => self.say(ask).await,
            None => {
                Self::log_stranger(&head.method, &head.uri, "which LiteFS never asks");
                answer::nothing()
            }
        }
    }

    async fn say(&self, ask: Ask) -> Answer {
        let source = &self.source;
        match ask {
            Ask::Primary => answer::primary(source.primary()),
            Ask::ClusterId => answer::cluster_id(source.cluster_id()),
            Ask::SetClusterId(id) => match source.set_cluster_id(id).await {
                Ok(()) => answer::truth(true),
                Err(why) => answer::failure(&why),
            },
            Ask::Create(terms) => {
                *self.terms() = terms;
                answer::created(&source.create())
            }
            Ask::Acquire(session) => answer::truth(source.acquire(&session)),
            Ask::Renew(session) if source.renew(&session) => {
                answer::renewed(&session, &self.terms())
            }
            Ask::Renew(_) => answer::nothing(),
            Ask::Release(session) => answer::truth(source.release(&session)),
            Ask::Destroy(session) => {
                source.release(&session);
                answer::truth(true)
            }
        }
    }

    fn terms(&self) -> parking_lot::MutexGuard<'_, Terms> {
        self.terms.lock()
    }

    fn log_stranger(method: &Method, uri: &Uri, what: &str) {
        if let Some(held_back) = may_say("lease") {
            let path = crate::yaml::shorten(uri.path());
            tracing::warn!(%method, path, held_back, "the lease's port was asked something {what}");
        }
    }
}

fn reply((status, body): Answer) -> Response<Full<Bytes>> {
    let mut reply = Response::new(Full::new(Bytes::from(body)));
    *reply.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    reply.headers_mut().insert(http::header::CONTENT_TYPE, json);
    reply
}
