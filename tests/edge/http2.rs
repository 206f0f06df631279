//! Requests over HTTP/2, and what the application sees of them.

use bytes::Bytes;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request, Response};

use super::files::Files;
use super::frames::{
    DATA, END_HEADERS, END_STREAM, Frames, HEADERS, RST_STREAM, field, frame, get, request,
};
use super::node::TestNode;
use super::protocols::node;
use super::recorder::{Recorder, ok, response};
use super::tls::Offer;
use super::wire::soon;

/// A well-behaved client.
pub struct Http2(SendRequest<Bytes>);

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub head: Response<()>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn status(&self) -> u16 {
        self.head.status().as_u16()
    }
}

pub fn to(path: &str) -> http::request::Builder {
    Request::builder().uri(format!("https://shop.test{path}"))
}

impl Http2 {
    pub async fn connect(node: &TestNode) -> Self {
        let stream = Offer::default().connect(node).await.unwrap();
        // One stream alone does not fill the window of them all.
        let mut builder = h2::client::Builder::new();
        builder.initial_connection_window_size(1 << 20);
        // As long as the node's settings are not there: what nearly every client takes for granted.
        builder.initial_max_send_streams(100);
        let (send, connection) = builder.handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self(send)
    }

    /// Sends a head; `is_all`: no body follows.
    pub async fn begin(
        &self,
        head: http::request::Builder,
        is_all: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let mut send = soon("a stream", self.0.clone().ready()).await.unwrap();
        send.send_request(head.body(()).unwrap(), is_all).unwrap()
    }

    pub async fn send(&self, request: Request<&'static str>) -> Answer {
        let (head, body) = request.into_parts();
        let mut send = soon("a stream", self.0.clone().ready()).await.unwrap();
        let (answer, mut upload) =
            send.send_request(Request::from_parts(head, ()), body.is_empty()).unwrap();
        if !body.is_empty() {
            upload.send_data(body.into(), true).unwrap();
        }
        let (head, mut download) = soon("an answer", answer).await.unwrap().into_parts();
        let mut body = Vec::new();
        while let Some(data) = soon("data", download.data()).await {
            let data = data.unwrap();
            body.extend_from_slice(&data);
            download.flow_control().release_capacity(data.len()).unwrap();
        }
        Answer { head: Response::from_parts(head, ()), body }
    }

    /// Returns once the node has closed the connection.
    pub async fn closed(&mut self) {
        let closed = std::future::poll_fn(|cx| match self.0.poll_ready(cx) {
            std::task::Poll::Ready(Err(_)) => std::task::Poll::Ready(()),
            _ => {
                cx.waker().wake_by_ref();
                std::task::Poll::Pending
            }
        });
        soon("the connection to close", closed).await;
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(to(path).body("").unwrap()).await
    }
}

#[tokio::test]
async fn a_body_without_a_length_arrives_whole_and_cookies_come_secure() {
    let (app, files) = (Recorder::echoing().await, Files::of_shop());
    let node = node(&app, &files);
    let client = Http2::connect(&node).await;
    let post = to("/a?b=c").method("POST").header("x-forwarded-for", "1.2.3.4").body("hello");
    let answer = client.send(post.unwrap()).await;
    assert_eq!((answer.status(), answer.text()), (200, "/a?b=c"));
    for cookie in answer.head.headers().get_all("set-cookie") {
        assert!(cookie.to_str().unwrap().contains("Secure"), "{cookie:?}");
    }
    assert!(answer.head.headers().contains_key("set-cookie"));
    let seen = app.only();
    assert_eq!(seen.start, "POST /a?b=c HTTP/1.1");
    assert_eq!((seen.text(), seen.field("content-length")), ("hello", Some("5")), "{seen:?}");
    assert_eq!(seen.field("host"), Some("shop.test"));
    assert_eq!(seen.field("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.field("x-forwarded-port"), Some(node.port().to_string().as_str()));
}

#[tokio::test]
async fn cookie_crumbs_come_in_one_line_and_tokens_in_none() {
    let (app, files) = (Recorder::echoing().await, Files::of_shop());
    let node = node(&app, &files);
    let client = Http2::connect(&node).await;
    let crumbs = to("/").header("cookie", "a=1").header("cookie", "b=2");
    client.send(crumbs.body("").unwrap()).await;
    assert_eq!(app.only().field("cookie"), Some("a=1; b=2"));
    let crumbs = to("/")
        .header("cookie", "a=1")
        .header("cookie", "__txid=0000000000000001")
        .header("cookie", "__txid_epoch=1")
        .header("cookie", "b=2");
    client.send(crumbs.body("").unwrap()).await;
    assert_eq!(app.only().field("cookie"), Some("a=1; b=2"));
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let app = Recorder::answering(|request| match request.target() {
        "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/304" => b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n".to_vec(),
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nX-A: b\r\n\r\n".to_vec(),
    })
    .await;
    let files = Files::of_shop();
    let node = node(&app, &files);
    let client = Http2::connect(&node).await;
    let answer = client.send(to("/").method("HEAD").body("").unwrap()).await;
    assert_eq!((answer.status(), answer.body.len()), (200, 0));
    assert_eq!(answer.head.headers()["content-length"], "1000");
    for (path, status) in [("/204", 204), ("/304", 304)] {
        let answer = client.get(path).await;
        assert_eq!((answer.status(), answer.body.len()), (status, 0));
    }
    // An answer of ours to HEAD.
    let health = client.send(to("/litefs/health").method("HEAD").body("").unwrap()).await;
    assert_eq!((health.status(), health.body.len()), (200, 0));
    // What this connection forbids to come back.
    assert!(!health.head.headers().contains_key("connection"));
}

#[tokio::test]
async fn trailers_pass_in_both_directions() {
    let app = Recorder::answering(|request| {
        assert_eq!(request.field("te"), Some("trailers"));
        let sum = request.trailers.iter().find(|(name, _)| name == "x-sum");
        let sum = sum.map_or("none", |(_, value)| value);
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-back\r\n\r\n";
        format!("{head}2\r\nhi\r\n0\r\nx-back: {sum}\r\n\r\n").into_bytes()
    })
    .await;
    let files = Files::of_shop();
    let node = node(&app, &files);
    let client = Http2::connect(&node).await;
    let head = to("/").method("POST").header("te", "trailers").header("trailer", "x-sum");
    let (answer, mut upload) = client.begin(head, false).await;
    upload.send_data("ab".into(), false).unwrap();
    let sum = HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())]);
    upload.send_trailers(sum).unwrap();
    let mut body = soon("an answer", answer).await.unwrap().into_body();
    assert_eq!(soon("data", body.data()).await.unwrap().unwrap(), "hi");
    let trailers = soon("trailers", body.trailers()).await.unwrap().unwrap();
    assert_eq!(trailers["x-back"], "7");
}

#[tokio::test]
async fn what_two_servers_could_read_in_two_ways_is_refused() {
    let (app, files) = (Recorder::echoing().await, Files::of_shop());
    let node = node(&app, &files);
    let client = Http2::connect(&node).await;
    let other_host = to("/").header("host", "elsewhere.test").body("").unwrap();
    assert_eq!(client.send(other_host).await.status(), 400);
    let two_hosts = to("/").header("host", "shop.test").header("host", "shop.test").body("");
    assert_eq!(client.send(two_hosts.unwrap()).await.status(), 400);
    let connect = Request::builder().method("CONNECT").uri("shop.test:443").body("").unwrap();
    assert_eq!(client.send(connect).await.status(), 501);
    assert_eq!(client.send(to("/").method("TRACE").body("").unwrap()).await.status(), 405);
    let many = (0..101).fold(to("/"), |request, i| request.header(format!("x-{i}"), "1"));
    assert_eq!(client.send(many.body("").unwrap()).await.status(), 431);
    assert!(app.requests().is_empty(), "{:?}", app.requests());
    // The connection is as good as new.
    assert_eq!(client.get("/a").await.text(), "/a");
}

#[tokio::test]
async fn what_http_2_forbids_in_heads_never_arrives() {
    let (app, files) = (Recorder::echoing().await, Files::of_shop());
    let node = node(&app, &files);
    let post = || request("POST", "/bad");
    let with = |name: &str, value: &[u8]| [post(), field(name, value)].concat();
    for head in [
        with("connection", b"close"),
        with("transfer-encoding", b"chunked"),
        with("upgrade", b"h2c"),
        with("keep-alive", b"1"),
        with("proxy-connection", b"keep-alive"),
        with("te", b"gzip"),
        with("x-a", b"1\r\nx-b: 2"),
        with("x-a", b"1\n"),
        with("x-a", b"1\0"),
        with("X-Upper", b"1"),
        with("x a", b"1"),
        with("x-a: b\r\nc", b"1"),
        with("content-length", b"3"),
        with("content-length", b"x"),
        // Pseudo-header fields: one that is unknown, twice, behind others, missing, with what ends a line.
        with(":unknown", b"1"),
        with(":path", b"/other"),
        [field("x-a", b"1"), post()].concat(),
        [field(":method", b"GET"), field(":path", b"/bad")].concat(),
        request("POST", "/bad HTTP/1.1\r\nx: y"),
        request("PO ST", "/bad"),
        request("POST", ""),
        request("POST", "bad"),
    ] {
        let mut client = Frames::connect(&node).await;
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)).await.unwrap();
        // Refused: by a reset, by the end, or by an answer of ours.
        loop {
            match client.next().await {
                None => break,
                Some(frame) if frame.kind == RST_STREAM => break,
                Some(frame) if frame.kind == HEADERS => {
                    assert_eq!(status_of(&frame.payload), 400, "{}", head.escape_ascii());
                    break;
                }
                Some(_) => {}
            }
        }
    }
    assert!(app.requests().is_empty(), "{:?}", app.requests());
    assert_eq!(Http2::connect(&node).await.get("/a").await.text(), "/a");
}

#[tokio::test]
async fn what_the_app_says_of_its_own_connection_does_not_come_back() {
    let fields = [
        "Connection: keep-alive, X-Hop",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "X-Hop: 1",
        "X-End: 2",
    ];
    let app = Recorder::answering(move |_| response("200 OK", &fields, "hi")).await;
    let files = Files::of_shop();
    let node = node(&app, &files);
    let answer = Http2::connect(&node).await.get("/").await;
    assert_eq!((answer.text(), &answer.head.headers()["x-end"]), ("hi", &"2".parse().unwrap()));
    for name in ["connection", "keep-alive", "proxy-connection", "x-hop"] {
        assert!(!answer.head.headers().contains_key(name), "{answer:?}");
    }
}

/// The status of a block of fields: an entry of the static table (RFC 7541, appendix A).
fn status_of(block: &[u8]) -> u16 {
    match block[0] & 0x7f {
        8 => 200,
        12 => 400,
        13 => 404,
        other => panic!("{other}: {}", block.escape_ascii()),
    }
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_announced_is_no_whole_one() {
    let (app, files) = (Recorder::echoing().await, Files::of_shop());
    let node = node(&app, &files);
    for (announced, sent) in [("5", "abc"), ("2", "abc")] {
        let mut client = Frames::connect(&node).await;
        let head = [request("POST", "/"), field("content-length", announced)].concat();
        client.send(frame(HEADERS, END_HEADERS, 1, &head)).await.unwrap();
        client.send(frame(DATA, END_STREAM, 1, sent.as_bytes())).await.unwrap();
        client.next_of(RST_STREAM).await.unwrap();
    }
    assert!(app.requests().is_empty(), "{:?}", app.requests());
}

#[tokio::test]
async fn who_gives_up_a_stream_frees_the_application() {
    let (app, files) = (Recorder::played().await, Files::of_shop());
    let node = node(&app, &files);
    let mut client = Frames::connect(&node).await;
    for (stream, head) in [(1, None), (3, Some("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"))] {
        client.send(get(stream, "/slow")).await.unwrap();
        let mut origin = app.connection().await;
        origin.request().await.unwrap();
        if let Some(head) = head {
            origin.send(head).await;
            client.next_of(DATA).await.unwrap();
        }
        client.send(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])).await.unwrap();
        origin.closed().await;
    }
    // A third one is served on the same connection.
    client.send(get(5, "/")).await.unwrap();
    let mut origin = app.connection().await;
    origin.request().await.unwrap();
    origin.send(ok("x")).await;
    assert_eq!(client.next_of(DATA).await.unwrap().payload, b"x");
}

#[tokio::test]
async fn many_streams_get_their_own_answers() {
    let big = "x".repeat(300_000);
    let app = Recorder::answering(move |request| {
        response("200 OK", &[&format!("x-target: {}", request.target())], &big)
    })
    .await;
    let files = Files::of_shop();
    let node = node(&app, &files);
    let client = std::sync::Arc::new(Http2::connect(&node).await);
    let mut asking = tokio::task::JoinSet::new();
    for i in 0..300 {
        let client = client.clone();
        asking.spawn(async move {
            let path = format!("/{i}");
            let answer = client.get(&path).await;
            assert_eq!(answer.head.headers()["x-target"], path);
            assert_eq!(answer.body.len(), 300_000);
        });
    }
    while let Some(asked) = asking.join_next().await {
        asked.unwrap();
    }
}
