//! A port that this machine's LiteFS speaks to: HTTP/1.1 on loopback, a secret required, everything bounded.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::accept::{self, Guest};
use crate::crowd::Standing;
use crate::secret::Secret;

/// An idle connection is kept this long; LiteFS keeps its own for 90 s.
const IDLE: Duration = Duration::from_secs(100);

/// What such a port takes.
pub(crate) struct LocalPort {
    /// For the log.
    pub(crate) name: &'static str,
    /// Connections at once.
    pub(crate) connections: usize,
    /// Bytes of a request's head, and of what is read of a body at once.
    pub(crate) buffer: usize,
    /// What bears the secret, and the secret.
    pub(crate) key: (&'static str, Secret),
}

impl LocalPort {
    /// Answers whoever connects; `answer` is told whether it knows the secret. Never ends.
    ///
    /// Once somebody has shown the secret, its connection gives way to nobody: without that any process here
    /// could keep LiteFS from renewing its lease.
    pub(crate) async fn serve<A, F>(self, listener: TcpListener, answer: A)
    where
        A: Fn(Request<Incoming>, bool) -> F + Clone + Send + 'static,
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let mut connections = JoinSet::new();
        let key = Arc::new(self.key);
        let serve = |stream, from, guest: Guest| {
            let (answer, key) = (answer.clone(), key.clone());
            connection(stream, from, self.buffer, move |request: Request<Incoming>| {
                let knows = knows_the_secret(request.headers(), key.0, &key.1);
                if knows {
                    guest.is(Standing::Proven);
                }
                answer(request, knows)
            })
        };
        accept::serve_each(&listener, self.name, self.connections, &mut connections, serve).await;
    }
}

async fn connection<A, F>(stream: TcpStream, from: SocketAddr, buffer: usize, answer: A)
where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Full<Bytes>>>,
{
    // Without it each answer would take 40 ms.
    if stream.set_nodelay(true).is_err() || !from.ip().to_canonical().is_loopback() {
        return;
    }
    let service = service_fn(move |request| {
        let answered = answer(request);
        async move { Ok::<_, Infallible>(answered.await) }
    });
    // What breaks a connection is LiteFS' end, or is seen there.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(buffer)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// Whether a request bears the secret in that header, once.
fn knows_the_secret(headers: &HeaderMap, header: &str, secret: &Secret) -> bool {
    let mut given = headers.get_all(header).iter();
    let (given, other) = (given.next(), given.next());
    other.is_none() && given.is_some_and(|token| secret.is(token.as_bytes()))
}
