//! Steering a cluster: what operators ask of it, whoever elects its primary.
//!
//! The admin port passes on to a [`Control`] what commands ask for. [`fixed`] is the one of clusters
//! without an election: their primary and members are what the configuration says.

pub(crate) mod command;
mod error;
pub(crate) mod fixed;
pub(crate) mod forwarder;
mod key;
mod keys;

use serde::{Deserialize, Serialize};

pub use error::ControlError;
pub use key::OnceKey;

use crate::cluster::{Epoch, NodeId};
use crate::config::HostPort;
use crate::engine::BoxFuture;
use crate::engine::replication::Stream;
use command::ForwardedCommand;

/// Does what operators ask for, from whichever node: it finds by itself who has to do it. Each of its
/// futures ends in a bounded time. One that is dropped leaves nothing half done.
pub trait Control: Send + Sync {
    /// Hands the lease over to `node`, or to this node if none is named. Done once that node takes
    /// writes, so at once if it does already.
    ///
    /// Without `force` no acknowledged write may be lost. With it, while there is no primary, that
    /// node becomes it although others may hold more, or differing histories: an operator has decided
    /// so.
    ///
    /// # Errors
    ///
    /// Why it is not the primary; the one before then goes on, if that can be.
    fn promote(
        &self,
        node: Option<NodeId>,
        force: bool,
    ) -> BoxFuture<'_, Result<Promoted, ControlError>>;

    /// The members as this node knows them, sorted by name.
    ///
    /// # Errors
    ///
    /// When this node is none itself any more.
    fn members(&self) -> Result<Vec<MemberStatus>, ControlError>;

    /// Changes the membership. Done once it is agreed upon.
    ///
    /// # Errors
    ///
    /// Why not; a change that was [not in time](ControlError::NotInTime) may still come about.
    fn change_members(&self, change: MemberChange) -> BoxFuture<'_, Result<(), ControlError>>;

    /// Forgets LiteFS' cluster ID, so that a LiteFS without one may become primary: for a cluster that
    /// has lost every node that knew it.
    ///
    /// # Errors
    ///
    /// When that was not agreed upon, or nothing is.
    fn reset_litefs_id(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        let why =
            "without an election each LiteFS keeps its own cluster ID: there is none to reset";
        Box::pin(async move { Err(ControlError::Refused(why.to_owned())) })
    }

    /// Has a command run on the primary's machine; what is said of it comes by the answer, and it ends
    /// with that.
    ///
    /// # Errors
    ///
    /// When the primary cannot be asked.
    fn forward(&self, command: ForwardedCommand) -> BoxFuture<'_, Result<Stream, ControlError>> {
        let _ = command;
        Box::pin(async { Err(ControlError::NoPrimary) })
    }

    /// Whether something was done that is to be done once. Asked on the primary only, which has to
    /// know by then what earlier primaries remembered. What a failover has lost was not done.
    ///
    /// # Errors
    ///
    /// When that cannot be said.
    fn was_done(&self, key: OnceKey) -> BoxFuture<'_, Result<bool, ControlError>>;

    /// Remembers that something was done in `epoch`, this node's own. Done once this node
    /// knows it, and every later primary will.
    ///
    /// # Errors
    ///
    /// When it could not be agreed upon, such as because that epoch is over.
    fn remember(&self, key: OnceKey, epoch: Epoch) -> BoxFuture<'_, Result<(), ControlError>>;
}

/// Who is primary after [`Control::promote`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promoted {
    /// The primary.
    pub node: NodeId,
    /// Its epoch.
    pub epoch: Epoch,
}

/// A member of the cluster, as everybody has agreed upon it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its name.
    pub node: NodeId,
    /// Its peer port.
    pub address: HostPort,
    /// It votes and holds no data.
    pub witness: bool,
    /// It votes. One that was just added does not until it has caught up.
    pub voter: bool,
    /// How often a node of this name was replaced or removed.
    pub generation: u64,
}

/// A change of the membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum MemberChange {
    Add {
        node: NodeId,
        address: HostPort,
    },
    /// One that will not come back.
    Remove {
        node: NodeId,
    },
    /// One that comes back with an empty disk.
    Replace {
        node: NodeId,
        /// The generation of the disk that is lost: asked for again, the one in its place is not replaced as
        /// well. `None`: whichever it has.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        generation: Option<u64>,
    },
}
