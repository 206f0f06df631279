//! What is taken out of and put into heads on their way through.
//!
//! Order matters: what `Connection` names goes first, then hop-by-hop fields and whatever a client must
//! not be able to say, and only then ours are added (else a client could have ours removed).

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{CONNECTION, HOST, HeaderName, TE};
use http::{HeaderMap, HeaderValue};

use super::forwarded;
use super::upstream::RawHeaders;
use crate::config::Trusted;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// `Litepilot-Node`: whose application answered.
pub(crate) const NODE: HeaderName = HeaderName::from_static("litepilot-node");
/// `Litepilot-Route`: how the request got there.
pub(crate) const ROUTE: HeaderName = HeaderName::from_static("litepilot-route");
/// `Litepilot-Role`, towards the application: what this node is.
pub(crate) const ROLE: HeaderName = HeaderName::from_static("litepilot-role");
/// `Litepilot-Primary`, towards the application: who takes writes.
pub(crate) const PRIMARY: HeaderName = HeaderName::from_static("litepilot-primary");
/// Counts the Litepilots that a request has passed through.
pub(crate) const HOPS: HeaderName = HeaderName::from_static("litepilot-hops");
/// `Litepilot-Consistency`: the level a client asks for.
pub(crate) const CONSISTENCY: HeaderName = HeaderName::from_static("litepilot-consistency");

/// `Litepilot-Ack`: who holds a write, if more than the primary was asked for.
pub(crate) const ACK: HeaderName = HeaderName::from_static("litepilot-ack");
/// `Litepilot-Lost-Write`: what the client's token stood for was lost in a failover.
pub(crate) const LOST_WRITE: HeaderName = HeaderName::from_static("litepilot-lost-write");

/// Whether a field concerns one connection only (RFC 9110, 7.6.1). `Trailer` does not, since trailers
/// are passed on.
pub(crate) fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// The other fields that a line of `Connection` says concern this connection only.
pub(crate) fn named_by(connection: &HeaderValue) -> impl Iterator<Item = HeaderName> {
    let options = connection.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii);
    let names = options.filter(|option| !is_connection_option(option));
    // Nobody may have the request's target taken away under our hands.
    names.filter_map(|name| HeaderName::from_bytes(name).ok()).filter(|name| name != HOST)
}

/// What was found in a request while it was cleaned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SenderFields {
    /// Its sender said how long its body is.
    pub(crate) length: bool,
    /// Its sender takes trailers.
    pub(crate) trailers: bool,
    forwarded_for: bool,
    forwarded_proto: bool,
    forwarded_port: bool,
    forwarded_host: bool,
}

/// Removes from a request what concerns only the connection that it came on, its framing, since what
/// goes out is framed by what is sent, and what its sender must not be able to say. `Connection` cannot
/// take away what is added later. `listed`: the headers of `proxy.trusted_headers`.
pub(crate) fn clean(request: &mut HeaderMap, trust: Trust, listed: &[HeaderName]) -> SenderFields {
    let mut found = SenderFields::default();
    // Nothing is allocated as long as nothing is unwanted.
    let mut unwanted: Vec<HeaderName> = Vec::new();
    let mut named: Vec<HeaderName> = Vec::new();
    let mut forged = false;
    for name in request.keys() {
        // Cheap first: nearly every field that a browser sends ends here.
        let first = name.as_str().as_bytes()[0];
        if !matches!(first, b'c' | b'e' | b'f' | b'h' | b'k' | b'l' | b'p' | b't' | b'u' | b'x') {
            continue;
        }
        found.note(name.as_str());
        if *name == TE {
            found.trailers = request.get(TE).is_some_and(|te| te.as_bytes() == b"trailers");
        } else if *name == CONNECTION {
            named = request.get_all(CONNECTION).iter().flat_map(named_by).collect();
        }
        let text = name.as_str();
        let known = is_hop_by_hop(text) || matches!(text, "content-length" | "expect");
        let assertion = Assertion::of(text);
        if known || assertion.is_some_and(|assertion| !trust.believes(assertion, name, listed)) {
            forged |= trust == Trust::Nobody
                && matches!(assertion, Some(Assertion::Forwarding | Assertion::Identity));
            if trust == Trust::Proxy && assertion == Some(Assertion::Identity) {
                warn_of_unlisted(name);
            }
            unwanted.push(name.clone());
        }
    }
    for name in unwanted.iter().chain(&named) {
        request.remove(name);
        found.forget(name.as_str());
    }
    if forged {
        warn_of_untrusted_forwarding();
    }
    found
}

impl SenderFields {
    fn note(&mut self, name: &str) {
        self.length |= name == "content-length";
        self.set_forwarded(name, true);
    }

    /// The field is there no more.
    fn forget(&mut self, name: &str) {
        self.set_forwarded(name, false);
    }

    fn set_forwarded(&mut self, name: &str, there: bool) {
        match name {
            "x-forwarded-for" => self.forwarded_for = there,
            "x-forwarded-proto" => self.forwarded_proto = there,
            "x-forwarded-port" => self.forwarded_port = there,
            "x-forwarded-host" => self.forwarded_host = there,
            _ => {}
        }
    }
}

/// What applications take for the client's address, beside `X-Forwarded-For` and `X-Real-IP`.
const IDENTITIES: [&str; 9] = [
    "forwarded",
    "x-forwarded",
    "client-ip",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "fastly-client-ip",
];

/// What a request's field could make an application believe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Assertion {
    /// What only Litepilot says.
    Ours,
    /// What only Litepilot says with a replay.
    Replay,
    /// Where the request comes from.
    Forwarding,
    /// Likewise, in a header that most proxies pass on as the client wrote it.
    Identity,
    /// What it would take for one of those, or for the message's framing: WSGI and CGI turn `-` into
    /// `_`.
    Disguised,
}

impl Assertion {
    fn of(name: &str) -> Option<Self> {
        if name.contains('_') {
            return Self::of_disguised(&name.replace('_', "-"));
        }
        if is_ours(name.as_bytes()) {
            Some(Self::Ours)
        } else if matches!(name, "fly-replay-src" | "fly-replay-failed") {
            Some(Self::Replay)
        } else if name.starts_with("x-forwarded-") || name == "x-real-ip" {
            Some(Self::Forwarding)
        } else if IDENTITIES.contains(&name) {
            Some(Self::Identity)
        } else {
            None
        }
    }

    fn of_disguised(plain: &str) -> Option<Self> {
        let framing = matches!(plain, "content-length" | "transfer-encoding" | "host");
        (framing || Self::of(plain).is_some()).then_some(Self::Disguised)
    }
}

/// Removes the fields with such names.
fn remove_where(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    // Nothing is allocated as long as there are none.
    let unwanted: Vec<HeaderName> = headers.keys().filter(|name| unwanted(name)).cloned().collect();
    for name in &unwanted {
        headers.remove(name);
    }
}

/// Options of `Connection` that name no field, or one that is removed anyway.
fn is_connection_option(token: &[u8]) -> bool {
    [&b"keep-alive"[..], b"close", b"upgrade", b"te"].iter().any(|o| token.eq_ignore_ascii_case(o))
}

/// Whose word about the client counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// A client: what it says about itself is replaced.
    Nobody,
    /// A proxy listed in `proxy.trusted`: we add to what it says.
    Proxy,
    /// Another Litepilot: it has said all that there is to say, but for what this node is.
    Peer,
}

impl Trust {
    fn believes(self, assertion: Assertion, name: &HeaderName, listed: &[HeaderName]) -> bool {
        match (self, assertion) {
            (Self::Nobody, _)
            | (Self::Proxy, Assertion::Ours | Assertion::Replay | Assertion::Disguised) => false,
            (Self::Proxy, Assertion::Forwarding) => true,
            (Self::Proxy, Assertion::Identity) => listed.contains(name),
            (Self::Peer, _) => *name != ROLE && *name != PRIMARY,
        }
    }
}

/// The connection a request came on, as the application will be told of it.
#[derive(Debug)]
pub(crate) struct ClientHeaders {
    trust: Trust,
    address: HeaderValue,
    proto: HeaderValue,
    port: HeaderValue,
    /// Stands in for the `Host` that a client of HTTP/1.0 may leave out and HTTP/1.1 demands.
    host: HeaderValue,
}

impl ClientHeaders {
    /// For a client at `peer` that connected to our address `local`.
    pub(crate) fn new(trust: Trust, peer: IpAddr, local: SocketAddr, over_tls: bool) -> Self {
        let text = |text: String| {
            HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
        };
        Self {
            trust,
            address: text(peer.to_canonical().to_string()),
            proto: HeaderValue::from_static(if over_tls { "https" } else { "http" }),
            port: text(local.port().to_string()),
            host: text(SocketAddr::new(local.ip().to_canonical(), local.port()).to_string()),
        }
    }

    pub(crate) fn trust(&self) -> Trust {
        self.trust
    }

    /// The address of the one who connected.
    pub(crate) fn address(&self) -> &str {
        self.address.to_str().unwrap_or("unknown")
    }

    /// Whether the client came over TLS, here or at a trusted proxy.
    pub(crate) fn over_tls(&self, request: &HeaderMap, found: SenderFields) -> bool {
        let believed = self.trust == Trust::Proxy && found.forwarded_proto;
        let said = if believed { request.get(X_FORWARDED_PROTO) } else { None };
        let proto = said.unwrap_or(&self.proto).as_bytes();
        let first = proto.split(|b| *b == b',').next().unwrap_or_default();
        first.trim_ascii().eq_ignore_ascii_case(b"https")
    }

    /// Says what the application is to believe of the client, beside what is left of its own words
    /// in a cleaned request.
    pub(crate) fn describe(
        &self,
        request: &mut HeaderMap,
        found: SenderFields,
        added: &mut RawHeaders,
        trusted: &Trusted,
    ) {
        self.describe_address(request, found, added, trusted);
        let host = request.get(HOST);
        if host.is_none() {
            added.add(&HOST, &self.host);
        }
        if !found.forwarded_proto {
            added.add(&X_FORWARDED_PROTO, &self.proto);
        }
        if !found.forwarded_port {
            let derived = self.derived_port(request, found);
            added.add(&X_FORWARDED_PORT, derived.as_ref().unwrap_or(&self.port));
        }
        if !found.forwarded_host {
            added.add(&X_FORWARDED_HOST, host.unwrap_or(&self.host));
        }
    }

    /// `X-Forwarded-For`, and `X-Real-IP` by it: a proxy that adds to the one may pass the other on as
    /// the client wrote it.
    fn describe_address(
        &self,
        request: &mut HeaderMap,
        found: SenderFields,
        added: &mut RawHeaders,
        trusted: &Trusted,
    ) {
        if !found.forwarded_for {
            added.add(&X_FORWARDED_FOR, &self.address);
            if self.trust == Trust::Nobody || !request.contains_key(X_REAL_IP) {
                added.add(&X_REAL_IP, &self.address);
            }
            return;
        }
        let client = forwarded::client_of(request.get_all(X_FORWARDED_FOR), trusted);
        request.remove(X_REAL_IP);
        added.add(&X_REAL_IP, client.as_ref().unwrap_or(&self.address));
        // One line, whatever number of lines came in.
        let chain = request.get_all(X_FORWARDED_FOR).iter().chain([&self.address]);
        added.add_joined(&X_FORWARDED_FOR, ", ", chain.map(HeaderValue::as_bytes));
        request.remove(X_FORWARDED_FOR);
    }

    /// The port that clients of a proxy use which says only its protocol.
    fn derived_port(&self, request: &HeaderMap, found: SenderFields) -> Option<HeaderValue> {
        if !found.forwarded_proto {
            return None;
        }
        let host = if found.forwarded_host { request.get(X_FORWARDED_HOST) } else { None };
        let host = host.or_else(|| request.get(HOST));
        forwarded::port_of(host, request.get(X_FORWARDED_PROTO)?)
    }
}

/// Whether something is a header that only Litepilot may set towards the application.
fn is_ours(name: &[u8]) -> bool {
    let prefix = b"litepilot";
    name.len() > prefix.len()
        && name[..prefix.len()].eq_ignore_ascii_case(prefix)
        && matches!(name[prefix.len()], b'-' | b'_')
}

/// Once: an operator who forgot `proxy.trusted` wants to know why every client has one address.
fn warn_of_untrusted_forwarding() {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "dropped forwarding headers (X-Forwarded-*, Forwarded, X-Real-IP) of a client that is not \
             trusted; if a proxy of yours sent them, list its address under proxy.trusted"
        );
    }
}

/// Once: an application behind a proxy that sets such a header itself may need it.
fn warn_of_unlisted(name: &HeaderName) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "dropped {name} of a trusted proxy, which may have it from the client; if the proxy always sets it \
             itself, list it under proxy.trusted_headers"
        );
    }
}

/// Whether any field of a request is one of ours. Looking at the few names is cheaper than looking up
/// each of ours, and nearly no request has one.
pub(crate) fn speak_to_us(request: &HeaderMap) -> bool {
    request.keys().any(|name| is_ours(name.as_str().as_bytes()))
}

/// Removes from an application's response what only Litepilot may say.
pub(crate) fn remove_ours(response: &mut HeaderMap) {
    remove_where(response, |name| is_ours(name.as_str().as_bytes()));
}

#[cfg(test)]
mod tests;
