//! What follows from the forwarding headers of a trusted proxy. Pure.

use std::net::{IpAddr, SocketAddr};

use http::HeaderValue;
use http::header::GetAll;

use crate::config::Trusted;

/// The client by `X-Forwarded-For`: the last address that is none of our own proxies, or the first if
/// all are. What stands before one that is no address is hearsay.
pub(super) fn client_of(chain: GetAll<'_, HeaderValue>, trusted: &Trusted) -> Option<HeaderValue> {
    let hops = chain.iter().rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    let mut client = None;
    for address in hops.map_while(address) {
        client = Some(address);
        if !trusted.contains(address) {
            break;
        }
    }
    HeaderValue::try_from(client?.to_canonical().to_string()).ok()
}

/// An address, with or without a port.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?.trim();
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    bare.parse().ok().or_else(|| hop.parse().ok().map(|with_port: SocketAddr| with_port.ip()))
}

/// The port in a host, or that of a protocol.
pub(super) fn port_of(host: Option<&HeaderValue>, proto: &HeaderValue) -> Option<HeaderValue> {
    let port = host.and_then(|host| host.to_str().ok()).and_then(|host| {
        let (_, port) = first(host).rsplit_once(':')?;
        port.parse::<u16>().ok()
    });
    let usual = || match first(proto.to_str().ok()?).to_ascii_lowercase().as_str() {
        "https" | "wss" => Some(443),
        "http" | "ws" => Some(80),
        _ => None,
    };
    port.or_else(usual).map(HeaderValue::from)
}

fn first(list: &str) -> &str {
    list.split(',').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use http::header::FORWARDED;

    #[test]
    fn the_client_is_the_last_who_is_none_of_ours() {
        for (chain, client) in [
            (&["192.0.2.1"][..], Some("192.0.2.1")),
            (&["6.6.6.6, 192.0.2.1"], Some("192.0.2.1")),
            (&["6.6.6.6, 192.0.2.1, 127.0.0.2"], Some("192.0.2.1")),
            (&["6.6.6.6", "192.0.2.1:1234, ::1"], Some("192.0.2.1")),
            (&["6.6.6.6, [2001:db8::1]:80"], Some("2001:db8::1")),
            (&["[2001:db8::1]"], Some("2001:db8::1")),
            (&["127.0.0.3, 127.0.0.2"], Some("127.0.0.3")),
            (&["6.6.6.6, unknown, 127.0.0.2"], Some("127.0.0.2")),
            (&["nonsense"], None),
        ] {
            let mut fields = HeaderMap::new();
            for line in chain {
                fields.append(FORWARDED, HeaderValue::from_static(line));
            }
            let found = client_of(fields.get_all(FORWARDED), &Trusted::loopback());
            assert_eq!(found, client.map(HeaderValue::from_static), "{chain:?}");
        }
    }

    #[test]
    fn a_port_follows_from_host_and_protocol() {
        for (host, proto, port) in [
            (Some("shop.test"), "https", Some("443")),
            (Some("shop.test"), "HTTP", Some("80")),
            (Some("shop.test:8443"), "https", Some("8443")),
            (Some("[::1]:81, other:82"), "https, http", Some("81")),
            (Some("[::1]"), "wss", Some("443")),
            (None, "https", Some("443")),
            (Some("shop.test"), "gopher", None),
        ] {
            let host = host.map(HeaderValue::from_static);
            let found = port_of(host.as_ref(), &HeaderValue::from_static(proto));
            assert_eq!(found, port.map(HeaderValue::from_static), "{host:?} {proto}");
        }
    }
}
