//! Requests that different readers might read differently, sent byte by byte. Each is refused before
//! the application sees anything of it, or reaches it as exactly the request that we took it for.

mod cases;

use crate::support::node::{Launch, TestNode};
use crate::support::recorder::{Recorder, ok};
use crate::support::wire::Message;

/// Sent after each case on the same connection: whatever a case leaves over would corrupt it.
const END: &str = "GET /end HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";

struct Case {
    name: &'static str,
    raw: String,
    expected: Expected,
    fields: Vec<(&'static str, Option<&'static str>)>,
    /// The connection ends after what was seen, so that what is left over is no request.
    closes: bool,
}

enum Expected {
    /// By us, with this status and kind.
    Refused(u16, &'static str),
    /// The application saw these: request line and body.
    Seen(Vec<(&'static str, &'static str)>),
}

impl Case {
    fn new(name: &'static str, raw: impl Into<String>) -> Self {
        Self {
            name,
            raw: raw.into(),
            expected: Expected::Seen(Vec::new()),
            fields: Vec::new(),
            closes: false,
        }
    }

    fn refused(mut self) -> Self {
        self.expected = Expected::Refused(400, "bad-request");
        self
    }

    fn refused_as(mut self, status: u16, kind: &'static str) -> Self {
        self.expected = Expected::Refused(status, kind);
        self
    }

    /// The application sees this request, after those said before.
    fn seen(mut self, start: &'static str, body: &'static str) -> Self {
        match &mut self.expected {
            Expected::Seen(requests) => requests.push((start, body)),
            _ => panic!("{}: refused and seen", self.name),
        }
        self
    }

    fn closes(mut self) -> Self {
        self.closes = true;
        self
    }

    /// The first request has this field.
    fn with(mut self, field: &'static str, value: &'static str) -> Self {
        self.fields.push((field, Some(value)));
        self
    }

    /// The first request does not have this field.
    fn without(mut self, field: &'static str) -> Self {
        self.fields.push((field, None));
        self
    }
}

#[tokio::test]
async fn requests_with_two_framings() {
    run(cases::two_framings()).await;
}

#[tokio::test]
async fn transfer_encodings_other_than_chunked() {
    run(cases::transfer_encodings()).await;
}

#[tokio::test]
async fn lengths_other_than_one_number() {
    run(cases::lengths()).await;
}

#[tokio::test]
async fn chunks_that_are_malformed() {
    run(cases::chunks()).await;
}

#[tokio::test]
async fn trailers_that_look_like_framing() {
    run(cases::trailers()).await;
}

#[tokio::test]
async fn targets_of_every_form() {
    run(cases::targets()).await;
}

#[tokio::test]
async fn request_lines_of_other_protocols() {
    run(cases::request_lines()).await;
}

#[tokio::test]
async fn fields_that_lie() {
    run(cases::fields()).await;
}

#[tokio::test]
async fn line_ends_other_than_crlf() {
    run(cases::line_ends()).await;
}

#[tokio::test]
async fn requests_that_follow_each_other() {
    run(cases::pipelines()).await;
}

async fn run(cases: Vec<Case>) {
    let app = Recorder::echoing().await;
    let node = Launch::before(app.target()).proxy("trusted: []").start();
    let mut failures = Vec::new();
    for case in cases {
        let answers = answers(&node, &case.raw).await;
        let seen: Vec<_> = app.take().into_iter().map(|seen| seen.request).collect();
        if let Err(why) = judge(&case, &answers, seen) {
            failures.push(format!("{}: {why}\n  sent {:?}", case.name, case.raw));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Every response to a case and the request after it.
async fn answers(node: &TestNode, raw: &str) -> Vec<Message> {
    let mut client = node.client().await;
    client.send(format!("{raw}{END}")).await;
    let mut answers = Vec::new();
    while let Some(head) = client.head().await {
        answers.push(client.rest_of_response(head, "GET").await);
    }
    answers
}

fn judge(case: &Case, answers: &[Message], mut seen: Vec<Message>) -> Result<(), String> {
    let statuses: Vec<_> = answers.iter().map(Message::status).collect();
    let brief: Vec<_> = seen
        .iter()
        .map(|r| (r.start.clone(), String::from_utf8_lossy(&r.body).into_owned()))
        .collect();
    let context = format!("answered {statuses:?}, the application saw {brief:?}");
    let ended = seen.pop_if(|last| last.start == "GET /end HTTP/1.1").is_some();
    match &case.expected {
        Expected::Refused(status, kind) => {
            let refused = answers.first().filter(|a| a.status() == *status);
            let refused = refused.is_some_and(|a| a.problem() == *kind);
            // What is not HTTP may be followed by more of it.
            let closes = answers.len() == 1 && !ended;
            if !refused || !seen.is_empty() || !(closes || *status != 400) {
                return Err(format!("expected {status} {kind}; {context}"));
            }
        }
        Expected::Seen(expected) => {
            let found: Vec<_> = seen
                .iter()
                .map(|r| (r.start.as_str(), std::str::from_utf8(&r.body).unwrap()))
                .collect();
            let all_answered = statuses == vec![200; expected.len() + usize::from(ended)];
            if found != *expected || !all_answered || ended == case.closes {
                return Err(format!("expected {expected:?}; {context}"));
            }
        }
    }
    for (field, value) in &case.fields {
        if seen[0].field(field) != *value {
            return Err(format!("expected {field}: {value:?}; {:?}", seen[0].fields));
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_streamed_body_that_turns_out_malformed_is_never_ended_properly() {
    let app = Recorder::played().await;
    let node = Launch::before(app.target()).proxy("buffer_body: 1KiB").start();
    let mut client = node.client().await;
    client.send(cases::chunked(&format!("800\r\n{}\r\n", "x".repeat(0x800)))).await;
    let mut upstream = app.connection().await;
    let head = upstream.head().await.unwrap();
    assert_eq!(head.field("transfer-encoding"), Some("chunked"));
    client.send("3;\nabc\r\n0\r\n\r\n").await;

    let came = upstream.rest().await;
    assert!(!came.ends_with(b"0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&came));
    assert_eq!(client.response().await.status(), 400);
}

#[tokio::test]
async fn an_app_that_answers_with_two_framings_is_not_believed() {
    for fields in [
        "content-length: 3\r\ncontent-length: 4\r\n",
        "content-length: +3\r\n",
        "content-length: 3, 4\r\n",
        "x: y\r\n folded\r\n",
        "x : y\r\n",
    ] {
        let app = Recorder::answering(move |_| {
            format!("HTTP/1.1 200 OK\r\n{fields}\r\nabcd").into_bytes()
        })
        .await;
        let node = TestNode::before(&app);
        let answer = node.client().await.ask("GET /", &[]).await;
        assert_eq!(
            (answer.status(), answer.problem().as_str()),
            (502, "app-unreachable"),
            "{fields}"
        );
    }
}

#[tokio::test]
async fn an_app_that_gives_its_body_two_lengths_is_read_as_we_say_it_is() {
    for fields in [
        "content-length: 1\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 1\r\n",
    ] {
        let app = Recorder::answering(move |_| {
            format!("HTTP/1.1 200 OK\r\n{fields}\r\n{}", cases::CHUNKS).into_bytes()
        })
        .await;
        let node = TestNode::before(&app);
        let mut client = node.client().await;
        for _ in 0..2 {
            let answer = client.ask("GET /", &[]).await;
            assert_eq!((answer.status(), answer.text()), (200, "abc"), "{fields}");
        }
    }
}

#[tokio::test]
async fn a_head_of_an_app_is_bounded_too() {
    let app = Recorder::answering(|_| {
        format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(1 << 20)).into_bytes()
    })
    .await;
    let node = TestNode::before(&app);
    let answer = node.client().await.ask("GET /", &[]).await;
    assert_eq!((answer.status(), answer.problem().as_str()), (502, "app-unreachable"));
}

#[tokio::test]
async fn what_an_app_sends_after_its_response_is_not_taken_for_the_next_one() {
    let app = Recorder::answering(|request| match request.target() {
        "/two" => [ok("first"), ok("smuggled")].concat(),
        _ => ok("own"),
    })
    .await;
    let node = TestNode::before(&app);
    let mut client = node.client().await;
    for _ in 0..20 {
        assert_eq!(client.ask("GET /two", &[]).await.text(), "first");
        assert_eq!(client.ask("GET /own", &[]).await.text(), "own");
    }
}
