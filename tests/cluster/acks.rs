//! Writes that are answered once replicas hold them.

use std::time::Duration;

use crate::support::browser::{Browser, json};
use crate::support::cluster::{Cluster, PRIMARY, Plan, REPLICAS};
use crate::support::relay::Link;

const REPLICA: usize = 1;
const EVENTUAL: [&str; 1] = ["Litepilot-Consistency: eventual"];

/// Whether a node's own copy has an entry.
async fn holds(cluster: &Cluster, node: usize, entry: u64) -> bool {
    let path = format!("GET /api/entries/{entry}");
    cluster.client(node).await.ask(&path, &EVENTUAL).await.status() == 200
}

#[tokio::test]
async fn what_a_majority_acknowledged_a_replica_holds_at_that_moment() {
    let plan = Plan::flask().apply_delay(Duration::from_millis(20));
    let plan = plan.cluster("ack: majority").cluster("ack_timeout: 20s");
    let mut cluster = plan.start().await;
    for round in 0..2 {
        for node in [0, 1].into_iter().cycle().take(20) {
            let answer = Browser::new(&cluster).post(node, "text").await;
            assert_eq!((answer.status(), answer.field("litepilot-ack")), (201, Some("majority")));
            let entry = json(&answer)["id"].as_u64().unwrap();
            let mut held = false;
            for replica in REPLICAS.into_iter().take(2 - round) {
                held |= holds(&cluster, replica, entry).await;
            }
            assert!(held, "{entry}, written through {node}, is on no replica");
        }
        // The other one is enough.
        if round == 0 {
            cluster.stop(2).await;
        }
    }
    assert_eq!(cluster.metric(PRIMARY, "litepilot_ack_seconds_count").await, 40);
    assert_eq!(cluster.metric(PRIMARY, "litepilot_ack_timeouts_total").await, 0);
}

#[tokio::test]
async fn replicas_that_acknowledge_nothing_are_told_of_and_the_write_stays() {
    let rules = "rules:\n  - {match: {path: /api/count}, as: write, ack: one}\n  \
                 - {match: {path: /upload}, as: write, ack: primary}\n";
    let plan = Plan::flask().linked().rules(rules).cluster("ack: majority");
    let cluster = plan.cluster("ack_timeout: 300ms").start().await;
    let mut browser = Browser::new(&cluster);
    browser.sign(PRIMARY, "makes the tables").await;
    cluster.level().await;
    for replica in REPLICAS {
        cluster.link(replica).data.set(Link::Stalled);
    }
    for node in [PRIMARY, REPLICA] {
        let answer = browser.post(node, &format!("through {node}")).await;
        assert_eq!((answer.status(), answer.problem().as_str()), (504, "ack-timeout"));
        assert_eq!(answer.field("litepilot-ack"), Some("timeout"));
        assert!(!answer.retry_is_safe());
        let id = format!("X-Request-Id: {node}");
        let answer = browser.ask(node, "POST /api/count", &[&id], "").await;
        assert_eq!((answer.status(), answer.field("litepilot-ack")), (200, Some("timeout")));
        let answer = browser.ask(node, "POST /upload", &[], "x").await;
        assert_eq!((answer.status(), answer.field("litepilot-ack")), (200, None));
        // What the application refuses waits for nobody.
        let answer = browser.ask(node, "POST /api/nowhere", &[], "").await;
        assert_eq!((answer.status(), answer.field("litepilot-ack")), (404, None));
    }
    assert_eq!(cluster.metric(PRIMARY, "litepilot_ack_timeouts_total").await, 4);
    let entries = json(&browser.get(PRIMARY, "/api/entries").await);
    let texts: Vec<_> =
        entries.as_array().unwrap().iter().filter_map(|entry| entry["text"].as_str()).collect();
    for node in [PRIMARY, REPLICA] {
        assert!(texts.contains(&format!("through {node}").as_str()), "{texts:?}");
    }

    for replica in REPLICAS {
        cluster.link(replica).data.renew().await;
    }
    cluster.level().await;
    let answer = browser.post(REPLICA, "again").await;
    assert_eq!((answer.status(), answer.field("litepilot-ack")), (201, Some("majority")));
}
