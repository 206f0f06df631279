//! Clients of HTTP/2 that attack: they get nowhere, others are served meanwhile, and what is kept for
//! them has bounds.

use std::time::Duration;

use super::files::Files;
use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, PING, RST_STREAM, SETTINGS,
    field, frame, get, request,
};
use super::http2::Http2;
use super::node::{Launch, TestNode};
use super::protocols::node;
use super::recorder::{Recorder, ok};

/// ENHANCE_YOUR_CALM (RFC 9113, 7).
const CALM_DOWN: u32 = 11;
/// Who has taken nothing for so long will not take more.
const QUIET: Duration = Duration::from_secs(3);
/// More than the buffers of two sockets hold.
const MUCH: usize = 256 << 20;

/// That everybody else is served.
async fn serves(node: &TestNode) {
    assert_eq!(Http2::connect(node).await.get("/other").await.text(), "/other");
}

/// Bytes of memory that this process has, the node included.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[tokio::test]
async fn ten_thousand_streams_that_are_reset_at_once_end_the_connection() {
    let (app, files) = (Recorder::echoing().await, Files::of_shop());
    let node = node(&app, &files);
    let mut attacker = Frames::connect(&node).await;
    let burst: Vec<u8> = (0..10_000)
        .flat_map(|i| {
            let stream = 2 * i + 1;
            [get(stream, "/attack"), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
        })
        .collect();
    // It may end before it has taken them all.
    let _ = attacker.send(&burst).await;
    serves(&node).await;
    assert!(matches!(attacker.goodbye().await, None | Some(CALM_DOWN)));
    node.metric_becomes("litepilot_connections", "0").await;
    let reached = app.requests().iter().filter(|seen| seen.request.target() == "/attack").count();
    assert!(reached < 1000, "{reached} reached the application");
}

#[tokio::test]
async fn giving_up_one_stream_after_the_other_ends_the_connection() {
    let (app, files) = (Recorder::played().await, Files::of_shop());
    let node = node(&app, &files);
    let mut attacker = Frames::connect(&node).await;
    let mut ended = false;
    for i in 0..1000 {
        let stream = 2 * i + 1;
        ended = attacker.send(get(stream, "/")).await.is_err();
        // One that has reached the application.
        if ended || tokio::time::timeout(QUIET, app.connection()).await.is_err() {
            ended = true;
            break;
        }
        let _ = attacker.send(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])).await;
    }
    assert!(ended, "1000 streams were given up");
}

#[tokio::test]
async fn a_head_without_an_end_ends_the_connection() {
    let (app, files) = (Recorder::echoing().await, Files::of_shop());
    let node = node(&app, &files);
    for piece in [field("x-a", [b'a'; 100]).repeat(100), Vec::new(), field("x-a", "")] {
        let mut attacker = Frames::connect(&node).await;
        attacker.send(frame(HEADERS, 0, 1, &request("GET", "/attack"))).await.unwrap();
        let piece = frame(CONTINUATION, 0, 1, &piece);
        let taken = attacker.flood(&piece, MUCH, QUIET).await;
        assert!(taken < MUCH, "{taken} bytes of one head were taken");
        while attacker.next().await.is_some() {}
        serves(&node).await;
    }
    assert!(app.take().iter().all(|seen| seen.request.target() == "/other"));
}

#[tokio::test]
async fn a_head_that_unpacks_to_megabytes_is_refused() {
    let (app, files) = (Recorder::echoing().await, Files::of_shop());
    let node = node(&app, &files);
    let mut attacker = Frames::connect(&node).await;
    // One field that is remembered (RFC 7541, 6.2.1), then again and again by its number.
    let mut bomb = request("GET", "/attack");
    bomb.extend([0x40, 3]);
    bomb.extend(b"x-a");
    bomb.push(120);
    bomb.extend([b'a'; 120]);
    bomb.resize(bomb.len() + 15_000, 0x80 | 62);
    attacker.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb)).await.unwrap();
    // 431, or the end.
    if let Some(head) = attacker.next_of(HEADERS).await {
        assert_ne!(head.payload[0], 0x88, "200");
    }
    serves(&node).await;
    assert!(app.take().iter().all(|seen| seen.request.target() == "/other"));
}

#[tokio::test]
async fn pings_and_settings_whose_answers_nobody_reads_pile_up_nowhere() {
    let (app, files) = (Recorder::echoing().await, Files::of_shop());
    let node =
        Launch::before(app.target()).proxy(&files.tls(&["shop"])).proxy("body_timeout: 1s").start();
    serves(&node).await;
    let before = memory();
    for one in [frame(PING, 0, 0, &[1; 8]), frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0x40, 0])] {
        let mut attacker = Frames::connect(&node).await;
        let taken = attacker.flood(&one.repeat(1000), MUCH, QUIET).await;
        serves(&node).await;
        assert!(taken < MUCH, "{taken} bytes were taken");
        let grown = memory().saturating_sub(before);
        assert!(grown < 128 << 20, "{grown} bytes more than before");
    }
    // Cut off, since they take nothing.
    node.metric_becomes("litepilot_connections", "0").await;
}

#[tokio::test]
async fn empty_pieces_of_a_body_that_nobody_reads_pile_up_nowhere() {
    let (app, files) = (Recorder::played().await, Files::of_shop());
    let node = node(&app, &files);
    let mut attacker = Frames::connect(&node).await;
    attacker.send(frame(HEADERS, END_HEADERS, 1, &request("POST", "/"))).await.unwrap();
    let before = memory();
    let taken = attacker.flood(&frame(DATA, 0, 1, &[]).repeat(1000), 64 << 20, QUIET).await;
    let grown = memory().saturating_sub(before);
    assert!(grown < 128 << 20, "{grown} bytes more than before, for {taken}");
    // Others are served.
    let other = Http2::connect(&node).await;
    let (answer, ()) = tokio::join!(other.get("/other"), async {
        let mut origin = app.connection().await;
        origin.request().await.unwrap();
        origin.send(ok("fine")).await;
    });
    assert_eq!(answer.text(), "fine");
}
