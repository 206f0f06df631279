//! What this version refuses to start with.

use crate::config::{Ack, Config, Election, EngineKind};
use crate::rules::RuleSet;

/// What the configuration may ask for and this version does not do. Starting without it would break
/// a promise that the operator relies on.
///
/// # Errors
///
/// The first such thing, and what to do instead.
pub fn check(config: &Config, rules: &RuleSet) -> Result<(), String> {
    let peers = config.cluster.peers.len();
    let asks_for_acks = config.cluster.ack != Ack::Primary || rules.asks_for_acks();
    let refusals = [
        (
            config.litefs.engine != EngineKind::Embedded,
            "litefs.engine: this version runs `embedded` only",
        ),
        (
            config.cluster.election == Election::Raft,
            "cluster.election: this version knows `static` (with cluster.primary) and `single` only",
        ),
        (
            config.proxy.tls.is_some(),
            "proxy.tls: this version speaks plain HTTP; put nginx in front",
        ),
        (
            !config.cluster.witnesses.is_empty(),
            "cluster.witnesses: a fixed primary needs no witnesses; leave them out",
        ),
        (
            asks_for_acks && peers > 1,
            "ack: this version acknowledges by the primary only; `one` and `majority` need more",
        ),
    ];
    match refusals.into_iter().find(|(refused, _)| *refused) {
        Some((_, why)) => Err(why.to_owned()),
        None => Ok(()),
    }
}
