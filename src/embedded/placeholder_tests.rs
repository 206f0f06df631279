//! A replica that has no copy yet, and its application.

use super::cluster_tests::{Link, MODES, Node, REIGN, insert, replica_is_level, until};
use super::*;
use crate::txid::Txid;
use rusqlite::Connection;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command as Process;

const CREATE: &str = "CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, x)";

/// Neither does the application get in, nor does the node claim anything.
fn refuses_writes(node: &Node, app: &Connection) {
    let error = app.execute_batch(CREATE).unwrap_err().to_string();
    assert!(error.contains("attempt to write a readonly database"), "{error}");
    let error = app.query_row("SELECT x FROM t", (), |_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("no such table"), "{error}");
    assert_eq!(node.engine.state().state, "waiting");
    assert_eq!(node.engine.position().get(), EpochTxid::default());
}

fn nothing_was_saved(node: &Node) {
    assert!(node.archived().is_empty());
}

fn write(node: &Node) -> rusqlite::Result<()> {
    let app = node.connect();
    app.execute_batch(CREATE)?;
    app.execute("INSERT INTO t (x) VALUES (1)", ()).map(drop)
}

fn database(node: &Node, mode: &str, page_size: u32) -> Connection {
    let app = node.connect();
    app.pragma_update(None, "page_size", page_size).unwrap();
    app.pragma_update(None, "journal_mode", mode).unwrap();
    app.execute_batch(CREATE).unwrap();
    app
}

fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_application_cannot_make_a_database_of_its_own() {
    let mut node = Node::new(Duty::Replica);
    for _ in 0..3 {
        let app = node.connect();
        // Applications do this when they start.
        let mode: String =
            app.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
        refuses_writes(&node, &app);
        node.now().await;
        refuses_writes(&node, &node.connect());
        node.restart(Duty::Replica);
        refuses_writes(&node, &app);
    }
    node.engine.stop();
    refuses_writes(&node, &node.connect());
    assert_eq!(names(&node.mount()), ["db.sqlite3"]);
}

#[tokio::test]
async fn an_empty_file_is_none() {
    let mut node = Node::new(Duty::Replica);
    node.engine.stop();
    fs::remove_file(node.database()).unwrap();
    let app = node.connect();
    app.execute_batch("BEGIN; SELECT * FROM sqlite_schema; COMMIT").unwrap();
    assert_eq!(fs::metadata(node.database()).unwrap().len(), 0);
    node.restart(Duty::Replica);
    refuses_writes(&node, &app);
}

#[tokio::test]
async fn what_an_application_is_just_making_is_left_to_it_and_closed_afterwards() {
    for mode in MODES {
        let mut node = Node::new(Duty::Replica);
        node.engine.stop();
        fs::remove_file(node.database()).unwrap();
        let app = node.connect();
        app.pragma_update(None, "journal_mode", mode).unwrap();
        app.execute_batch("BEGIN IMMEDIATE").unwrap();
        app.execute_batch(CREATE).unwrap();
        node.restart(Duty::Replica);
        app.execute_batch("COMMIT").unwrap();
        until("closed", || app.execute("INSERT INTO t (x) VALUES (1)", ()).is_err()).await;
        let primary = Node::new(REIGN);
        insert(&primary.app(mode));
        let _link = Link::new(&primary, &node);
        replica_is_level(&primary, &node).await;
        assert_eq!(node.count(), 1, "{mode}");
        assert!(!node.archived().is_empty(), "{mode}: it was saved");
    }
}

#[tokio::test]
async fn it_belongs_to_the_application_that_need_not_be_root() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut node = Node::new(Duty::Replica);
    node.engine.stop();
    fs::remove_file(node.database()).unwrap();
    chown(node.mount(), Some(1234), Some(2345)).unwrap();
    fs::set_permissions(node.mount().parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    node.restart(Duty::Replica);
    for name in names(&node.mount()) {
        let file = fs::metadata(node.mount().join(&name)).unwrap();
        assert_eq!((file.uid(), file.gid()), (1234, 2345), "{name}");
    }
    let script = r#"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
for sql, reason in [("SELECT * FROM t", "no such table"), ("CREATE TABLE t (x)", "readonly")]:
    try:
        db.execute(sql)
        raise SystemExit(sql + " was possible")
    except sqlite3.OperationalError as e:
        assert reason in str(e), e
"#;
    for litepilot_runs in [true, false] {
        if !litepilot_runs {
            node.engine.stop();
        }
        let ended = Process::new("python3")
            .args(["-c", script])
            .arg(node.database())
            .uid(1234)
            .gid(2345)
            .output()
            .unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
}

#[tokio::test]
async fn the_first_copy_takes_its_place() {
    for mode in MODES {
        for page_size in [512, 1024, 4096, 8192, 65536] {
            let (primary, mut replica) = (Node::new(REIGN), Node::new(Duty::Replica));
            let app = database(&primary, mode, page_size);
            for _ in 0..3 {
                insert(&app);
            }
            refuses_writes(&replica, &replica.connect());
            let _link = Link::new(&primary, &replica);
            replica_is_level(&primary, &replica).await;
            for _ in 0..100 {
                insert(&app);
            }
            replica_is_level(&primary, &replica).await;
            let reader = replica.connect();
            let size: u32 = reader.pragma_query_value(None, "page_size", |row| row.get(0)).unwrap();
            let sound: String =
                reader.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
            assert_eq!((size, sound.as_str()), (page_size, "ok"), "{mode}");
            assert_eq!(replica.count(), 103, "{mode} {page_size}");
            assert!(write(&replica).unwrap_err().to_string().contains("readonly"));
            assert_eq!(replica.engine.state().state, "running");
            let had = replica.now().await;
            drop(reader);
            replica.restart(Duty::Replica);
            assert_eq!(replica.now().await, had, "{mode} {page_size}: known after a restart");
            nothing_was_saved(&replica);
        }
    }
}

#[tokio::test]
async fn an_application_that_stays_connected_sees_the_first_copy() {
    for mode in MODES {
        let (primary, replica) = (Node::new(REIGN), Node::new(Duty::Replica));
        let reader = replica.connect();
        refuses_writes(&replica, &reader);
        insert(&primary.app(mode));
        let _link = Link::new(&primary, &replica);
        replica_is_level(&primary, &replica).await;
        let rows: i64 = reader.query_row("SELECT count(*) FROM t", (), |row| row.get(0)).unwrap();
        assert_eq!(rows, 1, "{mode}");
        assert!(reader.execute("DELETE FROM t", ()).is_err());
    }
}

#[tokio::test]
async fn pages_of_another_size_wait_until_the_application_has_closed_it() {
    for mode in MODES {
        let (primary, replica) = (Node::new(REIGN), Node::new(Duty::Replica));
        let reader = replica.connect();
        refuses_writes(&replica, &reader);
        insert(&database(&primary, mode, 8192));
        let _link = Link::new(&primary, &replica);
        for _ in 0..3 {
            let update = primary.engine.ask(Command::Ship).await.unwrap();
            let update = Arc::new(update.image.update(None, update.position));
            let reign = Arc::new(primary.engine.ask(Command::Tenure).await.unwrap());
            let asked = replica.engine.ask(|reply| Command::Apply(update, reign, reply)).await;
            let error = asked.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ResourceBusy, "{error}");
            assert!(error.to_string().contains("has to close it once"), "{error}");
            refuses_writes(&replica, &reader);
            refuses_writes(&replica, &replica.connect());
        }
        drop(reader);
        replica_is_level(&primary, &replica).await;
        assert_eq!(replica.count(), 1, "{mode}");
        nothing_was_saved(&replica);
    }
}

#[tokio::test]
async fn the_application_begins_in_it_when_the_node_becomes_primary() {
    for mode in MODES {
        let (first, second) = (Node::new(Duty::Replica), Node::new(Duty::Replica));
        first.engine.become_primary(Epoch(2)).await.unwrap();
        let link = Link::new(&first, &second);
        insert(&first.app(mode));
        assert!(first.now().await.txid > Txid(0));
        replica_is_level(&first, &second).await;
        assert_eq!(second.count(), 1, "{mode}");
        drop(link);
        for node in [&first, &second] {
            nothing_was_saved(node);
        }
    }
}

#[tokio::test]
async fn a_primary_without_a_database_leaves_one_behind_that_nobody_can_write() {
    let (first, second) = (Node::new(REIGN), Node::new(Duty::Replica));
    first.engine.become_replica(None).await.unwrap();
    refuses_writes(&first, &first.connect());
    second.engine.become_primary(Epoch(2)).await.unwrap();
    let _link = Link::new(&second, &first);
    write(&second).unwrap();
    replica_is_level(&second, &first).await;
    assert_eq!(first.count(), 1);
    nothing_was_saved(&first);
}

#[tokio::test]
async fn a_primary_that_has_only_the_placeholder_wipes_nothing() {
    let (primary, mut other) = (Node::new(Duty::Replica), Node::new(REIGN));
    insert(&other.app("wal"));
    other.restart(Duty::Replica);
    primary.engine.become_primary(Epoch(2)).await.unwrap();
    let _link = Link::new(&primary, &other);
    for _ in 0..2 {
        primary.engine.ask(Command::Ship).await.unwrap();
        tokio::time::sleep(wire::HEARTBEAT).await;
    }
    assert_eq!(other.count(), 1);
    nothing_was_saved(&other);
}
