//! Addresses: where we listen, and whom we dial.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::value;
use crate::yaml::value::ValueError;
use crate::yaml::{Node, Place, Value};

/// The longest path of a Unix socket on Linux, in bytes.
const LONGEST_SOCKET_PATH: usize = 107;

/// Where the application listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// `host:port`; the name is resolved at each dial.
    Tcp(HostPort),
    /// `unix:/path`
    Unix(PathBuf),
}

/// A host name or address, and a port from 1 to 65535.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl HostPort {
    /// Whether this can only be the machine itself. Names other than `localhost` may be anywhere.
    pub(crate) fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }
}

impl FromStr for HostPort {
    type Err = ValueError;

    /// As the value of a key.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        dial(&as_value(text))
    }
}

impl TryFrom<String> for HostPort {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl From<HostPort> for String {
    fn from(address: HostPort) -> Self {
        address.to_string()
    }
}

impl FromStr for Target {
    type Err = ValueError;

    /// As the value of a key.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        target(&as_value(text))
    }
}

fn as_value(text: &str) -> Node {
    Node { place: Place::START, value: Value::Text(text.to_owned()), plain: None }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An address to listen on: `:8080` (all of IPv4), `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`.
/// Port 0 lets the system choose.
pub(crate) fn listen(node: &Node) -> Result<SocketAddr, ValueError> {
    let (host, port) = split(node)?;
    let address = match host {
        "" => Ok(Ipv4Addr::UNSPECIFIED.into()),
        "localhost" => Ok(Ipv4Addr::LOCALHOST.into()),
        _ => host.parse::<IpAddr>(),
    };
    match address {
        Ok(address) => Ok(SocketAddr::new(address, port)),
        Err(_) => Err(format!(
            "{} is no address of this machine: write :PORT or IP:PORT",
            node.describe()
        )
        .into()),
    }
}

/// As [`listen`], but with a port that others can know beforehand.
pub(crate) fn listen_fixed(node: &Node) -> Result<SocketAddr, ValueError> {
    let address = listen(node)?;
    not_zero(address.port())?;
    Ok(address)
}

/// An address to dial: `host:port`, `10.0.0.1:80`, `[::1]:80`.
pub(crate) fn dial(node: &Node) -> Result<HostPort, ValueError> {
    let (host, port) = split(node)?;
    not_zero(port)?;
    if !is_host(host) {
        return Err(format!("{} names no host: write HOST:PORT", node.describe()).into());
    }
    Ok(HostPort { host: host.to_owned(), port })
}

/// Where the application listens: as [`dial`], `:8000` (this machine) or `unix:/path`.
pub(crate) fn target(node: &Node) -> Result<Target, ValueError> {
    let text = node.word().unwrap_or_default();
    if let Some(path) = text.strip_prefix("unix:") {
        return match path.len() {
            _ if !path.starts_with('/') || path.contains('\0') => Err(format!(
                "{} is no socket: write the whole path, like unix:/run/gunicorn.sock",
                node.describe()
            ).into()),
            0..=LONGEST_SOCKET_PATH => Ok(Target::Unix(PathBuf::from(path))),
            _ => Err(format!(
                "the socket's path is longer than {LONGEST_SOCKET_PATH} bytes, the most that Linux takes"
            ).into()),
        };
    }
    if text.contains("://") {
        return Err(format!("{} is a URL: write only HOST:PORT", node.describe()).into());
    }
    match split(node)? {
        ("", port) => {
            not_zero(port)?;
            Ok(Target::Tcp(HostPort { host: Ipv4Addr::LOCALHOST.to_string(), port }))
        }
        _ => dial(node).map(Target::Tcp),
    }
}

/// A host name or address, for instance of a `Host` header, without a port.
pub(crate) fn host(node: &Node) -> Result<String, ValueError> {
    let host = value::word(node)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
    if is_host(bare) {
        Ok(bare.to_owned())
    } else {
        Err(format!("{} is no host name: write a name or an address, no port", node.describe())
            .into())
    }
}

/// The host, without brackets, and the port.
fn split(node: &Node) -> Result<(&str, u16), ValueError> {
    const FORM: &str = "write HOST:PORT";
    let text = match node.word() {
        Some(text) => text,
        None => return Err(format!("{} is no address: {FORM}", node.describe()).into()),
    };
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!("{} is no address: {FORM}", node.describe()).into());
    };
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) if address.parse::<Ipv6Addr>().is_ok() => address,
        None if !host.contains([':', '[', ']']) => host,
        _ => return Err(format!("{} is no address: write [IPV6]:PORT", node.describe()).into()),
    };
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("{} has no port: {FORM}", node.describe()).into());
    }
    match port.parse() {
        Ok(port) => Ok((host, port)),
        Err(_) => {
            Err(format!("port {} is out of range: 1 to 65535", crate::yaml::shorten(port)).into())
        }
    }
}

fn not_zero(port: u16) -> Result<(), ValueError> {
    if port == 0 { Err("port 0 is out of range: 1 to 65535".into()) } else { Ok(()) }
}

fn is_host(host: &str) -> bool {
    let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    host.parse::<IpAddr>().is_ok() || (1..=253).contains(&host.len()) && host.bytes().all(name)
}

#[cfg(test)]
mod tests {
    use super::as_value as node;
    use super::*;

    #[test]
    fn listening_takes_addresses_only() {
        for (text, expected) in [
            (":8080", "0.0.0.0:8080"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("[::]:80", "[::]:80"),
            ("localhost:80", "127.0.0.1:80"),
        ] {
            assert_eq!(listen(&node(text)).unwrap().to_string(), expected);
        }
        for bad in
            ["8080", "example.org:80", "::1:80", "1.2.3.4:", "1.2.3.4:x", ":65536", ":-1", ":+1"]
        {
            assert!(listen(&node(bad)).is_err(), "{bad}");
        }
        assert!(listen_fixed(&node(":0")).is_err());
    }

    #[test]
    fn dialing_takes_names_too() {
        for good in ["a.internal:1", "10.0.0.1:65535", "[fd00::1]:80"] {
            assert_eq!(dial(&node(good)).unwrap().to_string(), good);
        }
        for bad in [":80", "[unix]:9", "a:0", "a b:1", "a/b:1", "a:70000", "[::1]", "é:1"] {
            assert!(dial(&node(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_target_is_an_address_or_a_socket() {
        for (text, expected) in [
            (":8000", "127.0.0.1:8000"),
            ("app:8000", "app:8000"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
        ] {
            assert_eq!(target(&node(text)).unwrap().to_string(), expected);
        }
        let long = format!("unix:/{}", "x".repeat(107));
        for bad in ["unix:a.sock", "unix:", "http://a:1", "8000", ":0", &long] {
            assert!(target(&node(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn loopback_is_recognized() {
        let dial = |text| dial(&node(text)).unwrap().is_loopback();
        assert!(dial("localhost:1") && dial("127.9.9.9:1") && dial("[::1]:1"));
        assert!(!dial("localhost.example:1") && !dial("10.0.0.1:1"));
    }
}
