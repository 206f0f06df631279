//! Requests that different readers might read differently, sent byte by byte. Each is refused before
//! the application sees anything of it, or reaches it as exactly the request that we took it for.

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
    /// The connection ends without an answer, which its client could not read.
    Dropped,
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

    fn dropped(mut self) -> Self {
        self.expected = Expected::Dropped;
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

/// `POST /a` with these field lines, each ended by CRLF, and then whatever follows.
fn post(fields: &str, rest: &str) -> String {
    format!("POST /a HTTP/1.1\r\nHost: shop\r\n{fields}\r\n{rest}")
}

fn get(fields: &str) -> String {
    format!("GET /a HTTP/1.1\r\nHost: shop\r\n{fields}\r\n")
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

const POST: &str = "POST /a HTTP/1.1";
const GET: &str = "GET /a HTTP/1.1";
const CHUNKS: &str = "3\r\nabc\r\n0\r\n\r\n";

/// RFC 9112, 6.1 lets us go by Transfer-Encoding where there are both, if nothing after it counts.
fn two_framings() -> Vec<Case> {
    vec![
        Case::new(
            "CL.TE",
            post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nG"),
        )
        .seen(POST, "")
        .closes(),
        Case::new(
            "TE.CL",
            post(
                "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
                "1c\r\nGET /smuggled HTTP/1.1\r\nX: y\r\n0\r\n\r\n",
            ),
        )
        .seen(POST, "GET /smuggled HTTP/1.1\r\nX: y")
        .with("content-length", "28")
        .without("transfer-encoding")
        .closes(),
        Case::new(
            "CL.TE in HTTP/1.0",
            "POST /a HTTP/1.0\r\nHost: shop\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
        )
        .refused(),
        Case::new(
            "TE in HTTP/1.0, which does not know it",
            format!("POST /a HTTP/1.0\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKS}"),
        )
        .refused(),
        Case::new(
            "CL.0: a GET with a body is a GET with a body",
            get("Content-Length: 24\r\n") + "GET /smuggled HTTP/1.1\r\n",
        )
        .seen(GET, "GET /smuggled HTTP/1.1\r\n")
        .with("content-length", "24"),
        Case::new("0.CL: no length is no body", post("", "")).seen(POST, ""),
    ]
}

fn transfer_encodings() -> Vec<Case> {
    let te = |name, line: &str| Case::new(name, post(&format!("{line}\r\n"), CHUNKS));
    let normal = |case: Case| {
        case.seen(POST, "abc").with("content-length", "3").without("transfer-encoding")
    };
    vec![
        normal(te("plain", "Transfer-Encoding: chunked")),
        normal(te("mixed case", "tRANSFER-eNCODING: cHuNkEd")),
        normal(te("tab before", "Transfer-Encoding:\tchunked")),
        normal(te("spaces around", "Transfer-Encoding:   chunked  ")),
        te("xchunked", "Transfer-Encoding: xchunked").refused(),
        te("chunked, identity", "Transfer-Encoding: chunked, identity").refused(),
        te("identity, chunked", "Transfer-Encoding: identity, chunked").refused(),
        te("identity", "Transfer-Encoding: identity").refused(),
        te("gzip, chunked", "Transfer-Encoding: gzip, chunked").refused(),
        te("chunked, chunked", "Transfer-Encoding: chunked, chunked").refused(),
        te("a list that begins with nothing", "Transfer-Encoding: , chunked").refused(),
        te("a list that ends with nothing", "Transfer-Encoding: chunked,").refused(),
        te("quoted", "Transfer-Encoding: \"chunked\"").refused(),
        te("with a parameter", "Transfer-Encoding: chunked;q=1").refused(),
        te("empty", "Transfer-Encoding: ").refused(),
        te("vertical tab", "Transfer-Encoding: \u{b}chunked").refused(),
        te("twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked").refused(),
        te("identity, then chunked", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked")
            .refused(),
        te("chunked, then x", "Transfer-Encoding: chunked\r\nTransfer-encoding: x").refused(),
        te("space before the colon", "Transfer-Encoding : chunked").refused(),
        te("tab before the colon", "Transfer-Encoding\t: chunked").refused(),
        te("folded", "Transfer-Encoding:\r\n chunked").refused(),
        te("in a folded line", "X: y\r\n Transfer-Encoding: chunked").refused(),
        te("after a bare CR", "X: y\rTransfer-Encoding: chunked").refused(),
        te("NUL in the name", "Transfer-Encoding\0: chunked").refused(),
        te("NUL in the value", "Transfer-Encoding: chunked\0").refused(),
        Case::new(
            "a name that WSGI reads as Transfer-Encoding",
            post("Transfer_Encoding: chunked\r\nContent-Length: 3\r\n", "abc"),
        )
        .seen(POST, "abc")
        .with("content-length", "3")
        .without("transfer_encoding"),
    ]
}

fn lengths() -> Vec<Case> {
    let cl = |name, line: &str| Case::new(name, post(&format!("{line}\r\n"), "abc"));
    vec![
        cl("plain", "Content-Length: 3").seen(POST, "abc").with("content-length", "3"),
        cl("spaces around", "Content-Length:   3  ").seen(POST, "abc").with("content-length", "3"),
        cl("leading zeros", "Content-Length: 003").seen(POST, "abc").with("content-length", "3"),
        cl("plus", "Content-Length: +3").refused(),
        cl("minus", "Content-Length: -3").refused(),
        cl("minus nothing", "Content-Length: -0").refused(),
        cl("hexadecimal", "Content-Length: 0x3").refused(),
        cl("a fraction", "Content-Length: 3.0").refused(),
        cl("an exponent", "Content-Length: 3e0").refused(),
        cl("a list of equals", "Content-Length: 3, 3").refused(),
        cl("a list", "Content-Length: 3, 0").refused(),
        cl("a list that begins with nothing", "Content-Length: ,3").refused(),
        cl("empty", "Content-Length: ").refused(),
        cl("words", "Content-Length: three").refused(),
        cl("a space within", "Content-Length: 3 0").refused(),
        cl("more than 64 bits", "Content-Length: 18446744073709551619").refused(),
        cl("twice, different", "Content-Length: 3\r\nContent-Length: 0").refused(),
        cl("twice, different, the other way", "Content-Length: 0\r\nContent-Length: 3").refused(),
        cl("twice, equal", "Content-Length: 3\r\nContent-Length: 3")
            .seen(POST, "abc")
            .with("content-length", "3"),
        cl("space before the colon", "Content-Length : 3").refused(),
        cl("folded", "Content-Length:\r\n 3").refused(),
        cl("after a bare CR", "X: y\rContent-Length: 3").refused(),
        Case::new(
            "a name that WSGI reads as Content-Length",
            post("Content_Length: 30\r\nContent-Length: 3\r\n", "abc"),
        )
        .seen(POST, "abc")
        .with("content-length", "3")
        .without("content_length"),
        Case::new(
            "named by Connection",
            post("Connection: content-length\r\nContent-Length: 3\r\n", "abc"),
        )
        .seen(POST, "abc")
        .with("content-length", "3"),
    ]
}

fn chunks() -> Vec<Case> {
    let case = |name, body: &str| Case::new(name, chunked(body));
    let abc = |case: Case| case.seen(POST, "abc").with("content-length", "3");
    let long = format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(20_000));
    vec![
        abc(case("an extension", "3;a=b\r\nabc\r\n0;c\r\n\r\n")),
        abc(case("an extension in quotes", "3;a=\"b;c\"\r\nabc\r\n0\r\n\r\n")),
        abc(case("leading zeros", "0003\r\nabc\r\n000\r\n\r\n")),
        case("capital digits", "A\r\n0123456789\r\n0\r\n\r\n").seen(POST, "0123456789"),
        case("a long extension", &long).refused(),
        case("LF in an extension", "3;a\nabc\r\n0\r\n\r\n").refused(),
        case("LF in an extension, then a chunk", "3;\n3\r\nabc\r\n0\r\n\r\n").refused(),
        case("LF after the size", "3\nabc\r\n0\r\n\r\n").refused(),
        case("CR alone after the size", "3\rabc\r\n0\r\n\r\n").refused(),
        case("LF after the data", "3\r\nabc\n0\r\n\r\n").refused(),
        case("nothing after the data", "3\r\nabc0\r\n\r\n").refused(),
        case("more data than the size says", "3\r\nabcd\r\n0\r\n\r\n").refused(),
        case("an overflowing size", "10000000000000003\r\nabc\r\n0\r\n\r\n").refused(),
        case("the largest size and one", "FFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n").refused(),
        case("plus", "+3\r\nabc\r\n0\r\n\r\n").refused(),
        case("minus", "-3\r\nabc\r\n0\r\n\r\n").refused(),
        case("0x", "0x3\r\nabc\r\n0\r\n\r\n").refused(),
        case("a space before", " 3\r\nabc\r\n0\r\n\r\n").refused(),
        case("a space within", "0 3\r\nabc\r\n0\r\n\r\n").refused(),
        case("no size", "\r\nabc\r\n0\r\n\r\n").refused(),
        case("no digit", "x\r\nabc\r\n0\r\n\r\n").refused(),
        case("an underscore", "0_3\r\nabc\r\n0\r\n\r\n").refused(),
        case("a NUL", "3\0\r\nabc\r\n0\r\n\r\n").refused(),
    ]
}

fn trailers() -> Vec<Case> {
    let case = |name, trailers: &str| {
        Case::new(name, chunked(&format!("3\r\nabc\r\n0\r\n{trailers}\r\n")))
    };
    vec![
        case("one that is passed on", "X-Check: 1\r\n")
            .seen(POST, "abc")
            .with("transfer-encoding", "chunked"),
        case("one named Content-Length", "Content-Length: 30\r\n").seen(POST, "abc"),
        case("one named Transfer-Encoding", "Transfer-Encoding: chunked\r\n").seen(POST, "abc"),
        case("one named Host", "Host: other\r\n").seen(POST, "abc"),
        case("one with a bare CR", "X: y\rz\r\n").refused(),
        case("one with a NUL", "X: y\0z\r\n").refused(),
        case("one that is no field", "nothing\r\n").refused(),
    ]
}

fn targets() -> Vec<Case> {
    let ask = |name, line: &str| Case::new(name, format!("{line}\r\nHost: shop\r\n\r\n"));
    vec![
        ask("absolute", "GET http://shop/a HTTP/1.1").seen(GET, "").with("host", "shop"),
        ask("absolute, in capitals", "GET HTTP://SHOP/a HTTP/1.1")
            .seen(GET, "")
            .with("host", "shop"),
        ask("absolute, without a path", "GET http://shop HTTP/1.1").seen("GET / HTTP/1.1", ""),
        ask("absolute, with a query only", "GET http://shop?q HTTP/1.1")
            .seen("GET /?q HTTP/1.1", ""),
        ask("absolute, of another host", "GET http://other/a HTTP/1.1").refused(),
        ask("absolute, with a user", "GET http://shop@other/a HTTP/1.1").refused(),
        ask("another scheme", "GET ftp://shop/a HTTP/1.1").refused(),
        ask("a path that looks like a host", "GET //other/a HTTP/1.1")
            .seen("GET //other/a HTTP/1.1", "")
            .with("host", "shop"),
        ask("authority", "GET shop:80 HTTP/1.1").refused(),
        ask("CONNECT", "CONNECT shop:80 HTTP/1.1").refused_as(501, "not-implemented"),
        ask("TRACE", "TRACE /a HTTP/1.1").refused_as(405, "method-not-allowed"),
        ask("asterisk", "OPTIONS * HTTP/1.1").seen("OPTIONS * HTTP/1.1", ""),
        ask("asterisk with GET", "GET * HTTP/1.1").refused(),
        ask("no slash", "GET a HTTP/1.1").refused(),
        ask("dot segments are passed on as they came", "GET /b/../a?x=%2e HTTP/1.1")
            .seen("GET /b/../a?x=%2e HTTP/1.1", ""),
        ask("a fragment", "GET /a#b HTTP/1.1").seen(GET, ""),
        ask("a space", "GET /a b HTTP/1.1").refused(),
        ask("a tab", "GET /a\tb HTTP/1.1").refused(),
        ask("two spaces", "GET  /a HTTP/1.1").refused(),
        ask("a NUL", "GET /a\0b HTTP/1.1").refused(),
        ask("an encoded NUL", "GET /a%00b HTTP/1.1").refused(),
        ask("a bare CR", "GET /a\rb HTTP/1.1").refused(),
    ]
}

fn request_lines() -> Vec<Case> {
    vec![
        Case::new("HTTP/0.9", "GET /a\r\n").refused(),
        Case::new("HTTP/0.9 with a version", "GET /a HTTP/0.9\r\n\r\n").refused(),
        Case::new("HTTP/1.2", "GET /a HTTP/1.2\r\nHost: shop\r\n\r\n").refused(),
        Case::new("HTTP/2.0", "GET /a HTTP/2.0\r\nHost: shop\r\n\r\n").refused(),
        Case::new("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").dropped(),
        Case::new("lower-case protocol", "GET /a http/1.1\r\nHost: shop\r\n\r\n").refused(),
        Case::new("text after the version", "GET /a HTTP/1.1 x\r\nHost: shop\r\n\r\n").refused(),
        Case::new("no method", " /a HTTP/1.1\r\nHost: shop\r\n\r\n").refused(),
        Case::new("a method that is no token", "G(T /a HTTP/1.1\r\nHost: shop\r\n\r\n").refused(),
        Case::new("TLS", "\u{16}\u{3}\u{1}\0\u{5}hello\r\n\r\n").refused(),
        Case::new("an empty line before", format!("\r\n{}", get(""))).seen(GET, ""),
        Case::new("a space before", format!(" {}", get(""))).refused(),
    ]
}

fn fields() -> Vec<Case> {
    vec![
        Case::new("no Host", "GET /a HTTP/1.1\r\n\r\n").refused(),
        Case::new("two Hosts", get("Host: shop\r\n")).refused(),
        Case::new("two different Hosts", get("Host: other\r\n")).refused(),
        Case::new("a Host with a path", "GET /a HTTP/1.1\r\nHost: shop/b\r\n\r\n").refused(),
        Case::new("a Host with a user", "GET /a HTTP/1.1\r\nHost: a@shop\r\n\r\n").refused(),
        Case::new("a Host that WSGI reads as Host", get("HOST_: x\r\nHo_st: x\r\n")).seen(GET, ""),
        Case::new("a folded line", get("X: y\r\n z\r\n")).refused(),
        Case::new("a folded line, by tab", get("X: y\r\n\tz\r\n")).refused(),
        Case::new("a first line with a space", "GET /a HTTP/1.1\r\n Host: shop\r\n\r\n").refused(),
        Case::new("a line without a colon", get("X\r\n")).refused(),
        Case::new("no name", get(": y\r\n")).refused(),
        Case::new("a space before the colon", get("X : y\r\n")).refused(),
        Case::new("a space in the name", get("X Y: z\r\n")).refused(),
        Case::new("a NUL in a name", get("X\0: y\r\n")).refused(),
        Case::new("a NUL in a value", get("X: y\0z\r\n")).refused(),
        Case::new("a bare CR in a value", get("X: y\rz\r\n")).refused(),
        Case::new("a control character in a value", get("X: y\u{1}z\r\n")).refused(),
        Case::new("Host named by Connection", get("Connection: host\r\n"))
            .seen(GET, "")
            .with("host", "shop"),
        Case::new("our field named by Connection", get("Connection: x-forwarded-for, litepilot-role\r\n"))
            .seen(GET, "")
            .with("x-forwarded-for", "127.0.0.1")
            .with("litepilot-role", "primary"),
        Case::new("fields with underscores", get("X_Forwarded_For: 1.2.3.4\r\nX_Real_IP: 1.2.3.4\r\n"))
            .seen(GET, "")
            .without("x_forwarded_for")
            .without("x_real_ip")
            .with("x-forwarded-for", "127.0.0.1"),
        Case::new(
            "fields that only we may set",
            get("Litepilot-Role: replica\r\nLitepilot_Role: replica\r\nLitepilot-Secret: x\r\n\
                 fly-replay-src: x\r\nFly-Replay-Failed: x\r\n"),
        )
        .seen(GET, "")
        .with("litepilot-role", "primary")
        .without("litepilot_role")
        .without("litepilot-secret")
        .without("fly-replay-src")
        .without("fly-replay-failed"),
        Case::new("an upgrade to HTTP/2", get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"))
            .seen(GET, "")
            .without("upgrade")
            .without("http2-settings")
            .without("connection"),
    ]
}

/// RFC 9112, 2.2 lets a bare LF end a line. We read it so, and the application gets CRLF.
fn line_ends() -> Vec<Case> {
    vec![
        Case::new("LF everywhere", "GET /a HTTP/1.1\nHost: shop\n\n").seen(GET, ""),
        Case::new("LF before a framing field", post("X: y\nContent-Length: 3\r\n", "abc"))
            .seen(POST, "abc")
            .with("content-length", "3")
            .with("x", "y"),
        Case::new(
            "LF before a second framing",
            post("Content-Length: 3\r\nX: y\nTransfer-Encoding: chunked\r\n", CHUNKS),
        )
        .seen(POST, "abc")
        .with("content-length", "3")
        .without("transfer-encoding")
        .closes(),
        Case::new(
            "LF before an empty line",
            "POST /a HTTP/1.1\r\nHost: shop\r\nContent-Length: 3\r\n\nabc",
        )
        .seen(POST, "abc"),
    ]
}

fn pipelines() -> Vec<Case> {
    let second = "GET /b HTTP/1.1\r\nHost: shop\r\n\r\n";
    vec![
        Case::new("after a GET", get("") + second).seen(GET, "").seen("GET /b HTTP/1.1", ""),
        Case::new("after a body", post("Content-Length: 3\r\n", "abc") + second)
            .seen(POST, "abc")
            .seen("GET /b HTTP/1.1", ""),
        Case::new("after a chunked body", chunked(CHUNKS) + second)
            .seen(POST, "abc")
            .seen("GET /b HTTP/1.1", ""),
        Case::new("in a body", post("Content-Length: 31\r\n", second))
            .seen(POST, "GET /b HTTP/1.1\r\nHost: shop\r\n\r\n"),
    ]
}

#[tokio::test]
async fn requests_with_two_framings() {
    run(two_framings()).await;
}

#[tokio::test]
async fn transfer_encodings_other_than_chunked() {
    run(transfer_encodings()).await;
}

#[tokio::test]
async fn lengths_other_than_one_number() {
    run(lengths()).await;
}

#[tokio::test]
async fn chunks_that_are_malformed() {
    run(chunks()).await;
}

#[tokio::test]
async fn trailers_that_look_like_framing() {
    run(trailers()).await;
}

#[tokio::test]
async fn targets_of_every_form() {
    run(targets()).await;
}

#[tokio::test]
async fn request_lines_of_other_protocols() {
    run(request_lines()).await;
}

#[tokio::test]
async fn fields_that_lie() {
    run(fields()).await;
}

#[tokio::test]
async fn line_ends_other_than_crlf() {
    run(line_ends()).await;
}

#[tokio::test]
async fn requests_that_follow_each_other() {
    run(pipelines()).await;
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
        Expected::Dropped if answers.is_empty() && seen.is_empty() && !ended => {}
        Expected::Dropped => return Err(format!("expected nothing; {context}")),
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
    client.send(chunked(&format!("800\r\n{}\r\n", "x".repeat(0x800)))).await;
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
            format!("HTTP/1.1 200 OK\r\n{fields}\r\n{CHUNKS}").into_bytes()
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
