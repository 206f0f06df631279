//! Reads that fail on a replica: the primary is asked, within a budget; and what is learned of that.

use litepilot::claim::Claim;

use crate::support::recorder::{Port, Recorder, response};
use crate::support::stage::{Pair, Stage, at};
use crate::support::wire::Message;

/// The replica is the second node.
const REPLICA: usize = 1;
const REFUSED: &str = "litepilot_replays_refused_total";

fn failing() -> impl Future<Output = Recorder> {
    Recorder::answering(|_| response("500 Internal Server Error", &["X-From: replica"], "refused"))
}

/// Answers with the status that its path names, as in `/404/page`.
fn obliging() -> impl Future<Output = Recorder> {
    Recorder::answering(|request| {
        let status = request.target().split('/').nth(1).unwrap_or_default().to_owned();
        response(&format!("{status} As Asked"), &["X-From: primary"], "")
    })
}

/// The first of the two is primary.
async fn led(stage: Stage, apps: [&Recorder; 2]) -> Pair {
    let pair = stage.before(apps).await;
    pair.elects(0, 1, &Claim::unlimited());
    pair
}

async fn ask(pair: &Pair, node: usize, request: &str) -> Message {
    pair.nodes[node].client().await.ask(request, &[]).await
}

#[tokio::test]
async fn the_client_sees_the_primarys_answer_whatever_it_is() {
    let (primary, replica) = (obliging().await, failing().await);
    let pair = led(Stage::new(), [&primary, &replica]).await;
    for (request, status) in [
        ("GET /200/a", 200),
        ("HEAD /200/a", 200),
        ("OPTIONS /204/a", 204),
        ("GET /404/a", 404),
        ("GET /503/a", 503),
    ] {
        let answer = ask(&pair, REPLICA, request).await;
        assert_eq!(answer.status(), status, "{request}");
        assert_eq!(answer.field("litepilot-route"), Some("replayed"), "{request}");
        assert_eq!(answer.field("litepilot-node"), Some("n1"), "{request}");
        assert_eq!(answer.field("x-from"), Some("primary"), "{request}");
    }
    let line = "litepilot_replays_total{reason=\"failed-read\"}";
    assert_eq!(pair.nodes[REPLICA].metric(line), 5);
    assert_eq!(replica.requests().len(), 5, "each was tried here once");
}

/// Some drivers of SQLite do not tell an application that what it wrote could not be committed.
#[tokio::test]
async fn an_application_that_does_not_know_that_it_failed_is_not_believed() {
    let (primary, replica) = (obliging().await, Recorder::played().await);
    let pair = led(Stage::new(), [&primary, &replica]).await;
    for (refused, from) in [(true, "primary"), (false, "replica")] {
        let mut client = pair.nodes[REPLICA].client().await;
        client.begin("GET /200/a", &[]).await;
        let mut asked = replica.connection().await;
        asked.request().await.unwrap();
        if refused {
            pair.nodes[REPLICA].database.refuses_a_write();
        }
        asked.send(response("200 OK", &["X-From: replica"], "done")).await;
        let answer = client.response().await;
        assert_eq!((answer.status(), answer.field("x-from")), (200, Some(from)));
    }
}

#[tokio::test]
async fn nothing_else_is_asked_again() {
    let (primary, replica) = (obliging().await, failing().await);
    let rules = "rules:\n  \
        - {match: {path: /200/through}, as: passthrough}\n  \
        - {match: {path: /200/never}, as: read, replay: never}\n  \
        - {match: {path: /200/asked}, as: read, replay: asked}\n  \
        - {match: {path: /200/body}, as: read}\n";
    let pair = led(Stage::new().rules(REPLICA, rules), [&primary, &replica]).await;
    for request in ["GET /200/through", "GET /200/never", "GET /200/asked"] {
        let answer = ask(&pair, REPLICA, request).await;
        assert_eq!((answer.status(), answer.text()), (500, "refused"), "{request}");
    }
    let mut client = pair.nodes[REPLICA].client().await;
    assert_eq!(client.post("/200/body", &[], "with a body").await.status(), 500);
    assert_eq!(ask(&pair, 0, "GET /500/here").await.status(), 500, "on the primary itself");
    assert_eq!(primary.requests().len(), 1);
}

#[tokio::test]
async fn a_wish_for_a_replay_is_not_heard_where_a_rule_says_never() {
    let primary = obliging().await;
    let replica = Recorder::answering(|_| {
        response("409 Conflict", &["Litepilot-Replay: primary"], "as it is")
    })
    .await;
    let rules = "rules: [{match: {path: /200/never}, as: read, replay: never}]";
    let pair = led(Stage::new().rules(REPLICA, rules), [&primary, &replica]).await;
    let answer = ask(&pair, REPLICA, "GET /200/never").await;
    assert_eq!((answer.status(), answer.text()), (409, "as it is"));
    assert!(answer.field("litepilot-replay").is_none());
    assert_eq!(ask(&pair, REPLICA, "GET /200/asked").await.status(), 200);
}

#[tokio::test]
async fn an_application_that_is_broken_everywhere_is_not_asked_twice_as_much() {
    let (primary, replica) = (failing().await, failing().await);
    let pair = led(Stage::new(), [&primary, &replica]).await;
    let mut client = pair.nodes[REPLICA].client().await;
    for _ in 0..300 {
        assert_eq!(client.ask("GET /broken", &[]).await.status(), 500);
    }
    let asked = primary.requests().len() as u64;
    assert!((100..300).contains(&asked), "{asked}");
    assert_eq!(pair.nodes[REPLICA].metric(REFUSED), 300 - asked);
}

#[tokio::test]
async fn without_the_primary_the_client_is_told_of_both() {
    let (primary, replica) = (obliging().await, failing().await);
    // Nobody listens there.
    let port = Port::reserve();
    let stage = Stage::new().proxy("write_hold: 200ms").first_at(port.target().parse().unwrap());
    let pair = led(stage, [&primary, &replica]).await;
    let answer = ask(&pair, REPLICA, "GET /200/a").await;
    assert_eq!(answer.problem(), "primary-unreachable");
    assert!((500..600).contains(&answer.status()), "{answer:?}");
    assert!(answer.text().contains("the application here answered 500"), "{}", answer.text());
}

/// A read that fails on the replica, and during which the primary's database advances.
async fn writes(pair: &Pair, primary: &Recorder, request: &str, txid: u64) -> Message {
    let mut client = pair.nodes[REPLICA].client().await;
    client.begin(request, &[]).await;
    let mut at_app = primary.connection().await;
    at_app.request().await.unwrap();
    pair.nodes[0].database.is_at(at(1, txid));
    at_app.send(response("200 OK", &["connection: close"], "written")).await;
    client.response_to(request.split(' ').next().unwrap()).await
}

fn learned(pair: &Pair, node: usize) -> Vec<String> {
    pair.nodes[node].learned.list().into_iter().map(|learned| learned.rule).collect()
}

#[tokio::test]
async fn what_has_written_goes_to_the_primary_at_once_the_next_time() {
    let (primary, replica) = (Recorder::played().await, failing().await);
    let pair = led(Stage::new(), [&primary, &replica]).await;
    let first = writes(&pair, &primary, "GET /item/17/like", 6).await;
    assert_eq!((first.status(), first.field("litepilot-route")), (200, Some("replayed")));
    assert!(first.field("litepilot-wrote").is_none(), "that is between nodes");
    for (request, txid) in [("GET /item/18/like?x", 7), ("HEAD /item/19/like", 8)] {
        let next = writes(&pair, &primary, request, txid).await;
        assert_eq!((next.status(), next.field("litepilot-route")), (200, Some("primary")));
        assert!(next.field("litepilot-txid").is_some(), "it is answered as a write");
    }
    assert_eq!(replica.requests().len(), 1, "only the first was tried here");
    for node in [0, REPLICA] {
        let rule = "- {match: {method: GET, host: shop, path: /item/*/like}, as: write}";
        assert_eq!(learned(&pair, node), [rule]);
    }
    let suspects = pair.nodes[REPLICA].suspects.list();
    assert_eq!((suspects[0].request.as_str(), suspects[0].refused), ("GET /item/*/like", 1));
    let line = "litepilot_refused_writes_total{rule=\"default.yml:26\"}";
    assert_eq!(pair.nodes[REPLICA].metric(line), 1);
}

#[tokio::test]
async fn a_rule_wins_over_what_was_learned() {
    let (primary, replica) = (Recorder::played().await, failing().await);
    let rules = "rules: [{match: {path: /item/**}, as: read}]";
    let pair = led(Stage::new().rules(REPLICA, rules), [&primary, &replica]).await;
    for txid in [6, 7] {
        let answer = writes(&pair, &primary, "GET /item/17/like", txid).await;
        assert_eq!(answer.field("litepilot-route"), Some("replayed"));
    }
    assert_eq!(replica.requests().len(), 2);
}

#[tokio::test]
async fn nothing_is_learned_that_may_have_been_somebody_elses() {
    let (primary, replica) = (Recorder::played().await, failing().await);
    let pair = led(Stage::new(), [&primary, &replica]).await;
    // A write is under way all the time; then nothing is written.
    let mut writer = pair.nodes[0].client().await;
    writer.begin("POST /slow", &["Content-Length: 0"]).await;
    let mut written = primary.connection().await;
    written.request().await.unwrap();
    assert_eq!(writes(&pair, &primary, "GET /innocent", 6).await.status(), 200);
    written.send(response("200 OK", &["connection: close"], "")).await;
    assert_eq!(writer.response().await.status(), 200);
    assert_eq!(writes(&pair, &primary, "GET /innocent", 6).await.status(), 200);
    assert!(learned(&pair, 0).is_empty() && learned(&pair, REPLICA).is_empty());
    assert_eq!(replica.requests().len(), 2);
}

#[tokio::test]
async fn what_is_learned_can_be_switched_off() {
    let (primary, replica) = (Recorder::played().await, failing().await);
    let pair = led(Stage::new().proxy("learn: false"), [&primary, &replica]).await;
    for txid in [6, 7] {
        let answer = writes(&pair, &primary, "GET /visits", txid).await;
        assert_eq!(answer.field("litepilot-route"), Some("replayed"));
    }
    assert_eq!(replica.requests().len(), 2);
}

#[tokio::test]
async fn a_read_on_the_primary_that_writes_again_and_again_is_learned() {
    let (primary, replica) = (Recorder::played().await, failing().await);
    let pair = led(Stage::new(), [&primary, &replica]).await;
    for (i, txid) in [6, 7].into_iter().enumerate() {
        assert_eq!(learned(&pair, 0).len(), 0);
        let mut client = pair.nodes[0].client().await;
        client.begin("GET /visits", &[]).await;
        let mut at_app = primary.connection().await;
        at_app.request().await.unwrap();
        pair.nodes[0].database.is_at(at(1, txid));
        at_app.send(response("200 OK", &["connection: close"], "")).await;
        assert_eq!(client.response().await.status(), 200);
        pair.nodes[0].until("it to be noticed", || learned(&pair, 0).len() == i).await;
    }
}

#[tokio::test]
async fn a_rule_has_limits_of_its_own() {
    let app = Recorder::played().await;
    let rules = "rules:\n  \
        - {match: {path: /head}, as: read, response_timeout: 200ms}\n  \
        - {match: {path: /pieces}, as: read, body_timeout: 200ms}\n";
    let stage = Stage::new().proxy("response_timeout: 1h").proxy("body_timeout: 1h");
    let pair = led(stage.rules(0, rules), [&app, &app]).await;
    let mut client = pair.nodes[0].client().await;
    client.begin("GET /head", &[]).await;
    let mut upstream = app.connection().await;
    upstream.request().await.unwrap();
    let answer = client.response().await;
    assert_eq!((answer.status(), answer.problem().as_str()), (504, "app-timeout"));

    let mut client = pair.nodes[0].client().await;
    client.begin("GET /pieces", &[]).await;
    let mut upstream = app.connection().await;
    upstream.request().await.unwrap();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await;
    assert_eq!(client.head().await.unwrap().status(), 200);
    assert_eq!(client.rest().await, b"abc", "and then it is cut");
}

#[tokio::test]
async fn a_rules_limits_hold_at_the_primary_too() {
    let app = Recorder::played().await;
    let rules = "rules: [{match: {path: /slow}, as: write, response_timeout: 1h}]";
    let stage = Stage::new().proxy("response_timeout: 200ms");
    let pair = led(stage.rules(REPLICA, rules), [&app, &app]).await;
    let mut client = pair.nodes[REPLICA].client().await;
    client.begin("GET /slow", &[]).await;
    let mut upstream = app.connection().await;
    upstream.request().await.unwrap();
    // Longer than either node would wait by its configuration.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    upstream.send(response("200 OK", &[], "late")).await;
    assert_eq!(client.response().await.text(), "late");
}
