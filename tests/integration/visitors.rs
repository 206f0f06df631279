//! What visitors see when something is wrong, and what they do not.

use crate::support::node::{Launch, TestNode};
use crate::support::recorder::Recorder;

const BROWSER: [&str; 1] = ["Accept: text/html"];

#[tokio::test]
async fn no_address_of_the_inside_is_shown() {
    let node = Launch::before("127.0.0.1:1").proxy("write_hold: 50ms").start();
    for fields in [&[][..], &BROWSER] {
        let answer = node.client().await.ask("GET /", fields).await;
        assert_eq!(answer.status(), 503);
        assert!(!answer.text().contains("127.0.0.1"), "{}", answer.text());
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_explained() {
    let app = Recorder::answering(|request| match request.target() {
        "/length" => b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n".to_vec(),
        _ => b"220 smtp ready\r\n\r\n".to_vec(),
    })
    .await;
    let node = TestNode::before(&app);
    for (request, why) in [("GET /length", "Content-Length"), ("GET /", "malformed")] {
        let answer = node.client().await.ask(request, &[]).await;
        assert_eq!((answer.status(), answer.problem().as_str()), (502, "app-unreachable"));
        assert!(answer.text().contains(why), "{}", answer.text());
    }
    let answer = node.client().await.post("/length", &[], "x").await;
    assert_eq!(answer.problem(), "write-outcome-unknown");
    assert!(answer.text().contains("Content-Length"), "{}", answer.text());
}

#[tokio::test]
async fn browsers_get_the_operators_page_and_programs_the_problem() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("down.html");
    std::fs::write(&page, "<h1>Back soon</h1>").unwrap();
    let node = Launch::before("127.0.0.1:1")
        .proxy("write_hold: 50ms")
        .proxy(&format!("error_pages: {{5xx: {}}}", page.display()))
        .start();
    let mut client = node.client().await;
    let answer = client.ask("GET /", &BROWSER).await;
    assert_eq!((answer.status(), answer.text()), (503, "<h1>Back soon</h1>"));
    assert_eq!(answer.field("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(client.ask("GET /", &[]).await.problem(), "app-unreachable");
    assert!(client.ask("GET /%00", &BROWSER).await.text().contains("bad-request"));

    std::fs::write(&page, "<h1>Later</h1>").unwrap();
    node.reload();
    assert_eq!(node.client().await.ask("GET /", &BROWSER).await.text(), "<h1>Later</h1>");
    std::fs::remove_file(&page).unwrap();
    node.reload();
    assert_eq!(node.client().await.ask("GET /", &BROWSER).await.text(), "<h1>Later</h1>");
}

#[tokio::test]
async fn a_node_that_stops_says_so_before_it_takes_no_more() {
    let app = Recorder::echoing().await;
    let node = Launch::before(app.target()).key("shutdown_delay: 1h").start();
    node.metric_becomes("litefs_is_primary", "1").await;
    node.stop();
    let mut client = node.client().await;
    let mut health = client.ask("GET /litefs/health", &[]).await;
    while health.status() == 200 {
        health = client.ask("GET /litefs/health", &[]).await;
    }
    assert_eq!((health.status(), health.text()), (503, "this node is stopping\n"));
    let mut admin = node.admin().await;
    admin.send("GET /health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(admin.response().await.status(), 503);
    assert_eq!(node.client().await.ask("GET /", &[]).await.text(), "/");
    node.stop_at_once();
    node.stopped().await;
}
