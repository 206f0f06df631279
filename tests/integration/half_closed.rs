//! Clients that end their side of the connection and wait for the answer, as `nc -N` does.

use crate::support::node::{Launch, TestNode};
use crate::support::recorder::{Recorder, ok};

#[tokio::test]
async fn who_ends_its_side_gets_the_answer_to_a_read_and_to_a_write() {
    let app = Recorder::played().await;
    let node = TestNode::before(&app);
    let large = "x".repeat(1 << 20);
    for (request, body) in [("GET /", ""), ("POST /", "abc"), ("POST /", large.as_str())] {
        let mut client = node.client().await;
        client.begin(request, &[&format!("Content-Length: {}", body.len())]).await;
        client.send(body).await;
        client.end().await;
        let mut upstream = app.connection().await;
        assert_eq!(upstream.request().await.unwrap().body.len(), body.len());
        upstream.send(ok("done")).await;
        assert_eq!(client.response().await.text(), "done");
        client.closed().await;
    }
}

#[tokio::test]
async fn so_does_one_whose_request_is_held() {
    let node = Launch::before("127.0.0.1:1").proxy("write_hold: 300ms").start();
    let mut client = node.client().await;
    client.begin("GET /", &[]).await;
    client.end().await;
    assert_eq!(client.response().await.status(), 503);
    client.closed().await;
}

#[tokio::test]
async fn a_long_answer_comes_whole_and_all_answers_to_what_was_sent_before() {
    let app = Recorder::played().await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    client.send("GET /a HTTP/1.1\r\nHost: shop\r\n\r\nGET /b HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    client.end().await;
    let mut upstream = app.connection().await;
    upstream.request().await.unwrap();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 4000006\r\n\r\nabc").await;
    upstream.send("x".repeat(4_000_000)).await;
    upstream.send("def").await;
    assert_eq!(client.response().await.body.len(), 4_000_006);
    upstream.request().await.unwrap();
    upstream.send(ok("second")).await;
    assert_eq!(client.response().await.text(), "second");
    client.closed().await;
}

#[tokio::test]
async fn a_stream_that_says_nothing_is_ended_when_its_client_may_have_gone() {
    let app = Recorder::played().await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    client.begin("GET /events", &[]).await;
    let mut upstream = app.connection().await;
    upstream.head().await.unwrap();
    upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n").await;
    client.until("x\r\n").await;
    client.end().await;
    upstream.closed().await;
}

#[tokio::test]
async fn half_a_body_is_no_request() {
    let app = Recorder::echoing().await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    client.begin("POST /", &["Content-Length: 10"]).await;
    client.send("abc").await;
    client.end().await;
    client.rest().await;
    assert!(app.requests().is_empty());
}
