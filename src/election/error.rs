//! Why an operator's request to the election failed.

use std::fmt;
use std::time::Duration;

use super::rpc::CallError;
use crate::cluster::NodeId;

/// Why the primary or the members were not changed. Everything is then as it was, but for
/// [`ElectionError::Unanswered`], after which it may still happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ElectionError {
    /// The node is no member, or a witness.
    NoDataNode(NodeId),
    /// Nobody could hand over.
    NoPrimary,
    /// No other node is fit to become primary.
    NobodyFit,
    /// No other node whose application answers is fit.
    NoOtherApp,
    /// The application of the node that was named does not answer.
    AppDown,
    /// Too many handoffs are waiting.
    Busy,
    /// This node is not the primary, or ceased to be while the request waited.
    NotPrimary,
    /// The claim ended during the handoff.
    ClaimEnded,
    /// Writes did not end within the time that the handoff was given.
    WritesUnderWay(Duration),
    /// The application does not stop writing.
    NotFenced(String),
    /// The Raft leader changed meanwhile.
    LeaderChanged,
    /// A node refused, and why.
    Refused(String),
    /// A node did not answer.
    Unanswered(CallError),
    /// A node gave the response to another request.
    UnexpectedResponse,
}

impl fmt::Display for ElectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDataNode(node) => write!(f, "{node} is no member that holds data"),
            Self::NoPrimary => f.write_str(
                "there is no primary that could hand over: one is being chosen; the events say what \
                 that waits for, and --force ends the waiting",
            ),
            Self::NobodyFit => f.write_str("no other node can become primary"),
            Self::NoOtherApp => {
                f.write_str("no other node that can become primary has an application that answers")
            }
            Self::AppDown => f.write_str(
                "its application does not answer; --force makes it the primary all the same",
            ),
            Self::Busy => f.write_str("too many handoffs are asked for"),
            Self::NotPrimary => f.write_str("this node is not the primary"),
            Self::ClaimEnded => f.write_str("this node's claim ended meanwhile"),
            Self::WritesUnderWay(patience) => {
                write!(f, "writes were still under way after {patience:?}")
            }
            Self::NotFenced(why) => write!(f, "the application does not stop writing: {why}"),
            Self::LeaderChanged => {
                f.write_str("the cluster's leader has just changed: try again")
            }
            Self::Refused(why) => f.write_str(why),
            Self::Unanswered(why) => why.fmt(f),
            Self::UnexpectedResponse => {
                f.write_str("the answer makes no sense: do all nodes run the same version?")
            }
        }
    }
}

impl std::error::Error for ElectionError {}

impl From<CallError> for ElectionError {
    fn from(why: CallError) -> Self {
        Self::Unanswered(why)
    }
}
