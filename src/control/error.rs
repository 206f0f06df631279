//! Why something that an operator asked for is not done.

use std::fmt;

use crate::cluster::NodeId;

/// Why not, and what to do. Its text is for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlError {
    /// Nobody elects: primary and members are what the configuration says.
    NotElected {
        /// This node has no peers.
        alone: bool,
    },
    /// There is no member of that name.
    UnknownNode(NodeId),
    /// A witness, or a node that is not to become primary.
    NotCandidate(NodeId),
    /// It may become primary, but not now.
    NotFit {
        node: NodeId,
        /// What keeps it, as the end of a sentence: `its application does not answer`.
        why: String,
    },
    /// There is nobody who could hand over.
    NoPrimary,
    /// It would do harm, or there is nothing to be done; the text says why, and what would be right.
    Refused(String),
    /// No majority of the voters is in contact.
    NoQuorum,
    /// Who would have to do it cannot be reached.
    Unreachable { node: NodeId, why: String },
    /// It was begun and not done in time. It may still come about.
    NotInTime,
    /// It is under way, or cannot be for a moment, and why: to be asked for again.
    NotYet(String),
    /// Something that this node needs for it does not work.
    Failed(String),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotElected { alone: true } => f.write_str(
                "this node is on its own: there is no other node to hand over to, and no membership to change",
            ),
            Self::NotElected { alone: false } => f.write_str(
                "the primary and the members are fixed by the configuration: change cluster.primary or cluster.peers there",
            ),
            Self::UnknownNode(node) => {
                write!(f, "there is no member {node}: `litepilot members` lists them")
            }
            Self::NotCandidate(node) => write!(
                f,
                "{node} cannot become primary: it is a witness, or its cluster.candidate is false; name another node"
            ),
            Self::NotFit { node, why } => write!(
                f,
                "{node} cannot become primary now: {why}; wait until it can (`litepilot status`), or name another node"
            ),
            Self::NoPrimary => f.write_str(
                "there is no primary that could hand over: wait for the election (`litepilot primary --wait 30s`), or choose the node yourself with --force, which may lose what other nodes hold",
            ),
            Self::Refused(why) | Self::NotYet(why) | Self::Failed(why) => f.write_str(why),
            Self::NoQuorum => f.write_str(
                "this node is not in contact with a majority of the voters: start more of them, or fix the network between them (`litepilot status`)",
            ),
            Self::Unreachable { node, why } => {
                write!(f, "{node} would have to do it and cannot be reached: {why}; try again")
            }
            Self::NotInTime => f.write_str(
                "not done in time; it may still come about: look at `litepilot status` before you try again",
            ),
        }
    }
}

impl std::error::Error for ControlError {}
