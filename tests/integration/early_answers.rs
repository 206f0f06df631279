//! Answers that come before the client has sent everything, to clients that read only afterwards.

use crate::support::node::{Launch, TestNode};
use crate::support::raw::Client;
use crate::support::recorder::{Recorder, response};

/// More than all buffers on the way hold.
const LARGE: usize = 20 << 20;

async fn begin_upload(node: &TestNode) -> Client {
    let mut client = node.client().await;
    client.begin("POST /", &[&format!("Content-Length: {LARGE}")]).await;
    client
}

#[tokio::test]
async fn what_the_application_refuses_early_is_answered() {
    let app = Recorder::played().await;
    let node = TestNode::before(&app);
    let mut client = begin_upload(&node).await;
    let mut upstream = app.connection().await;
    upstream.head().await.unwrap();
    upstream.send(response("413 Content Too Large", &["connection: close"], "too large")).await;
    drop(upstream);
    // Whoever sends first and reads then must be able to send it all.
    client.send("x".repeat(LARGE)).await;
    let answer = client.response().await;
    assert_eq!((answer.status(), answer.text()), (413, "too large"));
    assert_eq!(answer.field("connection"), Some("close"));
    client.end().await;
    client.closed().await;
}

#[tokio::test]
async fn what_we_refuse_early_is_answered() {
    let node = Launch::before("127.0.0.1:1").proxy("write_hold: 50ms").start();
    let mut client = begin_upload(&node).await;
    client.send("x".repeat(LARGE)).await;
    let answer = client.response().await;
    assert_eq!((answer.status(), answer.field("connection")), (503, Some("close")));
}

#[tokio::test]
async fn what_is_no_http_is_answered() {
    let app = Recorder::echoing().await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    client.send("POST / HTTP/1.1\r\nHost: shop\r\nno field\r\n\r\n").await;
    client.send("x".repeat(LARGE)).await;
    assert_eq!(client.response().await.status(), 400);
    assert!(app.requests().is_empty());
}

#[tokio::test]
async fn who_goes_on_forever_is_cut_off_while_the_node_stops() {
    let node = Launch::before("127.0.0.1:1").proxy("write_hold: 50ms").start();
    let mut client = begin_upload(&node).await;
    assert_eq!(client.response().await.status(), 503);
    node.stop();
    node.stopped().await;
}
