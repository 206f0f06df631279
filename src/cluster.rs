//! Who is who: node names, epochs, roles, and the view of the cluster that the data plane acts on.
//!
//! Everything here is plain data. Who fills it in (a fixed primary, an election) is not known here.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::claim::Claim;
use crate::txid::{Position, Token};

/// The name of a node: 1 to 63 of `a-z A-Z 0-9 . _ -`, beginning with a letter or a digit.
///
/// It travels in headers, in certificates and in file names, hence the narrow alphabet.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(Arc<str>);

/// Why a text is no [`NodeId`].
#[derive(Debug, PartialEq, Eq)]
pub struct BadNodeId(String);

impl NodeId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeId {
    type Err = BadNodeId;

    fn from_str(text: &str) -> Result<Self, BadNodeId> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let fits = (1..=63).contains(&text.len())
            && text.bytes().all(allowed)
            && text.as_bytes()[0].is_ascii_alphanumeric();
        if fits { Ok(Self(text.into())) } else { Err(BadNodeId(text.to_owned())) }
    }
}

impl TryFrom<String> for NodeId {
    type Error = BadNodeId;

    fn try_from(text: String) -> Result<Self, BadNodeId> {
        text.parse()
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for BadNodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no node name: use 1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or a digit",
            self.0
        )
    }
}

impl std::error::Error for BadNodeId {}

/// The number of a primary's tenure. Grows by at least one with each change of primary.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a node does in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Primary,
    /// Holds a copy of the data and serves reads.
    Replica,
    /// Votes, holds no data, runs no proxy.
    Witness,
}

impl Role {
    /// The name used in headers and in JSON.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Witness => "witness",
        }
    }
}

/// The node that holds the lease, as far as this node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Primary {
    /// Its name.
    pub node: NodeId,
    /// Its epoch.
    pub epoch: Epoch,
    /// When this node first heard of that epoch.
    pub since: SystemTime,
}

/// Where an epoch began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: Epoch,
    /// What its primary held, in terms of the history before: what others hold beyond that is lost.
    pub held: Position,
}

/// What the data plane needs to know of the cluster to route a request.
///
/// Published whole, behind an `Arc`: a request sees one consistent view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterView {
    /// This node.
    pub node: NodeId,
    /// What this node does.
    pub role: Role,
    /// Who takes writes; `None` while nobody does.
    pub primary: Option<Primary>,
    /// This node is the primary, its engine agrees, and nothing keeps it from taking writes but the
    /// end of its claim: see [`ClusterView::takes_writes`].
    pub writable: bool,
    /// How long it may take writes.
    pub claim: Claim,
    /// Primaries are elected: `starts` says where their epochs began.
    pub elected: bool,
    /// The last epochs that were opened, as far as this node knows, the newest last.
    pub starts: Arc<[EpochStart]>,
    /// A majority of the voters is in contact.
    pub quorum: bool,
    /// Why nobody takes writes, and what an operator can do, as far as this node has heard.
    pub no_primary: Option<Arc<str>>,
}

impl ClusterView {
    /// The view of a node on its own (`election: single`): primary for good, in `epoch`.
    pub fn single(node: NodeId, epoch: Epoch) -> Self {
        let primary = Primary { node: node.clone(), epoch, since: SystemTime::now() };
        Self {
            node,
            role: Role::Primary,
            primary: Some(primary),
            writable: true,
            claim: Claim::unlimited(),
            elected: false,
            starts: Arc::default(),
            quorum: true,
            no_primary: None,
        }
    }

    /// Whether this node may take a write, or acknowledge one, at this moment. Looks at the clock.
    pub fn takes_writes(&self) -> bool {
        self.writable && self.claim.is_valid()
    }

    /// Whether this node may acknowledge, at this moment, what it took under this view; `now` is the
    /// present one. Only the claim and later epochs count: who is about to hand over takes no more
    /// writes, and still answers those that it took. Looks at the clock.
    pub(crate) fn still_acknowledges(&self, now: &Self) -> bool {
        self.claim.is_valid() && now.newest_epoch() <= self.epoch()
    }

    /// Whether a failover lost what `token` stands for: an epoch of the present history began without it.
    pub fn lost(&self, token: Token) -> bool {
        lost(self.starts.iter().rev(), token)
    }

    /// Whether this node knows what a copy that follows the tenure of `epoch` lacks. Others may have told
    /// it of an epoch before what was agreed upon has come here.
    pub(crate) fn knows_losses_until(&self, epoch: Epoch) -> bool {
        let known = self.starts.last().map(|start| start.epoch).unwrap_or_default();
        !self.elected || epoch <= known
    }

    /// The newest epoch that this node knows of, or 0 if it knows of none.
    pub fn newest_epoch(&self) -> Epoch {
        let opened = self.starts.last().map(|start| start.epoch);
        self.epoch().max(opened.unwrap_or_default())
    }

    /// The present epoch, or 0 while there is no primary.
    pub fn epoch(&self) -> Epoch {
        self.primary.as_ref().map(|p| p.epoch).unwrap_or_default()
    }
}

/// Whether the present history lacks what `token` stands for. `starts`: where its epochs began, the newest
/// first. It may lack whole epochs: who was cut off meanwhile may have begun the next.
pub(crate) fn lost<'a>(starts: impl Iterator<Item = &'a EpochStart>, token: Token) -> bool {
    let mut starts = starts.peekable();
    let mut epoch = starts.peek().map(|start| start.epoch).unwrap_or_default();
    for start in starts {
        if token.epoch == Epoch(0) || epoch <= token.epoch {
            return false;
        }
        if start.epoch > epoch {
            continue;
        }
        // An epoch that was not opened may have begun with anything.
        if start.epoch < epoch || start.held.at < token {
            return true;
        }
        epoch = start.held.at.epoch;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txid::{EpochTxid, Txid};

    /// In a cluster where epochs began so: epoch, and what its primary held.
    fn began(starts: &[(u64, EpochTxid)]) -> ClusterView {
        let start = |(epoch, position): &(u64, EpochTxid)| EpochStart {
            epoch: Epoch(*epoch),
            held: Position { at: *position, ..Position::default() },
        };
        let starts = starts.iter().map(start).collect();
        ClusterView { starts, ..ClusterView::single("a".parse().unwrap(), Epoch(4)) }
    }

    fn at(epoch: u64, txid: u64) -> EpochTxid {
        EpochTxid { epoch: Epoch(epoch), txid: Txid(txid) }
    }

    #[test]
    fn a_token_beyond_the_start_of_a_later_epoch_is_lost() {
        // Epoch 3 was never opened; 4 began with what a copy of epoch 1 held.
        let view = began(&[(2, at(1, 7)), (4, at(1, 6))]);
        assert!(!view.lost(at(1, 6)) && view.lost(at(1, 7)) && view.lost(at(1, 8)));
        assert!(view.lost(at(2, 8)));
        assert!(!view.lost(at(4, 100)));
        assert!(!view.lost(at(0, 100)), "LiteFS' own cookie has no epoch");
    }

    #[test]
    fn reigns_that_the_present_history_lacks_are_lost_whole() {
        let view = began(&[(1, at(0, 0)), (2, at(1, 3)), (3, at(2, 30)), (4, at(1, 60))]);
        assert!(view.lost(at(2, 10)) && view.lost(at(3, 40)));
        assert!(!view.lost(at(1, 60)), "what 2 began without is back");
        assert!(view.lost(at(1, 61)));
    }

    #[test]
    fn where_an_epoch_began_that_was_not_opened_nobody_knows() {
        let view = began(&[(1, at(0, 0)), (2, at(1, 7)), (4, at(3, 7))]);
        assert!(view.lost(at(2, 8)) && view.lost(at(1, 2)));
        assert!(!view.lost(at(3, 7)));
    }

    #[test]
    fn who_holds_writes_for_a_handoff_still_acknowledges_those_it_took() {
        let claim = Claim::until(crate::claim::BootTime(u64::MAX - 1));
        let single = ClusterView::single("a".parse().unwrap(), Epoch(4));
        let open = ClusterView { claim: claim.clone(), ..single.clone() };
        assert!(open.takes_writes() && open.still_acknowledges(&open));
        let held = ClusterView { writable: false, primary: None, ..open.clone() };
        assert!(!held.takes_writes() && open.still_acknowledges(&held));
        let later = ClusterView::single("b".parse().unwrap(), Epoch(5));
        assert!(!open.still_acknowledges(&later));
        let start = EpochStart { epoch: Epoch(5), held: Position::default() };
        assert!(!open.still_acknowledges(&ClusterView { starts: [start].into(), ..held.clone() }));
        claim.end();
        assert!(!open.takes_writes() && !open.still_acknowledges(&open));
        assert!(!open.still_acknowledges(&single), "another claim to the same epoch");
    }

    #[test]
    fn node_names_are_narrow() {
        for good in ["a", "node-1", "db.eu_west-2", "1"] {
            assert!(good.parse::<NodeId>().is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "a b", "a/b", "a\n", "é", &"x".repeat(64)] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad:?}");
        }
    }
}
