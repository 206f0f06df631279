//! The engine on one node, with real SQLite files and a real application's connections.

use super::harness::*;

/// A node on its own.
struct Alone(tempfile::TempDir);

impl Alone {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("mount")).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn database(&self) -> PathBuf {
        self.path("mount/db.sqlite3")
    }

    fn start(&self) -> Arc<Embedded> {
        start(self.0.path(), PRIMARY, false).unwrap()
    }

    fn app(&self, mode: &str) -> Connection {
        let app = Connection::open(self.database()).unwrap();
        app.pragma_update(None, "journal_mode", mode).unwrap();
        app.execute_batch("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, x)").unwrap();
        app
    }
}

async fn txid(engine: &Embedded) -> Txid {
    engine.read_position().await.unwrap().txid
}

#[tokio::test]
async fn a_position_read_after_a_commit_contains_it() {
    for mode in ["delete", "wal"] {
        let node = Alone::new();
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
    let node = Alone::new();
    let app = node.app("wal");
    let engine = node.start();
    for _ in 0..3 {
        let mut next = engine.position().get();
        next.txid.0 += 1;
        insert(&app);
        timeout(PATIENCE, engine.position().wait(next)).await.unwrap();
    }
}

#[tokio::test]
async fn a_database_that_comes_later_is_waited_for_and_not_created() {
    let node = Alone::new();
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
    let node = Alone::new();
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
async fn what_cannot_be_read_is_an_error_until_it_can() {
    let node = Alone::new();
    let app = node.app("delete");
    let engine = node.start();
    let before = txid(&engine).await;
    app.execute_batch("BEGIN EXCLUSIVE; INSERT INTO t (x) VALUES (1)").unwrap();
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
    let node = Alone::new();
    let app = node.app("wal");
    let engine = node.start();
    let (data, moved) = (node.path("data"), node.path("moved"));
    let before = txid(&engine).await;
    fs::rename(&data, &moved).unwrap();
    let error = loop {
        insert(&app);
        if let Err(error) = engine.read_position().await {
            break error;
        }
    };
    assert!(error.to_string().contains("embedded."), "{error}");
    let stuck = engine.position().get().txid;
    fs::rename(&moved, &data).unwrap();
    assert_eq!(txid(&engine).await, Txid(stuck.0 + 1));
    assert!(stuck >= before);
}

#[tokio::test]
async fn a_stopped_engine_answers_with_an_error() {
    let node = Alone::new();
    let engine = node.start();
    engine.stop();
    engine.stop();
    assert!(engine.read_position().await.is_err());
}

#[tokio::test]
async fn nothing_is_written_while_nothing_is_committed() {
    let node = Alone::new();
    let app = node.app("wal");
    insert(&app);
    let engine = node.start();
    txid(&engine).await;
    let before = files(node.0.path());
    for _ in 0..100 {
        txid(&engine).await;
    }
    assert_eq!(files(node.0.path()), before);
}

/// Names, sizes and times of change, but for the `-shm`, which lives in memory.
fn files(dir: &Path) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    let mut found = Vec::new();
    for dir in [dir.join("mount"), dir.join("data")] {
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
