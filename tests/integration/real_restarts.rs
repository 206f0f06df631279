//! gunicorn killed and restarted behind a node: requests wait, none is lost and none done twice.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use tokio::task::JoinSet;

use crate::real_sites::node_before;
use crate::support::node::{Launch, TestNode};
use crate::support::python::{App, Gunicorn, Worker};
use crate::support::visitor::json;
use crate::support::wire::{Message, soon};

const CLIENTS: usize = 6;

/// An answer to a write, by the id that its application counted it under.
type Answers = BTreeMap<String, Message>;

#[tokio::test]
async fn while_gunicorn_is_dead_requests_wait_and_then_succeed() {
    for worker in [Worker::Sync, Worker::Gthread] {
        let dir = tempfile::tempdir().unwrap();
        let mut app = Gunicorn::flask(worker, 2, dir.path()).start();
        let target = app.address().to_string();
        let node = Launch::before(&target).mount(dir.path()).proxy("write_hold: 25s").start();
        // Its connection is kept, and the next request finds it dead.
        let mut reader = node.client().await;
        reader.ask("GET /pid", &[]).await;
        app.kill_9();
        let mut writers = Vec::new();
        for id in ["a", "b"] {
            let mut writer = node.client().await;
            writer
                .begin("POST /api/count", &[&format!("X-Request-Id: {id}"), "Content-Length: 0"])
                .await;
            writers.push(writer);
        }
        node.metric_becomes(r#"litepilot_requests_held{class="write"}"#, "2").await;
        reader.begin("GET /api/count", &[]).await;
        node.metric_becomes(r#"litepilot_requests_held{class="read"}"#, "1").await;
        app.restart();
        for client in writers.iter_mut().chain([&mut reader]) {
            let answer = client.response().await;
            assert_eq!(answer.status(), 200, "{answer:?}");
        }
        let counted = reader.ask("GET /api/count", &[]).await;
        assert_eq!(json(&counted), serde_json::json!({"count": 2, "requests": {"a": 1, "b": 1}}));
    }
}

/// New workers take over while the socket stays open: nobody notices.
#[tokio::test]
async fn while_gunicorn_reloads_no_request_fails() {
    for worker in [Worker::Sync, Worker::Gthread] {
        let dir = tempfile::tempdir().unwrap();
        let app = Gunicorn::flask(worker, 2, dir.path()).start();
        let node = node_before(&app, dir.path());
        let answers = under_load(&node, move |progress| {
            for _ in 0..3 {
                reload(&app);
                progress.wait();
            }
            app
        })
        .await;
        for (id, answer) in &answers {
            assert_eq!(answer.status(), 200, "{worker:?} {id}: {answer:?}");
        }
    }
}

/// The socket is closed for a while, by the one gunicorn before the next opens it.
#[tokio::test]
async fn while_gunicorn_restarts_only_what_had_reached_it_may_fail() {
    for (worker, unix) in [(Worker::Sync, false), (Worker::Gthread, false), (Worker::Sync, true)] {
        let dir = tempfile::tempdir().unwrap();
        let launch = Gunicorn::flask(worker, 2, dir.path());
        let mut app = if unix { launch.unix() } else { launch }.start();
        let node = node_before(&app, dir.path());
        let answers = under_load(&node, move |progress| {
            for _ in 0..2 {
                app.restart();
                progress.wait();
            }
            app
        })
        .await;
        for (id, answer) in answers.iter().filter(|(_, answer)| answer.status() != 200) {
            eprintln!("{worker:?} {unix} {id}: {} {}", answer.status(), answer.text());
            // It was connected to the socket that gunicorn closed.
            assert_eq!(answer.problem(), "write-outcome-unknown", "{id}");
            assert!(!answer.retry_is_safe());
        }
    }
}
