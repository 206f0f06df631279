//! What one client may take of us, and that the others are served meanwhile.

use crate::support::node::{Launch, TestNode};
use crate::support::recorder::Recorder;

#[tokio::test]
async fn a_head_that_does_not_end_is_answered_408() {
    let app = Recorder::echoing().await;
    let node = Launch::before(app.target()).proxy("header_timeout: 500ms").start();
    let mut client = node.client().await;
    client.send("GET / HTTP/1.1\r\nHost: sh").await;
    let answer = client.response().await;
    assert_eq!((answer.status(), answer.problem().as_str()), (408, "request-timeout"));
    client.closed().await;

    let mut silent = node.client().await;
    silent.rest().await;
    assert!(app.requests().is_empty());
}

#[tokio::test]
async fn a_second_head_that_does_not_end_is_answered_408_too() {
    let app = Recorder::echoing().await;
    let node = Launch::before(app.target()).proxy("header_timeout: 500ms").start();
    let mut client = node.client().await;
    assert_eq!(client.ask("GET /", &[]).await.status(), 200);
    client.send("GET / HTTP/1.1\r\nHost: sh").await;
    assert_eq!(client.response().await.status(), 408);
    client.closed().await;
}

#[tokio::test]
async fn a_head_that_trickles_gets_no_more_time() {
    let app = Recorder::echoing().await;
    let node = Launch::before(app.target()).proxy("header_timeout: 500ms").start();
    let mut client = node.client().await;
    client.send("GET / HTTP/1.1\r\n").await;
    // Until it is cut: each byte comes well within the limit.
    while client.try_send("x").await.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(app.requests().is_empty());
}

#[tokio::test]
async fn slow_heads_do_not_hold_up_others() {
    let app = Recorder::echoing().await;
    let node = TestNode::before(&app);
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut client = node.client().await;
        client.send("GET /slow HTTP/1.1\r\nHost: sh").await;
        slow.push(client);
    }
    for _ in 0..10 {
        assert_eq!(node.client().await.ask("GET /quick", &[]).await.text(), "/quick");
    }
    for client in &mut slow {
        client.send("op\r\n\r\n").await;
        assert_eq!(client.response().await.text(), "/slow");
    }
}

#[tokio::test]
async fn a_small_body_that_does_not_come_is_answered_408() {
    let app = Recorder::echoing().await;
    let node = Launch::before(app.target()).proxy("body_timeout: 200ms").start();
    let mut client = node.client().await;
    client.begin("POST /", &["Content-Length: 3"]).await;
    client.send("ab").await;
    let answer = client.response().await;
    assert_eq!((answer.status(), answer.problem().as_str()), (408, "request-timeout"));
    assert!(answer.retry_is_safe());
    assert!(app.requests().is_empty());
}

#[tokio::test]
async fn a_large_body_that_stops_is_answered_408_and_the_app_gets_no_end() {
    let app = Recorder::played().await;
    let node = Launch::before(app.target()).proxy("body_timeout: 200ms").start();
    let mut client = node.client().await;
    client.begin("POST /", &["Content-Length: 100000"]).await;
    client.send("x".repeat(1000)).await;
    let mut upstream = app.connection().await;
    upstream.head().await.unwrap();
    let answer = client.response().await;
    assert_eq!((answer.status(), answer.problem().as_str()), (408, "request-timeout"));
    assert!(!answer.retry_is_safe(), "the application got half of a write");
    assert_eq!(upstream.rest().await.len(), 1000);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let app = Recorder::played().await;
    let node = Launch::before(app.target()).proxy("body_timeout: 300ms").start();
    let mut client = node.client().await;
    client.begin("GET /", &[]).await;
    let mut upstream = app.connection().await;
    upstream.request().await.unwrap();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await;
    // Ends only when the node closes the connection.
    while upstream.try_send([b'x'; 65536]).await.is_ok() {}
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let app = Recorder::echoing().await;
    let node = Launch::before(app.target()).proxy("keepalive_timeout: 100ms").start();
    let mut client = node.client().await;
    assert_eq!(client.ask("GET /", &[]).await.status(), 200);
    client.closed().await;
}

#[tokio::test]
async fn a_huge_head_is_answered_431() {
    let app = Recorder::echoing().await;
    let node = TestNode::before(&app);
    let huge = format!("GET / HTTP/1.1\r\nHost: shop\r\nX: {}\r\n\r\n", "x".repeat(70_000));
    let long = format!("GET /{} HTTP/1.1\r\nHost: shop\r\n\r\n", "x".repeat(70_000));
    let fields: String = (0..200).map(|i| format!("X-{i}: y\r\n")).collect();
    let many = format!("GET / HTTP/1.1\r\nHost: shop\r\n{fields}\r\n");
    for head in [huge, long, many] {
        let mut client = node.client().await;
        // It may be refused before we have said all.
        let _ = client.try_send(head).await;
        let answer = client.response().await;
        assert_eq!((answer.status(), answer.problem().as_str()), (431, "headers-too-large"));
        client.closed().await;
    }
    assert!(app.requests().is_empty());
}

#[tokio::test]
async fn a_head_that_is_only_large_is_served() {
    let app = Recorder::echoing().await;
    let node = TestNode::before(&app);
    let large = format!("X: {}", "x".repeat(30_000));
    let answer = node.client().await.ask("GET /a", &[&large, "Y: z"]).await;
    assert_eq!(answer.text(), "/a");
    assert_eq!(app.only().field("x").unwrap().len(), 30_000);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_and_those_within_are_served() {
    let app = Recorder::echoing().await;
    let node = Launch::before(app.target()).proxy("max_connections: 3").start();
    let mut within = Vec::new();
    for _ in 0..3 {
        let mut client = node.client().await;
        assert_eq!(client.ask("GET /within", &[]).await.status(), 200);
        within.push(client);
    }
    let mut beyond = node.client().await;
    beyond.begin("GET /beyond", &[]).await;
    for client in &mut within {
        assert_eq!(client.ask("GET /within", &[]).await.status(), 200);
    }
    assert!(app.take().iter().all(|seen| seen.request.target() == "/within"));
    within.pop();
    assert_eq!(beyond.response().await.text(), "/beyond");
}

#[tokio::test]
async fn idle_connections_make_room_when_all_places_are_taken() {
    let app = Recorder::echoing().await;
    let node = Launch::before(app.target())
        .proxy("max_connections: 2")
        .proxy("keepalive_timeout: 1h")
        .start();
    let mut idle = Vec::new();
    for _ in 0..2 {
        let mut client = node.client().await;
        client.ask("GET /", &[]).await;
        idle.push(client);
    }
    let mut next = node.client().await;
    assert_eq!(next.ask("GET /next", &[]).await.text(), "/next");
}
