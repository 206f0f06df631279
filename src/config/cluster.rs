//! `cluster:`, the other nodes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::reader::Section;
use super::{EngineKind, HostPort, PeerTls, address, tls, value};
use crate::cluster::{BadNodeId, NodeId};
use crate::guarantee::{self, Ack};
use crate::yaml::Node;
use crate::yaml::value::ValueError;

const PORT: u16 = 4321;
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT);
/// Of nodes on one machine that speak plain TCP.
const LISTEN_LOCALLY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT);
const LEASE_TTL: Duration = Duration::from_secs(2);
/// A LiteFS that we did not start cannot be killed when it hangs, so it gets more time. Also its
/// default.
const LEASE_TTL_EXTERNAL: Duration = Duration::from_secs(3);
const SHORTEST_LEASE_TTL: Duration = Duration::from_secs(1);
const ACK_TIMEOUT: Duration = Duration::from_secs(1);

/// `cluster:`
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// How the primary is found. Without peers always [`Election::Single`].
    pub election: Election,
    /// The port between nodes.
    pub listen: SocketAddr,
    /// `cluster.advertise`, which only counts as one more address when it is asked whether all of the
    /// cluster is on this machine: others dial this node's entry in [`Cluster::peers`].
    pub(crate) advertise: Option<HostPort>,
    /// Every node with its address, this one included, sorted by name.
    pub peers: Vec<(NodeId, HostPort)>,
    /// Peers that vote but hold no data.
    pub(crate) witnesses: Vec<NodeId>,
    /// May this node become primary.
    pub candidate: bool,
    /// Certificates between nodes; without them they speak plain TCP.
    pub tls: Option<PeerTls>,
    /// Plain TCP between nodes although not all are on loopback.
    pub insecure: bool,
    /// `cluster.lease.ttl`
    pub lease_ttl: Duration,
    /// Who must hold a write before its client is answered.
    pub ack: Ack,
    /// How long that may take.
    pub(crate) ack_timeout: Duration,
}

/// How the primary is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Election {
    /// By the embedded Raft.
    Raft,
    /// It is always this node.
    Static(NodeId),
    /// There is only this node.
    Single,
}

/// The names of the ways to find a primary.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Raft,
    Static,
    Single,
}

pub(super) fn read(
    section: &Section<'_>,
    node: Option<&NodeId>,
    engine: EngineKind,
) -> Option<Cluster> {
    let peers = read_peers(section, node);
    let witnesses = read_witnesses(section, &peers);
    let candidate = read_candidate(section, node, &witnesses);
    let advertise = section.get("advertise", address::dial);
    let insecure = section.get("insecure", value::boolean).unwrap_or(false);
    let reached = peers.iter().map(|(_, at)| at).chain(&advertise);
    let local = peers.is_empty() || { reached }.all(HostPort::is_loopback);
    let cluster = Cluster {
        listen: read_listen(section, local && !peers.is_empty() && !insecure),
        advertise: advertise.filter(|_| !peers.is_empty()),
        tls: read_tls(section, local, insecure),
        insecure,
        lease_ttl: section.section("lease", |lease| read_ttl(lease, engine)),
        ack: section.get("ack", guarantee::ack).unwrap_or(Ack::Primary),
        ack_timeout: section.get("ack_timeout", value::duration).unwrap_or(ACK_TIMEOUT),
        election: read_election(section, node, &peers, &witnesses, candidate)?,
        peers,
        witnesses,
        candidate,
    };
    Some(cluster)
}

type PeerList = [(NodeId, HostPort)];

fn is_peer(peers: &PeerList, node: &NodeId) -> bool {
    peers.iter().any(|(peer, _)| peer == node)
}

fn names(peers: &PeerList) -> String {
    peers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
}

fn read_peers(section: &Section<'_>, node: Option<&NodeId>) -> Vec<(NodeId, HostPort)> {
    let name = |key: &str| key.parse::<NodeId>().map_err(|why| why.to_string().into());
    let entries = section.entries("peers", name, address::dial).unwrap_or_default();
    // A peer with a wrong address is still a peer: nothing more is to be said of it.
    let unknown = HostPort { host: "localhost".to_owned(), port: 0 };
    let with_address = |(name, address): (NodeId, Option<HostPort>)| {
        (name, address.unwrap_or_else(|| unknown.clone()))
    };
    let mut peers: Vec<_> = entries.into_iter().map(with_address).collect();
    peers.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (i, (name, address)) in peers.iter().enumerate() {
        let mut before = peers[..i].iter().filter(|(_, other)| *other != unknown);
        if let Some((other, _)) = before.find(|(_, other)| other == address) {
            section.wrong("peers", format!("{other} and {name} have the same address {address}"));
        }
    }
    match node {
        Some(node) if !peers.is_empty() && !is_peer(&peers, node) => {
            let message = format!(
                "this node, {node}, is not among them: add {node}: HOST:PORT, or set node to one of {}",
                names(&peers)
            );
            section.wrong("peers", message);
        }
        _ => {}
    }
    peers
}

fn read_witnesses(section: &Section<'_>, peers: &PeerList) -> Vec<NodeId> {
    let mut witnesses = section.list("witnesses", node_id).unwrap_or_default();
    for witness in &witnesses {
        if !is_peer(peers, witness) {
            let message =
                format!("{witness} is not among the peers: add it there, or remove it here");
            section.wrong("witnesses", message);
        }
    }
    witnesses.sort();
    witnesses.dedup();
    if !witnesses.is_empty() && peers.iter().all(|(peer, _)| witnesses.contains(peer)) {
        section.wrong("witnesses", "no peer is left that holds the data: name fewer");
    }
    witnesses
}

/// A witness holds no data and so is no candidate, said or unsaid.
fn read_candidate(section: &Section<'_>, node: Option<&NodeId>, witnesses: &[NodeId]) -> bool {
    let candidate = section.get("candidate", value::boolean);
    if !node.is_some_and(|node| witnesses.contains(node)) {
        return candidate.unwrap_or(true);
    }
    if candidate == Some(true) {
        let message = "this node is a witness, which holds no data and cannot become primary: \
                       remove this, or remove the node from witnesses";
        section.wrong("candidate", message);
    }
    false
}

/// Plain TCP is for nodes of one machine. Whoever reaches its port can speak for a node, so that it
/// must not be open to others.
fn read_listen(section: &Section<'_>, local: bool) -> SocketAddr {
    let plain = local && !section.is_given("tls");
    let default = if plain { LISTEN_LOCALLY } else { LISTEN };
    let listen = section.get("listen", address::listen).unwrap_or(default);
    if plain && !listen.ip().to_canonical().is_loopback() {
        let message = format!(
            "{listen} is open to other machines, and without tls anybody there could speak for a \
             node: write 127.0.0.1:{}, or tls, or insecure: true on a network you trust",
            listen.port()
        );
        section.wrong("listen", message);
    }
    listen
}

fn read_tls(section: &Section<'_>, local: bool, insecure: bool) -> Option<PeerTls> {
    if !local && !insecure && !section.is_given("tls") {
        let message = "missing, but required since peers are on other machines: \
                       write {ca: FILE, cert: FILE, key: FILE}, or insecure: true on a network you trust";
        section.wrong("tls", message);
    }
    section.optional("tls", tls::read_peer)
}

fn read_ttl(lease: &Section<'_>, engine: EngineKind) -> Duration {
    let (least, default) = match engine {
        EngineKind::External => (LEASE_TTL_EXTERNAL, LEASE_TTL_EXTERNAL),
        _ => (SHORTEST_LEASE_TTL, LEASE_TTL),
    };
    let ttl = lease.get("ttl", value::duration).unwrap_or(default);
    if ttl < least {
        let why = if engine == EngineKind::External { " with litefs.engine external" } else { "" };
        lease.wrong("ttl", format!("{ttl:?} is too short{why}: write at least {least:?}"));
    }
    ttl
}

/// What was asked for, made to fit the number of peers; `None` if it cannot.
fn read_election(
    section: &Section<'_>,
    node: Option<&NodeId>,
    peers: &PeerList,
    witnesses: &[NodeId],
    candidate: bool,
) -> Option<Election> {
    let kinds = [("raft", Kind::Raft), ("static", Kind::Static), ("single", Kind::Single)];
    let kind = section.get("election", value::one_of(&kinds)).unwrap_or(Kind::Raft);
    let primary = section.get("primary", node_id);
    match kind {
        Kind::Single if peers.len() > 1 => {
            let message = format!(
                "single is for one node, but there are the peers {}: write raft or static",
                names(peers)
            );
            section.wrong("election", message);
            None
        }
        Kind::Static => {
            let primary = read_primary(section, primary, peers)?;
            let unfit = witnesses.contains(&primary) || node == Some(&primary) && !candidate;
            if unfit {
                section.wrong("primary", format!("{primary} is no candidate: write another peer"));
            }
            if peers.is_empty() && node.is_some_and(|node| *node != primary) {
                section.wrong("primary", format!("{primary} is another node: name it in peers"));
            }
            Some(if peers.is_empty() { Election::Single } else { Election::Static(primary) })
        }
        _ if peers.is_empty() => Some(Election::Single),
        Kind::Single => Some(Election::Single),
        Kind::Raft => Some(Election::Raft),
    }
}

fn read_primary(
    section: &Section<'_>,
    primary: Option<NodeId>,
    peers: &PeerList,
) -> Option<NodeId> {
    match &primary {
        None if !section.is_given("primary") => {
            section.wrong(
                "primary",
                "missing, but required with election static: write a peer's name",
            );
        }
        Some(primary) if !peers.is_empty() && !is_peer(peers, primary) => {
            let message =
                format!("{primary} is not among the peers: write one of {}", names(peers));
            section.wrong("primary", message);
        }
        _ => {}
    }
    primary
}

pub(super) fn node_id(node: &Node) -> Result<NodeId, ValueError> {
    value::word(node)?.parse().map_err(|why: BadNodeId| why.to_string().into())
}
