//! WebSockets: a handshake by its rule, then bytes both ways until one side ends.

use crate::support::node::{Launch, TestNode};
use crate::support::raw::Client;
use crate::support::recorder::Recorder;
use crate::support::wire::Wire;

pub const HANDSHAKE: [&str; 4] = [
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];
pub const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A socket open from end to end.
pub async fn open(node: &TestNode, app: &Recorder, path: &str) -> (Client, Wire) {
    let mut client = node.client().await;
    client.begin(&format!("GET {path}"), &HANDSHAKE).await;
    let mut upstream = app.connection().await;
    let request = upstream.request().await.unwrap();
    assert_eq!(request.field("connection"), Some("upgrade"));
    assert_eq!(request.field("upgrade"), Some("websocket"));
    assert_eq!(request.field("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    upstream.send(ACCEPTED).await;
    let answer = client.head().await.unwrap();
    assert_eq!((answer.status(), answer.field("upgrade")), (101, Some("websocket")));
    assert_eq!(answer.field("connection"), Some("upgrade"));
    assert_eq!(answer.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(answer.field("litepilot-node"), Some("test"));
    (client, upstream)
}

#[tokio::test]
async fn bytes_flow_both_ways_until_one_side_ends() {
    let app = Recorder::played().await;
    let node = TestNode::before(&app);
    let (mut client, mut upstream) = open(&node, &app, "/ws").await;
    let payload: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
    for _ in 0..3 {
        client.send(b"\x81\x05Hello").await;
        assert_eq!(upstream.bytes(7).await, b"\x81\x05Hello");
        upstream.send(&payload).await;
        assert!(client.bytes(payload.len()).await == payload);
    }
    drop(upstream);
    client.closed().await;

    let (client, mut upstream) = open(&node, &app, "/ws").await;
    drop(client);
    upstream.closed().await;
}

#[tokio::test]
async fn what_is_sent_with_the_handshake_is_not_lost() {
    let app = Recorder::played().await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    let handshake = HANDSHAKE.join("\r\n");
    client.send(format!("GET /ws HTTP/1.1\r\nHost: shop\r\n{handshake}\r\n\r\nearly")).await;
    let mut upstream = app.connection().await;
    upstream.request().await.unwrap();
    upstream.send(format!("{ACCEPTED}greeting")).await;
    assert_eq!(client.head().await.unwrap().status(), 101);
    assert_eq!(client.bytes(8).await, b"greeting");
    assert_eq!(upstream.bytes(5).await, b"early");
}

#[tokio::test]
async fn a_socket_outlives_every_limit_for_requests() {
    let app = Recorder::played().await;
    let node = Launch::before(app.target())
        .proxy("keepalive_timeout: 500ms")
        .proxy("header_timeout: 500ms")
        .proxy("body_timeout: 500ms")
        .proxy("response_timeout: 500ms")
        .start();
    let (mut client, mut upstream) = open(&node, &app, "/ws").await;
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    client.send("still here").await;
    assert_eq!(upstream.bytes(10).await, b"still here");
}

#[tokio::test]
async fn an_app_may_refuse_the_handshake() {
    let app =
        Recorder::answering(|_| crate::support::recorder::response("403 Forbidden", &[], "no"))
            .await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    let answer = client.ask("GET /ws", &HANDSHAKE).await;
    assert_eq!((answer.status(), answer.text()), (403, "no"));
    assert_eq!(client.ask("GET /ws", &HANDSHAKE).await.status(), 403, "on the same connection");
}

#[tokio::test]
async fn an_app_that_switches_unasked_is_not_followed() {
    let app = Recorder::answering(|_| ACCEPTED.as_bytes().to_vec()).await;
    let node = TestNode::before(&app);
    let answer = node.client().await.ask("GET /", &[]).await;
    assert_eq!((answer.status(), answer.problem().as_str()), (502, "app-unreachable"));
}

#[tokio::test]
async fn a_handshake_is_of_the_class_that_its_rule_says() {
    let app = Recorder::played().await;
    let node = Launch::before(app.target())
        .rules(
            "rules:\n  - match: {upgrade: websocket, path: /news/**}\n    as: read\n  \
             - match: {path: /static/**}\n    as: passthrough\n",
        )
        .start();
    for (path, class, route) in [
        ("/ws", "write", "local"),
        ("/news/a", "read", "local"),
        ("/static/a", "passthrough", "passthrough"),
    ] {
        let sockets = open(&node, &app, path).await;
        let line =
            format!(r#"litepilot_requests_total{{class="{class}",route="{route}",status="101"}}"#);
        node.metric_becomes(&line, "1").await;
        drop(sockets);
    }
}

#[tokio::test]
async fn a_handshake_of_another_version_is_told_which_one_is_spoken() {
    let app = Recorder::echoing().await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    let upgrade = ["Connection: Upgrade", "Upgrade: websocket"];
    for version in [&[][..], &["Sec-WebSocket-Version: 8"]] {
        let answer = client.ask("GET /ws", &[&upgrade, version].concat()).await;
        assert_eq!((answer.status(), answer.problem().as_str()), (426, "upgrade-required"));
        assert_eq!(answer.field("sec-websocket-version"), Some("13"));
        assert_eq!(answer.field("upgrade"), Some("websocket"));
    }
    for key in ["x", "dGhlIHNhbXBsZSBub25jZQ"] {
        let key = format!("Sec-WebSocket-Key: {key}");
        let fields = [&upgrade[..], &["Sec-WebSocket-Version: 13", &key]].concat();
        assert_eq!(node.client().await.ask("GET /ws", &fields).await.status(), 400);
    }
    assert!(app.requests().is_empty());
}

#[tokio::test]
async fn a_socket_on_which_nothing_passes_is_closed_and_a_busy_one_is_not() {
    let app = Recorder::played().await;
    let node = Launch::before(app.target()).proxy("websocket_idle: 3s").start();
    let (mut quiet, mut quiet_app) = open(&node, &app, "/quiet").await;
    let (mut busy, mut busy_app) = open(&node, &app, "/busy").await;
    let passing = async {
        for _ in 0.. {
            busy.send("x").await;
            busy_app.bytes(1).await;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = passing => {}
        () = async { quiet.closed().await; quiet_app.closed().await } => {}
    }
    busy.send("last").await;
    // A byte may have been under way when the passing ended.
    let mut passed = Vec::new();
    while !passed.ends_with(b"last") {
        passed.extend(busy_app.bytes(1).await);
    }
}

/// The timer of a socket in `/proc/net/tcp`, whose number 2 is that of keepalive.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn clients_that_vanish_without_a_word_are_found_by_keepalive() {
    let app = Recorder::played().await;
    let node = TestNode::before(&app);
    let _open = open(&node, &app, "/ws").await;
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{:04X}", node.port());
    let established = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut ours = established.filter(|f| f[1].ends_with(&port) && f[3] == "01");
    let timers: Vec<_> = ours.by_ref().map(|f| f[5].to_owned()).collect();
    assert!(
        !timers.is_empty() && timers.iter().all(|timer| timer.starts_with("02:")),
        "{timers:?}"
    );
}
