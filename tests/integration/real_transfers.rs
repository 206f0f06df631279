//! Real applications behind a node: bodies of every size and framing, streams and sockets.

use crate::real_sites::{djangos, node_before};
use crate::support::python::{Gunicorn, Uvicorn, Worker};
use crate::support::raw::Client;
use crate::support::visitor::json;
use crate::support::wire::Message;

/// Byte i of what goes either way is i mod 251; a piece of it that ends where the next begins.
fn pattern() -> Vec<u8> {
    (0..251 * 1000).map(|i| (i % 251) as u8).collect()
}

const MUCH: usize = 100_000_000;
/// `hashlib.sha256(bytes(i % 251 for i in range(100_000_000))).hexdigest()`
const SHA256_OF_MUCH: &str = "b736eb4f696a0f5f7df764258137852674817095d20f2adb9aba29758540efce";

/// Uploads the pattern's first `length` bytes; the answer.
async fn upload(client: &mut Client, length: usize, chunked: bool) -> Message {
    let framing = match chunked {
        true => "Transfer-Encoding: chunked".to_owned(),
        false => format!("Content-Length: {length}"),
    };
    client.begin("POST /upload", &[&framing, "Content-Type: application/octet-stream"]).await;
    let (pattern, mut left) = (pattern(), length);
    while left > 0 {
        let piece = &pattern[..left.min(pattern.len())];
        if chunked {
            client.send(format!("{:x}\r\n", piece.len())).await;
        }
        client.send(piece).await;
        if chunked {
            client.send("\r\n").await;
        }
        left -= piece.len();
    }
    if chunked {
        client.send("0\r\n\r\n").await;
    }
    client.response().await
}

fn assert_much_arrived(answer: &Message) {
    assert_eq!(answer.status(), 200, "{answer:?}");
    let arrived = json(answer);
    assert_eq!((&arrived["bytes"], &arrived["sha256"]), (&MUCH.into(), &SHA256_OF_MUCH.into()));
}

#[tokio::test]
async fn uploads_of_100_mb_reach_flask_whole() {
    for worker in [Worker::Sync, Worker::Gthread] {
        let dir = tempfile::tempdir().unwrap();
        let app = Gunicorn::flask(worker, 1, dir.path()).start();
        let node = node_before(&app, dir.path());
        for chunked in [false, true] {
            let answer = upload(&mut node.client().await, MUCH, chunked).await;
            assert_much_arrived(&answer);
        }
    }
}

#[tokio::test]
async fn uploads_of_100_mb_reach_django_whole() {
    let dir = tempfile::tempdir().unwrap();
    for launch in djangos(dir.path()) {
        let app = launch.start();
        let node = node_before(&app, dir.path());
        let answer = upload(&mut node.client().await, MUCH, false).await;
        assert_much_arrived(&answer);
    }
}

/// Django under gunicorn takes a body without a length for an empty one.
#[tokio::test]
async fn small_chunked_uploads_reach_gunicorn_with_their_length() {
    let dir = tempfile::tempdir().unwrap();
    let flask = Gunicorn::flask(Worker::Sync, 1, dir.path());
    let [django, _, _] = djangos(dir.path());
    for launch in [flask, django] {
        let app = launch.start();
        let node = node_before(&app, dir.path());
        let mut client = node.client().await;
        for length in [5, 64 * 1024] {
            let arrived = json(&upload(&mut client, length, true).await);
            assert_eq!(arrived["bytes"], length);
            assert_eq!(arrived["content_length"], length.to_string());
            assert!(arrived["transfer_encoding"].is_null(), "{arrived}");
        }
    }
}

#[tokio::test]
async fn a_file_uploaded_by_a_form_arrives() {
    let dir = tempfile::tempdir().unwrap();
    for launch in djangos(dir.path()) {
        let app = launch.start();
        let node = node_before(&app, dir.path());
        let body = "--cut\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n\
                    12345\r\n--cut--\r\n";
        let kind = "Content-Type: multipart/form-data; boundary=cut";
        let answer = node.client().await.post("/upload", &[kind], body).await;
        assert_eq!(json(&answer)["bytes"], 5);
    }
}

#[tokio::test]
async fn downloads_arrive_whole_with_and_without_a_length() {
    const LENGTH: usize = 20_000_000;
    for worker in [Worker::Sync, Worker::Gthread] {
        let dir = tempfile::tempdir().unwrap();
        let app = Gunicorn::flask(worker, 1, dir.path()).start();
        let node = node_before(&app, dir.path());
        for query in ["", "&chunked=1"] {
            let mut client = node.client().await;
            let request = format!("GET /download?bytes={LENGTH}{query}");
            let body = client.ask(&request, &[]).await.body;
            assert_eq!(body.len(), LENGTH);
            assert!(body.chunks(251_000).all(|piece| pattern().starts_with(piece)), "{query}");
        }
    }
}

#[tokio::test]
async fn ranges_and_validators_are_the_applications_business() {
    let dir = tempfile::tempdir().unwrap();
    let app = Gunicorn::flask(Worker::Gthread, 1, dir.path()).start();
    let node = node_before(&app, dir.path());
    let mut client = node.client().await;
    let part = client.ask("GET /file", &["Range: bytes=250-252"]).await;
    assert_eq!((part.status(), part.field("content-range")), (206, Some("bytes 250-252/100000")));
    assert_eq!(part.body, [250, 0, 1]);
    let beyond = client.ask("GET /file", &["Range: bytes=100000-"]).await;
    assert_eq!((beyond.status(), beyond.field("content-range")), (416, Some("bytes */100000")));
    let head = client.ask("HEAD /file", &[]).await;
    assert_eq!((head.status(), head.field("content-length")), (200, Some("100000")));
    let known = client.ask("GET /etag", &["If-None-Match: \"guestbook\""]).await;
    assert_eq!((known.status(), known.field("etag")), (304, Some("\"guestbook\"")));
    for status in [204, 404, 500] {
        assert_eq!(client.ask(&format!("GET /status/{status}"), &[]).await.status(), status);
    }
    let several = client.ask("GET /cookies", &[]).await;
    assert_eq!(several.all("set-cookie").len(), 3);
}

/// The application sends one event, and then nothing for longer than the test waits.
#[tokio::test]
async fn an_event_arrives_before_the_next_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let [_, _, django] = djangos(dir.path());
    for launch in [
        Gunicorn::flask(Worker::Sync, 1, dir.path()),
        Gunicorn::flask(Worker::Gthread, 1, dir.path()),
        django,
    ] {
        let app = launch.start();
        let node = node_before(&app, dir.path());
        let all = node.client().await.ask("GET /stream?events=2&interval=0", &[]).await;
        assert_eq!(all.text(), "id: 1\ndata: event 1\n\nid: 2\ndata: event 2\n\n");
        let mut client = node.client().await;
        client.begin("GET /stream?events=2&interval=3600", &["Accept: text/event-stream"]).await;
        let head = client.head().await.unwrap();
        assert_eq!(head.field("transfer-encoding"), Some("chunked"), "{head:?}");
        assert!(head.field("content-type").unwrap().starts_with("text/event-stream"), "{head:?}");
        assert_eq!(client.chunk().await, b"id: 1\ndata: event 1\n\n");
    }
}

#[tokio::test]
async fn a_websocket_echoes_and_closes_with_its_code() {
    /// Masked frames: `Hello`, the same as bytes, and `close 4001`.
    const FRAMES: [(&[u8], &[u8]); 2] = [
        (b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", b"\x81\x05Hello"),
        (b"\x82\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", b"\x82\x05Hello"),
    ];
    const CLOSE: &[u8] = b"\x81\x8a\0\0\0\0close 4001";
    let dir = tempfile::tempdir().unwrap();
    let app = Uvicorn::ws_echo().start();
    let node = node_before(&app, dir.path());
    let mut socket = node.client().await;
    let handshake = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: chat, talk",
        "Cookie: theirs=1; __txid=0000000000000001; __txid_epoch=1",
    ];
    socket.begin("GET /room?x=1", &handshake).await;
    let answer = socket.head().await.unwrap();
    assert_eq!((answer.status(), answer.field("sec-websocket-protocol")), (101, Some("chat")));
    assert_eq!(answer.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    // The first message, JSON of more than 125 bytes, says what the application was asked.
    let head = socket.bytes(4).await;
    assert_eq!(&head[..2], b"\x81\x7e");
    let asked = socket.bytes(u16::from_be_bytes([head[2], head[3]]).into()).await;
    let asked: serde_json::Value = serde_json::from_slice(&asked).unwrap();
    assert_eq!((&asked["path"], &asked["query"]), (&"/room".into(), &"x=1".into()));
    let fields = asked["headers"].to_string();
    assert!(fields.contains("theirs=1") && !fields.contains("txid"), "{fields}");
    for (sent, echo) in FRAMES {
        socket.send(sent).await;
        assert_eq!(socket.bytes(echo.len()).await, echo);
    }
    socket.send(CLOSE).await;
    let close = socket.bytes(4).await;
    assert_eq!((close[0], u16::from_be_bytes([close[2], close[3]])), (0x88, 4001));
    let refused = node.client().await.ask("GET /refuse", &handshake).await;
    assert_eq!(refused.status(), 403);
}
