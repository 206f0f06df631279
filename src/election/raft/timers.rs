//! Raft's times, derived from the lease's `ttl` T.
//!
//! A leader that dies has a successor within 0.4 P: followers grant no vote for 0.17 P after its
//! last heartbeat (openraft calls this the leader's lease, and takes it from the longest election
//! timeout), then ask for votes after another 0.1 to 0.17 P. So two heartbeats in a row may be lost.
//!
//! The pace P is 1 s for the shortest ttl, and grows by a tenth of what T is longer. A loss of Raft's
//! leader costs the primary nothing, but if both were lost with one node, the next leader gives the
//! lease another T: what its election takes comes on top.

use std::time::Duration;

use openraft::{Config, ConfigError, SnapshotPolicy, StepDownPolicy};

/// A snapshot is made after so many entries.
const SNAPSHOT_EVERY: u64 = 512;
/// So many entries before a snapshot are kept, for those who are a little behind.
const KEEP: u64 = 128;
/// Entries in one message.
const BATCH: u64 = 64;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Timers {
    /// Between two heartbeats, and at most for one. A round trip between nodes must fit in.
    pub(crate) heartbeat: Duration,
    shortest_election: Duration,
    longest_election: Duration,
    /// For entries to be on another node's disk.
    pub(crate) append: Duration,
    /// For a snapshot to be there.
    pub(crate) snapshot: Duration,
    /// For a quorum to confirm who leads.
    pub(crate) confirm: Duration,
}

/// The pace at the shortest ttl, and that ttl.
const SHORTEST: Duration = Duration::from_secs(1);

impl Timers {
    pub(crate) fn of(ttl: Duration) -> Self {
        let pace = SHORTEST + ttl.saturating_sub(SHORTEST) / 10;
        let pace = pace.min(ttl);
        Self {
            heartbeat: pace / 12,
            shortest_election: pace.mul_f64(0.10),
            longest_election: pace.mul_f64(0.17),
            append: ttl.mul_f64(0.4),
            snapshot: ttl * 2,
            confirm: ttl.mul_f64(0.4),
        }
    }

    /// openraft's configuration.
    ///
    /// # Errors
    ///
    /// When `ttl` is so short that the times are not apart.
    pub(crate) fn config(self) -> Result<Config, ConfigError> {
        let millis = |time: Duration| time.as_millis() as u64;
        let longest = millis(self.longest_election);
        Config {
            cluster_name: "litepilot".to_owned(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.shortest_election),
            election_timeout_max: longest,
            install_snapshot_timeout: millis(self.snapshot),
            max_payload_entries: BATCH,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
            max_in_snapshot_log_to_keep: KEEP,
            replication_lag_threshold: 2 * SNAPSHOT_EVERY,
            // A leader that can speak but not hear must not keep the others from electing.
            quorum_loss_probe_interval: Some(2 * longest),
            removed_leader_step_down: StepDownPolicy::After(millis(self.heartbeat) * 2),
            // A node that was cut off must not depose a leader by coming back.
            enable_pre_vote: Some(true),
            // A leader that restarts has forgotten which epochs it has revoked: it needs a new
            // term, in which everything it proposed before is applied before anything is renewed.
            enable_leader_restore: Some(false),
            ..Config::default()
        }
        .validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ttl_that_may_be_configured_gives_valid_times() {
        for millis in [1000, 1001, 1999, 2000, 3000, 60_000] {
            let ttl = Duration::from_millis(millis);
            let timers = Timers::of(ttl);
            timers.config().unwrap();
            assert!(timers.longest_election * 2 < ttl.mul_f64(0.4));
        }
    }

    /// A failover has half a second besides the ttl.
    #[test]
    fn an_election_takes_little_at_the_usual_ttl() {
        let timers = Timers::of(Duration::from_secs(2));
        assert!(timers.longest_election * 2 < Duration::from_millis(400));
    }
}
