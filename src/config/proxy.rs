//! `proxy:`, the public port and the application behind it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderName;

use super::reader::Section;
use super::{
    Cookie, EdgeTls, ErrorPages, HostPort, Target, Trusted, address, cookie, error_pages, tls,
    trusted, value,
};
use crate::guarantee::{self, Consistency, ReplayPolicy};
use crate::rules;
use crate::yaml::Node;
use crate::yaml::value::ValueError;

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);
const CONSISTENCY: Consistency = Consistency::ReadYourWrites;
const READ_WAIT: Duration = Duration::from_millis(250);
const WRITE_HOLD: Duration = Duration::from_secs(5);
const HELD_WRITES: usize = 1024;
const HELD_READS: usize = 1024;
const BUFFER_BODY: usize = 64 << 10;
const REPLAY_BODY: usize = 1 << 20;
const MAX_LAG: Duration = Duration::from_secs(10);
const MAX_CONNECTIONS: usize = 10_000;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// As nginx has them: `proxy_read_timeout` is both.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// Above what nginx (60 s) and traefik (90 s) keep: they must not meet a closing connection.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(120);
/// Below gunicorn's 2 s: we must not meet a closing connection.
const TARGET_KEEPALIVE: Duration = Duration::from_secs(1);
/// As HAProxy users set `timeout tunnel`: most WebSockets have a ping of their own each minute or so.
const WEBSOCKET_IDLE: Duration = Duration::from_secs(60 * 60);

/// `proxy:`
#[derive(Clone, Debug, PartialEq)]
pub struct Proxy {
    /// Where clients connect. Port 0 lets the system choose (for tests).
    pub listen: SocketAddr,
    /// The application.
    pub target: Target,
    /// The database, relative to [`Litefs::mount`](super::Litefs::mount).
    pub(crate) db: PathBuf,
    /// Databases in the mount that tokens and acknowledgements do not count.
    pub(crate) untracked: BTreeSet<String>,
    /// Rule sets, in order: bundled ones by name, or paths ending in `.yml`/`.yaml`
    /// (relative ones already resolved against the configuration file's directory).
    pub rules: Vec<String>,
    /// When a request is sent again, to the primary.
    pub(crate) replay: ReplayPolicy,
    /// What is found to write is sent to the primary at once, the next time.
    pub(crate) learn: bool,
    /// The level of reads whose rule and whose header say nothing.
    pub consistency: Consistency,
    /// How long a read waits here for its token.
    pub read_wait: Duration,
    /// How long a write waits for a primary or for the app.
    pub(crate) write_hold: Duration,
    /// How many writes may wait at once.
    pub held_writes: usize,
    /// How many reads may wait at once.
    pub held_reads: usize,
    /// Bytes; bodies up to this are read whole before anything is dialled.
    pub buffer_body: usize,
    /// Bytes; the largest body kept so that a request can be sent again.
    pub(crate) replay_body: usize,
    /// A replica further behind is unhealthy.
    pub(crate) max_lag: Duration,
    /// Client connections at once.
    pub max_connections: usize,
    /// To connect to the app or to a peer.
    pub(crate) connect_timeout: Duration,
    /// For the client's request head.
    pub(crate) header_timeout: Duration,
    /// Between two pieces of a body, either way.
    pub(crate) body_timeout: Duration,
    /// To the head of the app's response.
    pub(crate) response_timeout: Duration,
    /// An idle client connection is kept this long.
    pub(crate) keepalive_timeout: Duration,
    /// An idle connection to the app is kept this long.
    pub(crate) target_keepalive: Duration,
    /// A WebSocket on which nothing has passed for this long is closed.
    pub(crate) websocket_idle: Duration,
    /// Whose `X-Forwarded-*` count.
    pub trusted: Trusted,
    /// Other headers in which those say who the client is, and set always.
    pub(crate) trusted_headers: Vec<HeaderName>,
    /// Connections of `trusted` begin with a header of the PROXY protocol.
    pub(crate) proxy_protocol: bool,
    /// What browsers see in the place of our own pages.
    pub error_pages: ErrorPages,
    /// How the token's cookies are set.
    pub cookie: Cookie,
    /// Certificates for the public port.
    pub tls: Option<EdgeTls>,
}

/// A witness has no application and no database: what it does not use it need not name.
pub(super) fn read(section: &Section<'_>, witness: bool) -> Option<Proxy> {
    let (target, db) = match witness {
        true => (
            section.get("target", address::target).or(Some(NOWHERE)),
            section.get("db", value::path_below).or_else(|| Some(PathBuf::from("none"))),
        ),
        false => (
            section.required("target", TARGET_REMEDY, address::target),
            section.required("db", DB_REMEDY, value::path_below),
        ),
    };
    let time = |key, default| section.get(key, value::duration).unwrap_or(default);
    let time_or_zero = |key, default| section.get(key, value::duration_or_zero).unwrap_or(default);
    Some(Proxy {
        listen: section.get("listen", address::listen).unwrap_or(LISTEN),
        untracked: section.list("untracked", database).unwrap_or_default().into_iter().collect(),
        rules: read_rules(section),
        replay: section.get("replay", guarantee::replay).unwrap_or_default(),
        learn: section.get("learn", value::boolean).unwrap_or(true),
        consistency: section.get("consistency", guarantee::consistency).unwrap_or(CONSISTENCY),
        read_wait: time_or_zero("read_wait", READ_WAIT),
        write_hold: time_or_zero("write_hold", WRITE_HOLD),
        held_writes: section.get("held_writes", value::count).unwrap_or(HELD_WRITES),
        held_reads: section.get("held_reads", value::count).unwrap_or(HELD_READS),
        buffer_body: section.get("buffer_body", value::size).unwrap_or(BUFFER_BODY),
        replay_body: section.get("replay_body", value::size).unwrap_or(REPLAY_BODY),
        max_lag: time("max_lag", MAX_LAG),
        max_connections: section.get("max_connections", value::positive).unwrap_or(MAX_CONNECTIONS),
        connect_timeout: time("connect_timeout", CONNECT_TIMEOUT),
        header_timeout: time("header_timeout", HEADER_TIMEOUT),
        body_timeout: time("body_timeout", BODY_TIMEOUT),
        response_timeout: time("response_timeout", RESPONSE_TIMEOUT),
        keepalive_timeout: time("keepalive_timeout", KEEPALIVE_TIMEOUT),
        target_keepalive: time_or_zero("target_keepalive", TARGET_KEEPALIVE),
        websocket_idle: time("websocket_idle", WEBSOCKET_IDLE),
        trusted: read_trusted(section),
        trusted_headers: section.list("trusted_headers", header_name).unwrap_or_default(),
        proxy_protocol: section.get("proxy_protocol", value::boolean).unwrap_or(false),
        error_pages: error_pages::read(section),
        cookie: section.section("cookie", cookie::read),
        tls: read_tls(section),
        target: target?,
        db: db?,
    })
}

/// What a witness forwards to.
const NOWHERE: Target = Target::Tcp(HostPort { host: String::new(), port: 0 });
const TARGET_REMEDY: &str =
    "where the application listens, like 127.0.0.1:8000 or unix:/run/gunicorn.sock";
const DB_REMEDY: &str = "the name of the database in litefs.mount, like db.sqlite3";

fn read_rules(section: &Section<'_>) -> Vec<String> {
    let bundled = |source: &str| rules::BUNDLED.iter().any(|(name, _)| *name == source);
    let resolve = |source: String| match bundled(&source) {
        true => source,
        false => section.resolve(Path::new(&source)).to_string_lossy().into_owned(),
    };
    section.list("rules", rule_set).unwrap_or_default().into_iter().map(resolve).collect()
}

/// LiteFS has no directories.
fn database(node: &Node) -> Result<String, ValueError> {
    let name = value::text(node)?;
    match name.contains('/') {
        true => Err(format!(
            "{} is a path: write the name of a database, like cache.sqlite3",
            node.describe()
        )
        .into()),
        false => Ok(name.to_owned()),
    }
}

/// The name of a bundled set, or a path.
fn rule_set(node: &Node) -> Result<String, ValueError> {
    let source = value::text(node)?;
    rules::check_source(source)?;
    Ok(source.to_owned())
}

fn header_name(node: &Node) -> Result<HeaderName, ValueError> {
    let text = value::text(node)?;
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        format!("{text:?} is no name of a header: write one like CF-Connecting-IP").into()
    })
}

fn read_trusted(section: &Section<'_>) -> Trusted {
    match section.list("trusted", trusted::networks) {
        Some(networks) => Trusted(networks.concat()),
        None => Trusted::loopback(),
    }
}

fn read_tls(section: &Section<'_>) -> Option<EdgeTls> {
    let pairs = section.sections("tls", tls::read_pair)?;
    if pairs.is_empty() {
        section.wrong("tls", "no certificate: write {cert: FILE, key: FILE}, or remove the key");
    }
    Some(EdgeTls(pairs.into_iter().flatten().collect()))
}
