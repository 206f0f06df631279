//! The requests, and what is to become of each.

use super::Case;

/// `POST /a` with these field lines, each ended by CRLF, and then whatever follows.
fn post(fields: &str, rest: &str) -> String {
    format!("POST /a HTTP/1.1\r\nHost: shop\r\n{fields}\r\n{rest}")
}

fn get(fields: &str) -> String {
    format!("GET /a HTTP/1.1\r\nHost: shop\r\n{fields}\r\n")
}

pub fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

const POST: &str = "POST /a HTTP/1.1";
const GET: &str = "GET /a HTTP/1.1";
pub const CHUNKS: &str = "3\r\nabc\r\n0\r\n\r\n";

/// RFC 9112, 6.1 lets us go by Transfer-Encoding where there are both, if nothing after it counts.
pub fn two_framings() -> Vec<Case> {
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

pub fn transfer_encodings() -> Vec<Case> {
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

pub fn lengths() -> Vec<Case> {
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

pub fn chunks() -> Vec<Case> {
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

pub fn trailers() -> Vec<Case> {
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

pub fn targets() -> Vec<Case> {
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

pub fn request_lines() -> Vec<Case> {
    vec![
        Case::new("HTTP/0.9", "GET /a\r\n").refused(),
        Case::new("HTTP/0.9 with a version", "GET /a HTTP/0.9\r\n\r\n").refused(),
        Case::new("HTTP/1.2", "GET /a HTTP/1.2\r\nHost: shop\r\n\r\n").refused(),
        Case::new("HTTP/2.0", "GET /a HTTP/2.0\r\nHost: shop\r\n\r\n").refused(),
        Case::new("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").refused(),
        Case::new("lower-case protocol", "GET /a http/1.1\r\nHost: shop\r\n\r\n").refused(),
        Case::new("text after the version", "GET /a HTTP/1.1 x\r\nHost: shop\r\n\r\n").refused(),
        Case::new("no method", " /a HTTP/1.1\r\nHost: shop\r\n\r\n").refused(),
        Case::new("a method that is no token", "G(T /a HTTP/1.1\r\nHost: shop\r\n\r\n").refused(),
        Case::new("TLS", "\u{16}\u{3}\u{1}\0\u{5}hello\r\n\r\n").refused(),
        Case::new("an empty line before", format!("\r\n{}", get(""))).seen(GET, ""),
        Case::new("a space before", format!(" {}", get(""))).refused(),
    ]
}

pub fn fields() -> Vec<Case> {
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
pub fn line_ends() -> Vec<Case> {
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

pub fn pipelines() -> Vec<Case> {
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
