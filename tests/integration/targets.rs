//! Targets that RFC 3986 does not allow, and that browsers and crawlers send: passed on as they came.

use crate::support::node::{Launch, TestNode};
use crate::support::recorder::Recorder;

const ODD: &[u8] = b"/caf\xe9/<a>`\"b\"/\xc3\xa9?q=\"<x>\xff`&a=|^{}";

fn request(line: &[u8]) -> Vec<u8> {
    [line, b" HTTP/1.1\r\nHost: shop\r\n\r\n"].concat()
}

fn start_line(raw: &[u8]) -> &[u8] {
    raw.split(|byte| *byte == b'\r').next().unwrap()
}

#[tokio::test]
async fn odd_bytes_are_passed_on_as_they_came() {
    let app = Recorder::played().await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    let line = [b"GET ", ODD].concat();
    client.send(request(&line)).await;
    let mut upstream = app.connection().await;
    assert_eq!(
        start_line(&upstream.bytes(line.len() + 9).await),
        [&line[..], b" HTTP/1.1"].concat()
    );
}

#[tokio::test]
async fn so_they_are_after_other_requests_on_the_connection() {
    let app = Recorder::echoing().await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    assert_eq!(client.post("/", &[], "<<<").await.status(), 200);
    assert_eq!(client.ask("GET /", &[]).await.status(), 200);
    for _ in 0..2 {
        client.send(request("GET /é<".as_bytes())).await;
        assert_eq!(client.response().await.text(), "/é<");
    }
}

#[tokio::test]
async fn so_they_are_without_waiting_for_answers_and_after_chunks() {
    let app = Recorder::echoing().await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    let chunked = "POST /< HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n<\r\n>\r\n0\r\n\r\n";
    let sized = "POST /> HTTP/1.1\r\nHost: shop\r\nContent-Length: 3\r\n\r\n<é";
    let plain = "GET /é` HTTP/1.1\r\nHost: shop\r\n\r\n";
    let all = [plain, chunked, "\r\n", sized, plain, chunked, plain].concat();
    // However they come.
    for piece in [all.len(), 7, 1] {
        for bytes in all.as_bytes().chunks(piece) {
            client.send(bytes.to_vec()).await;
        }
        let expected = [
            ("/é`", ""),
            ("/<", "<\r\n>"),
            ("/>", "<é"),
            ("/é`", ""),
            ("/<", "<\r\n>"),
            ("/é`", ""),
        ];
        for (target, _) in expected {
            assert_eq!(client.response().await.text(), target, "in pieces of {piece}");
        }
        let seen = app.take();
        let bodies: Vec<_> = seen.iter().map(|seen| seen.request.text()).collect();
        assert_eq!(bodies, expected.map(|(_, body)| body), "in pieces of {piece}");
    }
}

#[tokio::test]
async fn they_are_classified_as_what_they_stand_for() {
    let app = Recorder::echoing().await;
    let rules = "rules:\n  - match: {path: '/<b>/**'}\n    as: passthrough\n  - match: {query: {'\"': '<'}}\n    as: passthrough\n";
    let node = Launch::before(app.target()).rules(rules).start();
    let mut client = node.client().await;
    for (target, route) in [
        ("/<b>/x", "passthrough"),
        ("/<c>/x", "local"),
        ("/a?\"=<", "passthrough"),
        ("/a?\"=>", "local"),
    ] {
        client.send(request(format!("GET {target}").as_bytes())).await;
        let answer = client.response().await;
        assert_eq!(answer.field("litepilot-route"), Some(route), "{target}");
        assert_eq!(answer.text(), target);
    }
}

#[tokio::test]
async fn what_stays_refused_is_named() {
    let app = Recorder::echoing().await;
    let node = TestNode::before(&app);
    for (start, named) in [
        ("GET /a b HTTP/1.1\r\nHost: shop\r\n\r\n", "%20"),
        ("GET /a\x07 HTTP/1.1\r\nHost: shop\r\n\r\n", "0x07"),
        ("GET / HTTP/1.1\r\nHost: sh<op\r\n\r\n", "'<'"),
        ("GET http://sh<op/ HTTP/1.1\r\nHost: sh<op\r\n\r\n", ""),
    ] {
        let mut client = node.client().await;
        client.send(start).await;
        let answer = client.response().await;
        assert_eq!(answer.problem(), "bad-request", "{start:?}");
        assert!(answer.text().contains(named), "{start:?}: {}", answer.text());
    }
    assert!(app.requests().is_empty());
}

#[tokio::test]
async fn an_expectation_that_nobody_meets_is_417() {
    let app = Recorder::echoing().await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    for expect in ["Expect: 200-ok", "Expect: 100-continue, more"] {
        let answer = client.ask("GET /", &[expect]).await;
        assert_eq!((answer.status(), answer.problem()), (417, "expectation-failed".to_owned()));
    }
    assert_eq!(client.ask("GET /", &["Expect: 100-Continue"]).await.status(), 200);
    assert_eq!(app.requests().len(), 1);
}
