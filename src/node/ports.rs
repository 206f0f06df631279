//! The ports of a node, bound before anything else starts, so that a port that cannot be had is said at
//! once.

use std::io;
use std::net::{SocketAddr, TcpListener};

use super::StartError;
use crate::config::{Config, EngineKind};
use crate::proxy::acceptor::BACKLOG;

pub(super) struct Ports {
    /// Where clients connect; `None` on a witness.
    pub(super) proxy: Option<TcpListener>,
    pub(super) admin: TcpListener,
    /// Where LiteFS gets its lease, if there is one.
    pub(super) lease: Option<TcpListener>,
}

/// Where they are, with the numbers that the system has chosen.
#[derive(Clone, Copy)]
pub(super) struct Addresses {
    pub(super) proxy: SocketAddr,
    pub(super) admin: SocketAddr,
}

impl Ports {
    /// # Errors
    ///
    /// When a port cannot be had.
    pub(super) fn bind(config: &Config) -> Result<Self, StartError> {
        let has_data = !config.is_witness();
        let has_lease = match config.litefs.engine {
            EngineKind::Litefs | EngineKind::External => has_data,
            EngineKind::Embedded => false,
        };
        let bind = |wanted: bool, address, key| match wanted {
            true => listen(address, key).map(Some),
            false => Ok(None),
        };
        Ok(Self {
            proxy: bind(has_data, config.proxy.listen, "proxy.listen")?,
            admin: listen(config.admin.listen, "admin.listen")?,
            lease: bind(has_lease, config.litefs.lease_listen, "litefs.lease_listen")?,
        })
    }

    pub(super) fn addresses(&self, config: &Config) -> Result<Addresses, StartError> {
        let proxy = match &self.proxy {
            Some(proxy) => local(proxy)?,
            None => config.proxy.listen,
        };
        Ok(Addresses { proxy, admin: local(&self.admin)? })
    }
}

/// Binds a port. `SO_REUSEADDR` is set, so that a restart need not wait for old connections.
fn listen(address: SocketAddr, key: &str) -> Result<TcpListener, StartError> {
    let bind = || {
        use socket2::{Domain, Protocol, Socket, Type};
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        // While we are busy clients wait rather than being refused.
        socket.listen(BACKLOG)?;
        Ok::<TcpListener, io::Error>(socket.into())
    };
    bind().map_err(|why| {
        let advice = match why.kind() {
            io::ErrorKind::AddrInUse => {
                "another program has it: stop that one, or choose another port"
            }
            io::ErrorKind::PermissionDenied => {
                "choose a port above 1023, or give this program CAP_NET_BIND_SERVICE"
            }
            _ => "choose an address of this machine",
        };
        StartError::Io(format!("cannot listen at {key} {address}: {why}; {advice}"))
    })
}

fn local(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|why| StartError::Io(why.to_string()))
}
