//! A node that stops finishes what it has begun, and takes nothing new.

use crate::support::node::{Launch, TestNode};
use crate::support::raw::Client;
use crate::support::recorder::{Recorder, ok};
use crate::websocket;

#[tokio::test]
async fn requests_under_way_are_finished_and_new_connections_refused() {
    let app = Recorder::played().await;
    let node = TestNode::before(&app);
    let mut reader = node.client().await;
    reader.begin("GET /slow", &[]).await;
    let mut read = app.connection().await;
    read.request().await.unwrap();
    let mut writer = node.client().await;
    writer.begin("POST /slow", &["Content-Length: 100000"]).await;
    writer.send("x".repeat(50_000)).await;
    let mut written = app.connection().await;
    written.head().await.unwrap();

    node.stop();
    node.refuses_connections().await;
    writer.send("x".repeat(50_000)).await;
    written.bytes(100_000).await;
    for (client, upstream) in [(&mut reader, &mut read), (&mut writer, &mut written)] {
        upstream.send(ok("done")).await;
        let answer = client.response().await;
        assert_eq!((answer.status(), answer.text()), (200, "done"));
        assert_eq!(answer.field("connection"), Some("close"));
        client.closed().await;
    }
    node.stopped().await;
}

#[tokio::test]
async fn a_response_under_way_is_sent_to_its_end() {
    let app = Recorder::played().await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    client.begin("GET /", &[]).await;
    let mut upstream = app.connection().await;
    upstream.request().await.unwrap();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabc").await;
    client.until("abc").await;
    node.stop();
    node.refuses_connections().await;
    upstream.send("def").await;
    assert_eq!(client.rest().await, b"def");
    node.stopped().await;
}

#[tokio::test]
async fn an_idle_connection_may_bring_one_more_request_and_is_then_closed() {
    let app = Recorder::echoing().await;
    let node = TestNode::before(&app);
    let mut late = node.client().await;
    let mut idle = node.client().await;
    for client in [&mut late, &mut idle] {
        client.ask("GET /", &[]).await;
    }
    node.stop();
    let mut answer = late.ask("GET /late", &[]).await;
    // The node has begun to stop when it says so.
    while answer.field("connection") != Some("close") {
        answer = late.ask("GET /late", &[]).await;
    }
    assert_eq!(answer.text(), "/late");
    late.closed().await;
    idle.closed().await;
    node.stopped().await;
}

#[tokio::test]
async fn sockets_are_closed() {
    let app = Recorder::played().await;
    let node = TestNode::before(&app);
    let (mut client, mut upstream) = websocket::open(&node, &app, "/ws").await;
    node.stop();
    client.closed().await;
    upstream.closed().await;
    node.stopped().await;
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut() {
    let app = Recorder::played().await;
    let node = Launch::before(app.target()).key("shutdown_timeout: 300ms").start();
    let (mut client, mut upstream) = endless(&node, &app).await;
    node.stop();
    client.closed().await;
    upstream.closed().await;
    node.stopped().await;
}

#[tokio::test]
async fn stopped_twice_it_stops_at_once() {
    let app = Recorder::played().await;
    let node = Launch::before(app.target()).key("shutdown_timeout: 1h").start();
    let (mut client, mut upstream) = endless(&node, &app).await;
    node.stop();
    node.refuses_connections().await;
    node.stop_at_once();
    client.closed().await;
    upstream.closed().await;
    node.stopped().await;
}

async fn endless(node: &TestNode, app: &Recorder) -> (Client, crate::support::wire::Wire) {
    let mut client = node.client().await;
    client.begin("GET /endless", &[]).await;
    let mut upstream = app.connection().await;
    upstream.request().await.unwrap();
    (client, upstream)
}
