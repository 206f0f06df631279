//! Clusters in one process: each node with a runtime, a disk and a peer port of its own.

mod bad_disk;
mod bootstrap;
mod electing;
mod membership;
mod resting;
mod simulated;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{self, Runtime};
use tokio::time::{sleep, timeout};

use super::store::Store;
use super::{ChangeError, Leadership, Member, Raft, RaftSetup};
use crate::cluster::{Epoch, NodeId};
use crate::config::HostPort;
use crate::control::MemberChange;
use crate::demo::reserve::{self, Reserved};
use crate::election::rpc::{Request, Response, Service};
use crate::election::table::{Applied, Command, Holder, Session, Table};
use crate::election::transport::{self, PeerTransport};
use crate::engine::BoxFuture;
use crate::peer::{self, Dialer, Listener, Times};

/// Long, so that a machine with much else to do holds no elections that nobody asked for.
const TTL: Duration = Duration::from_secs(3);
/// However busy the machine is.
const GENEROUS: Duration = Duration::from_secs(60);

fn id(name: &str) -> NodeId {
    name.parse().unwrap()
}

/// Names with addresses and directories; nodes run and stop.
struct Cluster {
    dir: tempfile::TempDir,
    addresses: BTreeMap<NodeId, (Reserved, SocketAddr)>,
    nodes: BTreeMap<NodeId, Node>,
}

struct Node {
    raft: Raft,
    runtime: Runtime,
}

impl Cluster {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, addresses: BTreeMap::new(), nodes: BTreeMap::new() }
    }

    async fn running(names: &[&str]) -> Self {
        let mut cluster = Self::new();
        for name in names {
            cluster.start(name, names).await;
        }
        cluster
    }

    fn address(&mut self, name: &str) -> SocketAddr {
        let reserved = self.addresses.entry(id(name));
        reserved.or_insert_with(|| reserve::port(0).unwrap()).1
    }

    fn seeds(&mut self, names: &[&str]) -> Vec<Member> {
        let seed = |name: &&str| {
            let address = self.address(name).to_string();
            Member { name: id(name), generation: 0, address, witness: false }
        };
        names.iter().map(seed).collect()
    }

    fn store_dir(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn start(&mut self, name: &str, seeds: &[&str]) {
        let seeds = self.seeds(seeds);
        self.start_with(name, seeds).await;
    }

    async fn start_with(&mut self, name: &str, seeds: Vec<Member>) {
        let dir = self.store_dir(name);
        let store = eventually(|| async { Store::open(&dir).ok() }).await;
        self.start_in(name, seeds, store).await;
    }

    async fn start_in(&mut self, name: &str, seeds: Vec<Member>, store: Store) {
        let at = self.address(name);
        let setup = RaftSetup { own: id(name), seeds, ttl: TTL };
        let runtime =
            runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let raft = runtime.spawn(run(setup, store, at)).await.unwrap();
        self.nodes.insert(id(name), Node { raft, runtime });
    }

    /// As if its process was killed.
    fn kill(&mut self, name: &str) {
        let node = self.nodes.remove(&id(name)).unwrap();
        node.runtime.shutdown_background();
    }

    async fn stop(&mut self, name: &str) {
        self.raft(name).stop().await;
        self.kill(name);
    }

    fn wipe(&self, name: &str) {
        std::fs::remove_dir_all(self.store_dir(name)).unwrap();
    }

    /// It comes back at once, with an empty disk.
    async fn lose_disk(&mut self, name: &str, seeds: &[&str]) {
        self.kill(name);
        self.wipe(name);
        self.start(name, seeds).await;
    }

    fn raft(&self, name: &str) -> Raft {
        self.nodes[&id(name)].raft.clone()
    }

    /// The one that leads, and can prove it.
    async fn leader(&self) -> (String, Raft) {
        eventually(|| async {
            for (name, node) in &self.nodes {
                let leadership = node.raft.leadership().borrow().clone();
                if leadership.ours && node.raft.confirm().await.is_ok() {
                    return Some((name.to_string(), node.raft.clone()));
                }
            }
            None
        })
        .await
    }

    /// Those that do not lead, of those that run.
    async fn followers(&self) -> Vec<String> {
        let (leader, _) = self.leader().await;
        self.nodes.keys().map(NodeId::to_string).filter(|name| *name != leader).collect()
    }

    /// Has something agreed upon, whoever leads, and waits until every running node has applied it.
    async fn agree(&self, key: &str) {
        self.propose(mark(key)).await;
        self.all_know(key).await;
    }

    async fn propose(&self, command: Command) -> Applied {
        eventually(|| async {
            let (_, leader) = self.leader().await;
            leader.propose(command.clone()).await.ok()
        })
        .await
    }

    async fn all_know(&self, key: &str) {
        for node in self.nodes.values() {
            let mut table = node.raft.table();
            let known = table.wait_for(|table| knows(table, key));
            timeout(GENEROUS, known).await.expect("a node lacks what was agreed upon").unwrap();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (_, node) in std::mem::take(&mut self.nodes) {
            node.runtime.shutdown_background();
        }
    }
}

/// A node around Raft, with nothing else in it.
async fn run(setup: RaftSetup, store: Store, at: SocketAddr) -> Raft {
    let times = Times {
        connect: Duration::from_secs(5),
        greeting: Duration::from_secs(5),
        unacknowledged: Duration::from_secs(60),
    };
    let own = setup.own.clone();
    let dialer = Arc::new(Dialer::new(own.clone(), &addresses(&setup.seeds), times));
    let transport = Arc::new(PeerTransport::new(dialer.clone()));
    let raft = Raft::start(setup, store, transport).await.unwrap();
    let mut peers = raft.peers();
    let known = peers.clone();
    let members = Arc::new(move |node: &NodeId| known.borrow().contains_key(node));
    let mut listener = Listener::bind(own, at, members, times).await.unwrap();
    let service = Arc::new(OnlyRaft(raft.clone()));
    listener.handle(peer::RAFT, transport::LIMITS, transport::handler(service));
    tokio::spawn(listener.run());
    tokio::spawn(async move {
        while peers.changed().await.is_ok() {
            let now: Vec<_> = peers.borrow_and_update().values().cloned().collect();
            dialer.set_peers(&addresses(&now));
        }
    });
    raft
}

fn addresses(members: &[Member]) -> Vec<(NodeId, HostPort)> {
    let address = |member: &Member| {
        let at: SocketAddr = member.address.parse().unwrap();
        (member.name.clone(), HostPort { host: at.ip().to_string(), port: at.port() })
    };
    members.iter().map(address).collect()
}

struct OnlyRaft(Raft);

impl Service for OnlyRaft {
    fn answer(&self, from: NodeId, request: Request) -> BoxFuture<'static, Response> {
        let raft = self.0.clone();
        Box::pin(async move {
            match request {
                Request::Raft(message) => Response::Raft(raft.answer(&from, message).await),
                _ => Response::Refused("only Raft here".to_owned()),
            }
        })
    }
}

/// Something to agree upon. The table remembers it as the generation of a node that there is not.
fn mark(key: &str) -> Command {
    Command::Outdate { node: id(&key.replace(' ', "-")), generation: 0 }
}

fn knows(table: &Table, key: &str) -> bool {
    table.generation(&id(&key.replace(' ', "-"))) > 0
}

/// Changes the members with nobody to ask first.
async fn change_at(leader: &Raft, change: MemberChange) -> Result<(), ChangeError> {
    leader.change_members(change, &|_| Box::pin(async { Ok(()) })).await
}

/// Tries until there is something.
async fn eventually<T, F: Future<Output = Option<T>>>(mut attempt: impl FnMut() -> F) -> T {
    let tries = async {
        loop {
            if let Some(found) = attempt().await {
                return found;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(GENEROUS, tries).await.expect("it never came")
}

fn holder(node: &str, epoch: u64) -> Holder {
    Holder { node: id(node), session: Session("s".to_owned()), epoch: Epoch(epoch) }
}

/// openraft's tests of a store make members up.
impl Default for Member {
    fn default() -> Self {
        Self { name: id("x"), generation: 0, address: String::new(), witness: false }
    }
}
