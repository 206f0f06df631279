//! What this version refuses to start with, and what it starts with although it will surprise.

use crate::config::{Ack, App, Config, Election, OnPromote, RunOn};
use crate::rules::RuleSet;

/// What the configuration may ask for and this version does not do. Starting without it would break
/// a promise that the operator relies on.
///
/// # Errors
///
/// Such a thing, and what to do instead.
pub(crate) fn check(config: &Config) -> Result<(), String> {
    if !config.cluster.witnesses.is_empty() && config.cluster.election != Election::Raft {
        return Err(
            "cluster.witnesses: a fixed primary needs no witnesses; leave them out".to_owned()
        );
    }
    Ok(())
}

/// What is no mistake, and still not what anybody wants.
pub(crate) fn surprises(config: &Config, rules: &RuleSet) -> Vec<&'static str> {
    let wants_a_replica = config.cluster.ack == Ack::One || rules.asks_for(Ack::One);
    let ack = (wants_a_replica && config.cluster.peers.len() <= 1).then_some(
        "ack: `one` asks for a replica, and there are no peers: \
         writes will be answered with Litepilot-Ack: timeout",
    );
    let App { command, run_on, on_promote, .. } = &config.app;
    let starts = *run_on == RunOn::Primary || *on_promote == OnPromote::Restart;
    let app = (starts && command.is_empty() && !config.is_witness()).then_some(
        "app.run_on: primary and app.on_promote: restart need app.command, or the application after \
         `litepilot run --`: one that others start is neither started nor stopped",
    );
    [ack, app].into_iter().flatten().collect()
}
