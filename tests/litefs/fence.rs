//! The fence, on a plain directory: the process that holds it, and its ends.

use std::path::Path;
use std::time::Duration;

use litepilot::litefs::fence::Fence;
use rusqlite::Connection;

use super::support::LONG;

async fn raise(mount: &Path, limit: Duration) -> std::io::Result<Fence> {
    Fence::raise(Path::new(env!("CARGO_BIN_EXE_litepilot")), mount, limit).await
}

fn database(dir: &Path, mode: &str) -> Connection {
    let connection = Connection::open(dir.join(mode)).unwrap();
    connection.pragma_update(None, "journal_mode", mode).unwrap();
    connection.execute_batch("CREATE TABLE t (x)").unwrap();
    connection.busy_timeout(Duration::ZERO).unwrap();
    connection
}

#[tokio::test]
async fn nobody_writes_while_it_is_up_and_everybody_reads() {
    let dir = tempfile::tempdir().unwrap();
    let apps = ["wal", "delete", "truncate"].map(|mode| database(dir.path(), mode));
    let fence = raise(dir.path(), LONG).await.unwrap();
    let insert = |app: &Connection| app.execute("INSERT INTO t VALUES (1)", []);
    let count =
        |app: &Connection| app.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
    for app in &apps {
        assert!(insert(app).is_err());
        assert_eq!(count(app).unwrap(), 0);
    }
    fence.lift().await.unwrap();
    for app in &apps {
        insert(app).unwrap();
        assert_eq!(count(app).unwrap(), 1);
    }
}

#[tokio::test]
async fn writers_that_do_not_end_keep_it_down() {
    let dir = tempfile::tempdir().unwrap();
    let app = database(dir.path(), "wal");
    app.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").unwrap();
    let why = raise(dir.path(), Duration::from_millis(10)).await.unwrap_err().to_string();
    assert!(why.contains("writers were still at work"), "{why}");
    app.execute_batch("COMMIT").unwrap();
    raise(dir.path(), LONG).await.unwrap().lift().await.unwrap();
}

#[tokio::test]
async fn one_that_was_dropped_lets_go() {
    let dir = tempfile::tempdir().unwrap();
    let app = database(dir.path(), "wal");
    drop(raise(dir.path(), LONG).await.unwrap());
    app.busy_timeout(LONG).unwrap();
    app.execute("INSERT INTO t VALUES (1)", []).unwrap();
}
