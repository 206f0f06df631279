//! A replica that has no copy yet, and its application.

use super::harness::*;

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
    let mut node = Node::new(CopyRole::Replica);
    for _ in 0..3 {
        let app = node.connect();
        // Applications do this when they start.
        let mode: String =
            app.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
        refuses_writes(&node, &app);
        node.now().await;
        refuses_writes(&node, &node.connect());
        node.restart(CopyRole::Replica);
        refuses_writes(&node, &app);
    }
    node.engine.stop();
    refuses_writes(&node, &node.connect());
    assert_eq!(names(&node.mount()), ["db.sqlite3"]);
}

#[tokio::test]
async fn what_an_application_is_just_making_is_left_to_it_and_closed_afterwards() {
    for mode in MODES {
        let mut node = Node::new(CopyRole::Replica);
        node.engine.stop();
        fs::remove_file(node.database()).unwrap();
        let app = node.connect();
        app.pragma_update(None, "journal_mode", mode).unwrap();
        app.execute_batch("BEGIN IMMEDIATE").unwrap();
        app.execute_batch(CREATE).unwrap();
        node.restart(CopyRole::Replica);
        app.execute_batch("COMMIT").unwrap();
        until("closed", || app.execute("INSERT INTO t (x) VALUES (1)", ()).is_err()).await;
        let primary = Node::new(PRIMARY);
        insert(&primary.app(mode));
        let _link = Joined::new(&primary, &node);
        replica_is_level(&primary, &node).await;
        assert_eq!(node.count(), 1, "{mode}");
        assert!(!node.archived().is_empty(), "{mode}: it was saved");
    }
}

#[tokio::test]
async fn the_first_copy_takes_its_place() {
    for mode in MODES {
        for page_size in [512, 1024, 4096, 8192, 65536] {
            let (primary, mut replica) = (Node::new(PRIMARY), Node::new(CopyRole::Replica));
            let app = database(&primary, mode, page_size);
            for _ in 0..3 {
                insert(&app);
            }
            refuses_writes(&replica, &replica.connect());
            let _link = Joined::new(&primary, &replica);
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
            replica.restart(CopyRole::Replica);
            assert_eq!(replica.now().await, had, "{mode} {page_size}: known after a restart");
            nothing_was_saved(&replica);
        }
    }
}

#[tokio::test]
async fn pages_of_another_size_wait_until_the_application_has_closed_it() {
    for mode in MODES {
        let (primary, replica) = (Node::new(PRIMARY), Node::new(CopyRole::Replica));
        let reader = replica.connect();
        refuses_writes(&replica, &reader);
        insert(&database(&primary, mode, 8192));
        let _link = Joined::new(&primary, &replica);
        for _ in 0..3 {
            let update = primary.engine.ask(Worker::ship).await.unwrap();
            let update = update.update(None);
            let lineage = primary.engine.ask(|worker| worker.lineage()).await.unwrap();
            let asked = replica.engine.ask(move |worker| worker.apply(&update, &lineage)).await;
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
        let (first, second) = (Node::new(CopyRole::Replica), Node::new(CopyRole::Replica));
        first.engine.become_primary(Epoch(2)).await.unwrap();
        let link = Joined::new(&first, &second);
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
    let (first, second) = (Node::new(PRIMARY), Node::new(CopyRole::Replica));
    first.engine.become_replica(None).await.unwrap();
    refuses_writes(&first, &first.connect());
    second.engine.become_primary(Epoch(2)).await.unwrap();
    let _link = Joined::new(&second, &first);
    write(&second).unwrap();
    replica_is_level(&second, &first).await;
    assert_eq!(first.count(), 1);
    nothing_was_saved(&first);
}
