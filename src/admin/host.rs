//! Which `Host` a request may name.
//!
//! A page of some other site can point its own name at this port (DNS rebinding) and have a browser
//! inside the network read from it. The browser then sends that site's name, which is not expected
//! here. A literal address cannot be rebound: the one that the connection came to is always fine.

use std::net::IpAddr;

use http::header::{HOST, HeaderMap};
use http::{StatusCode, Uri, Version};

/// The names that the admin port answers to, besides its own address.
pub struct Hosts(Vec<Host>);

#[derive(PartialEq, Eq)]
struct Host {
    name: Name,
    /// In the list: `None` allows any port, since forwarded ports change it.
    port: Option<u16>,
}

#[derive(PartialEq, Eq)]
enum Name {
    Ip(IpAddr),
    /// Lower case, without a final dot.
    Dns(String),
}

/// Why a request is refused, and with which status.
pub(crate) type UnexpectedHost = (StatusCode, String);

impl Hosts {
    /// From `admin.hosts`: names or addresses, with or without a port. An entry that is neither can
    /// match nothing.
    pub fn new(names: &[String]) -> Self {
        Self(names.iter().filter_map(|name| Host::configured(name)).collect())
    }

    /// Whether a request that came to the address `local` may be answered.
    ///
    /// # Errors
    ///
    /// 421 for a host not expected, 400 for none or several (RFC 9112, section 3.2). HTTP/1.0 needs
    /// none: HAProxy's plain checks send none, and no browser does so.
    pub(crate) fn check(
        &self,
        version: Version,
        uri: &Uri,
        headers: &HeaderMap,
        local: IpAddr,
    ) -> Result<(), UnexpectedHost> {
        if let Some(authority) = uri.authority() {
            self.expect(authority.as_str(), local)?;
        }
        let mut hosts = headers.get_all(HOST).iter();
        match (hosts.next(), hosts.next()) {
            (Some(host), None) => self.expect(&String::from_utf8_lossy(host.as_bytes()), local),
            (None, _) if version == Version::HTTP_10 => Ok(()),
            (None, _) => Err((StatusCode::BAD_REQUEST, "the Host header is missing".into())),
            (Some(_), Some(_)) => {
                Err((StatusCode::BAD_REQUEST, "there is more than one Host header".into()))
            }
        }
    }

    fn expect(&self, host: &str, local: IpAddr) -> Result<(), UnexpectedHost> {
        if Host::sent(host).is_some_and(|host| self.accepts(&host, local)) {
            return Ok(());
        }
        let detail = format!(
            "this port does not answer to the host {host:?}; use its address, or add the name to admin.hosts"
        );
        Err((StatusCode::MISDIRECTED_REQUEST, detail))
    }

    fn accepts(&self, host: &Host, local: IpAddr) -> bool {
        host.name == Name::Ip(local.to_canonical())
            || self.0.iter().any(|expected| {
                expected.name == host.name
                    && (expected.port.is_none() || expected.port == host.port)
            })
    }
}

impl Host {
    /// As a client sends it: `name`, `name:port`, `1.2.3.4:port`, `[::1]:port`.
    fn sent(text: &str) -> Option<Self> {
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                let address = address.parse().ok().map(IpAddr::V6)?;
                (Name::Ip(address.to_canonical()), port)
            }
            None => {
                let end = text.find(':').unwrap_or(text.len());
                (Name::from(&text[..end])?, &text[end..])
            }
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            None => return None,
            // RFC 3986 allows an empty port.
            Some("") => None,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            Some(_) => return None,
        };
        Some(Self { name, port })
    }

    /// As people write it: like [`Host::sent`], or an IPv6 address without brackets.
    fn configured(text: &str) -> Option<Self> {
        match text.parse::<IpAddr>() {
            Ok(address) => Some(Self { name: Name::Ip(address.to_canonical()), port: None }),
            Err(_) => Self::sent(text),
        }
    }
}

impl Name {
    fn from(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self::Ip(address.to_canonical()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let fits = !name.is_empty() && name.bytes().all(allowed);
        fits.then(|| Self::Dns(name.to_ascii_lowercase()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn check(hosts: &[&str], local: &str, version: Version, sent: &[&str]) -> u16 {
        let names: Vec<_> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut headers = HeaderMap::new();
        for host in sent {
            headers.append(HOST, HeaderValue::from_str(host).unwrap());
        }
        let local = local.parse().unwrap();
        match Hosts::new(&names).check(version, &Uri::from_static("/"), &headers, local) {
            Ok(()) => 200,
            Err((status, _)) => status.as_u16(),
        }
    }

    #[test]
    fn names_are_compared_as_names_are() {
        let answer = |host| {
            check(&["localhost", "::1", "db.lan:8443"], "10.0.0.7", Version::HTTP_11, &[host])
        };
        for good in [
            "localhost",
            "LOCALHOST",
            "localhost.",
            "localhost:9180",
            "localhost:",
            "localhost:1",
            "[::1]",
            "[::1]:9180",
            "[0:0::1]:9180",
            "10.0.0.7",
            "10.0.0.7:9180",
            "[::ffff:10.0.0.7]:9180",
            "db.lan:8443",
        ] {
            assert_eq!(answer(good), 200, "{good}");
        }
        for bad in [
            "evil.example",
            "evil.example:9180",
            "localhost.evil.example",
            "evil.example@localhost",
            "localhost@evil.example",
            "localhost:x",
            "localhost:+80",
            "localhost:99999",
            "localhost:1:2",
            "::1",
            "[::1",
            "[::1]x",
            "[localhost]",
            "10.0.0.8",
            "127.0.0.1",
            "db.lan",
            "db.lan:9180",
            "local host",
            "",
            ":9180",
        ] {
            assert_eq!(answer(bad), 421, "{bad}");
        }
    }

    #[test]
    fn one_host_is_needed_but_in_http_1_0() {
        assert_eq!(check(&["localhost"], "127.0.0.1", Version::HTTP_11, &[]), 400);
        assert_eq!(check(&["localhost"], "127.0.0.1", Version::HTTP_10, &[]), 200);
        assert_eq!(check(&["localhost"], "127.0.0.1", Version::HTTP_10, &["evil.example"]), 421);
        let twice = ["localhost", "localhost"];
        assert_eq!(check(&["localhost"], "127.0.0.1", Version::HTTP_11, &twice), 400);
    }

    #[test]
    fn the_target_cannot_name_what_the_header_may_not() {
        let mut headers = HeaderMap::new();
        headers.append(HOST, HeaderValue::from_static("localhost"));
        let hosts = Hosts::new(&["localhost".into()]);
        let local = "127.0.0.1".parse().unwrap();
        let uri = Uri::from_static("http://evil.example/status");
        assert!(hosts.check(Version::HTTP_11, &uri, &headers, local).is_err());
    }
}
