//! What a client has written it reads everywhere, at once.

use std::time::Duration;

use crate::support::browser::{Browser, json};
use crate::support::cluster::{Cluster, NAMES, PRIMARY, Plan, REPLICAS};
use crate::support::together;

#[tokio::test]
async fn a_write_through_any_node_is_read_through_every_other_at_once() {
    let cluster = Plan::flask().start().await;
    let mut browser = Browser::new(&cluster);
    for writer in [1, 0, 2] {
        let entry = browser.sign(writer, "hello").await;
        for reader in [2, 1, 0] {
            assert!(browser.sees(reader, entry).await, "{writer} wrote, {reader} reads");
        }
    }
    let answer = browser.post(1, "route").await;
    assert_eq!(answer.field("litepilot-node"), Some(NAMES[PRIMARY]));
    assert_eq!(answer.field("litepilot-route"), Some("primary"));
    assert_eq!(answer.field("litepilot-txid"), Some(browser.cookies["__txid"].as_str()));
    for replica in REPLICAS {
        cluster.level().await;
        let answer = browser.get(replica, "/api/node").await;
        assert_eq!(answer.field("litepilot-route"), Some("local"));
        let node = json(&answer);
        assert_eq!((&node["node"], &node["role"]), (&NAMES[replica].into(), &"replica".into()));
        assert_eq!(node["primary"], NAMES[PRIMARY]);
    }
}

/// So many pairs of a write and a read elsewhere, by clients at once; returns how many reads missed
/// the write.
async fn stale_reads(cluster: &Cluster, clients: usize, pairs: usize) -> usize {
    let work = (0..clients).map(|client| async move {
        let mut browser = Browser::new(cluster);
        let mut stale = 0;
        for pair in 0..pairs {
            let writer = (client + pair) % 3;
            let reader = (writer + 1 + pair % 2) % 3;
            let entry = browser.sign(writer, &format!("client {client}, pair {pair}")).await;
            stale += usize::from(!browser.sees(reader, entry).await);
        }
        stale
    });
    together(work).await.into_iter().sum()
}

#[tokio::test]
async fn of_2000_reads_after_a_write_none_is_stale() {
    let cluster = Plan::flask().start().await;
    assert_eq!(stale_reads(&cluster, 50, 40).await, 0);
}

#[tokio::test]
async fn of_2000_reads_after_a_write_none_is_stale_even_if_replication_is_slow() {
    let cluster = Plan::flask().apply_delay(Duration::from_millis(50)).start().await;
    assert_eq!(stale_reads(&cluster, 50, 40).await, 0);
    for replica in REPLICAS {
        let waits = "litepilot_read_waits_total{outcome=\"reached\"}";
        assert!(cluster.metric(replica, waits).await > 0, "{replica} waited for its copy");
    }
}

#[tokio::test]
async fn with_eventual_consistency_stale_reads_are_found() {
    let plan = Plan::flask().apply_delay(Duration::from_millis(50));
    let cluster = plan.proxy("consistency: eventual").start().await;
    assert!(stale_reads(&cluster, 10, 10).await > 0);
}
