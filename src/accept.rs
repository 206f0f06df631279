//! Accepting connections, each served in a task of its own, within a bound.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// After a failed `accept`: most likely no file descriptor is free.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves whoever connects to `port`; beyond `limit` connections at once, more wait to be accepted.
/// Never ends. The connections are in `connections`, so that the caller can wait for them or end them.
pub(crate) async fn serve_each<F>(
    listener: &TcpListener,
    port: &'static str,
    limit: usize,
    connections: &mut JoinSet<()>,
    mut serve: impl FnMut(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= limit {
            connections.join_next().await;
            continue;
        }
        match listener.accept().await {
            Ok((stream, from)) => drop(connections.spawn(serve(stream, from))),
            Err(error) => {
                tracing::warn!(%error, "{port} cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
