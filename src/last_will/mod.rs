//! What a node leaves to the others for the case that its process dies: that it is over.
//!
//! A lease whose holder has died lasts for its ttl: the others cannot tell a dead process from a
//! network that is cut. On the machine itself it can be told. So beside each node runs `litepilot
//! last-will`, a process that reads one pipe. The node writes there what to tell, and to whom; its
//! guards ([`crate::process::guard`]) write when they begin and when nothing of their programs is
//! left. The pipe ends when the node and all its guards are gone, however that came about; if every
//! guard is done by then, nothing on this machine can commit any more, and the others are told, as
//! this node: with its certificate, over the peer port.
//!
//! Nothing depends on it. A will that is not read, not sent or not heard costs the ttl.
//!
//! | module | subject |
//! | --- | --- |
//! | [`testator`] | the node's end |
//! | [`executor`] | the process: reads the pipe, and tells the others |
//! | [`estate`] | what the pipe says. Pure |

pub(crate) mod estate;
pub(crate) mod executor;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
pub(crate) mod testator;

use serde::{Deserialize, Serialize};

use crate::cluster::NodeId;
use crate::config::PeerTls;
use crate::election::raft::Member;
use crate::election::table::{Life, Term};

/// What a node wants to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastWill {
    /// The node.
    pub(crate) node: NodeId,
    /// The run of its process that is over with this.
    pub(crate) life: Life,
    /// The last term of Raft that it has seen.
    pub(crate) term: Term,
    /// Whom to tell, itself left out.
    pub(crate) members: Vec<Member>,
    /// Read when the will is, not when it is executed.
    pub(crate) tls: Option<PeerTls>,
    /// Milliseconds after which it is of no use any more.
    pub(crate) ttl_ms: u64,
}
