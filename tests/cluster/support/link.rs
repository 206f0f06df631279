//! The way from one node to another, on which each protocol can be disturbed by itself.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::relay::Relay;

/// Looks at the first line of each connection, and has it pass through the relay of its protocol.
pub struct PeerLink {
    addr: SocketAddr,
    /// Forwarded requests.
    pub http: Arc<Relay>,
    /// The database.
    pub data: Arc<Relay>,
    /// What nodes tell about themselves.
    pub gossip: Arc<Relay>,
    _tasks: JoinSet<()>,
}

impl PeerLink {
    /// A way to the node that listens at `target`.
    pub async fn to(target: SocketAddr) -> Self {
        let relay = || async { Arc::new(Relay::to(target).await) };
        let (http, data, gossip) = (relay().await, relay().await, relay().await);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let relays = [
            ("litepilot-http/1", http.clone()),
            ("litepilot-embedded/2", data.clone()),
            ("litepilot-gossip/1", gossip.clone()),
        ];
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(sort(stream, relays.clone()));
            }
        });
        Self { addr, http, data, gossip, _tasks: tasks }
    }

    /// Where to connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

async fn sort(stream: TcpStream, relays: [(&str, Arc<Relay>); 3]) {
    let mut start = [0; 256];
    let line = loop {
        match stream.peek(&mut start).await {
            Ok(read @ 1..) if start[..read].contains(&b'\n') => {
                break String::from_utf8_lossy(&start[..read]);
            }
            // The rest of the line is on its way; peeking does not wait for it.
            Ok(1..) => tokio::time::sleep(Duration::from_millis(1)).await,
            _ => return,
        }
    };
    let protocol = line.split(' ').nth(1).unwrap();
    let (_, relay) = relays.iter().find(|(name, _)| *name == protocol).unwrap();
    relay.adopt(stream);
}
