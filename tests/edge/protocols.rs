//! Which protocol is spoken, and who is refused.

use std::process::Command;

use super::files::Files;
use super::node::{Launch, TestNode};
use super::raw::Client;
use super::recorder::Recorder;
use super::tls::{Offer, address, protocol, shown};
use super::wire::Wire;

/// A node that speaks TLS, before that application.
pub fn node(app: &Recorder, files: &Files) -> TestNode {
    Launch::before(app.target()).proxy(&files.tls(&["shop"])).start()
}

/// What curl gets of `/`, and the version of HTTP that it spoke.
async fn curl(node: &TestNode, files: &Files, version: &str) -> String {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--max-time", "30", version])
        .args(["--write-out", " over HTTP/%{http_version}", "--cacert"])
        .arg(files.path("shop.crt"))
        .args([
            "--noproxy",
            "*",
            "--connect-to",
            &format!("shop.test:443:127.0.0.1:{}", node.port()),
        ])
        .args(["--cookie", "a=1", "https://shop.test/page?x=1"]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn curl_gets_the_page_over_http_2_and_over_http_1_1() {
    let (app, files) = (Recorder::echoing().await, Files::of_shop());
    let node = node(&app, &files);
    for (version, spoken) in [("--http2", "2"), ("--http1.1", "1.1")] {
        assert_eq!(curl(&node, &files, version).await, format!("/page?x=1 over HTTP/{spoken}"));
        let seen = app.only();
        assert_eq!(seen.field("x-forwarded-proto"), Some("https"), "{seen:?}");
        assert_eq!(seen.field("host"), Some("shop.test"), "{seen:?}");
        assert_eq!(seen.field("cookie"), Some("a=1"), "{seen:?}");
    }
}

#[tokio::test]
async fn a_client_that_offers_no_protocol_speaks_http_1_1() {
    let (app, files) = (Recorder::echoing().await, Files::of_shop());
    let node = node(&app, &files);
    for (protocols, agreed) in
        [(&["h2", "http/1.1"][..], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)]
    {
        let stream = Offer { protocols, ..Offer::default() }.connect(&node).await.unwrap();
        assert_eq!(protocol(&stream), agreed);
    }
    let stream = Offer { protocols: &[], ..Offer::default() }.connect(&node).await.unwrap();
    let mut wire = Wire::new(stream);
    wire.send("POST /a HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\nab").await;
    let answer = wire.response().await;
    assert_eq!(answer.text(), "/a");
    let cookies = answer.all("set-cookie");
    assert!(!cookies.is_empty() && cookies.iter().all(|c| c.contains("Secure")), "{cookies:?}");
    // No protocol in common.
    let nothing = Offer { protocols: &["h3"], ..Offer::default() }.connect(&node).await;
    assert!(nothing.is_err());
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken_and_nothing_older() {
    let (app, files) = (Recorder::echoing().await, Files::of_shop());
    let node = node(&app, &files);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let offer = Offer { versions: &[version][..].to_vec().leak()[..], ..Offer::default() };
        let stream = offer.connect(&node).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
    }
    let mut old = Client::connect(address(&node)).await;
    old.send(client_hello_1_1()).await;
    let alert = old.rest().await;
    // Fatal, protocol_version (RFC 8446, 6).
    assert_eq!((alert[0], &alert[5..]), (21, &[2, 70][..]), "{alert:?}");
}

/// Of a client that speaks TLS 1.1 at most (RFC 4346).
fn client_hello_1_1() -> Vec<u8> {
    let mut body = vec![3, 2];
    body.extend([7; 32]);
    // No session, TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA and its like, no compression.
    body.extend([0, 0, 4, 0xc0, 0x13, 0xc0, 0x09, 1, 0]);
    // supported_groups (x25519), ec_point_formats and signature_algorithms (ECDSA with SHA-256).
    body.extend([0, 22, 0, 10, 0, 4, 0, 2, 0, 29, 0, 11, 0, 2, 1, 0, 0, 13, 0, 4, 0, 2, 4, 3]);
    let mut message = vec![1, 0, 0, body.len() as u8];
    message.extend(body);
    let mut record = vec![22, 3, 1, 0, message.len() as u8];
    record.extend(message);
    record
}

#[tokio::test]
async fn plain_http_is_told_what_would_be_right() {
    let (app, files) = (Recorder::echoing().await, Files::of_shop());
    let node = node(&app, &files);
    let answer = node.client().await.ask("GET /", &[]).await;
    assert_eq!((answer.status(), answer.problem()), (400, "bad-request".to_owned()));
    assert!(answer.text().contains("https://"), "{}", answer.text());
    // Nor is the answer lost to one that sends much before it reads.
    let mut much = node.client().await;
    let body = "x".repeat(50_000);
    assert_eq!(much.post("/", &[], &body).await.status(), 400);
    assert!(app.requests().is_empty());
}

#[tokio::test]
async fn whoever_does_not_end_the_handshake_is_cut_off_and_others_are_served() {
    let (app, files) = (Recorder::echoing().await, Files::of_shop());
    let node = Launch::before(app.target())
        .proxy(&files.tls(&["shop"]))
        .proxy("header_timeout: 3s")
        .start();
    let (mut silent, mut slow, mut nonsense) =
        (node.client().await, node.client().await, node.client().await);
    slow.send([22, 3, 1]).await;
    nonsense.send([22, 3, 1, 0xff, 0xff, 0]).await;
    assert_eq!(curl(&node, &files, "--http2").await, "/page?x=1 over HTTP/2");
    silent.closed().await;
    slow.closed().await;
    nonsense.rest().await;
    assert_eq!(curl(&node, &files, "--http2").await, "/page?x=1 over HTTP/2");
}

#[tokio::test]
async fn the_certificate_goes_by_the_name_that_the_client_asks_for() {
    let (app, files) = (Recorder::echoing().await, Files::new());
    let shop = files.issue("shop", &["shop.test"]);
    let many = files.issue("many", &["*.shop.test"]);
    let blog = files.issue("blog", &["blog.test", "blog.shop.test"]);
    let node = Launch::before(app.target()).proxy(&files.tls(&["shop", "many", "blog"])).start();
    for (host, expected) in [
        ("shop.test", &shop),
        ("SHOP.test", &shop),
        ("a.shop.test", &many),
        ("blog.test", &blog),
        ("blog.shop.test", &blog),
        ("a.b.shop.test", &shop),
        ("elsewhere.test", &shop),
        // No name at all.
        ("127.0.0.1", &shop),
    ] {
        let stream = Offer::host(host).connect(&node).await.unwrap();
        assert_eq!(shown(&stream), *expected, "{host}");
    }
}

#[tokio::test]
async fn a_web_socket_goes_over_http_1_1_on_tls() {
    let (app, files) = (Recorder::played().await, Files::of_shop());
    let node = node(&app, &files);
    let mut client = Wire::new(Offer::http1().connect(&node).await.unwrap());
    client
        .send(
            "GET /ws HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
    let mut origin = app.connection().await;
    let request = origin.request().await.unwrap();
    assert_eq!(request.field("upgrade"), Some("websocket"));
    assert_eq!(request.field("x-forwarded-proto"), Some("https"));
    origin
        .send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        )
        .await;
    assert_eq!(client.head().await.unwrap().status(), 101);
    let payload: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
    for _ in 0..3 {
        client.send(b"\x81\x05Hello").await;
        assert_eq!(origin.bytes(7).await, b"\x81\x05Hello");
        origin.send(&payload).await;
        assert!(client.bytes(payload.len()).await == payload);
    }
    drop(origin);
    client.closed().await;
}
