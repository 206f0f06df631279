//! The ports of a node, bound before anything else starts, so that a port that cannot be had is said at
//! once.

use std::io;
use std::net::{SocketAddr, TcpListener};

use super::StartError;
use crate::config::{Config, EngineKind};
use crate::net;
use crate::process::service_manager::Sockets;
use crate::proxy::acceptor::{BACKLOG, Door};

pub(super) struct Ports {
    /// Where clients connect; `None` on a witness.
    pub(super) proxy: Option<Door>,
    pub(super) admin: TcpListener,
    /// Where LiteFS gets its lease, if there is one.
    pub(super) lease: Option<TcpListener>,
    /// Where LiteFS brings its backup, if there is one.
    pub(super) backup: Option<TcpListener>,
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
    pub(super) fn bind(config: &Config, inherited: &Sockets) -> Result<Self, StartError> {
        let has_data = !config.is_witness();
        let has_lease = match config.litefs.engine {
            EngineKind::Litefs | EngineKind::External => has_data,
            EngineKind::Embedded => false,
        };
        let bind = |wanted: bool, address, key| match wanted {
            true => listen(address, key).map(Some),
            false => Ok(None),
        };
        let proxy = match has_data {
            true => Some(door(config, inherited)?),
            false => None,
        };
        let admin = match inherited.take(config.admin.listen) {
            Some(admin) => admin,
            None => listen(config.admin.listen, "admin.listen")?,
        };
        for socket in inherited.rest() {
            tracing::warn!(
                "the service manager's socket at {socket} is neither proxy.listen nor admin.listen: it is \
                 closed"
            );
        }
        Ok(Self {
            proxy,
            admin,
            lease: bind(has_lease, config.litefs.lease_listen, "litefs.lease_listen")?,
            backup: (config.backup.as_ref().filter(|_| has_lease))
                .map(|backup| listen(backup.listen, "backup.listen"))
                .transpose()?,
        })
    }

    pub(super) fn addresses(&self, config: &Config) -> Result<Addresses, StartError> {
        let proxy = match &self.proxy {
            Some(proxy) => local(&proxy.listener)?,
            None => config.proxy.listen,
        };
        Ok(Addresses { proxy, admin: local(&self.admin)? })
    }
}

/// Where clients connect: a socket of the service manager's, which stays open when we end, or our own.
fn door(config: &Config, inherited: &Sockets) -> Result<Door, StartError> {
    let address = config.proxy.listen;
    let door = match inherited.take(address) {
        Some(listener) => Door { listener, inherited: true },
        None => listen(address, "proxy.listen")?.into(),
    };
    net::notice_vanished(&door.listener)
        .map_err(|why| StartError::Io(format!("cannot set up proxy.listen {address}: {why}")))?;
    Ok(door)
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
