//! The one file that users write, checked.
//!
//! `raw YAML → tree with places (crate::yaml) → checked Config`. Every problem of a file is reported
//! at once, each with its place and its remedy. Nothing outside this module sees unchecked values.
//! The names and defaults are the contract of the README's configuration reference.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::cluster::NodeId;

/// A whole, checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// This node's name.
    pub node: NodeId,
    /// Where this node keeps its own state.
    pub data_dir: PathBuf,
    /// How long handing off and draining may take.
    pub shutdown_timeout: Duration,
    /// The public port.
    pub proxy: Proxy,
    /// The other nodes.
    pub cluster: Cluster,
    /// The engine that keeps the database.
    pub litefs: Litefs,
    /// The application.
    pub app: App,
    /// The admin port.
    pub admin: Admin,
    /// What is logged.
    pub log: Log,
}

/// `proxy:`
#[derive(Clone, Debug, PartialEq)]
pub struct Proxy {
    /// Where clients connect. Port 0 lets the system choose (for tests).
    pub listen: SocketAddr,
    /// The application.
    pub target: Target,
    /// The database, relative to [`Litefs::mount`].
    pub db: PathBuf,
    /// Rule sets, in order: bundled ones by name, or paths ending in `.yml`/`.yaml`
    /// (relative ones already resolved against the configuration file's directory).
    pub rules: Vec<String>,
    /// The level of reads whose rule and whose header say nothing.
    pub consistency: Consistency,
    /// How long a read waits here for its token.
    pub read_wait: Duration,
    /// How long a write waits for a primary or for the app.
    pub write_hold: Duration,
    /// How many writes may wait at once.
    pub held_writes: usize,
    /// How many reads may wait at once.
    pub held_reads: usize,
    /// Bytes; bodies up to this are read whole before anything is dialled.
    pub buffer_body: usize,
    /// Bytes; the largest body kept so that a request can be sent again.
    pub replay_body: usize,
    /// A replica further behind is unhealthy.
    pub max_lag: Duration,
    /// Client connections at once.
    pub max_connections: usize,
    /// To connect to the app or to a peer.
    pub connect_timeout: Duration,
    /// For the client's request head.
    pub header_timeout: Duration,
    /// Between two pieces of a body, either way.
    pub body_timeout: Duration,
    /// To the head of the app's response.
    pub response_timeout: Duration,
    /// An idle client connection is kept this long.
    pub keepalive_timeout: Duration,
    /// An idle connection to the app is kept this long.
    pub target_keepalive: Duration,
    /// Whose `X-Forwarded-*` count.
    pub trusted: Trusted,
    /// How the token's cookies are set.
    pub cookie: Cookie,
    /// Certificates for the public port.
    pub tls: Option<EdgeTls>,
}

/// Where the application listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// `host:port`; the name is resolved at each dial.
    Tcp(HostPort),
    /// `unix:/path`
    Unix(PathBuf),
}

/// A host name or address, and a port from 1 to 65535.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// What a read must at least see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Whatever this node has.
    Eventual,
    /// What this client last wrote.
    ReadYourWrites,
    /// What this client last wrote or read.
    Monotonic,
    /// The primary's state.
    Strong,
}

/// Who must hold a write before its client is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// The primary.
    Primary,
    /// One replica too.
    One,
    /// A majority of the candidates, the primary included.
    Majority,
}

/// Whose forwarding headers are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trusted(pub Vec<IpNet>);

impl Trusted {
    /// Whether a peer with this address is trusted. IPv4-mapped IPv6 counts as IPv4.
    pub fn contains(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.0.iter().any(|net| net.contains(&peer))
    }
}

/// `proxy.cookie:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// `SameSite`
    pub same_site: SameSite,
    /// `Secure`
    pub secure: Secure,
    /// `Domain`
    pub domain: Option<String>,
}

/// The values of a cookie's `SameSite`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// `strict`
    Strict,
    /// `lax`
    Lax,
    /// `none`; only with `secure: true` or `auto`
    None,
}

/// Whether cookies are `Secure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secure {
    /// If the client came over TLS, here or at a trusted proxy.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// `proxy.tls:`: one certificate with its key. A list of these serves several names by SNI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeTls(pub Vec<CertKey>);

/// A certificate chain and its key, both PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertKey {
    /// The chain.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// `cluster:`
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// How the primary is found. Without peers always [`Election::Single`].
    pub election: Election,
    /// The port between nodes.
    pub listen: SocketAddr,
    /// How other nodes reach this one; `None` without peers.
    pub advertise: Option<HostPort>,
    /// Every node with its address, this one included, sorted by name.
    pub peers: Vec<(NodeId, HostPort)>,
    /// Peers that vote but hold no data.
    pub witnesses: Vec<NodeId>,
    /// May this node become primary.
    pub candidate: bool,
    /// Certificates between nodes.
    pub tls: Option<PeerTls>,
    /// Plain TCP between nodes although not all are on loopback.
    pub insecure: bool,
    /// `cluster.lease.ttl`
    pub lease_ttl: Duration,
    /// Who must hold a write before its client is answered.
    pub ack: Ack,
    /// How long that may take.
    pub ack_timeout: Duration,
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

/// `cluster.tls:`, PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTls {
    /// The cluster's own certificate authority.
    pub ca: PathBuf,
    /// This node's certificate chain; its name is the node's name.
    pub cert: PathBuf,
    /// This node's private key.
    pub key: PathBuf,
}

/// `litefs:`
#[derive(Clone, Debug, PartialEq)]
pub struct Litefs {
    /// What keeps and replicates the database.
    pub engine: EngineKind,
    /// The LiteFS executable: a path, or a name looked up in `PATH`.
    pub binary: PathBuf,
    /// The directory of the database, whatever the engine.
    pub mount: PathBuf,
    /// LiteFS' own data.
    pub data: PathBuf,
    /// LiteFS' HTTP port.
    pub http: SocketAddr,
    /// Where LiteFS gets its lease.
    pub lease_listen: SocketAddr,
    /// How long LiteFS keeps transactions.
    pub retention: Duration,
    /// FUSE's `allow_other`.
    pub allow_other: bool,
    /// Merged into the rendered `litefs.yml`.
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// The engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// A LiteFS that we start.
    Litefs,
    /// A LiteFS that somebody else starts.
    External,
    /// None: a plain directory that we ship to the replicas.
    Embedded,
}

/// `app:`
#[derive(Clone, Debug, PartialEq)]
pub struct App {
    /// Program and arguments; empty if somebody else starts the application.
    pub command: Vec<String>,
    /// The user it runs as: a name or a number.
    pub user: Option<String>,
    /// A path whose 2xx or 3xx means health; `None`: a connection is enough.
    pub health: Option<String>,
    /// A primary whose app is down for this long hands over.
    pub down_after: Duration,
    /// Run at each promotion.
    pub on_promote: Vec<String>,
    /// Run at each demotion.
    pub on_demote: Vec<String>,
    /// Run when the quorum is lost.
    pub on_quorum_lost: Vec<String>,
    /// How long a hook may take.
    pub hook_timeout: Duration,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
}

/// `admin:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where the admin port listens. Port 0 lets the system choose (for tests).
    pub listen: SocketAddr,
    /// Accepted `Host` names, besides the listen address.
    pub hosts: Vec<String>,
    /// For anything that changes state; `None`: `data_dir/admin.token`.
    pub token: Option<String>,
}

/// `log:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: tracing::Level,
    /// Whether each request is logged.
    pub access: bool,
}

/// The forms of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}
