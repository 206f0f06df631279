//! What is taken out of and put into heads on their way through.
//!
//! Order matters: what `Connection` names goes first, then hop-by-hop fields, then whatever a client
//! must not be able to say, and only then ours are set (else a client could have ours removed).

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// `Litepilot-Node`: whose application answered.
pub const NODE: HeaderName = HeaderName::from_static("litepilot-node");
/// `Litepilot-Route`: how the request got there.
pub const ROUTE: HeaderName = HeaderName::from_static("litepilot-route");
/// `Litepilot-Role`, towards the application: what this node is.
pub const ROLE: HeaderName = HeaderName::from_static("litepilot-role");
/// `Litepilot-Primary`, towards the application: who takes writes.
pub const PRIMARY: HeaderName = HeaderName::from_static("litepilot-primary");
/// Counts the Litepilots that a request has passed through.
pub const HOPS: HeaderName = HeaderName::from_static("litepilot-hops");
/// `Litepilot-Consistency`: the level a client asks for.
pub const CONSISTENCY: HeaderName = HeaderName::from_static("litepilot-consistency");

/// `Litepilot-Ack`: who holds a write, if more than the primary was asked for.
pub const ACK: HeaderName = HeaderName::from_static("litepilot-ack");
/// `Litepilot-Lost-Write`: what the client's token stood for was lost in a failover.
pub const LOST_WRITE: HeaderName = HeaderName::from_static("litepilot-lost-write");

/// Removes the fields that concern one connection only (RFC 9110, 7.6.1): those that `Connection`
/// names, and the known ones. `Trailer` stays, since trailers are passed on.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if let http::header::Entry::Occupied(connection) = headers.entry(CONNECTION) {
        let (_, lines) = connection.remove_entry_mult();
        let named: Vec<HeaderName> = lines
            .flat_map(|line| {
                line.as_bytes()
                    .split(|b| *b == b',')
                    .map(<[u8]>::trim_ascii)
                    .filter(|token| !is_connection_option(token))
                    .filter_map(|token| HeaderName::from_bytes(token).ok())
                    .collect::<Vec<_>>()
            })
            .collect();
        // A client may not have the request's target taken away under our hands.
        for name in named.iter().filter(|name| **name != HOST) {
            headers.remove(name);
        }
    }
    // One pass, since most messages hold none of them, and looking up each costs more.
    remove_where(headers, |name| {
        [KEEP_ALIVE, PROXY_CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, UPGRADE]
            .contains(name)
    });
    // Where there is a coding a length means nothing (RFC 9112, 6.3), and would now mean something.
    if headers.remove(TRANSFER_ENCODING).is_some() {
        headers.remove(CONTENT_LENGTH);
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
pub enum Trust {
    /// A client: what it says about itself is replaced.
    Nobody,
    /// A proxy listed in `proxy.trusted`: we add to what it says.
    Proxy,
}

/// The connection a request came on, as the application will be told of it.
#[derive(Debug)]
pub struct ClientHeaders {
    trust: Trust,
    address: HeaderValue,
    proto: HeaderValue,
    port: HeaderValue,
    /// Stands in for the `Host` that a client of HTTP/1.0 may leave out and HTTP/1.1 demands.
    host: HeaderValue,
}

impl ClientHeaders {
    /// For a client at `peer` that connected to our address `local`.
    pub fn new(trust: Trust, peer: IpAddr, local: SocketAddr, over_tls: bool) -> Self {
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

    /// The address of the one who connected.
    pub fn address(&self) -> &str {
        self.address.to_str().unwrap_or("unknown")
    }

    /// Whether the client came over TLS, here or at a trusted proxy.
    pub fn over_tls(&self, request: &HeaderMap) -> bool {
        let claimed =
            (self.trust == Trust::Proxy).then(|| request.get(X_FORWARDED_PROTO)).flatten();
        let proto = claimed.unwrap_or(&self.proto).as_bytes();
        let first = proto.split(|b| *b == b',').next().unwrap_or_default();
        first.trim_ascii().eq_ignore_ascii_case(b"https")
    }

    /// Removes what a client must not be able to say, and sets what the application is to believe.
    pub fn apply(&self, request: &mut HeaderMap) {
        remove_unwanted(request, self.trust);
        let host = request.entry(HOST).or_insert_with(|| self.host.clone()).clone();
        match self.trust {
            Trust::Nobody => {
                request.insert(X_REAL_IP, self.address.clone());
                request.insert(X_FORWARDED_FOR, self.address.clone());
                request.insert(X_FORWARDED_PROTO, self.proto.clone());
                request.insert(X_FORWARDED_PORT, self.port.clone());
                request.insert(X_FORWARDED_HOST, host);
            }
            Trust::Proxy => {
                append_address(request, &self.address);
                request.entry(X_FORWARDED_PROTO).or_insert_with(|| self.proto.clone());
                request.entry(X_FORWARDED_PORT).or_insert_with(|| self.port.clone());
                request.entry(X_FORWARDED_HOST).or_insert(host);
            }
        }
    }
}

/// One line `X-Forwarded-For`, whatever number of lines came in.
fn append_address(request: &mut HeaderMap, address: &HeaderValue) {
    if !request.contains_key(X_FORWARDED_FOR) {
        request.insert(X_FORWARDED_FOR, address.clone());
        return;
    }
    let mut chain = Vec::new();
    for line in request.get_all(X_FORWARDED_FOR) {
        chain.extend_from_slice(line.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(address.as_bytes());
    let chain = HeaderValue::from_maybe_shared(bytes::Bytes::from(chain));
    request.insert(X_FORWARDED_FOR, chain.unwrap_or_else(|_| address.clone()));
}

/// Whether something is a header that only Litepilot may set towards the application.
fn is_ours(name: &[u8]) -> bool {
    let prefix = b"litepilot";
    name.len() > prefix.len()
        && name[..prefix.len()].eq_ignore_ascii_case(prefix)
        && matches!(name[prefix.len()], b'-' | b'_')
}

/// Removes our own names, Fly.io's replay marks, and, from an untrusted client, whatever speaks
/// about forwarding. WSGI and CGI turn `-` into `_`, so a name with `_` in it counts as the one it
/// would be taken for; `Content_Length` and `Transfer_Encoding` would be smuggled framing.
fn remove_unwanted(request: &mut HeaderMap, trust: Trust) {
    let mut unwanted: Vec<HeaderName> = Vec::new();
    let mut forged = false;
    for name in request.keys() {
        let text = name.as_str();
        // Cheap first: nearly every field that a browser sends ends here.
        if !matches!(text.as_bytes()[0], b'c' | b'f' | b'h' | b'l' | b't' | b'x') {
            continue;
        }
        let dashed;
        let plain = if text.contains('_') {
            dashed = text.replace('_', "-");
            dashed.as_str()
        } else {
            text
        };
        let disguised = plain.len() == text.len() && plain != text;
        let about_forwarding =
            plain.starts_with("x-forwarded-") || plain == "forwarded" || plain == "x-real-ip";
        let remove = is_ours(plain.as_bytes())
            || matches!(plain, "fly-replay-src" | "fly-replay-failed")
            || disguised && matches!(plain, "content-length" | "transfer-encoding" | "host")
            || about_forwarding && (trust == Trust::Nobody || disguised);
        if remove {
            forged |= about_forwarding && trust == Trust::Nobody;
            unwanted.push(name.clone());
        }
    }
    for name in &unwanted {
        request.remove(name);
    }
    if forged {
        warn_of_untrusted_forwarding();
    }
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

/// Drops a request's framing and expectations: what goes out is framed by what is sent.
/// Returns whether the client said how long its body is.
pub fn remove_framing(request: &mut HeaderMap) -> bool {
    request.remove(EXPECT);
    request.remove(CONTENT_LENGTH).is_some()
}

/// Removes from an application's response what only Litepilot may say.
pub fn remove_ours(response: &mut HeaderMap) {
    remove_where(response, |name| is_ours(name.as_str().as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (n.parse::<HeaderName>().unwrap(), HeaderValue::from_str(v).unwrap()))
            .collect()
    }

    const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

    fn client(trust: Trust) -> ClientHeaders {
        ClientHeaders::new(trust, "::ffff:192.0.2.7".parse().unwrap(), LOCAL, false)
    }

    #[test]
    fn what_connection_names_goes_but_not_the_host() {
        let mut h = headers(&[
            ("host", "a"),
            ("connection", "close, X-Private"),
            ("connection", "host, keep-alive"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("accept", "*/*"),
        ]);
        remove_hop_by_hop(&mut h);
        assert_eq!(h, headers(&[("host", "a"), ("accept", "*/*")]));
    }

    #[test]
    fn connection_cannot_take_away_what_we_set() {
        let mut h = headers(&[("host", "a"), ("connection", "x-forwarded-for, litepilot-role")]);
        remove_hop_by_hop(&mut h);
        client(Trust::Nobody).apply(&mut h);
        assert_eq!(h[X_FORWARDED_FOR], "192.0.2.7");
    }

    #[test]
    fn a_length_goes_with_the_coding_that_overruled_it() {
        let mut h = headers(&[("content-length", "3"), ("transfer-encoding", "chunked")]);
        remove_hop_by_hop(&mut h);
        assert!(h.is_empty(), "{h:?}");
        let mut h = headers(&[("content-length", "3")]);
        remove_hop_by_hop(&mut h);
        assert_eq!(h[CONTENT_LENGTH], "3");
    }

    #[test]
    fn a_client_cannot_speak_about_itself() {
        let mut h = headers(&[
            ("host", "shop"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x_forwarded_for", "1.2.3.4"),
            ("x-forwarded-user", "admin"),
            ("forwarded", "for=1.2.3.4"),
            ("x-real-ip", "1.2.3.4"),
            ("litepilot-role", "primary"),
            ("litepilot_role", "primary"),
            ("fly-replay-src", "x"),
            ("fly_replay_src", "x"),
            ("content_length", "3"),
            ("transfer_encoding", "chunked"),
            ("x_custom", "kept"),
        ]);
        client(Trust::Nobody).apply(&mut h);
        assert_eq!(
            h,
            headers(&[
                ("host", "shop"),
                ("x_custom", "kept"),
                ("x-real-ip", "192.0.2.7"),
                ("x-forwarded-for", "192.0.2.7"),
                ("x-forwarded-proto", "http"),
                ("x-forwarded-port", "8080"),
                ("x-forwarded-host", "shop"),
            ])
        );
    }

    #[test]
    fn a_trusted_proxy_is_added_to() {
        let mut h = headers(&[
            ("host", "inner"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-for", "5.6.7.8"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop"),
            ("x_forwarded_for", "9.9.9.9"),
            ("litepilot-role", "primary"),
        ]);
        let client = client(Trust::Proxy);
        assert!(client.over_tls(&h));
        client.apply(&mut h);
        assert_eq!(h[X_FORWARDED_FOR], "1.2.3.4, 5.6.7.8, 192.0.2.7");
        assert_eq!(h[X_FORWARDED_PROTO], "https");
        assert_eq!(h[X_FORWARDED_HOST], "shop");
        assert_eq!(h[X_FORWARDED_PORT], "8080");
        assert!(!h.contains_key("x_forwarded_for") && !h.contains_key(ROLE));
    }

    #[test]
    fn only_a_trusted_proxy_says_that_there_was_tls() {
        let h = headers(&[("x-forwarded-proto", "https")]);
        assert!(!client(Trust::Nobody).over_tls(&h));
        assert!(ClientHeaders::new(Trust::Nobody, [127, 0, 0, 1].into(), LOCAL, true).over_tls(&h));
    }
}
