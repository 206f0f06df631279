//! Bodies stream both ways: as they come, no faster than the other side takes them.

use std::time::Duration;

use crate::support::node::{Launch, TestNode};
use crate::support::recorder::{Recorder, ok};
use crate::support::wire::Wire;

/// More than every buffer between two ends holds.
const BUFFERS: usize = 48 << 20;
/// How long nothing must be taken until we believe that nothing will be.
const QUIET: Duration = Duration::from_millis(500);

#[tokio::test]
async fn a_small_chunked_body_reaches_the_app_with_its_length() {
    let app = Recorder::echoing().await;
    let node = Launch::before(app.target()).proxy("buffer_body: 1KiB").start();
    let mut client = node.client().await;
    let fields = ["Transfer-Encoding: chunked"];
    client.begin("POST /", &fields).await;
    client.send("1\r\na\r\n2\r\nbc\r\n0\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 200);
    let request = app.only();
    assert_eq!(
        (request.field("content-length"), request.body.as_slice()),
        (Some("3"), &b"abc"[..])
    );

    client.begin("POST /", &fields).await;
    client.send(format!("800\r\n{}\r\n0\r\n\r\n", "x".repeat(0x800))).await;
    assert_eq!(client.response().await.status(), 200);
    let request = app.only();
    assert_eq!(request.field("transfer-encoding"), Some("chunked"));
    assert_eq!(request.body, vec![b'x'; 0x800]);
}

#[tokio::test]
async fn nothing_is_dialed_before_a_small_body_is_whole() {
    let app = Recorder::echoing().await;
    let node = TestNode::before(&app);
    let mut slow = node.client().await;
    slow.begin("POST /slow", &["Content-Length: 3"]).await;
    slow.send("ab").await;
    let mut other = node.client().await;
    assert_eq!(other.post("/quick", &[], "abc").await.status(), 200);
    assert_eq!(app.only().target(), "/quick");
    slow.send("c").await;
    assert_eq!(slow.response().await.status(), 200);
    assert_eq!(app.only().body, b"abc");
}

#[tokio::test]
async fn a_length_is_kept_when_a_body_is_streamed() {
    let app = Recorder::echoing().await;
    let node = TestNode::before(&app);
    let body = "0123456789abcdef".repeat(100_000);
    assert_eq!(node.client().await.post("/", &[], &body).await.status(), 200);
    let request = app.only();
    assert_eq!(request.field("content-length"), Some("1600000"));
    assert_eq!(request.field("transfer-encoding"), None);
    assert!(request.body == body.as_bytes());
}

#[tokio::test]
async fn an_app_that_does_not_read_stops_the_client() {
    let app = Recorder::played().await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    let length = 64 << 20;
    client.begin("POST /", &[&format!("Content-Length: {length}")]).await;
    let mut upstream = app.connection().await;
    upstream.head().await.unwrap();

    let mut sent = client.flood(QUIET, length).await;
    assert!(sent < BUFFERS, "{sent} bytes were taken, and nobody had read them");

    let reading = tokio::spawn(async move {
        count(&mut upstream, length).await;
        upstream.send(ok("all")).await;
        upstream
    });
    while sent < length {
        sent += client.send_some(length - sent).await;
    }
    assert_eq!(client.response().await.text(), "all");
    reading.await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_app() {
    let app = Recorder::played().await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    client.begin("GET /", &[]).await;
    let mut upstream = app.connection().await;
    upstream.head().await.unwrap();
    let length = 64 << 20;
    upstream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n")).await;

    let mut sent = upstream.flood(QUIET, length).await;
    assert!(sent < BUFFERS, "{sent} bytes were taken, and nobody had read them");

    let reading = tokio::spawn(async move {
        assert_eq!(client.head().await.unwrap().status(), 200);
        count(&mut client, length).await;
    });
    while sent < length {
        sent += upstream.send_some(length - sent).await;
    }
    reading.await.unwrap();
}

/// Reads so many bytes, of which every one must be what [`Wire::flood`] sends.
async fn count(wire: &mut Wire, mut left: usize) {
    while left > 0 {
        let piece = wire.bytes(left.min(256 << 10)).await;
        assert!(piece.iter().all(|b| *b == b'x'));
        left -= piece.len();
    }
}

#[tokio::test]
async fn events_are_passed_on_as_they_come() {
    let app = Recorder::played().await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    client.begin("GET /events", &["Accept: text/event-stream"]).await;
    let mut upstream = app.connection().await;
    upstream.head().await.unwrap();
    upstream
        .send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    assert_eq!(client.head().await.unwrap().field("content-type"), Some("text/event-stream"));
    for event in ["data: one\n\n", "data: two\n\n"] {
        upstream.send(format!("{:x}\r\n{event}\r\n", event.len())).await;
        assert_eq!(client.chunk().await, event.as_bytes());
    }
}

#[tokio::test]
async fn an_app_may_answer_before_it_has_the_whole_body() {
    let app = Recorder::played().await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    client.begin("POST /", &["Content-Length: 1000000"]).await;
    client.send("x".repeat(1000)).await;
    let mut upstream = app.connection().await;
    upstream.head().await.unwrap();
    upstream
        .send("HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno")
        .await;
    let answer = client.response().await;
    assert_eq!((answer.status(), answer.text()), (413, "no"));
}

#[tokio::test]
async fn a_response_that_breaks_off_is_not_made_to_look_whole() {
    for framing in
        ["transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", "content-length: 10\r\n\r\nabc"]
    {
        let app = Recorder::played().await;
        let node = TestNode::before(&app);
        let mut client = node.client().await;
        client.begin("GET /", &[]).await;
        let mut upstream = app.connection().await;
        upstream.head().await.unwrap();
        upstream.send(format!("HTTP/1.1 200 OK\r\n{framing}")).await;
        assert_eq!(client.head().await.unwrap().status(), 200);
        drop(upstream);
        let rest = client.rest().await;
        assert!(!rest.ends_with(b"0\r\n\r\n") && rest.len() < 10, "{framing}: {rest:?}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_cancels_the_work() {
    let app = Recorder::played().await;
    let node = TestNode::before(&app);
    for (request, body) in [("GET /", ""), ("POST /", "abc")] {
        let mut client = node.abrupt_client().await;
        client.begin(request, &[&format!("Content-Length: {}", body.len())]).await;
        client.send(body).await;
        let mut upstream = app.connection().await;
        upstream.request().await.unwrap();
        drop(client);
        upstream.closed().await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_in_the_midst_of_a_body_cancels_the_work() {
    let app = Recorder::played().await;
    let node = TestNode::before(&app);

    let mut client = node.client().await;
    client.begin("GET /", &[]).await;
    let mut upstream = app.connection().await;
    upstream.head().await.unwrap();
    upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n").await;
    client.until("x\r\n").await;
    drop(client);
    upstream.closed().await;

    let mut client = node.client().await;
    client.begin("POST /", &["Content-Length: 1000000"]).await;
    client.send("x").await;
    let mut upstream = app.connection().await;
    upstream.head().await.unwrap();
    upstream.until("x").await;
    drop(client);
    upstream.closed().await;
}

#[tokio::test]
async fn a_client_that_waits_for_100_gets_it_when_its_body_is_wanted() {
    let app = Recorder::echoing().await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    client.begin("POST /", &["Content-Length: 3", "Expect: 100-continue"]).await;
    assert_eq!(client.response().await.status(), 100);
    client.send("abc").await;
    assert_eq!(client.response().await.status(), 200);
    let request = app.only();
    assert_eq!((request.body.as_slice(), request.field("expect")), (&b"abc"[..], None));
}

#[tokio::test]
async fn a_client_that_waits_for_100_is_not_told_to_go_on_when_it_is_refused() {
    let app = Recorder::echoing().await;
    let node = Launch::before("127.0.0.1:1").proxy("write_hold: 50ms").start();
    let large = ["Content-Length: 1000000", "Expect: 100-continue"];
    let mut client = node.client().await;
    client.begin("POST /", &large).await;
    assert_eq!(client.response().await.status(), 503, "no application");

    let node = TestNode::before(&app);
    let mut client = node.client().await;
    client.begin("POST /%00", &large).await;
    assert_eq!(client.response().await.status(), 400);
    assert!(app.requests().is_empty());
}

#[tokio::test]
async fn a_large_upload_waits_for_100_until_the_app_takes_it() {
    let app = Recorder::played().await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    client.begin("POST /", &["Content-Length: 1000000", "Expect: 100-continue"]).await;
    let mut upstream = app.connection().await;
    upstream.head().await.unwrap();
    assert_eq!(client.response().await.status(), 100);
    client.send("x".repeat(1_000_000)).await;
    count(&mut upstream, 1_000_000).await;
    upstream.send(ok("taken")).await;
    assert_eq!(client.response().await.text(), "taken");
}
