//! How copies reach each other: what an engine needs of the peer port, without knowing it.

use std::convert::Infallible;
use std::fmt;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

use super::BoxFuture;
use crate::cluster::NodeId;

/// A connection to another node.
pub type Stream = Box<dyn Duplex>;

/// Bytes in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Opens connections to other nodes.
pub trait Dial: Send + Sync + 'static {
    /// A connection to `node` that speaks `protocol`.
    fn dial<'a>(
        &'a self,
        node: &'a NodeId,
        protocol: &'static str,
    ) -> BoxFuture<'a, io::Result<Stream>>;
}

/// Following a primary only ends with an error.
pub type Followed = Result<Infallible, FollowError>;

/// Why a primary is no longer followed. It may be dialed again.
#[derive(Debug)]
pub enum FollowError {
    /// It could not be dialed.
    Unreachable(io::Error),
    /// The connection has ended, the primary refuses this copy, or this copy refuses the primary.
    Ended(io::Error),
}

impl fmt::Display for FollowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) | Self::Ended(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for FollowError {}

impl From<io::Error> for FollowError {
    fn from(why: io::Error) -> Self {
        Self::Ended(why)
    }
}
