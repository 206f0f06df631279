//! Slow and idle clients of HTTP/2, and what they learn when the node stops.

use super::files::Files;
use super::frames::{DATA, Frames, HEADERS, PING, RST_STREAM, SETTINGS, frame, get};
use super::http2::Http2;
use super::node::{Launch, TestNode};
use super::protocols;
use super::recorder::{Recorder, ok};
use super::wire::soon;

fn node(app: &Recorder, files: &Files, keys: &str) -> TestNode {
    Launch::before(app.target()).proxy(&files.tls(&["shop"])).proxy(keys).start()
}

/// SETTINGS_INITIAL_WINDOW_SIZE: 0.
const NO_WINDOW: [u8; 6] = [0, 4, 0, 0, 0, 0];

#[tokio::test]
async fn a_stream_that_takes_nothing_is_reset_and_others_of_its_connection_go_on() {
    let (app, files) = (Recorder::echoing().await, Files::of_shop());
    let node = node(&app, &files, "body_timeout: 1s");
    let mut client = Frames::connect_with(&node, &NO_WINDOW).await;
    client.send(get(1, "/a")).await.unwrap();
    assert_eq!(client.next_of(HEADERS).await.unwrap().stream, 1);
    assert_eq!(client.next_of(RST_STREAM).await.unwrap().stream, 1);
    // From now on it takes something.
    client.send(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0x40, 0])).await.unwrap();
    client.send(get(3, "/b")).await.unwrap();
    let data = client.next_of(DATA).await.unwrap();
    assert_eq!((data.stream, data.payload), (3, b"/b".to_vec()));
}

#[tokio::test]
async fn who_reads_nothing_at_all_is_cut_off() {
    let big = "x".repeat(1 << 20);
    let app = Recorder::answering(move |_| ok(&big)).await;
    let files = Files::of_shop();
    let node = node(&app, &files, "body_timeout: 1s");
    // Windows as large as they may be.
    let mut client = Frames::connect_with(&node, &[0, 4, 0x7f, 0xff, 0xff, 0xff]).await;
    client.send(frame(8, 0, 0, &[0x7f, 0, 0, 0])).await.unwrap();
    for stream in 0..50 {
        client.send(get(2 * stream + 1, "/")).await.unwrap();
    }
    node.metric_becomes("litepilot_connections", "0").await;
}

#[tokio::test]
async fn who_is_idle_or_silent_or_begins_and_does_not_go_on_is_asked_to_leave() {
    let (app, files) = (Recorder::echoing().await, Files::of_shop());
    let node = Launch::before(app.target())
        .proxy(&files.tls(&["shop"]))
        .proxy("keepalive_timeout: 2s")
        .proxy("header_timeout: 4s")
        .start();
    let mut idle = Frames::connect(&node).await;
    idle.send(get(1, "/a")).await.unwrap();
    assert_eq!(idle.goodbye().await, Some(0));
    // It does not answer the ping that goes with it.
    while idle.next().await.is_some() {}

    let mut silent = Frames::connect(&node).await;
    assert_eq!(silent.goodbye().await, Some(0));
    // Half a head.
    let mut slow = Frames::connect(&node).await;
    slow.send(&get(1, "/a")[..12]).await.unwrap();
    while slow.next().await.is_some() {}
    node.metric_becomes("litepilot_connections", "0").await;
}

#[tokio::test]
async fn a_node_that_stops_ends_what_is_under_way_and_says_so() {
    let (app, files) = (Recorder::played().await, Files::of_shop());
    let node = protocols::node(&app, &files);
    let (mut busy, mut idle) = (Frames::connect(&node).await, Http2::connect(&node).await);
    busy.send(get(1, "/")).await.unwrap();
    let mut origin = app.connection().await;
    origin.request().await.unwrap();
    node.stop();
    assert_eq!(busy.goodbye().await, Some(0));
    idle.closed().await;
    // Only what was on its way before is served.
    let ping = busy.next_of(PING).await.unwrap();
    busy.send(frame(PING, 1, 0, &ping.payload)).await.unwrap();
    origin.send(ok("done")).await;
    assert_eq!(busy.next_of(DATA).await.unwrap().payload, b"done");
    soon("the end", async { while busy.next().await.is_some() {} }).await;
    node.stopped().await;
}
