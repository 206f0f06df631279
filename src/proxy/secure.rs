//! A client that comes over TLS: the handshake, and then the protocol that was agreed on by ALPN
//! (RFC 7301).
//!
//! A handshake has the time and, in rustls, the memory (64 KiB) of a head in HTTP/1. So there may be as
//! many of them as connections: with a lower limit a few slow ones would hold everybody up.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::client::{self, Client};
use super::http2;
use super::linger;
use super::problem::{Problem, ProblemKind};
use super::worker::Worker;
use crate::tls::edge::HTTP_2;

/// The first byte of a handshake (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;
/// For a socket to take our answer.
const SAYING: Duration = Duration::from_secs(1);

/// Serves a client until either side is done.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    config: Arc<ServerConfig>,
    socket: TcpStream,
    client: Client,
) {
    // A handshake that takes long is as slow as a head that does.
    let limit = worker.shared.config.header_timeout;
    let stream = match timeout(limit, shake_hands(&worker, config, socket)).await {
        Ok(Some(stream)) => stream,
        Ok(None) => return,
        Err(_) => return tracing::debug!(client = client.name(), "a handshake took too long"),
    };
    if stream.get_ref().1.alpn_protocol() == Some(HTTP_2) {
        http2::serve(worker, stream, client).await;
    } else {
        client::serve_http1(worker, stream, client).await;
    }
}

async fn shake_hands(
    worker: &Worker,
    config: Arc<ServerConfig>,
    socket: TcpStream,
) -> Option<TlsStream<TcpStream>> {
    let mut first = [0];
    let said = socket.peek(&mut first).await.is_ok_and(|bytes| bytes > 0);
    if !said {
        return None;
    }
    if first[0].is_ascii_uppercase() {
        say_https(socket, worker).await;
        return None;
    }
    if first[0] != HANDSHAKE {
        return None;
    }
    match TlsAcceptor::from(config).accept(socket).await {
        Ok(stream) => Some(stream),
        Err(why) => {
            tracing::debug!(%why, "no TLS with a client");
            None
        }
    }
}

/// Tells a client that speaks plain HTTP what would be right.
async fn say_https(mut socket: TcpStream, worker: &Worker) {
    let problem =
        Problem::new(ProblemKind::BadRequest, "this port speaks TLS: use https:// in its URL");
    let answer = problem.raw(&worker.shared.node);
    if let Ok(Ok(())) = timeout(SAYING, socket.write_all(&answer)).await {
        linger::close_soon(socket).await;
    }
}
