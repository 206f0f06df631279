//! What a service manager such as systemd hands over and is told: sockets that listen already
//! (`sd_listen_fds(3)`), and how far the service has come (`sd_notify(3)`).

use std::env;
use std::future::pending;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use listenfd::ListenFd;
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};

/// What is said between the service manager and us, and concerns nobody whom we start.
pub(crate) const VARIABLES: [&str; 6] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
];

/// Sockets that listened before this program was started.
#[derive(Clone, Debug, Default)]
pub struct Sockets(Arc<Mutex<Vec<TcpListener>>>);

impl Sockets {
    /// Takes those that were handed over. To be called before there are threads: it changes the
    /// environment.
    ///
    /// # Errors
    ///
    /// When one is no TCP socket that listens.
    pub(crate) fn inherit() -> io::Result<Self> {
        let mut handed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for i in 0..handed.len() {
            sockets.extend(handed.take_tcp_listener(i)?);
        }
        Ok(Self(Arc::new(Mutex::new(sockets))))
    }

    /// That at this address, if there is one.
    pub(crate) fn take(&self, wanted: SocketAddr) -> Option<TcpListener> {
        let mut sockets = self.0.lock();
        let fits = |socket: &TcpListener| {
            let at = socket.local_addr();
            at.is_ok_and(|at| {
                // What listens on all addresses is IPv6 here and IPv4 there.
                at == wanted
                    || at.port() == wanted.port()
                        && at.ip().is_unspecified()
                        && wanted.ip().is_unspecified()
            })
        };
        let found = sockets.iter().position(fits)?;
        Some(sockets.swap_remove(found))
    }

    /// Closes those that nobody has taken; where they are.
    pub(crate) fn rest(&self) -> Vec<SocketAddr> {
        self.0.lock().drain(..).filter_map(|socket| socket.local_addr().ok()).collect()
    }
}

/// Tells the service manager, if there is one, something like `READY=1`.
pub(crate) fn tell(state: &str) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else { return };
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => UnixAddr::from_abstract_name(name),
        path => UnixAddr::from_pathname(std::ffi::OsStr::from_bytes(path)),
    };
    let told = address.and_then(|address| {
        UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
    });
    if let Err(why) = told {
        tracing::debug!(%why, "cannot tell the service manager that {state}");
    }
}

/// Tells the service manager again and again that whoever runs this is alive, if it wants to know.
pub(crate) async fn keep_alive() {
    let Some(limit) = watchdog() else { return pending().await };
    let mut turns = interval(limit / 2);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        tell("WATCHDOG=1");
    }
}

/// After what time without a sign of life it kills us.
fn watchdog() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let limit = Duration::from_micros(number("WATCHDOG_USEC")?);
    (ours && !limit.is_zero()).then_some(limit)
}
