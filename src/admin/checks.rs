//! The load balancer checks, as decisions over a status. Pure.
//!
//! An error is the reason, for people. While no primary is heard nobody can say how far behind a
//! copy is; then a replica goes on saying that it serves, or a cluster without a primary would
//! lose its reads too.

use std::time::Duration;

use crate::cluster::Role;
use crate::status::{AppState, Status};

/// `Ok` or why not.
pub(crate) type Check = Result<(), String>;

/// This node can serve, reads at least.
pub(crate) fn ready(status: &Status, max_lag: Duration) -> Check {
    if status.role == Role::Witness {
        return Err("this node is a witness: it votes and serves nothing".into());
    }
    match status.app.state {
        AppState::Down => return Err("the application does not answer".into()),
        AppState::Standby if !hears_primary(status) => {
            return Err(
                "this node is a standby, and there is no primary to send requests to".into()
            );
        }
        AppState::Standby | AppState::Up => {}
    }
    if !status.engine_works() {
        return Err(format!("the engine ({}) {}", status.litefs.engine, status.litefs.state));
    }
    match status.lag() {
        Some(lag) if lag > max_lag && hears_primary(status) => Err(too_far_behind(lag, max_lag)),
        _ => Ok(()),
    }
}

/// This node is the primary and its claim is valid.
pub(crate) fn primary(status: &Status) -> Check {
    match status.role {
        Role::Primary if status.writable => Ok(()),
        Role::Primary => Err("this node is the primary, but may not take writes now".into()),
        role => Err(format!("this node is a {}", role.as_str())),
    }
}

/// This node is a replica that can serve, and no further behind than `lag`, if that is given.
pub(crate) fn replica(status: &Status, max_lag: Duration, lag: Option<Duration>) -> Check {
    if status.role != Role::Replica {
        return Err(format!("this node is a {}", status.role.as_str()));
    }
    ready(status, max_lag)?;
    match (lag, status.lag()) {
        _ if !hears_primary(status) => Ok(()),
        (None, _) => Ok(()),
        (Some(_), None) => Err("how far this node is behind is not known".into()),
        (Some(allowed), Some(lag)) if lag > allowed => Err(too_far_behind(lag, allowed)),
        (Some(_), Some(_)) => Ok(()),
    }
}

fn hears_primary(status: &Status) -> bool {
    status.primary.is_some()
}

fn too_far_behind(lag: Duration, allowed: Duration) -> String {
    format!("this node is {lag:?} behind the primary, more than {allowed:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::example;

    const MAX: Duration = Duration::from_secs(10);

    fn a_replica(lag_ms: Option<u64>) -> Status {
        Status { role: Role::Replica, writable: false, lag_ms, ..example() }
    }

    #[test]
    fn only_a_valid_claim_makes_a_primary() {
        assert_eq!(primary(&example()), Ok(()));
        assert!(primary(&Status { writable: false, ..example() }).is_err());
        assert!(primary(&a_replica(Some(0))).is_err());
    }

    #[test]
    fn a_replica_is_healthy_within_its_lag() {
        let two = Some(Duration::from_secs(2));
        assert_eq!(replica(&a_replica(Some(2_000)), MAX, two), Ok(()));
        assert!(replica(&a_replica(Some(2_001)), MAX, two).is_err());
        assert_eq!(replica(&a_replica(Some(2_001)), MAX, None), Ok(()));
        assert!(replica(&a_replica(Some(10_001)), MAX, None).is_err());
        assert!(replica(&a_replica(None), MAX, two).is_err());
        assert_eq!(replica(&a_replica(None), MAX, None), Ok(()));
        assert!(replica(&example(), MAX, None).is_err(), "the primary is no replica");
    }

    #[test]
    fn without_a_primary_replicas_go_on_serving_reads() {
        let alone = Status { primary: None, quorum: false, ..a_replica(Some(60_000)) };
        assert_eq!(ready(&alone, MAX), Ok(()));
        assert_eq!(replica(&alone, MAX, Some(Duration::from_secs(2))), Ok(()));
    }

    #[test]
    fn nothing_is_ready_without_its_parts() {
        assert_eq!(ready(&example(), MAX), Ok(()));
        let mut down = example();
        down.app.state = AppState::Down;
        assert!(ready(&down, MAX).is_err());
        let mut standby = a_replica(Some(0));
        standby.app.state = AppState::Standby;
        assert_eq!(ready(&standby, MAX), Ok(()), "its requests go to the primary");
        standby.primary = None;
        assert!(ready(&standby, MAX).is_err());
        let mut failed = example();
        failed.litefs.state = "failed: file is not a database".into();
        assert!(ready(&failed, MAX).is_err());
        let mut large = example();
        large.litefs.state = "not replicated: too large".into();
        assert_eq!(ready(&large, MAX), Ok(()), "it serves; the replicas' lag says the rest");
        let mut empty = example();
        empty.litefs.state = "waiting".into();
        assert_eq!(ready(&empty, MAX), Ok(()), "the application makes the database");
        assert!(ready(&Status { role: Role::Witness, ..example() }, MAX).is_err());
    }
}
