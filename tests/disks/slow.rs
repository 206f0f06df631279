//! Disks on which a sync takes its time.

use super::*;

/// Well below `lease.ttl`, in milliseconds.
const SLOW: i64 = 300;
/// Beyond whatever a node waits for.
const LONG: i64 = 2000;

/// The index of whoever leads Raft.
fn leader(cluster: &Cluster) -> usize {
    let mut found = None;
    until("somebody leads Raft", || {
        let status = cluster.nodes[0].status();
        let name = status.and_then(|status| status["raft"]["leader"].as_str().map(str::to_owned));
        found = cluster.nodes.iter().position(|node| Some(&node.it.name) == name.as_ref());
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn where_syncs_are_slow_on_the_raft_leader_writes_go_on_and_nobody_is_replaced() {
    if !preload::is_possible() {
        return;
    }
    let mut cluster = Plan { ttl: "20s", ..plan() }.start();
    let leader = leader(&cluster);
    Faults::of(&cluster.nodes[leader].it.data_dir).slow_down(SLOW);
    let (primary, epoch) = (cluster.primary(), cluster.epoch(0));
    for n in 0..20 {
        assert_eq!(cluster.nodes[n % 3].it.post(&n.to_string()).code, 201);
    }
    assert_eq!((cluster.primary(), cluster.epoch(0)), (primary, epoch), "nobody was replaced");
    // A handoff waits for that disk, and a failover too.
    let target = cluster.others(primary)[0];
    let name = cluster.nodes[target].it.name.clone();
    until("another one has taken over", || {
        cluster.nodes[target].command(&["promote", &name]).0 == Some(0)
    });
    let primary = cluster.primary();
    cluster.nodes[primary].kill();
    let other = cluster.others(primary)[0];
    assert_eq!(cluster.nodes[other].it.post("after").code, 201, "held, and then done");
}

/// What a replica notes of a new epoch holds nothing else up.
#[test]
fn where_syncs_are_slow_a_replica_answers_while_it_joins_a_new_primary() {
    if !preload::is_possible() {
        return;
    }
    // Nobody is replaced, however slow the machine is.
    let cluster = Plan { ttl: "20s", ..plan() }.start();
    let primary = cluster.primary();
    let [target, slow] = cluster.others(primary)[..] else { panic!() };
    assert_eq!(cluster.nodes[primary].it.post("before").code, 201);
    Faults::of(&cluster.nodes[slow].it.data_dir).slow_down(LONG);
    let name = cluster.nodes[target].it.name.clone();
    until("another one has taken over", || {
        cluster.nodes[target].command(&["promote", &name]).0 == Some(0)
    });
    // It answers while it waits for its disk, one sync after the other.
    let mut answers = 0;
    until("it has joined the new epoch", || {
        let status = cluster.nodes[slow].status();
        answers += usize::from(status.is_some());
        let epoch = cluster.epoch(target);
        status.is_some_and(|status| status["position"]["epoch"] == epoch)
    });
    assert!(answers > 20 || cluster::litefs().is_none(), "it answered {answers} times");
    assert_eq!(cluster.nodes[target].it.post("after").code, 201);
    cluster.until_level(slow);
}
