//! What LiteFS' engine asks of the cluster around it; the election implements it.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::claim::Claim;
use crate::cluster::{Epoch, EpochStart, NodeId};
use crate::engine::BoxFuture;

/// A connection to another node's LiteFS.
pub type Stream = Box<dyn Duplex>;

/// Bytes in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// What LiteFS' engine asks of the cluster around it.
pub trait Cluster: Send + Sync + 'static {
    /// This node's right to be primary in `epoch`: [`Claim::none`] if it has none.
    fn claim(&self, epoch: Epoch) -> Claim;

    /// Primaries are elected. Otherwise it is always the same node, which may begin the same reign
    /// again, and whose history nobody else goes on from.
    fn elects(&self) -> bool;

    /// Where the last reigns began, as agreed upon, the newest last. Without an election: where the
    /// primary's present one did.
    fn starts(&self) -> Arc<[EpochStart]>;

    /// LiteFS' cluster ID, as far as this node has heard.
    fn litefs_id(&self) -> Option<String>;

    /// Has LiteFS' cluster ID agreed upon.
    ///
    /// # Errors
    ///
    /// When that fails, or there is another already.
    fn set_litefs_id(&self, id: String) -> BoxFuture<'_, Result<(), String>>;

    /// A connection to the LiteFS of `node`, through its peer port.
    fn dial_litefs(&self, node: NodeId) -> BoxFuture<'static, io::Result<Stream>>;
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A cluster of one.
    #[derive(Default)]
    pub(crate) struct Alone(Mutex<Option<String>>);

    impl Cluster for Alone {
        fn claim(&self, _epoch: Epoch) -> Claim {
            Claim::unlimited()
        }

        fn elects(&self) -> bool {
            false
        }

        fn starts(&self) -> Arc<[EpochStart]> {
            Arc::default()
        }

        fn litefs_id(&self) -> Option<String> {
            self.0.lock().unwrap().clone()
        }

        fn set_litefs_id(&self, id: String) -> BoxFuture<'_, Result<(), String>> {
            *self.0.lock().unwrap() = Some(id);
            Box::pin(async { Ok(()) })
        }

        fn dial_litefs(&self, _node: NodeId) -> BoxFuture<'static, io::Result<Stream>> {
            Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
        }
    }
}
