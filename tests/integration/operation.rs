//! What an operator sees: health, reloads, metrics.

use crate::support::node::{Launch, TestNode};
use crate::support::recorder::{Port, Recorder, ok, response};
use crate::support::wire::soon;

const PASSTHROUGH: &str = "rules:\n  - match: {path: /a}\n    as: passthrough\n";

#[tokio::test]
async fn health_follows_the_app() {
    let port = Port::reserve();
    let node = Launch::before(&port.target()).start();
    for _ in 0..2 {
        health_becomes(&node, 503, "the application does not answer\n").await;
        let app = Recorder::played_at(&port);
        health_becomes(&node, 200, "OK\n").await;
        drop(app);
    }
    health_becomes(&node, 503, "the application does not answer\n").await;
}

#[tokio::test]
async fn health_is_answered_here() {
    let app = Recorder::echoing().await;
    let node = TestNode::before(&app);
    health_becomes(&node, 200, "OK\n").await;
    let mut client = node.client().await;
    let head = client.ask("HEAD /litefs/health", &[]).await;
    assert_eq!((head.status(), head.field("content-length")), (200, Some("3")));
    assert_eq!(head.field("cache-control"), Some("no-store"));
    assert!(app.requests().is_empty());
    let other = client.post("/litefs/health", &[], "").await;
    assert_eq!(other.text(), "/litefs/health", "only GET and HEAD are ours");
}

#[tokio::test]
async fn health_may_be_a_path_of_the_app() {
    for (status, expected) in [("204 Fine", 200), ("500 Ill", 503)] {
        let app = Recorder::answering(move |request| match request.target() {
            "/healthz" => format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n").into_bytes(),
            _ => ok(""),
        })
        .await;
        let node = Launch::before(app.target()).key("app: {health: /healthz}").start();
        let asked = async {
            while app.requests().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        soon("a look at the health path", asked).await;
        let text = if expected == 200 { "OK\n" } else { "the application does not answer\n" };
        health_becomes(&node, expected, text).await;
    }
}

async fn health_becomes(node: &TestNode, status: u16, text: &str) {
    let mut client = node.client().await;
    let become_so = async {
        loop {
            let answer = client.ask("GET /litefs/health", &[]).await;
            if answer.status() == status {
                assert_eq!(answer.text(), text);
                assert_eq!(answer.field("litepilot-node"), Some("test"));
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    soon(&format!("health {status}"), become_so).await;
}

#[tokio::test]
async fn reloaded_rules_hold_for_the_next_request() {
    let app = Recorder::echoing().await;
    let node = Launch::before(app.target()).rules("rules: []\n").start();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(node.client().await);
    }
    for client in &mut clients {
        assert_eq!(client.ask("GET /a", &[]).await.field("litepilot-route"), Some("local"));
    }
    std::fs::write(node.rule_file(), PASSTHROUGH).unwrap();
    node.reload();
    for client in &mut clients {
        assert_eq!(client.ask("GET /a", &[]).await.field("litepilot-route"), Some("passthrough"));
    }
    assert_eq!(node.events_with("rules reloaded"), 1);
}

#[tokio::test]
async fn a_bad_rule_file_leaves_the_old_rules_in_force() {
    let app = Recorder::echoing().await;
    let node = Launch::before(app.target()).rules(PASSTHROUGH).start();
    let mut client = node.client().await;
    let bad = ["rules:\n  - match: {pth: /a}\n    as: read\n", "rules: [", ""];
    for (bad, refused) in bad.map(Some).into_iter().chain([None]).zip(1..) {
        match bad {
            Some(text) => std::fs::write(node.rule_file(), text).unwrap(),
            None => std::fs::remove_file(node.rule_file()).unwrap(),
        }
        node.reload();
        assert_eq!(client.ask("GET /a", &[]).await.field("litepilot-route"), Some("passthrough"));
        assert_eq!(node.events_with("not reloaded"), refused, "{bad:?}");
    }
}

#[tokio::test]
async fn requests_are_counted_by_class_route_and_status() {
    let app = Recorder::answering(|request| match request.target() {
        "/missing" => response("404 Not Found", &[], ""),
        _ => ok(""),
    })
    .await;
    let node = Launch::before(app.target()).rules(PASSTHROUGH).start();
    let mut client = node.client().await;
    client.ask("GET /", &[]).await;
    client.ask("GET /", &[]).await;
    client.ask("GET /missing", &[]).await;
    client.ask("GET /a", &[]).await;
    client.post("/", &[], "").await;
    for (class, route, status, count) in [
        ("read", "local", 200, "2"),
        ("read", "local", 404, "1"),
        ("passthrough", "passthrough", 200, "1"),
        ("write", "local", 200, "1"),
    ] {
        let line = format!(
            r#"litepilot_requests_total{{class="{class}",route="{route}",status="{status}"}}"#
        );
        node.metric_becomes(&line, count).await;
    }
}

#[tokio::test]
async fn client_connections_are_counted() {
    let app = Recorder::echoing().await;
    let node = TestNode::before(&app);
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = node.client().await;
        client.ask("GET /", &[]).await;
        clients.push(client);
    }
    node.metric_becomes("litepilot_connections", "3").await;
    clients.pop();
    node.metric_becomes("litepilot_connections", "2").await;
}
