//! gunicorn killed and restarted behind a node: requests wait, none is lost and none done twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::real_sites::node_before;
use crate::support::node::{Launch, TestNode};
use crate::support::python::{App, Gunicorn, Worker};
use crate::support::raw::Client;
use crate::support::visitor::json;
use crate::support::wire::Message;

const CLIENTS: usize = 6;
/// Of gunicorn.
const WORKERS: usize = 2;
/// What has not happened by then never will.
const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn while_gunicorn_is_dead_requests_wait_and_then_succeed() {
    for worker in [Worker::Sync, Worker::Gthread] {
        let dir = tempfile::tempdir().unwrap();
        let mut app = Gunicorn::flask(worker, WORKERS, dir.path()).start();
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
        let app = Gunicorn::flask(worker, WORKERS, dir.path()).start();
        let node = node_before(&app, dir.path());
        let reloads = move |load: &Load| {
            for _ in 0..3 {
                load.goes_on();
                reload(&app);
            }
            app
        };
        for answer in under_load(&node, reloads).await {
            assert_eq!(answer.status(), 200, "{worker:?}: {answer:?}");
        }
    }
}

/// Whoever connects meanwhile waits in the socket's queue.
#[tokio::test]
async fn while_gunicorn_restarts_at_a_socket_that_stays_open_no_request_fails() {
    for worker in [Worker::Sync, Worker::Gthread] {
        let dir = tempfile::tempdir().unwrap();
        let mut app = Gunicorn::flask(worker, WORKERS, dir.path()).at_an_open_socket().start();
        let node = node_before(&app, dir.path());
        let restarts = move |load: &Load| {
            load.goes_on();
            app.restart();
            app
        };
        for answer in under_load(&node, restarts).await {
            assert_eq!(answer.status(), 200, "{worker:?}: {answer:?}");
        }
    }
}

/// The socket is closed for a while, by the one gunicorn before the next opens it.
#[tokio::test]
async fn while_gunicorn_restarts_only_what_had_reached_it_may_fail() {
    for (worker, unix) in [(Worker::Sync, false), (Worker::Gthread, false), (Worker::Sync, true)] {
        let dir = tempfile::tempdir().unwrap();
        let launch = Gunicorn::flask(worker, WORKERS, dir.path());
        let mut app = if unix { launch.unix() } else { launch }.start();
        let node = node_before(&app, dir.path());
        let restarts = move |load: &Load| {
            for _ in 0..2 {
                load.goes_on();
                app.restart();
            }
            app
        };
        for answer in under_load(&node, restarts).await {
            if answer.status() != 200 {
                // Its connection was one of those that gunicorn closed with its socket.
                assert_eq!(
                    (answer.status(), answer.problem().as_str()),
                    (502, "write-outcome-unknown")
                );
                assert!(!answer.retry_is_safe());
            }
        }
    }
}

/// Has gunicorn replace its workers; returns once the old ones are gone.
fn reload(app: &App) {
    let gone = || app.log().matches("Worker exiting").count();
    let before = gone();
    app.reload();
    until("the old workers to be gone", || gone() >= before + WORKERS);
}

fn until(what: &str, reached: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !reached() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Clients at work.
#[derive(Default)]
struct Load {
    answered: AtomicUsize,
    over: AtomicBool,
}

impl Load {
    /// Returns once so many more requests were answered that every client had several.
    fn goes_on(&self) {
        let goal = self.answered.load(SeqCst) + 10 * CLIENTS;
        until("answers", || self.answered.load(SeqCst) >= goal);
    }
}

/// Has clients read and write while `disturb` runs and a little longer. Reads must succeed, and
/// writes be counted as their answers, which are returned, say: those of 200 once, others at most
/// once.
async fn under_load(
    node: &TestNode,
    disturb: impl FnOnce(&Load) -> App + Send + 'static,
) -> Vec<Message> {
    let load = Arc::new(Load::default());
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(work(node.client().await, number, load.clone()));
    }
    let disturbance = tokio::task::spawn_blocking(move || {
        let app = disturb(&load);
        load.goes_on();
        load.over.store(true, SeqCst);
        app
    });
    let answers = clients.join_all().await;
    let _app = disturbance.await.unwrap();

    let counted = json(&node.client().await.ask("GET /api/count", &[]).await);
    let counted = counted["requests"].as_object().unwrap();
    for (id, answer, read) in answers.iter().flatten() {
        assert_eq!(read.status(), 200, "after {id}: {read:?}");
        let times = counted.get(id).map_or(0, |times| times.as_u64().unwrap());
        let right = if answer.status() == 200 { times == 1 } else { times <= 1 };
        assert!(right, "{id} was counted {times} times, and answered: {answer:?}");
    }
    answers.into_iter().flatten().map(|(_, answer, _)| answer).collect()
}

/// Writes and reads in turn on one connection: each write's id and answer, and the next read's.
async fn work(
    mut client: Client,
    number: usize,
    load: Arc<Load>,
) -> Vec<(String, Message, Message)> {
    let mut answers = Vec::new();
    while !load.over.load(SeqCst) {
        let id = format!("{number}-{}", answers.len());
        let write = client.post("/api/count", &[&format!("X-Request-Id: {id}")], "x").await;
        let read = client.ask("GET /", &[]).await;
        answers.push((id, write, read));
        load.answered.fetch_add(2, SeqCst);
    }
    answers
}
