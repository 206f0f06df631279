//! A request's class: read, write or passthrough. Pure: no I/O (but for loading), no clock.

use std::time::Duration;

use crate::config::{Ack, Consistency};

/// What a request does to the database, ordered by strictness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Nothing: to the local app without waiting, holding, cookie or replay.
    Passthrough,
    /// Reads it.
    Read,
    /// Writes it.
    Write,
}

impl Class {
    /// The name used in rules, in metrics and by `litepilot classify`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passthrough => "passthrough",
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// What the rules say of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The class.
    pub class: Class,
    /// The rule's own level, if it sets one.
    pub consistency: Option<Consistency>,
    /// The rule's own `read_wait`, if it sets one.
    pub read_wait: Option<Duration>,
    /// The rule's own `write_hold`, if it sets one.
    pub write_hold: Option<Duration>,
    /// The rule's own `ack`, if it sets one.
    pub ack: Option<Ack>,
    /// The index of the rule that decided, for [`RuleSet::place`].
    pub rule: usize,
}
