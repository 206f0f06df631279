//! How an origin is reached.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use tokio::net::TcpStream;

use crate::config::{HostPort, Target};

/// A way to an origin.
#[derive(Clone, Debug)]
pub enum Dial {
    /// Over TCP.
    Tcp(Address),
    /// Over a Unix socket.
    Unix(PathBuf),
}

/// A TCP address; names are resolved at each dial.
#[derive(Clone, Debug)]
pub enum Address {
    /// Known for good.
    Literal(SocketAddr),
    /// To be looked up.
    Name(HostPort),
}

impl From<&Target> for Dial {
    fn from(target: &Target) -> Self {
        match target {
            Target::Tcp(host) => Self::Tcp(host.into()),
            Target::Unix(path) => Self::Unix(path.clone()),
        }
    }
}

impl From<&HostPort> for Address {
    fn from(at: &HostPort) -> Self {
        match at.host.parse::<IpAddr>() {
            Ok(ip) => Self::Literal(SocketAddr::new(ip, at.port)),
            Err(_) => Self::Name(at.clone()),
        }
    }
}

impl Address {
    /// Connects to the first address that answers.
    pub async fn connect(&self) -> io::Result<TcpStream> {
        let stream = match self {
            Self::Literal(address) => TcpStream::connect(address).await?,
            Self::Name(at) => TcpStream::connect((at.host.as_str(), at.port)).await?,
        };
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}
