//! Connections to the application: which are kept, what is sent again, what waits while it is away.

use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

use crate::support::node::{Launch, TestNode};
use crate::support::recorder::{Port, Recorder, ok};

#[tokio::test]
async fn an_app_may_listen_on_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let app = Recorder::unix(&dir.path().join("app.sock"), |request| ok(request.target()));
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    for path in ["/a", "/b"] {
        assert_eq!(client.ask(&format!("GET {path}"), &[]).await.text(), path);
    }
    assert_eq!(app.connections(), 1);
    assert_eq!(client.post("/c", &[], "x").await.text(), "/c");
    assert_eq!(app.take()[2].request.field("host"), Some("shop"));
}

#[tokio::test]
async fn an_app_may_be_named_by_its_host_name() {
    let app = Recorder::echoing().await;
    let port = app.target().rsplit(':').next().unwrap();
    let node = Launch::before(&format!("localhost:{port}")).start();
    assert_eq!(node.client().await.ask("GET /a", &[]).await.text(), "/a");
}

#[tokio::test]
async fn reads_share_a_kept_connection_and_each_write_has_one_of_its_own() {
    let app = Recorder::echoing().await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    for _ in 0..5 {
        client.ask("GET /", &[]).await;
    }
    assert_eq!(app.connections(), 1);
    for _ in 0..5 {
        client.post("/", &[], "x").await;
    }
    assert_eq!(app.connections(), 6);
    let mut before_writes = app.take();
    let writes: Vec<_> = before_writes.split_off(5).iter().map(|seen| seen.connection).collect();
    assert_eq!(writes, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_connection_is_not_kept_beyond_its_time() {
    let app = Recorder::played().await;
    let node = Launch::before(app.target()).proxy("target_keepalive: 50ms").start();
    let mut client = node.client().await;
    client.begin("GET /", &[]).await;
    let mut upstream = app.connection().await;
    upstream.request().await.unwrap();
    upstream.send(ok("")).await;
    client.response().await;
    upstream.closed().await;
}

#[tokio::test]
async fn a_read_is_sent_again_when_a_kept_connection_closes_under_it() {
    let app = Recorder::played().await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    client.begin("GET /first", &[]).await;
    let mut kept = app.connection().await;
    kept.request().await.unwrap();
    kept.send(ok("")).await;
    client.response().await;

    client.begin("GET /second", &[]).await;
    assert_eq!(kept.request().await.unwrap().target(), "/second");
    drop(kept);
    let mut fresh = app.connection().await;
    assert_eq!(fresh.request().await.unwrap().target(), "/second");
    fresh.send(ok("again")).await;
    assert_eq!(client.response().await.text(), "again");
}

#[tokio::test]
async fn a_read_is_sent_again_only_once() {
    let app = Recorder::answering(|request| match request.target() {
        "/closes" => b"connection: close\r\n".to_vec(),
        _ => ok(""),
    })
    .await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    client.ask("GET /", &[]).await;
    let answer = client.ask("GET /closes", &[]).await;
    assert_eq!((answer.status(), answer.problem().as_str()), (502, "app-unreachable"));
    assert!(answer.retry_is_safe());
    assert_eq!(app.take().iter().filter(|seen| seen.request.target() == "/closes").count(), 2);
}

#[tokio::test]
async fn a_read_is_sent_again_when_its_fresh_connection_breaks() {
    let app = Recorder::played().await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    client.begin("GET /", &[]).await;
    let mut first = app.connection().await;
    first.request().await.unwrap();
    drop(first);
    let mut second = app.connection().await;
    second.request().await.unwrap();
    second.send(ok("done")).await;
    assert_eq!(client.response().await.text(), "done");
}

#[tokio::test]
async fn a_write_is_never_sent_again() {
    let app = Recorder::played().await;
    let node = TestNode::before(&app);
    for partial in ["", "HTTP/1.1 2", "HTTP/1.1 200 OK\r\ncontent-le", "nonsense\r\n\r\n"] {
        let mut client = node.client().await;
        client.begin("POST /pay", &["Content-Length: 1"]).await;
        client.send("x").await;
        let mut upstream = app.connection().await;
        upstream.request().await.unwrap();
        upstream.send(partial).await;
        drop(upstream);
        let answer = client.response().await;
        assert_eq!(
            (answer.status(), answer.problem().as_str()),
            (502, "write-outcome-unknown"),
            "after {partial:?}"
        );
        assert!(!answer.retry_is_safe());
        // If it were sent again, this would be what comes next.
        client.begin("GET /next", &[]).await;
        let mut next = app.connection().await;
        assert_eq!(next.request().await.unwrap().start, "GET /next HTTP/1.1");
        next.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
        client.response().await;
    }
}

#[tokio::test]
async fn requests_wait_for_an_app_that_is_not_up_yet() {
    let port = Port::reserve();
    let node = Launch::before(&port.target()).proxy("write_hold: 30s").start();
    let mut writer = node.client().await;
    writer.begin("POST /write", &["Content-Length: 1"]).await;
    writer.send("x").await;
    let mut reader = node.client().await;
    reader.begin("GET /read", &[]).await;
    node.metric_becomes(r#"litepilot_requests_held{class="write"}"#, "1").await;
    node.metric_becomes(r#"litepilot_requests_held{class="read"}"#, "1").await;

    let app = Recorder::played_at(&port);
    for _ in 0..2 {
        let mut upstream = app.connection().await;
        let request = upstream.request().await.unwrap();
        upstream.send(ok(request.target())).await;
    }
    assert_eq!(writer.response().await.text(), "/write");
    assert_eq!(reader.response().await.text(), "/read");
    node.metric_becomes(r#"litepilot_requests_held{class="write"}"#, "0").await;
}

#[tokio::test]
async fn a_large_upload_waits_too_and_arrives_whole() {
    let port = Port::reserve();
    let node = Launch::before(&port.target()).proxy("write_hold: 30s").start();
    let mut client = node.client().await;
    client.begin("POST /", &["Content-Length: 200000"]).await;
    client.send("x".repeat(100_000)).await;
    node.metric_becomes(r#"litepilot_requests_held{class="write"}"#, "1").await;
    let app = Recorder::played_at(&port);
    client.send("x".repeat(100_000)).await;
    let mut upstream = app.connection().await;
    assert_eq!(upstream.request().await.unwrap().body, vec![b'x'; 200_000]);
    upstream.send(ok("whole")).await;
    assert_eq!(client.response().await.text(), "whole");
}

#[tokio::test]
async fn waiting_in_vain_is_answered_503() {
    let port = Port::reserve();
    let node = Launch::before(&port.target()).proxy("write_hold: 100ms").start();
    let mut client = node.client().await;
    for request in ["GET /", "DELETE /"] {
        let answer = client.ask(request, &[]).await;
        assert_eq!((answer.status(), answer.problem().as_str()), (503, "app-unreachable"));
        assert_eq!(answer.field("retry-after"), Some("1"));
        assert!(answer.retry_is_safe());
        assert_eq!(answer.field("litepilot-route"), Some("none"));
    }
}

#[tokio::test]
async fn a_rule_may_say_how_long_to_wait() {
    let port = Port::reserve();
    let node = Launch::before(&port.target())
        .proxy("write_hold: 1h")
        .rules("rules:\n  - match: {path: /hasty}\n    as: write\n    write_hold: 50ms\n")
        .start();
    assert_eq!(node.client().await.ask("GET /hasty", &[]).await.status(), 503);
}

#[tokio::test]
async fn passthrough_does_not_wait() {
    let port = Port::reserve();
    let node = Launch::before(&port.target())
        .proxy("write_hold: 1h")
        .rules("rules:\n  - match: {path: /static/**}\n    as: passthrough\n")
        .start();
    let answer = node.client().await.ask("GET /static/a.css", &[]).await;
    assert_eq!((answer.status(), answer.problem().as_str()), (502, "app-unreachable"));
    assert_eq!(answer.field("retry-after"), None);
}

#[tokio::test]
async fn an_app_that_takes_no_connection_is_not_waited_for_longer_than_said() {
    let (port, _full) = full_port().await;
    let node = Launch::before(&port)
        .proxy("connect_timeout: 100ms")
        .rules("rules:\n  - match: {path: /static/**}\n    as: passthrough\n")
        .start();
    let answer = node.client().await.ask("GET /static/a.css", &[]).await;
    assert_eq!((answer.status(), answer.problem().as_str()), (502, "app-unreachable"));
}

/// A port whose queue of connections is full, and what fills it.
async fn full_port() -> (String, impl Sized) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    let listener = socket.listen(1).unwrap();
    let mut queued = Vec::new();
    let quiet = Duration::from_millis(300);
    while let Ok(taken) = tokio::time::timeout(quiet, TcpStream::connect(address)).await {
        queued.push(taken.unwrap());
    }
    (address.to_string(), (listener, queued))
}

#[tokio::test]
async fn browsers_get_a_page() {
    let port = Port::reserve();
    let node = Launch::before(&port.target()).proxy("write_hold: 10ms").start();
    let accept = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let answer = node.client().await.ask("GET /", &[accept]).await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.field("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(answer.field("cache-control"), Some("no-store"));
    assert!(answer.text().contains("app-unreachable") && answer.text().contains("safe"));
}

#[tokio::test]
async fn only_so_many_requests_wait() {
    let port = Port::reserve();
    let node =
        Launch::before(&port.target()).proxy("write_hold: 1h").proxy("held_writes: 2").start();
    let held = r#"litepilot_requests_held{class="write"}"#;
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut client = node.abrupt_client().await;
        client.begin("DELETE /", &[]).await;
        waiting.push(client);
    }
    node.metric_becomes(held, "2").await;
    let mut third = node.client().await;
    let answer = third.ask("DELETE /", &[]).await;
    assert_eq!((answer.status(), answer.problem().as_str()), (503, "too-many-held"));
    assert_eq!(answer.field("retry-after"), Some("1"));

    // A client that leaves frees its place.
    waiting.pop();
    node.metric_becomes(held, "1").await;
    third.begin("DELETE /", &[]).await;
    node.metric_becomes(held, "2").await;
}

#[tokio::test]
async fn an_app_that_does_not_answer_in_time() {
    let app = Recorder::played().await;
    let node = Launch::before(app.target()).proxy("response_timeout: 200ms").start();
    for (request, safe) in [("GET /", true), ("DELETE /", false)] {
        let mut client = node.client().await;
        client.begin(request, &[]).await;
        let mut upstream = app.connection().await;
        upstream.request().await.unwrap();
        let answer = client.response().await;
        assert_eq!((answer.status(), answer.problem().as_str()), (504, "app-timeout"));
        assert_eq!(answer.retry_is_safe(), safe, "{request}");
        upstream.closed().await;
    }
}

#[tokio::test]
async fn the_time_for_an_answer_begins_when_the_request_has_gone_out() {
    let app = Recorder::played().await;
    let node = Launch::before(app.target()).proxy("response_timeout: 1s").start();
    let mut client = node.client().await;
    client.begin("POST /", &["Content-Length: 100003"]).await;
    client.send("x".repeat(100_000)).await;
    let mut upstream = app.connection().await;
    upstream.head().await.unwrap();
    for _ in 0..3 {
        // No answer is due while the client still sends.
        tokio::time::sleep(Duration::from_millis(500)).await;
        client.send("x").await;
    }
    upstream.bytes(100_003).await;
    upstream.send(ok("done")).await;
    assert_eq!(client.response().await.text(), "done");
}

#[tokio::test]
async fn an_app_that_stops_in_the_midst_of_its_answer_is_cut() {
    let app = Recorder::played().await;
    let node = Launch::before(app.target()).proxy("body_timeout: 200ms").start();
    let mut client = node.client().await;
    client.begin("GET /", &[]).await;
    let mut upstream = app.connection().await;
    upstream.request().await.unwrap();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await;
    assert_eq!(client.head().await.unwrap().status(), 200);
    assert_eq!(client.rest().await, b"abc");
    upstream.closed().await;
}
