//! The peer port over real sockets.

mod certs;
mod gossiping;
mod greeting;
mod links;
pub(crate) mod log;
mod secure;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::listener::{ConnectionLimits, Handler, Incoming, Listener};
use super::{Dialer, Times};
use crate::cluster::NodeId;
use crate::config::HostPort;

/// The protocol of these tests: it sends back what it gets.
const ECHO: &str = "test-echo/1";

/// Short where a test waits for the end of it, generous otherwise.
const TIMES: Times = Times {
    connect: Duration::from_secs(20),
    greeting: Duration::from_secs(20),
    unacknowledged: Duration::from_secs(60),
};

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn host_port(at: SocketAddr) -> HostPort {
    HostPort { host: at.ip().to_string(), port: at.port() }
}

/// How nodes speak to each other. What a test shows of one should hold of the other.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Over {
    Plain,
    Tls,
}

impl Over {
    const BOTH: [Self; 2] = [Self::Plain, Self::Tls];

    /// A listener of node `name` whose members are `n1`, `n2` and `n3`.
    async fn bind(self, name: &str, times: Times) -> Listener {
        let members = Arc::new(|node: &NodeId| ["n1", "n2", "n3"].contains(&node.as_str()));
        let at = (Ipv4Addr::LOCALHOST, 0).into();
        let mut listener = Listener::bind(node(name), at, members, times).await.unwrap();
        if self == Self::Tls {
            listener.secure(certs::credentials(name));
        }
        listener
    }

    /// Runs an echoing listener in `tasks` and says where.
    async fn echo(
        self,
        tasks: &mut JoinSet<()>,
        name: &str,
        limits: ConnectionLimits,
        times: Times,
    ) -> SocketAddr {
        let mut listener = self.bind(name, times).await;
        listener.handle(ECHO, limits, echo_handler());
        let at = listener.local_addr().unwrap();
        tasks.spawn(listener.run());
        at
    }

    fn dialer(self, own: &str, peers: &[(&str, SocketAddr)]) -> Dialer {
        let peers: Vec<_> = peers.iter().map(|(name, at)| (node(name), host_port(*at))).collect();
        let mut dialer = Dialer::new(node(own), &peers, TIMES);
        if self == Self::Tls {
            dialer.secure(certs::credentials(own));
        }
        dialer
    }
}

async fn bind(name: &str, times: Times) -> Listener {
    Over::Plain.bind(name, times).await
}

async fn echo(
    tasks: &mut JoinSet<()>,
    name: &str,
    limits: ConnectionLimits,
    times: Times,
) -> SocketAddr {
    Over::Plain.echo(tasks, name, limits, times).await
}

fn dialer(own: &str, peers: &[(&str, SocketAddr)]) -> Dialer {
    Over::Plain.dialer(own, peers)
}

fn echo_handler() -> Handler {
    Arc::new(|incoming: Incoming| {
        tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(incoming.stream);
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut writer).await;
        });
    })
}

const MANY: ConnectionLimits = ConnectionLimits { per_peer: 100, total: 100 };
