//! Ports that nobody else gets while the cluster runs.
//!
//! A socket that is bound and does not listen keeps the system from giving its port to others, and
//! does not keep a node from listening there: both have `SO_REUSEADDR`. So a port chosen here is
//! still free when its node starts, and when it starts again.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::anyhow;
use socket2::{Domain, Protocol, Socket, Type};

/// A port on loopback, kept until this is dropped.
#[derive(Debug)]
pub struct Reserved {
    _socket: Socket,
}

/// Reserves a port on loopback; 0 lets the system choose.
///
/// # Errors
///
/// When somebody listens there, or this user may not.
pub fn port(port: u16) -> io::Result<(Reserved, SocketAddr)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    let address = socket.local_addr()?.as_socket();
    let address = address.ok_or_else(|| io::Error::other("the system gave no address"))?;
    Ok((Reserved { _socket: socket }, address))
}

/// Reserves a port that the user asked for by `--port`.
///
/// # Errors
///
/// Which port it is, and what to do.
pub(crate) fn asked_for(wanted: u16, what: &str) -> anyhow::Result<(Reserved, SocketAddr)> {
    port(wanted).map_err(|why| {
        let why = match why.kind() {
            io::ErrorKind::AddrInUse => "it is in use".to_owned(),
            io::ErrorKind::PermissionDenied => "ports below 1024 are for root".to_owned(),
            _ => why.to_string(),
        };
        anyhow!("cannot have port {wanted} for {what}: {why}; choose others with --port")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_reserved_port_is_given_to_nobody_but_to_who_asks_for_it() {
        let (_kept, address) = port(0).unwrap();
        for _ in 0..100 {
            assert_ne!(TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(), address);
        }
        let node = TcpListener::bind(address).unwrap();
        drop(node);
        TcpListener::bind(address).unwrap();
    }

    #[test]
    fn a_port_in_use_is_named() {
        let other = TcpListener::bind("0.0.0.0:0").unwrap();
        let taken = other.local_addr().unwrap().port();
        let why = asked_for(taken, "node-1").unwrap_err();
        let why = why.to_string();
        assert!(why.contains(&taken.to_string()) && why.contains("--port"), "{why}");
    }
}
