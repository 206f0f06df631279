//! What a token may be, who may find it impossible, and the levels of consistency.

use std::time::Duration;

use crate::support::browser::{Browser, json};
use crate::support::cluster::{Cluster, NAMES, PRIMARY, Plan};
use crate::support::raw::Client;
use crate::support::until;

const REPLICA: usize = 1;

/// A read at `node` with these field lines; who answered it, and the token it was given.
async fn read(cluster: &Cluster, node: usize, fields: &[&str]) -> (String, Option<(u64, u64)>) {
    let answer = cluster.client(node).await.ask("GET /api/node", fields).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    let token = answer.field("litepilot-txid").map(|txid| {
        let epoch = answer.field("litepilot-epoch").unwrap().parse().unwrap();
        (epoch, u64::from_str_radix(txid, 16).unwrap())
    });
    (answer.field("litepilot-node").unwrap().to_owned(), token)
}

/// The epoch and the transaction that the primary is at, after some writes.
async fn written(cluster: &Cluster) -> (u64, u64) {
    let mut browser = Browser::new(cluster);
    for _ in 0..3 {
        browser.sign(PRIMARY, "text").await;
    }
    cluster.level().await;
    let position = &cluster.status(PRIMARY).await["position"];
    let txid = position["txid"].as_str().unwrap();
    (position["epoch"].as_u64().unwrap(), u64::from_str_radix(txid, 16).unwrap())
}

fn cookies(epoch: u64, txid: u64) -> String {
    format!("Cookie: __txid={txid:016x}; __txid_epoch={epoch}")
}

#[tokio::test]
async fn tokens_by_cookie_and_by_header_are_waited_for_and_impossible_ones_replaced_by_the_primary()
{
    let cluster = Plan::flask().proxy("read_wait: 50ms").start().await;
    let (epoch, txid) = written(&cluster).await;
    let now = Some((epoch, txid));
    let replica = NAMES[REPLICA].to_owned();
    let primary = NAMES[PRIMARY].to_owned();

    // Reached: served here, and nothing is said.
    for (epoch, txid) in [(epoch, txid), (epoch, 1)] {
        let fields = [cookies(epoch, txid)];
        assert_eq!(read(&cluster, REPLICA, &[&fields[0]]).await, (replica.clone(), None));
    }
    // LiteFS' own cookie, without an epoch.
    let own = format!("Cookie: __txid={txid:016x}");
    assert_eq!(read(&cluster, REPLICA, &[&own]).await, (replica.clone(), None));

    // Beyond what exists: the primary answers and replaces it, whoever was asked.
    let ahead = [(epoch, txid + 5), (epoch, txid + 10_001), (epoch + 1, 1), (u64::MAX, u64::MAX)];
    for (epoch, txid) in ahead {
        let cookie = cookies(epoch, txid);
        let header = [format!("Litepilot-Txid: {txid:016x}"), format!("Litepilot-Epoch: {epoch}")];
        let header: Vec<_> = header.iter().map(String::as_str).collect();
        for node in [REPLICA, PRIMARY] {
            for fields in [&[cookie.as_str()][..], &header] {
                let answer = read(&cluster, node, fields).await;
                assert_eq!(answer, (primary.clone(), now), "{fields:?} at {node}");
            }
        }
    }

    // Malformed: no replica judges it; the primary replaces it.
    for bad in ["Cookie: __txid=nonsense", "Litepilot-Txid: 12", "Cookie: __txid="] {
        assert_eq!(read(&cluster, REPLICA, &[bad]).await, (replica.clone(), None), "{bad}");
        assert_eq!(read(&cluster, PRIMARY, &[bad]).await, (primary.clone(), now), "{bad}");
    }
}

#[tokio::test]
async fn a_token_far_ahead_goes_to_the_primary_without_waiting() {
    let cluster = Plan::flask().proxy("read_wait: 1h").start().await;
    let (epoch, txid) = written(&cluster).await;
    let far = cookies(epoch, txid + 10_001);
    assert_eq!(read(&cluster, REPLICA, &[&far]).await.0, NAMES[PRIMARY]);
}

#[tokio::test]
async fn a_waiting_read_is_served_here_once_the_copy_has_caught_up() {
    let plan = Plan::flask().proxy("read_wait: 1h").apply_delay(Duration::from_millis(300));
    let cluster = plan.start().await;
    let mut browser = Browser::new(&cluster);
    let entry = browser.sign(PRIMARY, "text").await;
    let answer = browser.get(REPLICA, &format!("/api/entries/{entry}")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.field("litepilot-node"), Some(NAMES[REPLICA]));
}

#[tokio::test]
async fn when_as_many_wait_as_may_a_read_goes_to_the_primary_at_once() {
    let plan = Plan::flask().proxy("read_wait: 1h").proxy("held_reads: 1");
    let cluster = plan.apply_delay(Duration::from_secs(3600)).start().await;
    let mut browser = Browser::new(&cluster);
    let entry = browser.sign(PRIMARY, "text").await;
    let cookie = cookies(
        browser.cookies["__txid_epoch"].parse().unwrap(),
        u64::from_str_radix(&browser.cookies["__txid"], 16).unwrap(),
    );
    let mut waiting = Client::abrupt(cluster.address(REPLICA)).await;
    waiting.begin("GET /", &[&cookie]).await;
    until("a read to wait", || async {
        cluster.metric(REPLICA, "litepilot_requests_held{class=\"read\"}").await == 1
    })
    .await;
    let answer = browser.get(REPLICA, &format!("/api/entries/{entry}")).await;
    assert_eq!((answer.status(), answer.field("litepilot-node")), (200, Some(NAMES[PRIMARY])));
    // Whoever leaves makes room.
    drop(waiting);
    until("the place to be free", || async {
        cluster.metric(REPLICA, "litepilot_requests_held{class=\"read\"}").await == 0
    })
    .await;
}

#[tokio::test]
async fn strong_reads_are_the_primarys_and_eventual_ones_wait_for_nothing() {
    let plan = Plan::flask().proxy("read_wait: 1h").apply_delay(Duration::from_secs(3600));
    let rules = "rules:\n  - {match: {path: /api/entries/**}, as: read, consistency: strong}\n";
    let cluster = plan.rules(rules).start().await;
    let mut browser = Browser::new(&cluster);
    let entry = browser.sign(REPLICA, "text").await;
    // By the client's wish, and by a rule, which no client can weaken.
    let strong = ["Litepilot-Consistency: strong"];
    let answer = cluster.client(REPLICA).await.ask("GET /api/node", &strong).await;
    assert_eq!(answer.field("litepilot-node"), Some(NAMES[PRIMARY]));
    assert_eq!(json(&answer)["role"], "primary");
    let eventual = ["Litepilot-Consistency: eventual"];
    let path = format!("GET /api/entries/{entry}");
    let answer = browser.ask(REPLICA, &path, &eventual, "").await;
    assert_eq!((answer.status(), answer.field("litepilot-node")), (200, Some(NAMES[PRIMARY])));
    // The copy has nothing yet, and an eventual read says so.
    let answer = browser.ask(REPLICA, "GET /api/entries", &eventual, "").await;
    assert_eq!(answer.field("litepilot-node"), Some(NAMES[REPLICA]));
    assert_eq!(json(&answer), serde_json::json!([]));
}

#[tokio::test]
async fn monotonic_reads_never_go_back_in_time() {
    let cluster = Plan::flask().proxy("consistency: monotonic").start().await;
    let mut writer = Browser::new(&cluster);
    let mut reader = Browser::new(&cluster);
    for round in 0..20 {
        let entry = writer.sign(PRIMARY, &format!("round {round}")).await;
        // Reads where it is new, then where it may not be yet.
        assert!(reader.sees(PRIMARY, entry).await);
        for replica in [1, 2] {
            assert!(reader.sees(replica, entry).await, "round {round} at {replica}");
        }
    }
}
