//! The engine on one node, with real SQLite files and a real application's connections.

use super::*;
use crate::txid::Txid;
use rusqlite::Connection;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

struct Node {
    dir: tempfile::TempDir,
    epoch: Epoch,
}

impl Node {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), epoch: Epoch(1) }
    }

    fn database(&self) -> PathBuf {
        self.dir.path().join("db.sqlite3")
    }

    fn start(&self) -> Arc<Embedded> {
        self.try_start().unwrap()
    }

    fn try_start(&self) -> io::Result<Arc<Embedded>> {
        Embedded::start(Options {
            mount: self.dir.path().to_owned(),
            db: "db.sqlite3".into(),
            data_dir: self.dir.path().join("data"),
            duty: Duty::Primary(self.epoch),
            replicated: false,
            apply_delay: Duration::ZERO,
        })
    }

    fn app(&self, mode: &str) -> Connection {
        let app = Connection::open(self.database()).unwrap();
        app.pragma_update(None, "journal_mode", mode).unwrap();
        app.execute_batch("CREATE TABLE IF NOT EXISTS t (x)").unwrap();
        app
    }
}

fn insert(app: &Connection) {
    app.execute("INSERT INTO t VALUES (1)", ()).unwrap();
}

async fn txid(engine: &Embedded) -> Txid {
    engine.read_position().await.unwrap().txid
}

#[tokio::test]
async fn a_position_read_after_a_commit_contains_it() {
    for mode in ["delete", "wal"] {
        let node = Node::new();
        let app = node.app(mode);
        let engine = node.start();
        let mut last = txid(&engine).await;
        for _ in 0..100 {
            insert(&app);
            let now = txid(&engine).await;
            assert_eq!(now, Txid(last.0 + 1), "{mode}");
            assert_eq!(engine.position().get().txid, now, "{mode}: published");
            last = now;
        }
        assert_eq!(txid(&engine).await, last, "{mode}: no commit, no change");
    }
}

#[tokio::test]
async fn commits_past_the_proxy_advance_the_position() {
    let node = Node::new();
    let app = node.app("wal");
    let engine = node.start();
    for _ in 0..3 {
        let mut next = engine.position().get();
        next.txid.0 += 1;
        insert(&app);
        tokio::time::timeout(Duration::from_secs(30), engine.position().wait(next)).await.unwrap();
    }
}

#[tokio::test]
async fn a_database_that_comes_later_is_waited_for_and_not_created() {
    let node = Node::new();
    let engine = node.start();
    assert_eq!(engine.state().state, "waiting");
    assert_eq!(txid(&engine).await, Txid(0));
    assert!(!node.database().exists());
    node.app("wal");
    assert!(txid(&engine).await > Txid(0));
    assert_eq!(engine.state().state, "running");
}

#[tokio::test]
async fn a_restart_never_repeats_a_number() {
    let node = Node::new();
    let app = node.app("delete");
    let mut last = Txid(0);
    for round in 0..5 {
        let engine = node.start();
        assert!(engine.position().get().txid > last, "round {round}: known at once");
        for _ in 0..round {
            insert(&app);
            txid(&engine).await;
        }
        last = txid(&engine).await;
        engine.stop();
        insert(&app);
    }
    // Gone altogether: still not the number of a state that had data.
    drop(app);
    fs::remove_file(node.database()).unwrap();
    let engine = node.start();
    assert!(txid(&engine).await > last);
    assert_eq!(engine.state().state, "waiting");
}

#[tokio::test]
async fn a_replaced_database_is_a_change() {
    let node = Node::new();
    drop(node.app("delete"));
    let engine = node.start();
    let before = txid(&engine).await;
    let copy = node.dir.path().join("copy");
    fs::copy(node.database(), &copy).unwrap();
    fs::rename(&copy, node.database()).unwrap();
    assert_eq!(txid(&engine).await, Txid(before.0 + 1));
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error_until_it_can() {
    let node = Node::new();
    let app = node.app("delete");
    let engine = node.start();
    let before = txid(&engine).await;
    app.execute_batch("BEGIN EXCLUSIVE; INSERT INTO t VALUES (1)").unwrap();
    let error = engine.read_position().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy, "{error}");
    assert!(engine.state().state.starts_with("failed: "));
    app.execute_batch("COMMIT").unwrap();
    assert_eq!(txid(&engine).await, Txid(before.0 + 1));
    drop(app);
    fs::write(node.database(), "no database ".repeat(100)).unwrap();
    let error = engine.read_position().await.unwrap_err();
    assert!(error.to_string().contains("not a database"), "{error}");
}

#[tokio::test]
async fn a_number_that_cannot_be_reserved_is_not_given_out() {
    let node = Node::new();
    let app = node.app("wal");
    let engine = node.start();
    let data = node.dir.path().join("data");
    let moved = node.dir.path().join("moved");
    let before = txid(&engine).await;
    fs::rename(&data, &moved).unwrap();
    let error = loop {
        insert(&app);
        if let Err(error) = engine.read_position().await {
            break error;
        }
    };
    assert!(error.to_string().contains(store::FILE), "{error}");
    let stuck = engine.position().get().txid;
    fs::rename(&moved, &data).unwrap();
    assert_eq!(txid(&engine).await, Txid(stuck.0 + 1));
    assert!(stuck > before);
}

#[tokio::test]
async fn damaged_state_is_refused() {
    let node = Node::new();
    node.app("wal");
    node.start();
    let file = node.dir.path().join("data").join(store::FILE);
    fs::write(&file, "something else").unwrap();
    let error = node.try_start().err().expect("refused");
    assert!(error.to_string().contains("Nothing was changed"), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "something else");
}

#[tokio::test]
async fn an_earlier_epoch_is_refused() {
    let mut node = Node::new();
    node.app("wal");
    node.epoch = Epoch(4);
    node.start();
    node.epoch = Epoch(3);
    assert!(node.try_start().is_err());
}

#[tokio::test]
async fn a_stopped_engine_answers_with_an_error() {
    let node = Node::new();
    let engine = node.start();
    engine.stop();
    engine.stop();
    assert!(engine.read_position().await.is_err());
}

#[tokio::test]
async fn nothing_is_written_while_nothing_is_committed() {
    let node = Node::new();
    let app = node.app("wal");
    insert(&app);
    let engine = node.start();
    txid(&engine).await;
    let before = stamps(node.dir.path());
    for _ in 0..100 {
        txid(&engine).await;
    }
    assert_eq!(stamps(node.dir.path()), before);
}

/// Names, sizes and times of change, but for the `-shm`, which lives in memory.
fn stamps(dir: &Path) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    let mut found = Vec::new();
    for dir in [dir.to_owned(), dir.join("data")] {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let file = fs::metadata(&path).unwrap();
            if file.is_file() && !path.to_string_lossy().ends_with("-shm") {
                found.push((path, file.len(), file.modified().unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// `cargo test --release --lib embedded::tests::latency -- --ignored --nocapture`
#[tokio::test]
#[ignore = "a measurement"]
async fn latency() {
    for mode in ["delete", "wal"] {
        for batch in [1, 50] {
            let node = Node::new();
            let app = node.app(mode);
            let engine = node.start();
            let mut taken = Vec::new();
            for _ in 0..(5_000 / batch) {
                insert(&app);
                let asked = (0..batch).map(|_| {
                    let engine = engine.clone();
                    tokio::spawn(async move {
                        let began = Instant::now();
                        engine.read_position().await.unwrap();
                        began.elapsed()
                    })
                });
                for answer in asked.collect::<Vec<_>>() {
                    taken.push(answer.await.unwrap());
                }
            }
            taken.sort();
            let at = |percent: usize| taken[(taken.len() - 1) * percent / 100];
            println!("{mode}, {batch} at once: p50 {:?}, p99 {:?}", at(50), at(99));
        }
    }
}
