//! The lease's port: loopback only, a password required, everything bounded.
//!
//! Whoever could reach it could release our lease. LiteFS sends the password of the URL that it was
//! given as the header `X-Consul-Token`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::LeaseSource;
use super::answer::{self, Answer};
use super::request::{Ask, Terms};
use crate::accept;
use crate::secret::Secret;

/// Connections at once. A LiteFS needs one or two.
const CONNECTIONS: usize = 16;
/// An idle connection is kept this long; LiteFS keeps its own for 90 s.
const IDLE: Duration = Duration::from_secs(100);
/// Bytes of a request's head; hyper's least buffer.
const MAX_HEAD: usize = 8 * 1024;
/// Bytes of a request's body. The largest is the primary's address.
const MAX_BODY: usize = 4 * 1024;
const BODY: Duration = Duration::from_secs(2);
/// A stranger's requests are logged this often at most.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Serves the lease until it is dropped.
pub struct LeaseServer {
    source: Arc<dyn LeaseSource>,
    secret: Secret,
    /// Of the last session: a LiteFS renews the same terms that it asked for.
    terms: Mutex<Terms>,
    /// When a request that is none of LiteFS' was logged last.
    logged: Mutex<Option<Instant>>,
}

impl LeaseServer {
    /// Whoever knows `secret` is answered what `source` says.
    pub fn new(source: Arc<dyn LeaseSource>, secret: Secret) -> Self {
        Self { source, secret, terms: Mutex::default(), logged: Mutex::default() }
    }

    /// Serves whoever connects. Never ends.
    pub async fn serve(self, listener: TcpListener) {
        let server = Arc::new(self);
        let mut connections = JoinSet::new();
        let serve = |stream, from| server.clone().connection(stream, from);
        accept::serve_each(&listener, "the lease's port", CONNECTIONS, &mut connections, serve)
            .await;
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, from: SocketAddr) {
        // Without it each answer would take 40 ms.
        if stream.set_nodelay(true).is_err() || !from.ip().to_canonical().is_loopback() {
            return;
        }
        let service = service_fn(|request| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(reply(server.answer(request).await)) }
        });
        // What breaks a connection is LiteFS' end, or is seen there.
        let _ = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        if !self.knows_the_secret(&head.headers) {
            self.log_stranger(&head.method, &head.uri, "without the password");
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
                self.log_stranger(&head.method, &head.uri, "which LiteFS never asks");
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

    fn knows_the_secret(&self, headers: &HeaderMap) -> bool {
        let mut given = headers.get_all("x-consul-token").iter();
        let (given, other) = (given.next(), given.next());
        other.is_none() && given.is_some_and(|token| self.secret.is(token.as_bytes()))
    }

    fn terms(&self) -> parking_lot::MutexGuard<'_, Terms> {
        self.terms.lock()
    }

    fn log_stranger(&self, method: &Method, uri: &Uri, what: &str) {
        let mut logged = self.logged.lock();
        if logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            *logged = Some(Instant::now());
            let path = crate::yaml::shorten(uri.path());
            tracing::warn!(%method, path, "the lease's port was asked something {what}");
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
