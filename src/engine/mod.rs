//! What the rest of the program asks of the engine that keeps and replicates the database.
//!
//! `litefs/` implements it over LiteFS, `embedded/` over plain directories. `node/engines.rs` picks one.

pub mod replication;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch;

use self::replication::{Dial, FollowError, Followed};
use crate::acks::Acks;
use crate::claim::Claim;
use crate::cluster::{Epoch, NodeId};
use crate::peer::Protocol;
use crate::position::PositionCell;
use crate::process::openers::Opener;
use crate::txid::{EpochTxid, Position};

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
    fn read_position(&self) -> BoxFuture<'_, io::Result<EpochTxid>>;

    /// How long ago this copy was last known to hold all that its primary holds: 0 on the primary,
    /// `None` if never since the start. By a monotonic clock.
    fn lag(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }

    /// How many writes of applications this replica has refused since its start, as far as the engine sees
    /// them: an application that was not told so answers as if they were done.
    fn refused_writes(&self) -> u64 {
        0
    }

    /// Makes this node's copy the one that is written, in the granted epoch, on disk. Done already:
    /// nothing happens, and a fence stays. Returns what the copy held when the epoch began, in terms of
    /// the history before: what others hold beyond that is lost. Asked again in the same epoch, after a
    /// restart too, that is still the same.
    ///
    /// # Errors
    ///
    /// When the engine could not, or the epoch is over; it then is what it was, and may be asked again.
    fn become_primary(&self, grant: Grant) -> BoxFuture<'_, io::Result<Position>> {
        Box::pin(async move { unsupported(format!("cannot be primary in epoch {}", grant.epoch)) })
    }

    /// Makes this node's copy one that follows nobody. When this returns no application can write it,
    /// and all that was committed is contained in the position.
    ///
    /// # Errors
    ///
    /// When the engine could not, such as under a writer that does not end; it then is what it was,
    /// and may be asked again.
    fn become_replica(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { unsupported("cannot be a replica") })
    }

    /// Makes this node's copy a replica of `primary`'s, of its `epoch`, and keeps it up to date for as
    /// long as the connection lasts and nothing newer was promised. May be dropped at any time: the copy
    /// stays a replica.
    fn follow<'a>(
        &'a self,
        primary: &'a NodeId,
        epoch: Epoch,
        dial: &'a Arc<dyn Dial>,
    ) -> BoxFuture<'a, Followed> {
        let _ = (primary, epoch, dial);
        Box::pin(async { unsupported("cannot follow").map_err(FollowError::Ended) })
    }

    /// What replicas of this node's copy need of its peer port. What they acknowledge is told to `acks`.
    fn protocols(self: Arc<Self>, acks: Arc<Acks>) -> Vec<Protocol> {
        let _ = acks;
        Vec::new()
    }

    /// Promises that no primary of an epoch before `epoch` is listened to, for good and across restarts:
    /// nothing of theirs is applied or acknowledged once this returns. A copy that was itself such a
    /// primary's becomes a replica's. Says what the copy holds then (`Prepare` in docs/election.md).
    ///
    /// # Errors
    ///
    /// When that could not be done; to be asked again. Readers that hold up what is being applied are no
    /// reason: then the copy is not fit.
    fn promise(&self, epoch: Epoch) -> BoxFuture<'_, io::Result<Held>> {
        let _ = epoch;
        Box::pin(async { unsupported("cannot promise") })
    }

    /// What the copy holds now, synchronous with commits on the primary.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    fn held(&self) -> BoxFuture<'_, io::Result<Held>> {
        Box::pin(async { unsupported("cannot compare") })
    }

    /// On the primary: keeps the application from writing, once its writers are done, and says what the
    /// copy holds from then on. The fence stays until the copy becomes a replica's, or
    /// [`Engine::lift_fence`].
    ///
    /// # Errors
    ///
    /// When the writers were not done within `limit`; then nothing has changed.
    fn fence(&self, limit: Duration) -> BoxFuture<'_, io::Result<Position>> {
        let _ = limit;
        Box::pin(async { unsupported("cannot fence") })
    }

    /// Lets the application write again.
    ///
    /// # Errors
    ///
    /// When the fence cannot be taken away; to be asked again.
    fn lift_fence(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }

    /// Ready once the copy has ceased to be the primary's although nobody here has told it to: its
    /// process has died, or others have asked it to. Returns its epoch, which is over. Never ready for
    /// an engine to which that cannot happen.
    fn lost(&self) -> BoxFuture<'_, Epoch> {
        Box::pin(std::future::pending())
    }

    /// Why this node could not become primary now, as far as the engine knows; `None` if it could.
    fn unfit(&self) -> Option<String> {
        let state = self.state().state;
        state.starts_with("failed").then_some(state)
    }

    /// LiteFS runs here without the cluster ID that was agreed upon: it has met no primary that has it.
    fn lacks_litefs_id(&self) -> bool {
        false
    }

    /// Its state, for `/status`.
    fn state(&self) -> EngineState;

    /// Whether the database's directory is there. `None`: it always is, as far as the engine knows.
    fn mounted(&self) -> Option<watch::Receiver<bool>> {
        None
    }

    /// Whether open transactions keep this copy from being brought up to date. `None`: that cannot happen, as
    /// far as the engine knows.
    fn stalled(&self) -> Option<watch::Receiver<Option<Stalled>>> {
        None
    }

    /// Ends the engine, and waits for that. The application has to be stopped before.
    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// Open transactions keep a copy from being brought up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stalled {
    /// Since when it has not moved on.
    pub since: Instant,
    /// Who has the database open: one of these, if it is seen.
    pub openers: Vec<Opener>,
}

/// This node's right to be primary.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The number of the right.
    pub epoch: Epoch,
    /// For how long, as it is renewed and ends.
    pub claim: Claim,
}

fn unsupported<T>(what: impl Into<String>) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::Unsupported, what.into()))
}

/// What a copy of the database holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// How far it is, and proof of which history that is.
    pub position: Position,
    /// Nothing was ever written to it.
    pub empty: bool,
    /// The copy is of several databases, and until then there was one: whoever does not know of the others
    /// may count too much beyond it.
    pub sole_until: Option<EpochTxid>,
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
