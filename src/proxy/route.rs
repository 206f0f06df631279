//! Where a request goes. Pure: no I/O, no clock.

use super::facts::{Progress, RequestFacts};
use crate::cluster::{ClusterView, Epoch};
use crate::config::Consistency;
use crate::rules::Class;
use crate::txid::{EpochTxid, Token, Txid};

/// A token this far ahead of this node is not waited for: the primary is quicker.
const FAR_AHEAD: u64 = 10_000;

/// This node and the cluster at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The cluster, as this node knows it.
    pub view: &'a ClusterView,
    /// [`ClusterView::takes_writes`], which looks at the clock.
    pub takes_writes: bool,
    /// What this node's copy holds.
    pub position: EpochTxid,
    /// This node's application takes connections. Only asked of a request that is
    /// [`local_exhausted`](Progress::local_exhausted).
    pub app_is_up: bool,
    /// Its copy is further behind than `proxy.max_lag`, or that is not known, and the primary has not turned
    /// out to be out of reach. Only asked of a read, and not on the primary.
    pub lags: bool,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// To this node's application.
    Local,
    /// Likewise, once this node has reached the token; after `read_wait` to the primary.
    LocalAfterPosition(Token),
    /// Likewise, once this primary's claim has been renewed.
    LocalAfterRenewal,
    /// To the primary's application.
    ToPrimary,
    /// Nowhere until there is a primary.
    WaitForPrimary,
}

/// Where a request goes now.
pub fn decide(facts: &RequestFacts, progress: &Progress, now: &Situation<'_>) -> Decision {
    match progress.class(facts) {
        _ if facts.primary_only && !now.takes_writes => to_primary(now.view),
        Class::Passthrough => Decision::Local,
        class if now.takes_writes => {
            let doubtful = !progress.claim_confirmed && is_doubtful(class, facts, now.view);
            if doubtful { Decision::LocalAfterRenewal } else { Decision::Local }
        }
        Class::Write => to_primary(now.view),
        Class::Read => read(facts, progress, now),
    }
}

/// A read on a node that is not the primary, or not sure of it.
fn read(facts: &RequestFacts, progress: &Progress, now: &Situation<'_>) -> Decision {
    if now.lags && is_primary_elsewhere(now.view) {
        return Decision::ToPrimary;
    }
    let Some(needed) = needed(facts, now.view, now.position) else { return to_primary(now.view) };
    if needed <= now.position {
        let app_is_down = progress.local_exhausted && !now.app_is_up;
        // The primary's application is better than none.
        return if app_is_down && is_primary_elsewhere(now.view) {
            Decision::ToPrimary
        } else {
            Decision::Local
        };
    }
    let near = needed.txid.0 <= now.position.txid.0.saturating_add(FAR_AHEAD);
    if !progress.local_exhausted && (near || now.view.primary.is_none()) {
        Decision::LocalAfterPosition(needed)
    } else {
        to_primary(now.view)
    }
}

/// Whether a primary has to doubt that it is one: the client has seen a later epoch. That may have
/// been in a cluster that is no more; or the clock here has stood still, and with it the end of the
/// claim.
fn is_doubtful(class: Class, facts: &RequestFacts, view: &ClusterView) -> bool {
    let elected = view.claim.deadline().is_some();
    let by_token = class == Class::Write || facts.consistency != Consistency::Eventual;
    elected && by_token && facts.token.is_some_and(|token| token.epoch > view.epoch())
}

/// The position from which on this node's copy will do for a read; `None` if only the primary's will.
///
/// With a token a copy has to follow the newest epoch too: what it holds of an older one may be what
/// the next began without.
pub(super) fn needed(
    facts: &RequestFacts,
    view: &ClusterView,
    position: EpochTxid,
) -> Option<EpochTxid> {
    match (facts.consistency, facts.token) {
        (Consistency::Strong, _) => None,
        (Consistency::Eventual, _) | (_, None) => Some(EpochTxid::default()),
        (_, Some(token)) if token.epoch == Epoch(0) => Some(with_epoch(token, position)),
        // What this copy's epoch began without has to be told, and is not known here yet.
        (_, Some(token))
            if token.epoch < position.epoch && !view.knows_losses_until(position.epoch) =>
        {
            None
        }
        (_, Some(token)) => {
            Some(token.max(EpochTxid { epoch: view.newest_epoch(), txid: Txid(0) }))
        }
    }
}

fn to_primary(view: &ClusterView) -> Decision {
    // Else there is none, or this node is it and may not take writes yet.
    if is_primary_elsewhere(view) { Decision::ToPrimary } else { Decision::WaitForPrimary }
}

/// Whether another node is the primary.
pub(super) fn is_primary_elsewhere(view: &ClusterView) -> bool {
    view.primary.as_ref().is_some_and(|primary| primary.node != view.node)
}

/// A client that keeps only LiteFS' own cookie means this node's epoch.
pub(super) fn with_epoch(mut token: Token, position: EpochTxid) -> Token {
    if token.epoch == Epoch(0) {
        token.epoch = position.epoch;
    }
    token
}

#[cfg(test)]
mod tests;
