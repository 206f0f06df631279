//! Bodies over HTTP/2 stream both ways: as they come, no faster than the other side takes them, and
//! without holding up the other streams of their connection.

use std::time::Duration;

use bytes::Bytes;
use h2::{RecvStream, SendStream};

use super::files::Files;
use super::http2::{Http2, to};
use super::node::Launch;
use super::protocols::node;
use super::recorder::{Recorder, ok};
use super::wire::{Wire, soon};

const LENGTH: usize = 64 << 20;
/// More than every buffer between two ends holds.
const BUFFERS: usize = 48 << 20;
/// How long nothing must be taken until we believe that nothing will be.
const QUIET: Duration = Duration::from_millis(500);

/// Sends as much as the windows allow, at most so much; says how much.
async fn send_some(upload: &mut SendStream<Bytes>, most: usize) -> usize {
    static PIECE: [u8; 64 * 1024] = [b'x'; 64 * 1024];
    upload.reserve_capacity(most.min(PIECE.len()));
    let room = std::future::poll_fn(|cx| upload.poll_capacity(cx)).await.unwrap().unwrap();
    upload.send_data(Bytes::from_static(&PIECE[..room.min(most)]), false).unwrap();
    room.min(most)
}

/// Reads so many bytes `x`.
async fn count(wire: &mut Wire, mut left: usize) {
    while left > 0 {
        let piece = wire.bytes(left.min(64 << 10)).await;
        assert!(piece.iter().all(|b| *b == b'x'));
        left -= piece.len();
    }
}

/// That another stream of the same connection is served.
async fn serves_another(client: &Http2, app: &Recorder) {
    let (answer, ()) = tokio::join!(client.get("/other"), async {
        let mut other = app.connection().await;
        assert_eq!(other.request().await.unwrap().target(), "/other");
        other.send(ok("other")).await;
    });
    assert_eq!(answer.text(), "other");
}

#[tokio::test]
async fn an_app_that_does_not_read_stops_the_client_but_not_its_other_requests() {
    let (app, files) = (Recorder::played().await, Files::of_shop());
    let node = node(&app, &files);
    let client = Http2::connect(&node).await;
    let head = to("/").method("POST").header("content-length", LENGTH);
    let (answer, mut upload) = client.begin(head, false).await;
    let mut sent = send_some(&mut upload, LENGTH).await;
    let mut origin = app.connection().await;
    origin.head().await.unwrap();
    while sent < LENGTH {
        match tokio::time::timeout(QUIET, send_some(&mut upload, LENGTH - sent)).await {
            Ok(more) => sent += more,
            Err(_) => break,
        }
    }
    assert!(sent < BUFFERS, "{sent} bytes were taken, and nobody had read them");
    serves_another(&client, &app).await;

    let reading = tokio::spawn(async move {
        count(&mut origin, LENGTH).await;
        origin.send(ok("all")).await;
        origin
    });
    while sent < LENGTH {
        sent += soon("room", send_some(&mut upload, LENGTH - sent)).await;
    }
    upload.send_data(Bytes::new(), true).unwrap();
    let mut body = soon("an answer", answer).await.unwrap().into_body();
    assert_eq!(soon("data", body.data()).await.unwrap().unwrap(), "all");
    reading.await.unwrap();
}

/// The next piece, which is taken.
async fn piece(download: &mut RecvStream) -> Option<Bytes> {
    let data = soon("data", download.data()).await?.unwrap();
    download.flow_control().release_capacity(data.len()).unwrap();
    Some(data)
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_app_but_not_its_other_requests() {
    let (app, files) = (Recorder::played().await, Files::of_shop());
    let node = node(&app, &files);
    let client = Http2::connect(&node).await;
    let (answer, _) = client.begin(to("/"), true).await;
    let mut origin = app.connection().await;
    origin.head().await.unwrap();
    origin.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n")).await;
    let mut sent = origin.flood(QUIET, LENGTH).await;
    assert!(sent < BUFFERS, "{sent} bytes were taken, and nobody had read them");
    serves_another(&client, &app).await;

    let mut download = soon("an answer", answer).await.unwrap().into_body();
    let reading = tokio::spawn(async move {
        let mut got = 0;
        while let Some(data) = piece(&mut download).await {
            assert!(data.iter().all(|b| *b == b'x'));
            got += data.len();
        }
        got
    });
    while sent < LENGTH {
        sent += origin.send_some(LENGTH - sent).await;
    }
    assert_eq!(reading.await.unwrap(), LENGTH);
}

#[tokio::test]
async fn pieces_pass_as_they_come_in_both_directions_at_once() {
    let (app, files) = (Recorder::played().await, Files::of_shop());
    // Nothing of the request is read before the application is dialed.
    let node =
        Launch::before(app.target()).proxy(&files.tls(&["shop"])).proxy("buffer_body: 0").start();
    let client = Http2::connect(&node).await;
    let (answer, mut upload) = client.begin(to("/").method("POST"), false).await;
    upload.send_data("one".into(), false).unwrap();
    let mut origin = app.connection().await;
    assert_eq!(origin.head().await.unwrap().field("transfer-encoding"), Some("chunked"));
    assert_eq!(origin.chunk().await, b"one");
    origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let mut download = soon("an answer", answer).await.unwrap().into_body();
    for text in ["two", "three"] {
        origin.send(format!("{:x}\r\n{text}\r\n", text.len())).await;
        assert_eq!(piece(&mut download).await.unwrap(), text);
        upload.send_data(text.into(), false).unwrap();
        assert_eq!(origin.chunk().await, text.as_bytes());
    }
    upload.send_data(Bytes::new(), true).unwrap();
    assert_eq!(origin.until("\r\n\r\n").await, "0\r\n\r\n");
    origin.send("0\r\n\r\n").await;
    assert!(piece(&mut download).await.is_none_or(|last| last.is_empty()));
}

#[tokio::test]
async fn an_app_may_answer_before_it_has_the_whole_body() {
    let (app, files) = (Recorder::played().await, Files::of_shop());
    let node = node(&app, &files);
    let client = Http2::connect(&node).await;
    let head = to("/").method("POST").header("content-length", 1_000_000);
    let (answer, mut upload) = client.begin(head, false).await;
    upload.send_data("x".repeat(1000).into(), false).unwrap();
    let mut origin = app.connection().await;
    origin.head().await.unwrap();
    origin.send("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno").await;
    let answer = soon("an answer", answer).await.unwrap();
    assert_eq!(answer.status(), 413);
    assert_eq!(piece(&mut answer.into_body()).await.unwrap(), "no");
    serves_another(&client, &app).await;
}

#[tokio::test]
async fn a_response_that_breaks_off_is_not_made_to_look_whole() {
    let (app, files) = (Recorder::played().await, Files::of_shop());
    let node = node(&app, &files);
    let client = Http2::connect(&node).await;
    for framing in
        ["Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "Content-Length: 10\r\n\r\nabc"]
    {
        let (answer, _) = client.begin(to("/"), true).await;
        let mut origin = app.connection().await;
        origin.head().await.unwrap();
        origin.send(format!("HTTP/1.1 200 OK\r\n{framing}")).await;
        let mut download = soon("an answer", answer).await.unwrap().into_body();
        assert_eq!(piece(&mut download).await.unwrap(), "abc");
        drop(origin);
        assert!(soon("the end", download.data()).await.unwrap().is_err(), "{framing}");
    }
    serves_another(&client, &app).await;
}

#[tokio::test]
async fn a_client_that_stops_in_the_middle_of_its_body_is_told_408() {
    let (app, files) = (Recorder::echoing().await, Files::of_shop());
    let node =
        Launch::before(app.target()).proxy(&files.tls(&["shop"])).proxy("body_timeout: 1s").start();
    let client = Http2::connect(&node).await;
    let (answer, mut upload) = client.begin(to("/").method("POST"), false).await;
    upload.send_data("abc".into(), false).unwrap();
    assert_eq!(soon("an answer", answer).await.unwrap().status(), 408);
    assert_eq!(client.get("/other").await.text(), "/other");
}
