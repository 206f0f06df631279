//! Tokens of writes that a failover lost, on data planes whose epochs the test plays.

use litepilot::claim::Claim;
use litepilot::rules::Class;

use crate::support::recorder::{Recorder, response};
use crate::support::stage::{NAMES, Pair, Stage, at, token};
use crate::support::wire::Message;

/// Both nodes follow the first in epoch 2, which began at transaction 7 of epoch 1.
async fn after_a_failover(stage: Stage, app: &Recorder) -> Pair {
    let pair = stage.before([app, app]).await;
    pair.began(2, at(1, 7));
    pair.elects(0, 2, &Claim::unlimited());
    pair.nodes.iter().for_each(|node| node.database.is_at(at(2, 9)));
    pair
}

async fn ask(pair: &Pair, node: usize, request: &str, seen: (u64, u64)) -> Message {
    let [txid, epoch] = token(seen.0, seen.1);
    let fields = [txid.as_str(), epoch.as_str(), "Content-Length: 0"];
    pair.nodes[node].client().await.ask(request, &fields).await
}

/// Whether it says that a write was lost, and the token that it gives.
fn told(answer: &Message) -> (bool, Option<(&str, &str)>) {
    let lost = answer.field("litepilot-lost-write");
    assert!(matches!(lost, None | Some("true")), "{answer:?}");
    let token = answer.field("litepilot-txid").zip(answer.field("litepilot-epoch"));
    if lost.is_some() {
        let cookies = answer.all("set-cookie");
        let set = |name: &str| cookies.iter().any(|cookie| cookie.starts_with(name));
        assert!(set("__txid=0000000000000009;") && set("__txid_epoch=2;"), "{answer:?}");
    }
    (lost.is_some(), token)
}

const NOW: Option<(&str, &str)> = Some(("0000000000000009", "2"));

#[tokio::test]
async fn whoever_answers_says_that_a_write_was_lost_and_replaces_its_token() {
    let app = Recorder::answering(|request| match request.target() {
        "/none" => response("404 Not Found", &[], ""),
        _ => response("200 OK", &["Litepilot-Lost-Write: true"], ""),
    })
    .await;
    let pair = after_a_failover(Stage::new(), &app).await;
    for (node, name) in NAMES.iter().enumerate() {
        for request in ["GET /", "GET /none"] {
            for lost in [(1, 8), (1, 9), (1, 500_000)] {
                let answer = ask(&pair, node, request, lost).await;
                assert_eq!(told(&answer), (true, NOW), "{request} at {name}, {lost:?}");
                assert_eq!(answer.field("litepilot-node"), Some(*name));
            }
            for kept in [(1, 7), (1, 1), (2, 9), (2, 1), (0, 9)] {
                let answer = ask(&pair, node, request, kept).await;
                assert_eq!(told(&answer), (false, None), "{request} at {name}, {kept:?}");
            }
        }
        assert_eq!(told(&ask(&pair, node, "POST /", (1, 8)).await), (true, NOW));
        assert_eq!(told(&ask(&pair, node, "POST /", (1, 7)).await), (false, NOW));
    }
    // Counted by whoever answered: writes by the primary, also what came through the other.
    let lost = "litepilot_lost_writes_total";
    assert_eq!((pair.nodes[0].metric(lost), pair.nodes[1].metric(lost)), (8, 6));
}

#[tokio::test]
async fn every_level_of_consistency_is_told_and_passthrough_is_not() {
    let rules = "rules:\n  - {match: {path: /static}, as: passthrough}\n";
    let app = Recorder::echoing().await;
    let pair = after_a_failover(Stage::new().rules(0, rules).rules(1, rules), &app).await;
    for node in [0, 1] {
        for level in ["eventual", "read-your-writes", "strong"] {
            let [txid, epoch] = token(1, 8);
            let fields = [&txid, &epoch, &format!("Litepilot-Consistency: {level}")];
            let fields = fields.map(String::as_str);
            let answer = pair.nodes[node].client().await.ask("GET /", &fields).await;
            assert_eq!(told(&answer), (true, NOW), "{level}");
        }
        assert_eq!(told(&ask(&pair, node, "GET /static", (1, 8)).await), (false, None));
    }
    let pair = after_a_failover(Stage::new().proxy("consistency: monotonic"), &app).await;
    for node in [0, 1] {
        assert_eq!(told(&ask(&pair, node, "GET /", (1, 8)).await), (true, NOW));
        assert_eq!(told(&ask(&pair, node, "GET /", (1, 7)).await), (false, NOW));
    }
}

#[tokio::test]
async fn a_replica_that_has_not_reached_the_epoch_leaves_it_to_the_primary() {
    let app = Recorder::echoing().await;
    let pair = after_a_failover(Stage::new().proxy("read_wait: 20ms"), &app).await;
    // It holds the lost write still, or never had it.
    for behind in [at(1, 9), at(1, 6)] {
        pair.nodes[1].database.is_at(behind);
        let answer = ask(&pair, 1, "GET /", (1, 8)).await;
        assert_eq!(told(&answer), (true, NOW));
        assert_eq!(answer.field("litepilot-node"), Some(NAMES[0]));
        // Whoever takes any copy takes this one, and its token stays for the next.
        let [txid, epoch] = token(1, 8);
        let fields = [&txid, &epoch, "Litepilot-Consistency: eventual"];
        let answer = pair.nodes[1].client().await.ask("GET /", &fields).await;
        assert_eq!(told(&answer), (false, None));
        assert_eq!(answer.field("litepilot-node"), Some(NAMES[1]));
    }
}

#[tokio::test]
async fn a_read_that_waits_for_a_lost_write_is_told_once_the_copy_follows_the_next_epoch() {
    let app = Recorder::echoing().await;
    let pair = Stage::new().proxy("read_wait: 1h").before([&app, &app]).await;
    pair.elects(0, 1, &Claim::unlimited());
    let [txid, epoch] = token(1, 8);
    let mut client = pair.nodes[1].client().await;
    client.begin("GET /", &[&txid, &epoch]).await;
    pair.nodes[1].held(Class::Read, 1).await;
    pair.began(2, at(1, 7));
    pair.elects(0, 2, &Claim::unlimited());
    pair.nodes[1].database.is_at(at(2, 9));
    let answer = client.response().await;
    assert_eq!(told(&answer), (true, NOW));
    assert_eq!(answer.field("litepilot-node"), Some(NAMES[1]));
}
