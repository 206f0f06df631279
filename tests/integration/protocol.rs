//! Heads and statuses on their way through: versions, methods, hop-by-hop and forwarding fields.

use crate::support::node::{Launch, TestNode};
use crate::support::recorder::{Recorder, ok, response};
use crate::support::wire::Message;

#[tokio::test]
async fn an_http_1_0_client_is_answered_and_the_connection_ends() {
    let app = Recorder::echoing().await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    client.send("GET /a HTTP/1.0\r\n\r\n").await;

    let answer = client.response().await;
    assert_eq!((answer.status(), answer.text()), (200, "/a"));
    client.closed().await;
    let request = app.only();
    assert_eq!(request.start, "GET /a HTTP/1.1");
    // HTTP/1.1 demands a Host, and the client gave none.
    assert_eq!(request.field("host"), Some(format!("127.0.0.1:{}", node.port()).as_str()));
}

#[tokio::test]
async fn an_http_1_0_client_may_keep_its_connection() {
    let app = Recorder::echoing().await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    for _ in 0..2 {
        client.send("GET /a HTTP/1.0\r\nHost: shop\r\nConnection: keep-alive\r\n\r\n").await;
        let answer = client.response().await;
        assert_eq!(answer.field("connection"), Some("keep-alive"));
        assert_eq!(answer.text(), "/a");
    }
}

#[tokio::test]
async fn an_http_1_0_client_gets_no_chunks() {
    let app = Recorder::answering(|_| {
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec()
    })
    .await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    client.send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    let answer = client.response().await;
    assert_eq!((answer.field("transfer-encoding"), answer.text()), (None, "abc"));
    client.closed().await;
}

#[tokio::test]
async fn an_app_may_speak_http_1_0() {
    let app =
        Recorder::answering(|_| b"HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nabc".to_vec()).await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    for _ in 0..2 {
        let answer = client.ask("GET /", &[]).await;
        assert!(answer.start.starts_with("HTTP/1.1 200"), "{}", answer.start);
        assert_eq!((answer.text(), answer.field("connection")), ("abc", None));
    }
    assert_eq!(app.connections(), 2);
}

#[tokio::test]
async fn a_client_that_asks_for_it_is_disconnected() {
    let app = Recorder::echoing().await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    let answer = client.ask("GET /", &["Connection: close"]).await;
    assert_eq!(answer.field("connection"), Some("close"));
    client.closed().await;
}

#[tokio::test]
async fn head_has_no_body_and_keeps_its_length() {
    let app =
        Recorder::answering(|_| b"HTTP/1.1 200 OK\r\ncontent-length: 12345\r\n\r\n".to_vec()).await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    for _ in 0..2 {
        let answer = client.ask("HEAD /", &[]).await;
        assert_eq!((answer.status(), answer.field("content-length")), (200, Some("12345")));
    }
    assert_eq!(app.connections(), 1, "nothing was waited for on the first one");
}

#[tokio::test]
async fn statuses_without_a_body_have_none() {
    let app = Recorder::answering(|request| match request.target() {
        "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        _ => b"HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\ncontent-length: 99\r\n\r\n".to_vec(),
    })
    .await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    for _ in 0..2 {
        let none = client.ask("GET /204", &[]).await;
        assert_eq!((none.status(), none.field("content-length")), (204, None));
        assert_eq!(none.field("transfer-encoding"), None);
        let unchanged = client.ask("GET /304", &[]).await;
        assert_eq!((unchanged.status(), unchanged.field("etag")), (304, Some("\"x\"")));
    }
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn interim_responses_stay_with_us() {
    let app = Recorder::answering(|_| {
        let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n";
        let go_on = "HTTP/1.1 100 Continue\r\n\r\n";
        [hints.as_bytes(), go_on.as_bytes(), &ok("final")].concat()
    })
    .await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    let answer = client.ask("GET /", &[]).await;
    assert_eq!((answer.status(), answer.text(), answer.field("link")), (200, "final", None));
    assert_eq!(client.post("/", &[], "x").await.text(), "final");
}

#[tokio::test]
async fn hop_by_hop_fields_stay_on_their_hop() {
    let app = Recorder::answering(|_| {
        response(
            "200 OK",
            &[
                "connection: x-private, keep-alive",
                "x-private: 1",
                "keep-alive: timeout=5",
                "proxy-authenticate: Basic",
                "upgrade: h2c",
                "x-kept: 1",
            ],
            "",
        )
    })
    .await;
    let node = TestNode::before(&app);
    let answer = node
        .client()
        .await
        .ask(
            "GET /",
            &[
                "Connection: close, X-Private",
                "Connection: x-other, cookie",
                "X-Private: 1",
                "X-Other: 1",
                "Keep-Alive: timeout=5",
                "Proxy-Connection: keep-alive",
                "Proxy-Authorization: Basic eA==",
                "TE: gzip",
                "Cookie: a=1; __txid=0000000000000000; __txid_epoch=0",
                "X-Kept: 1",
            ],
        )
        .await;

    let request = app.only();
    for gone in [
        "connection",
        "x-private",
        "x-other",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "te",
        "cookie",
    ] {
        assert_eq!(request.field(gone), None, "{gone} towards the application");
    }
    assert_eq!(request.field("x-kept"), Some("1"));
    for gone in ["x-private", "keep-alive", "proxy-authenticate", "upgrade"] {
        assert_eq!(answer.field(gone), None, "{gone} towards the client");
    }
    assert_eq!(answer.field("connection"), Some("close"));
    assert_eq!(answer.field("x-kept"), Some("1"));
}

#[tokio::test]
async fn other_fields_and_their_order_are_passed_on() {
    let app = Recorder::answering(|_| {
        response("200 Fine", &["set-cookie: a=1", "set-cookie: b=2", "server: x"], "")
    })
    .await;
    let node = TestNode::before(&app);
    let cookies = ["Cookie: a=\"1; 2\"", "Accept: text/html", "Accept: */*"];
    let answer = node.client().await.ask("GET /p%2Fq?a=%20&b", &cookies).await;
    let request = app.only();
    assert_eq!(request.start, "GET /p%2Fq?a=%20&b HTTP/1.1");
    assert_eq!(request.field("cookie"), Some("a=\"1; 2\""));
    assert_eq!(request.all("accept"), ["text/html", "*/*"]);
    assert_eq!(request.all("host"), ["shop"]);
    assert_eq!(answer.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(answer.field("server"), Some("x"));
}

const CLAIMS: [&str; 5] = [
    "X-Forwarded-For: 192.0.2.1",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: claimed",
    "X-Forwarded-Port: 443",
    "X-Real-IP: 192.0.2.1",
];

#[tokio::test]
async fn a_client_is_not_believed_about_where_it_comes_from() {
    let app = Recorder::echoing().await;
    let node = Launch::before(app.target()).proxy("trusted: []").start();
    let claims: Vec<_> = CLAIMS.into_iter().chain(["Forwarded: for=192.0.2.1"]).collect();
    node.client().await.ask("GET /", &claims).await;
    let request = app.only();
    let said = |name: &str| request.field(name).map(str::to_owned);
    assert_eq!(said("x-forwarded-for").unwrap(), "127.0.0.1");
    assert_eq!(said("x-forwarded-proto").unwrap(), "http");
    assert_eq!(said("x-forwarded-host").unwrap(), "shop");
    assert_eq!(said("x-forwarded-port").unwrap(), node.port().to_string());
    assert_eq!(said("x-real-ip").unwrap(), "127.0.0.1");
    assert_eq!(said("forwarded"), None);
    assert_eq!(said("litepilot-role").unwrap(), "primary");
    assert_eq!(said("litepilot-primary").unwrap(), "test");
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_and_added_to() {
    let app = Recorder::echoing().await;
    let node = TestNode::before(&app);
    node.client().await.ask("GET /", &CLAIMS).await;
    let request = app.only();
    assert_eq!(request.field("x-forwarded-for"), Some("192.0.2.1, 127.0.0.1"));
    assert_eq!(request.field("x-forwarded-proto"), Some("https"));
    assert_eq!(request.field("x-forwarded-host"), Some("claimed"));
    assert_eq!(request.field("x-forwarded-port"), Some("443"));
    assert_eq!(request.field("x-real-ip"), Some("192.0.2.1"));
}

#[tokio::test]
async fn answers_say_who_gave_them_and_an_app_cannot_say_it() {
    let app = Recorder::answering(|_| {
        let forged =
            ["litepilot-node: x", "litepilot-route: x", "litepilot-txid: x", "Litepilot_Ack: x"];
        response("200 OK", &forged, "")
    })
    .await;
    let node = Launch::before(app.target())
        .rules("rules:\n  - match: {path: /static/**}\n    as: passthrough\n")
        .start();
    let mut client = node.client().await;
    let marks = |answer: &Message| {
        assert_eq!(answer.field("litepilot-node"), Some("test"));
        assert_eq!(answer.field("litepilot_ack"), None);
        answer.field("litepilot-route").unwrap().to_owned()
    };
    let read = client.ask("GET /", &[]).await;
    assert_eq!((marks(&read).as_str(), read.field("litepilot-txid")), ("local", None));
    let passed = client.ask("GET /static/a.css", &[]).await;
    assert_eq!((marks(&passed).as_str(), passed.field("litepilot-txid")), ("passthrough", None));
    let written = client.post("/", &[], "x").await;
    assert_eq!(marks(&written), "local");
    assert_ne!(written.field("litepilot-txid"), Some("x"));
    assert_eq!(marks(&client.ask("GET /%00", &[]).await), "none");
}

#[tokio::test]
async fn trailers_go_both_ways() {
    let app = Recorder::answering(|_| {
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
          3\r\nabc\r\n0\r\nx-sum: 6\r\n\r\n"
            .to_vec()
    })
    .await;
    let node = Launch::before(app.target()).proxy("buffer_body: 1KiB").start();
    let mut client = node.client().await;
    let large = format!("800\r\n{}\r\n", "x".repeat(0x800));
    for chunks in ["3\r\nabc\r\n", large.as_str()] {
        client
            .send(format!(
                "POST / HTTP/1.1\r\nHost: shop\r\nTE: trailers\r\nConnection: TE\r\nTrailer: X-Sum\r\n\
                 Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\nX-Sum: 5\r\n\r\n"
            ))
            .await;
        let answer = client.response().await;
        assert_eq!(answer.trailers, [("x-sum".to_owned(), "6".to_owned())]);
        let request = app.only();
        assert_eq!(request.trailers, [("x-sum".to_owned(), "5".to_owned())]);
        assert_eq!(
            (request.field("te"), request.field("trailer")),
            (Some("trailers"), Some("X-Sum"))
        );
    }
}

#[tokio::test]
async fn an_app_that_asks_for_a_replay_on_its_own_node_is_told_of_the_loop() {
    let app = Recorder::answering(|request| match request.target() {
        "/fly" => response("200 OK", &["fly-replay: instance=abc"], ""),
        "/other" => response("200 OK", &["fly-replay: app=other"], ""),
        _ => response("409 Conflict", &["litepilot-replay: primary"], ""),
    })
    .await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    for path in ["/fly", "/ours"] {
        let answer = client.ask(&format!("GET {path}"), &[]).await;
        assert_eq!((answer.status(), answer.problem().as_str()), (508, "loop-detected"), "{path}");
    }
    let other = client.ask("GET /other", &[]).await;
    assert_eq!((other.status(), other.field("fly-replay")), (200, None));
}
