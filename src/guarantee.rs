//! What a client may count on, in the configuration, in rules and in requests.

use serde::{Deserialize, Serialize};

use crate::yaml::value::ValueError;
use crate::yaml::{Node, value};

/// What a read must at least see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// Whatever this node has.
    Eventual,
    /// What this client last wrote.
    ReadYourWrites,
    /// What this client last wrote or read.
    Monotonic,
    Strong,
}

/// Who must hold a write before its client is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ack {
    #[default]
    Primary,
    One,
    /// A majority of the candidates, the primary included.
    Majority,
}

impl Ack {
    /// The name in configurations, rules and answers.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::One => "one",
            Self::Majority => "majority",
        }
    }
}

/// When a request that this node's application was asked is sent again, to the primary's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplayPolicy {
    Never,
    /// When the application asks for it.
    Asked,
    /// Then, and when a read fails on a replica.
    #[default]
    FailedReads,
}

impl ReplayPolicy {
    const ALL: [Self; 3] = [Self::FailedReads, Self::Asked, Self::Never];

    /// The name in configurations and rules.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Asked => "asked",
            Self::FailedReads => "failed-reads",
        }
    }
}

/// When a request is sent again, in the configuration and in rules.
///
/// # Errors
///
/// What is wrong, and what would be right.
pub(crate) fn replay(node: &Node) -> Result<ReplayPolicy, ValueError> {
    value::one_of(&ReplayPolicy::ALL.map(|policy| (policy.as_str(), policy)))(node)
}

/// The name of a level of consistency, in the configuration and in rules.
///
/// # Errors
///
/// What is wrong, and what would be right.
pub(crate) fn consistency(node: &Node) -> Result<Consistency, ValueError> {
    value::one_of(&[
        ("eventual", Consistency::Eventual),
        ("read-your-writes", Consistency::ReadYourWrites),
        ("monotonic", Consistency::Monotonic),
        ("strong", Consistency::Strong),
    ])(node)
}

/// Who must hold a write, in the configuration and in rules.
///
/// # Errors
///
/// What is wrong, and what would be right.
pub(crate) fn ack(node: &Node) -> Result<Ack, ValueError> {
    value::one_of(&[("primary", Ack::Primary), ("one", Ack::One), ("majority", Ack::Majority)])(
        node,
    )
}
