//! What an application is told of the client: behind a trusted proxy, by the PROXY protocol, and by
//! clients that lie.

use crate::support::node::{Launch, TestNode};
use crate::support::recorder::Recorder;
use crate::support::wire::Message;

const IDENTITIES: [&str; 6] = [
    "Forwarded: for=6.6.6.6",
    "Client-IP: 6.6.6.6",
    "True-Client-IP: 6.6.6.6",
    "X-Client-IP: 6.6.6.6",
    "CF-Connecting-IP: 6.6.6.6",
    "CF_Connecting_IP: 6.6.6.6",
];

async fn seen(node: &TestNode, app: &Recorder, fields: &[&str]) -> Message {
    assert_eq!(node.client().await.ask("GET /", fields).await.status(), 200);
    app.only()
}

fn text(request: &Message) -> String {
    String::from_utf8_lossy(&request.raw).into_owned()
}

#[tokio::test]
async fn what_a_client_says_it_is_reaches_no_application_through_any_proxy() {
    let app = Recorder::echoing().await;
    for trusted in ["[]", "[loopback]"] {
        let node = Launch::before(app.target()).proxy(&format!("trusted: {trusted}")).start();
        let request = seen(&node, &app, &IDENTITIES).await;
        assert!(!text(&request).contains("6.6.6.6"), "{request:?}");
    }
    // A proxy that adds to X-Forwarded-For has let the client's own X-Real-IP pass.
    let node = TestNode::before(&app);
    let lie = ["X-Forwarded-For: 6.6.6.6, 192.0.2.1", "X-Real-IP: 6.6.6.6"];
    assert_eq!(seen(&node, &app, &lie).await.field("x-real-ip"), Some("192.0.2.1"));
}

#[tokio::test]
async fn a_header_that_the_proxy_sets_itself_is_believed_if_it_is_listed() {
    let app = Recorder::echoing().await;
    let node = Launch::before(app.target()).proxy("trusted_headers: [CF-Connecting-IP]").start();
    let request = seen(&node, &app, &IDENTITIES).await;
    assert_eq!(request.field("cf-connecting-ip"), Some("6.6.6.6"));
    assert_eq!(text(&request).matches("6.6.6.6").count(), 1, "{request:?}");
}

#[tokio::test]
async fn a_port_that_the_proxy_does_not_say_follows_from_what_it_says() {
    let app = Recorder::echoing().await;
    let node = TestNode::before(&app);
    for (fields, port) in [
        (&["X-Forwarded-Proto: https", "X-Forwarded-Host: shop.test"][..], "443"),
        (&["X-Forwarded-Proto: https", "X-Forwarded-Host: shop.test:8443"], "8443"),
        (&["X-Forwarded-Proto: http"], "80"),
        (&["X-Forwarded-Proto: https", "X-Forwarded-Port: 1"], "1"),
    ] {
        let request = seen(&node, &app, fields).await;
        assert_eq!(request.field("x-forwarded-port"), Some(port), "{fields:?}");
    }
    let ours = seen(&node, &app, &[]).await;
    assert_eq!(ours.field("x-forwarded-port"), Some(node.port().to_string().as_str()));
}

#[tokio::test]
async fn the_proxy_protocol_says_who_connected() {
    let app = Recorder::echoing().await;
    let node = Launch::before(app.target()).proxy("proxy_protocol: true").start();
    let two = [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(),
        &[192, 0, 2, 7, 198, 51, 100, 1, 4, 210, 1, 187],
    ]
    .concat();
    for header in [&b"PROXY TCP4 192.0.2.7 198.51.100.1 1234 443\r\n"[..], &two] {
        let mut client = node.client().await;
        client.send(header).await;
        let answer = client.ask("GET /", &["X-Forwarded-For: 6.6.6.6"]).await;
        assert_eq!(answer.status(), 200);
        let request = app.only();
        assert_eq!(request.field("x-forwarded-for"), Some("192.0.2.7"), "the client is no proxy");
        assert_eq!(request.field("x-forwarded-port"), Some("443"));
    }
    let mut check = node.client().await;
    check.send("PROXY UNKNOWN\r\n").await;
    assert_eq!(check.ask("GET /litefs/health", &[]).await.status(), 200);
    let mut without = node.client().await;
    without.begin("GET /", &[]).await;
    without.closed().await;
    assert!(app.requests().is_empty());
}

#[tokio::test]
async fn nobody_else_may_speak_it() {
    let app = Recorder::echoing().await;
    let untrusted = Launch::before(app.target()).proxy("proxy_protocol: true").proxy("trusted: []");
    for node in [untrusted.start(), TestNode::before(&app)] {
        let mut client = node.client().await;
        client.send("PROXY TCP4 192.0.2.7 198.51.100.1 1234 443\r\n\r\n").await;
        assert_eq!(client.response().await.status(), 400);
        assert_eq!(node.client().await.ask("GET /", &[]).await.status(), 200);
        assert_eq!(app.only().field("x-forwarded-for"), Some("127.0.0.1"));
    }
}
