//! A claim that ends at any point of a request's life, on data planes whose views the test plays.

use std::time::Duration;

use litepilot::claim::{BootTime, Claim};
use litepilot::rules::Class;
use tokio::net::TcpListener;

use crate::support::raw::Client;
use crate::support::recorder::{Recorder, ok, response};
use crate::support::stage::{NAMES, Pair, Plane, Stage, at, token};
use crate::support::wire::{Message, Wire, soon};
use crate::websocket::{ACCEPTED, HANDSHAKE};

fn lapsed() -> Claim {
    Claim::until(BootTime::now())
}

/// Sends a write without a body, and does not wait for the answer.
async fn write(node: &Plane) -> Client {
    let mut client = node.client().await;
    client.begin("POST /", &["Content-Length: 0"]).await;
    client
}

/// The next request that an application gets.
async fn asked(app: &Recorder) -> Wire {
    let mut connection = app.connection().await;
    connection.request().await.unwrap();
    connection
}

fn problem(answer: &Message) -> (u16, String, bool) {
    (answer.status(), answer.problem(), answer.retry_is_safe())
}

fn unknown() -> (u16, String, bool) {
    (502, "write-outcome-unknown".to_owned(), false)
}

#[tokio::test]
async fn a_node_whose_claim_has_lapsed_takes_no_write_whatever_its_view_says() {
    let apps = [Recorder::echoing().await, Recorder::echoing().await];
    let pair = Stage::new().before([&apps[0], &apps[1]]).await;
    let [first, second] = &pair.nodes;
    pair.elects(0, 1, &lapsed());
    let mut clients = [write(first).await, write(second).await];
    let mut strong = first.client().await;
    strong.begin("GET /strong", &["Litepilot-Consistency: strong"]).await;
    first.held(Class::Write, 1).await;
    first.held(Class::Read, 1).await;
    second.held(Class::Write, 1).await;
    assert!(apps[0].requests().is_empty());
    // What only needs this copy is served.
    assert_eq!(first.client().await.ask("GET /", &[]).await.status(), 200);
    let [txid, epoch] = token(1, 5);
    assert_eq!(first.client().await.ask("GET /", &[&txid, &epoch]).await.status(), 200);
    apps[0].take();

    pair.elects(0, 2, &Claim::unlimited());
    for client in &mut clients {
        let answer = client.response().await;
        assert_eq!((answer.status(), answer.field("litepilot-node")), (200, Some(NAMES[0])));
    }
    assert_eq!(strong.response().await.status(), 200);
    assert_eq!(apps[0].take().len(), 3);
}

#[tokio::test]
async fn an_answer_after_the_claims_end_is_no_success() {
    let apps = [Recorder::played().await, Recorder::played().await];
    let pair = Stage::new().before([&apps[0], &apps[1]]).await;
    for (epoch, node) in [(1, 0), (2, 1)] {
        let claim = Claim::unlimited();
        pair.elects(0, epoch, &claim);
        let mut client = write(&pair.nodes[node]).await;
        let mut app = asked(&apps[0]).await;
        claim.end();
        app.send(ok("done")).await;
        assert_eq!(problem(&client.response().await), unknown(), "by {}", NAMES[node]);
    }
    // An error acknowledges nothing, and the application's own is more use.
    let claim = Claim::unlimited();
    pair.elects(0, 3, &claim);
    let mut client = write(&pair.nodes[0]).await;
    let mut app = asked(&apps[0]).await;
    claim.end();
    app.send(response("409 Conflict", &[], "")).await;
    let answer = client.response().await;
    assert_eq!((answer.status(), answer.field("litepilot-txid")), (409, None));
}

#[tokio::test]
async fn an_answer_from_another_epoch_is_no_success() {
    let apps = [Recorder::played().await, Recorder::played().await];
    let pair = Stage::new().before([&apps[0], &apps[1]]).await;
    pair.elects(0, 1, &Claim::unlimited());
    let mut client = write(&pair.nodes[0]).await;
    let mut app = asked(&apps[0]).await;
    pair.elects(0, 2, &Claim::unlimited());
    app.send(ok("done")).await;
    assert_eq!(problem(&client.response().await), unknown());
}

#[tokio::test]
async fn a_position_that_cannot_be_read_is_no_success() {
    let apps = [Recorder::echoing().await, Recorder::echoing().await];
    let pair = Stage::new().before([&apps[0], &apps[1]]).await;
    pair.elects(0, 1, &Claim::unlimited());
    pair.nodes[0].database.breaks();
    assert_eq!(problem(&write(&pair.nodes[0]).await.response().await), unknown());
}

/// A node that hands over: new writes wait, those under way are answered and waited for.
#[tokio::test]
async fn a_handoff_waits_for_writes_under_way_and_holds_new_ones() {
    let apps = [Recorder::played().await, Recorder::played().await];
    let pair = Stage::new().before([&apps[0], &apps[1]]).await;
    let [first, second] = &pair.nodes;
    let claim = Claim::unlimited();
    pair.elects(0, 1, &claim);
    soon("nothing", first.writes.none_under_way()).await;
    let mut under_way = Vec::new();
    for node in [first, second] {
        let client = write(node).await;
        under_way.push((client, asked(&apps[0]).await));
    }
    first.holds_writes();
    let mut held = [write(first).await, write(second).await];
    first.held(Class::Write, 1).await;
    second.held(Class::Write, 1).await;
    for (mut client, mut app) in under_way {
        let none = first.writes.none_under_way();
        assert!(tokio::time::timeout(Duration::ZERO, none).await.is_err());
        app.send(ok("done")).await;
        let answer = client.response().await;
        assert_eq!((answer.status(), answer.field("litepilot-epoch")), (200, Some("1")));
    }
    soon("those under way", first.writes.none_under_way()).await;

    claim.end();
    pair.elects(1, 2, &Claim::unlimited());
    for _ in &held {
        asked(&apps[1]).await.send(ok("done")).await;
    }
    for client in &mut held {
        let answer = client.response().await;
        assert_eq!((answer.status(), answer.field("litepilot-node")), (200, Some(NAMES[1])));
    }
    assert_eq!(apps[0].connections(), 2);
}

#[tokio::test]
async fn who_leaves_is_not_waited_for() {
    let apps = [Recorder::played().await, Recorder::played().await];
    let pair = Stage::new().before([&apps[0], &apps[1]]).await;
    pair.elects(0, 1, &Claim::unlimited());
    let client = write(&pair.nodes[0]).await;
    let _app = asked(&apps[0]).await;
    pair.nodes[0].holds_writes();
    drop(client);
    soon("nothing to be under way", pair.nodes[0].writes.none_under_way()).await;
}

#[tokio::test]
async fn a_write_that_waits_for_its_application_is_not_under_way_and_goes_to_the_next_primary() {
    let (app, port) = (Recorder::played().await, Recorder::played().await);
    let pair = Stage::new().before([&port, &app]).await;
    pair.elects(0, 1, &Claim::unlimited());
    drop(port);
    let mut client = write(&pair.nodes[0]).await;
    pair.nodes[0].held(Class::Write, 1).await;
    pair.nodes[0].holds_writes();
    soon("nothing to be under way", pair.nodes[0].writes.none_under_way()).await;
    pair.elects(1, 2, &Claim::unlimited());
    asked(&app).await.send(ok("done")).await;
    let answer = client.response().await;
    assert_eq!((answer.status(), answer.field("litepilot-node")), (200, Some(NAMES[1])));
}

/// A request that the application wants the primary to have, since this node ceased to be it.
async fn asks_for_the_primary(pair: &Pair, apps: &[Recorder; 2], node: usize, request: &str) {
    let claim = Claim::unlimited();
    pair.elects(0, 1, &claim);
    let mut client = pair.nodes[node].client().await;
    let fields = ["Content-Length: 0", "Litepilot-Consistency: strong"];
    client.begin(request, &fields).await;
    let mut app = asked(&apps[0]).await;
    claim.end();
    pair.elects(1, 2, &Claim::unlimited());
    app.send(response("409 Conflict", &["Litepilot-Replay: primary"], "")).await;
    asked(&apps[1]).await.send(ok("done")).await;
    let answer = client.response().await;
    assert_eq!(
        (answer.status(), answer.field("litepilot-node")),
        (200, Some(NAMES[1])),
        "{request}"
    );
}

#[tokio::test]
async fn an_application_may_notice_the_end_of_an_epoch_before_it_has_answered() {
    for node in [0, 1] {
        for request in ["GET /", "POST /"] {
            let apps = [Recorder::played().await, Recorder::played().await];
            let pair = Stage::new().before([&apps[0], &apps[1]]).await;
            asks_for_the_primary(&pair, &apps, node, request).await;
        }
    }
}

/// a token of a later epoch that comes while this node still believes in its own.
#[tokio::test]
async fn only_with_a_valid_claim_a_token_is_found_impossible() {
    let apps = [Recorder::played().await, Recorder::played().await];
    for level in ["read-your-writes", "monotonic"] {
        let stage = Stage::new().proxy(&format!("consistency: {level}"));
        let pair = stage.before([&apps[0], &apps[1]]).await;
        for (ends, replaced) in [(true, None), (false, Some("0000000000000005"))] {
            let claim = Claim::unlimited();
            pair.elects(0, 1, &claim);
            let [txid, epoch] = token(2, 1);
            let mut client = pair.nodes[0].client().await;
            client.begin("GET /", &[&txid, &epoch]).await;
            let mut app = asked(&apps[0]).await;
            if ends {
                claim.end();
            }
            app.send(ok("")).await;
            drop(app);
            assert_eq!(client.response().await.field("litepilot-txid"), replaced, "{level}");
        }
    }
}

#[tokio::test]
async fn sockets_of_the_primary_end_with_its_claim_and_others_stay() {
    let rules = "rules:\n  - match: {upgrade: websocket, path: /other}\n    as: read\n";
    let stage = Stage::new().rules(0, rules).rules(1, rules);
    let apps = [Recorder::played().await, Recorder::played().await];
    let pair = stage.before([&apps[0], &apps[1]]).await;
    let claim = Claim::until(BootTime::now().after(Duration::from_secs(3600)));
    pair.elects(0, 1, &claim);
    let mut sockets = Vec::new();
    for (path, node) in [("GET /live", 0), ("GET /live", 1), ("GET /other", 0)] {
        let mut client = pair.nodes[node].client().await;
        client.begin(path, &HANDSHAKE).await;
        let mut app = asked(&apps[0]).await;
        app.send(ACCEPTED).await;
        assert_eq!(client.head().await.unwrap().status(), 101);
        sockets.push((client, app));
    }
    // Another view in which nothing of that has changed.
    pair.nodes[0].view.send_modify(|view| view.quorum = false);
    for (client, app) in &mut sockets {
        client.send("there").await;
        app.bytes(5).await;
        app.send("back").await;
        client.bytes(4).await;
    }
    // Not renewed any more, and nobody says so.
    let claim = Claim::until(BootTime::now().after(Duration::from_millis(100)));
    pair.nodes[0].view.send_modify(|view| view.claim = claim);
    let (mut client, mut app) = sockets.pop().unwrap();
    for (mut client, mut app) in sockets {
        client.closed().await;
        app.closed().await;
    }
    client.send("still").await;
    app.bytes(5).await;
}

/// Without a primary a strong read has to wait, though this copy has all that its client has seen.
#[tokio::test]
async fn a_strong_read_waits_for_a_primary_and_no_longer_than_it_may() {
    let app = Recorder::echoing().await;
    let pair = Stage::new().proxy("write_hold: 200ms").before([&app, &app]).await;
    let [txid, epoch] = token(1, 5);
    for (quorum, kind) in [(true, "no-primary"), (false, "no-quorum")] {
        pair.nodes[0].view.send_modify(|view| view.quorum = quorum);
        let fields = ["Litepilot-Consistency: strong", &txid, &epoch];
        let answer = pair.nodes[0].client().await.ask("GET /", &fields).await;
        assert_eq!(problem(&answer), (503, kind.to_owned(), true));
        assert!(answer.field("retry-after").is_some());
        let answer = pair.nodes[0].client().await.post("/", &[], "").await;
        assert_eq!(problem(&answer), (503, kind.to_owned(), true));
        assert_eq!(pair.nodes[0].client().await.ask("GET /", &[]).await.status(), 200);
    }
}

/// A copy of an older epoch holds what the newest may have begun without.
#[tokio::test]
async fn a_token_waits_for_a_copy_of_the_newest_epoch() {
    let apps = [Recorder::echoing().await, Recorder::echoing().await];
    let pair = Stage::new().proxy("read_wait: 1h").before([&apps[0], &apps[1]]).await;
    pair.elects(0, 2, &Claim::unlimited());
    let [txid, epoch] = token(1, 3);
    let mut client = pair.nodes[1].client().await;
    client.begin("GET /", &[&txid, &epoch]).await;
    pair.nodes[1].held(Class::Read, 1).await;
    pair.nodes[1].database.is_at(at(2, 3));
    let answer = client.response().await;
    assert_eq!((answer.status(), answer.field("litepilot-node")), (200, Some(NAMES[1])));
}

/// The first node's peer port takes connections and says nothing.
#[tokio::test]
async fn a_primary_that_does_not_answer_is_not_waited_for_once_there_is_another() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let apps = [Recorder::echoing().await, Recorder::echoing().await];
    let stage = Stage::new().first_at(silent.local_addr().unwrap());
    let pair = stage.before([&apps[0], &apps[1]]).await;
    pair.learns(1, 0, 1);
    let mut client = write(&pair.nodes[1]).await;
    let (_connection, _) = soon("a dial", silent.accept()).await.unwrap();
    pair.elects(1, 2, &Claim::unlimited());
    let answer = client.response().await;
    assert_eq!((answer.status(), answer.field("litepilot-node")), (200, Some(NAMES[1])));
}

/// The first node's application got the request, and nothing comes back.
#[tokio::test]
async fn an_answer_of_a_former_primary_is_not_waited_for() {
    let apps = [Recorder::played().await, Recorder::echoing().await];
    let pair = Stage::new().before([&apps[0], &apps[1]]).await;
    pair.learns_at_home(0, 1, &Claim::unlimited());
    pair.learns(1, 0, 1);
    let mut client = write(&pair.nodes[1]).await;
    let mut strong = pair.nodes[1].client().await;
    strong.begin("GET /", &["Litepilot-Consistency: strong"]).await;
    let _asked = [asked(&apps[0]).await, asked(&apps[0]).await];
    pair.learns_at_home(1, 2, &Claim::unlimited());
    assert_eq!(problem(&client.response().await), unknown());
    let answer = strong.response().await;
    assert_eq!((answer.status(), answer.field("litepilot-node")), (200, Some(NAMES[1])));
    assert_eq!(apps[1].take().len(), 1, "the write was not sent again");
}
