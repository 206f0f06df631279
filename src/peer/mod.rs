//! The one port between nodes.
//!
//! A connection speaks one protocol, chosen by name when it is opened, and both ends know which node
//! is at the other. `peer` knows no protocol but its own [`gossip`]: others register a handler with
//! the [`Listener`] and open connections with the [`Dialer`].
//!
//! On plain TCP the opening is a line each way (the `greeting` module). With TLS (the `secure` module)
//! certificates and ALPN say what the dialer's line says, and cannot lie; the answer is the same, and
//! neither handlers nor callers of the dialer see a difference.
//!
//! Everything a stranger can do here is bounded in size, time and number, and refused with a reason.

mod acquaintances;
pub(crate) mod backoff;
pub(crate) mod dialer;
mod distrust;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
pub mod gossip;
mod greeting;
pub(crate) mod listener;
pub(crate) mod outside;
mod places;
mod secure;
mod stream;

#[cfg(test)]
pub(crate) mod tests;

pub use dialer::{DialError, Dialer, PeerAddresses};
pub(crate) use greeting::GreetingRefusal;
pub use listener::{ConnectionLimits, Handler, Incoming, Listener, Members};
pub use secure::Credentials;
pub(crate) use stream::Stream;

use std::time::Duration;

/// Forwarded requests.
pub const HTTP: &str = "litepilot-http/1";
/// What nodes tell each other about themselves.
pub(crate) const GOSSIP: &str = "litepilot-gossip/1";
pub(crate) const RAFT: &str = "litepilot-raft/1";
/// A byte tunnel to a node's LiteFS.
pub(crate) const LITEFS: &str = "litepilot-litefs/1";
/// How far copies in LiteFS are.
pub(crate) const POSITIONS: &str = "litepilot-positions/1";
/// Commands for the primary's machine.
pub(crate) const COMMANDS: &str = "litepilot-commands/1";
/// The embedded engine's shipping of the database.
pub(crate) const EMBEDDED: &str = "litepilot-embedded/2";

/// Who takes the connections of a protocol, and how many of them.
pub struct Protocol {
    pub(crate) name: &'static str,
    pub(crate) limits: ConnectionLimits,
    pub(crate) handler: Handler,
}

/// Times of the peer port.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// To connect, name lookup included.
    pub connect: Duration,
    /// From the connection to the end of the greeting.
    pub greeting: Duration,
    /// A peer that acknowledges or takes nothing for this long is dead: see [`crate::net::tune`].
    pub unacknowledged: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            greeting: Duration::from_secs(5),
            unacknowledged: Duration::from_secs(45),
        }
    }
}
