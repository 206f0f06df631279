//! Requests that the rules call reads and that write: counted and shown with the rule that would fix
//! it.

use std::time::Duration;

use litepilot::claim::Claim;
use tokio::time::timeout;

use crate::support::node::Launch;
use crate::support::python::{Gunicorn, Worker};
use crate::support::recorder::{Recorder, response};
use crate::support::stage::{Pair, Stage, at};
use crate::support::visitor::{Visitor, json};
use crate::support::wire::soon;

const SUSPECTED: &str = "litepilot_suspected_writes_total";
/// Until what a look has found is told.
const LOOK: Duration = Duration::from_secs(1);

/// A read at the first node, during which the database advances.
async fn read_that_writes(pair: &Pair, app: &Recorder, request: &str, txid: u64) {
    let mut client = pair.nodes[0].client().await;
    client.begin(request, &[]).await;
    let mut at_app = app.connection().await;
    at_app.request().await.unwrap();
    pair.nodes[0].database.is_at(at(1, txid));
    at_app.send(last("")).await;
    assert_eq!(client.response().await.status(), 200);
}

/// An answer after which the connection is not kept: the next request comes on another one.
fn last(body: &str) -> Vec<u8> {
    response("200 OK", &["connection: close"], body)
}

/// What the first node suspects, with how often.
fn suspected(pair: &Pair) -> Vec<(String, u64)> {
    let list = pair.nodes[0].suspects.list();
    list.into_iter().map(|suspected| (suspected.request, suspected.count)).collect()
}

#[tokio::test]
async fn a_read_during_which_the_database_advances_is_suspected_unless_a_write_was_under_way() {
    let app = Recorder::played().await;
    let pair = Stage::new().before([&app, &app]).await;
    pair.elects(0, 1, &Claim::unlimited());

    // A write is under way, from before, and begins and ends meanwhile.
    let mut writer = pair.nodes[0].client().await;
    writer.begin("POST /slow", &["Content-Length: 0"]).await;
    let mut written = app.connection().await;
    written.request().await.unwrap();
    read_that_writes(&pair, &app, "GET /innocent", 6).await;
    written.send(last("")).await;
    assert_eq!(writer.response().await.status(), 200);
    // Nothing was written.
    read_that_writes(&pair, &app, "GET /innocent", 6).await;

    let line = format!("{SUSPECTED}{{rule=\"default.yml:26\"}}");
    for (i, request) in
        ["GET /cart/clear", "HEAD /cart/clear", "GET /item/17/like?now"].iter().enumerate()
    {
        // That the former write is done is known only once its place is given back.
        pair.nodes[0]
            .until("no write to be under way", || pair.nodes[0].writes.quiet().is_some())
            .await;
        read_that_writes(&pair, &app, request, 10 + i as u64).await;
        pair.nodes[0]
            .until("it to be counted", || pair.nodes[0].metric(&line) == i as u64 + 1)
            .await;
    }
    let expected = [("GET /cart/clear".to_owned(), 2), ("GET /item/*/like".to_owned(), 1)];
    assert_eq!(suspected(&pair), expected);
    let fix = &pair.nodes[0].suspects.list()[0].mend;
    assert_eq!(fix, "- {match: {method: GET, path: /cart/clear}, as: write}");
}

/// As on a busy machine: what the request itself wrote must not look as if somebody else had.
#[tokio::test]
async fn a_position_that_is_read_too_late_tells_of_no_other_writer() {
    let app = Recorder::played().await;
    let pair = Stage::new().before([&app, &app]).await;
    pair.elects(0, 1, &Claim::unlimited());
    let database = &pair.nodes[0].database;
    read_that_writes(&pair, &app, "GET /innocent", 5).await;
    database.holds_readers_up(true);
    let mut client = pair.nodes[0].client().await;
    client.begin("GET /cart/clear", &[]).await;
    let mut at_app = app.connection().await;
    at_app.request().await.unwrap();
    database.is_at(at(1, 6));
    database.holds_readers_up(false);
    at_app.send(last("")).await;
    assert_eq!(client.response().await.status(), 200);
    soon("it to be suspected", async {
        let mut txid = 6;
        while suspected(&pair).is_empty() {
            txid += 1;
            read_that_writes(&pair, &app, "GET /cart/clear", txid).await;
        }
    })
    .await;
    assert_eq!(suspected(&pair)[0].0, "GET /cart/clear");
}

#[tokio::test]
async fn on_a_replica_nothing_is_suspected_and_what_it_passes_on_is() {
    let app = Recorder::played().await;
    let pair = Stage::new().before([&app, &app]).await;
    pair.elects(0, 1, &Claim::unlimited());
    let mut client = pair.nodes[1].client().await;
    for (fields, txid) in [(&[][..], 6), (&["Litepilot-Consistency: strong"][..], 7)] {
        client.begin("GET /clear", fields).await;
        let mut at_app = app.connection().await;
        at_app.request().await.unwrap();
        pair.nodes.iter().for_each(|node| node.database.is_at(at(1, txid)));
        at_app.send(last("")).await;
        assert_eq!(client.response().await.status(), 200);
    }
    let line = format!("{SUSPECTED}{{rule=\"another node's rules\"}}");
    pair.nodes[0].until("it to be counted", || pair.nodes[0].metric(&line) == 1).await;
    assert_eq!(suspected(&pair), [("GET /clear".to_owned(), 1)]);
    assert!(pair.nodes[1].suspects.list().is_empty());
}

#[tokio::test]
async fn a_real_application_that_writes_on_get_is_found_out_and_fixed() {
    let dir = tempfile::tempdir().unwrap();
    let app = Gunicorn::flask(Worker::Gthread, 1, dir.path()).start();
    let target = app.address().to_string();
    let node = Launch::before(&target).mount(dir.path()).rules("rules: []").start();
    let mut visitor = Visitor::of(&node);
    assert_eq!(visitor.submit("/api/count", "").await.status(), 200, "a write");
    for _ in 0..3 {
        assert_eq!(visitor.get("/api/entries").await.status(), 200);
    }
    let suspects = async || {
        let mut admin = node.admin().await;
        admin.send("GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        json(&admin.response().await)["suspected_writes"].clone()
    };
    let suspected = async || {
        loop {
            let suspects = suspects().await;
            if suspects[0].is_object() {
                return suspects;
            }
        }
    };
    let mut visits = 0;
    let found = soon("a suspicion", async {
        loop {
            visits += 1;
            assert_eq!(json(&visitor.get("/visits").await)["visits"], visits);
            // On a busy machine a look may come too late to tell anything.
            if let Ok(found) = timeout(LOOK, suspected()).await {
                return found;
            }
        }
    })
    .await;
    assert_eq!(found[0]["request"], "GET /visits", "{found}");
    assert_eq!((&found[0]["count"], found.as_array().unwrap().len()), (&1.into(), 1));

    let fix = found[0]["mend"].as_str().unwrap();
    std::fs::write(node.rule_file(), format!("rules:\n  {fix}\n")).unwrap();
    node.reload();
    let before = visitor.txid();
    assert_eq!(json(&visitor.get("/visits").await)["visits"], visits + 1);
    assert!(visitor.txid() > before, "it is a write now, and has a token");
    assert_eq!(suspects().await[0]["count"], 1);
}
