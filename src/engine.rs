//! What the rest of the program asks of the engine that keeps and replicates the database.
//!
//! `embedded/` implements it over plain directories; LiteFS gets its own implementation.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::cluster::{Epoch, NodeId};
use crate::position::PositionCell;
use crate::txid::Position;

/// A boxed future, so that engines can be held as `dyn Engine`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Keeps this node's copy of the database.
pub trait Engine: Send + Sync {
    /// The last known position: a safe lower bound for reads on this node, never the source of the
    /// token of a write just made.
    fn position(&self) -> &Arc<PositionCell>;

    /// The position now, synchronous with commits: a write that an application has committed before
    /// this call is contained in the answer.
    ///
    /// # Errors
    ///
    /// When it cannot be read. That never counts as "nothing was written".
    fn read_position(&self) -> BoxFuture<'_, io::Result<Position>>;

    /// How long ago this copy was last known to hold all that its primary holds: 0 on the primary,
    /// `None` if never since the start. By a monotonic clock.
    fn lag(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }

    /// Makes this node's copy the one that is written, in `epoch`. Done already: nothing happens.
    /// Returns what it held when the reign began: what earlier epochs had beyond that is lost.
    ///
    /// # Errors
    ///
    /// When the engine could not; it then is what it was, and may be asked again.
    fn become_primary(&self, epoch: Epoch) -> BoxFuture<'_, io::Result<Position>> {
        Box::pin(async move {
            Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("cannot reign in epoch {epoch}"),
            ))
        })
    }

    /// Makes this node's copy one that follows `primary` (`None`: nobody yet). When this returns no
    /// application can write it, and all that was committed is contained in the position.
    ///
    /// # Errors
    ///
    /// When the engine could not, such as under a writer that does not end; it then is what it was,
    /// and may be asked again.
    fn become_replica(&self, primary: Option<NodeId>) -> BoxFuture<'_, io::Result<()>> {
        let _ = primary;
        Box::pin(async { Err(io::Error::new(io::ErrorKind::Unsupported, "cannot follow")) })
    }

    /// Its state, for `/status`.
    fn state(&self) -> EngineState;
}

/// What `/status` says about the engine, under `litefs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EngineState {
    /// `litefs`, `external` or `embedded`.
    pub engine: &'static str,
    /// One word: `running`, `waiting` (no database yet), `failed`; a failure's reason may follow
    /// after a colon.
    pub state: String,
    /// The process, if the engine is one of ours.
    pub pid: Option<u32>,
    /// How often it was restarted.
    pub restarts: u64,
}
