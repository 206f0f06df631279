//! Who must hold a write before its client is answered, on data planes whose replicas the test plays.

use std::time::Duration;

use litepilot::claim::{BootTime, Claim};
use litepilot::config::Ack;
use tokio::task::JoinHandle;

use crate::support::node::Launch;
use crate::support::recorder::{Recorder, ok, response};
use crate::support::stage::{NAMES, Pair, Stage, at};
use crate::support::wire::{Message, soon};

const WRITE: [&str; 1] = ["Content-Length: 0"];
/// What the database holds once the write is done.
const DONE: (u64, u64) = (1, 5);

/// What a node answers to a write; `acknowledged`: the replica has it once it was done.
async fn write(pair: &Pair, node: usize, path: &str, acknowledged: bool) -> Message {
    let mut client = pair.nodes[node].client().await;
    client.begin(&format!("POST {path}"), &WRITE).await;
    if acknowledged {
        pair.nodes[0].hears(at(DONE.0, DONE.1));
    }
    client.response().await
}

fn said(answer: &Message) -> (u16, Option<&str>) {
    (answer.status(), answer.field("litepilot-ack"))
}

/// A pair of which the first node is the primary.
async fn primary(stage: Stage, app: &Recorder, claim: &Claim) -> Pair {
    let pair = stage.before([app, app]).await;
    pair.elects(0, DONE.0, claim);
    pair
}

#[tokio::test]
async fn an_answer_waits_for_as_many_as_the_configuration_asks_for() {
    let app = Recorder::echoing().await;
    for (level, says) in [(Ack::One, "one"), (Ack::Majority, "majority")] {
        let stage = Stage::new().ack([level; 2]);
        let pair = primary(stage, &app, &Claim::unlimited()).await;
        for node in [0, 1] {
            pair.elects(0, DONE.0, &Claim::unlimited());
            let mut client = pair.nodes[node].client().await;
            client.begin("POST /", &WRITE).await;
            pair.nodes[0].hears(at(1, 4));
            let early = tokio::time::timeout(Duration::from_millis(50), client.more()).await;
            assert!(early.is_err(), "{says} at {}: answered before", NAMES[node]);
            pair.nodes[0].hears(at(1, 5));
            let answer = client.response().await;
            assert_eq!(said(&answer), (200, Some(says)), "at {}", NAMES[node]);
            assert_eq!(answer.field("litepilot-txid"), Some("0000000000000005"));
        }
        assert_eq!(pair.nodes[0].metric("litepilot_ack_seconds_count"), 2);
        assert_eq!(pair.nodes[0].metric("litepilot_ack_timeouts_total"), 0);
    }
}

#[tokio::test]
async fn a_rule_comes_before_the_configuration() {
    let rules = "rules:\n  - {match: {path: /majority}, as: write, ack: majority}\n  \
                 - {match: {path: /one}, as: write, ack: one}\n  \
                 - {match: {path: /primary}, as: write, ack: primary}\n";
    let app = Recorder::echoing().await;
    let stage = Stage::new().rules(0, rules).rules(1, rules).ack([Ack::Primary, Ack::Majority]);
    let pair = primary(stage, &app, &Claim::unlimited()).await;
    for node in [0, 1] {
        for (path, says) in
            [("/majority", Some("majority")), ("/one", Some("one")), ("/primary", None)]
        {
            let answer = write(&pair, node, path, true).await;
            assert_eq!(said(&answer), (200, says), "{path} at {}", NAMES[node]);
        }
    }
    // Of the two nodes the one that the client is connected to has its say.
    assert_eq!(said(&write(&pair, 0, "/", true).await), (200, None));
    assert_eq!(said(&write(&pair, 1, "/", true).await), (200, Some("majority")));
}

#[tokio::test]
async fn in_vain_a_majority_is_waited_for_with_an_error_and_one_replica_with_a_mark() {
    let app = Recorder::echoing().await;
    for node in [0, 1] {
        let stage = || Stage::new().ack_timeout(Duration::from_millis(20));
        let pair = primary(stage().ack([Ack::Majority; 2]), &app, &Claim::unlimited()).await;
        let answer = write(&pair, node, "/", false).await;
        assert_eq!(said(&answer), (504, Some("timeout")));
        assert_eq!((answer.problem().as_str(), answer.retry_is_safe()), ("ack-timeout", false));
        let token = answer.field("litepilot-txid");
        assert_eq!(
            token,
            Some("0000000000000005"),
            "by which its client can look whether it was done"
        );
        assert_eq!(pair.nodes[0].metric("litepilot_ack_timeouts_total"), 1);

        let pair = primary(stage().ack([Ack::One; 2]), &app, &Claim::unlimited()).await;
        let answer = write(&pair, node, "/", false).await;
        assert_eq!(said(&answer), (200, Some("timeout")));
        assert_eq!(answer.field("litepilot-txid"), Some("0000000000000005"));
        assert_eq!(pair.nodes[0].metric("litepilot_ack_timeouts_total"), 1);
    }
}

#[tokio::test]
async fn errors_of_the_application_and_reads_wait_for_nobody() {
    let app = Recorder::answering(|request| match request.target() {
        "/conflict" => response("409 Conflict", &["Litepilot-Ack: majority"], ""),
        "/broken" => response("500 Internal Server Error", &[], ""),
        _ => response("200 OK", &["Litepilot-Ack: majority"], ""),
    })
    .await;
    let pair = primary(Stage::new().ack([Ack::Majority; 2]), &app, &Claim::unlimited()).await;
    for node in [0, 1] {
        for (path, status) in [("/conflict", 409), ("/broken", 500)] {
            assert_eq!(said(&write(&pair, node, path, false).await), (status, None));
        }
        // No application says who holds a write.
        let answer = pair.nodes[node].client().await.ask("GET /", &[]).await;
        assert_eq!(said(&answer), (200, None));
    }
}

const STRONG: [&str; 1] = ["Litepilot-Consistency: strong"];

/// Else it could show a write that the next primary does not have.
#[tokio::test]
async fn a_strong_read_waits_until_a_majority_holds_what_it_saw() {
    let app = Recorder::echoing().await;
    let pair = primary(Stage::new().ack([Ack::Majority; 2]), &app, &Claim::unlimited()).await;
    for node in [0, 1] {
        pair.elects(0, DONE.0, &Claim::unlimited());
        let mut client = pair.nodes[node].client().await;
        client.begin("GET /", &STRONG).await;
        pair.nodes[0].hears(at(1, 4));
        let early = tokio::time::timeout(Duration::from_millis(50), client.more()).await;
        assert!(early.is_err(), "at {}: answered before", NAMES[node]);
        pair.nodes[0].hears(at(1, 5));
        assert_eq!(said(&client.response().await), (200, None), "at {}", NAMES[node]);
    }
    assert_eq!(pair.nodes[0].metric("litepilot_ack_seconds_count"), 0, "no write was waited for");
}

#[tokio::test]
async fn a_strong_read_that_no_majority_can_confirm_may_be_sent_again() {
    let app = Recorder::echoing().await;
    for node in [0, 1] {
        let stage = Stage::new().ack_timeout(Duration::from_millis(20)).ack([Ack::Majority; 2]);
        let pair = primary(stage, &app, &Claim::unlimited()).await;
        let answer = pair.nodes[node].client().await.ask("GET /", &STRONG).await;
        assert_eq!((answer.status(), answer.problem().as_str()), (504, "ack-timeout"));
        assert!(answer.retry_is_safe());
    }
}

/// A handoff is noticed by nobody, also not by who reads meanwhile.
#[tokio::test]
async fn a_strong_read_whose_primary_is_deposed_is_answered_by_the_next() {
    for node in [0, 1] {
        let app = Recorder::echoing().await;
        let claim = Claim::until(BootTime::now().after(Duration::from_secs(3600)));
        let pair = primary(Stage::new().ack([Ack::Majority; 2]), &app, &claim).await;
        let mut client = pair.nodes[node].client().await;
        client.begin("GET /", &STRONG).await;
        pair.nodes[0].until("its application is asked", || !app.requests().is_empty()).await;
        claim.end();
        pair.elects(1, DONE.0 + 1, &Claim::unlimited());
        pair.nodes[1].hears(at(2, 5));
        assert_eq!(said(&client.response().await).0, 200, "through {}", NAMES[node]);
    }
}

/// A claim that lasts for as long as it is renewed.
fn renewed() -> (Claim, JoinHandle<()>) {
    let end = || BootTime::now().after(Duration::from_secs(1));
    let claim = Claim::until(end());
    let renewing = tokio::spawn({
        let claim = claim.clone();
        async move {
            while claim.extend(end(), BootTime::now()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    (claim, renewing)
}

#[tokio::test]
async fn a_claim_that_ends_while_replicas_are_waited_for_ends_the_wait() {
    let app = Recorder::played().await;
    for level in [Ack::One, Ack::Majority] {
        let pair = Stage::new().ack([level; 2]).before([&app, &app]).await;
        let (claim, renewing) = renewed();
        pair.elects(0, 1, &claim);
        let ask = async || {
            let mut client = pair.nodes[0].client().await;
            client.begin("POST /", &WRITE).await;
            let mut asked = app.connection().await;
            asked.request().await.unwrap();
            (client, asked)
        };
        let (mut client, mut asked) = ask().await;
        asked.send(ok("done")).await;
        // Nobody says that it is renewed no more.
        renewing.abort();
        let answer = client.response().await;
        assert_eq!((answer.status(), answer.problem().as_str()), (502, "write-outcome-unknown"));
        assert_eq!(answer.field("litepilot-txid"), Some("0000000000000005"));
        // Ended by the node itself, just before the replicas answer.
        let claim = Claim::unlimited();
        pair.elects(0, 1, &claim);
        let (mut client, mut asked) = ask().await;
        asked.send(ok("done")).await;
        claim.end();
        pair.nodes[0].hears(at(1, 5));
        let answer = client.response().await;
        assert_eq!((answer.status(), answer.problem().as_str()), (502, "write-outcome-unknown"));
        // In a later epoch too, whatever that one's replicas hold.
        pair.elects(0, 2, &Claim::unlimited());
        pair.nodes[0].database.is_at(at(2, 6));
        let (mut client, mut asked) = ask().await;
        asked.send(ok("done")).await;
        pair.elects(0, 3, &Claim::unlimited());
        pair.nodes[0].hears(at(3, 7));
        let answer = client.response().await;
        assert_eq!((answer.status(), answer.problem().as_str()), (502, "write-outcome-unknown"));
        soon("nothing to be under way", pair.nodes[0].writes.none_under_way()).await;
    }
}

#[tokio::test]
async fn a_write_that_waits_for_replicas_is_under_way() {
    let app = Recorder::echoing().await;
    let pair = primary(Stage::new().ack([Ack::One; 2]), &app, &Claim::unlimited()).await;
    let mut client = pair.nodes[0].client().await;
    client.begin("POST /", &WRITE).await;
    soon("the application to be asked", async {
        while app.requests().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    pair.nodes[0].holds_writes();
    let none = pair.nodes[0].writes.none_under_way();
    assert!(tokio::time::timeout(Duration::from_millis(50), none).await.is_err());
    pair.nodes[0].hears(at(1, 5));
    assert_eq!(said(&client.response().await), (200, Some("one")));
    soon("nothing to be under way", pair.nodes[0].writes.none_under_way()).await;
}

#[tokio::test]
async fn a_node_on_its_own_is_its_own_majority_and_knows_that_it_has_no_replica() {
    let app = Recorder::echoing().await;
    for (level, says) in
        [("primary", None), ("majority", Some("majority")), ("one", Some("timeout"))]
    {
        let cluster = format!("cluster: {{ack: {level}, ack_timeout: 1h}}");
        let node = Launch::before(app.target()).key(&cluster).start();
        let answer = node.client().await.post("/", &[], "").await;
        assert_eq!(said(&answer), (200, says));
    }
}
