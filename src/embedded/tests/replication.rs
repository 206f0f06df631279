//! Several engines, and real applications: other processes, with the SQLite that comes with Python.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, ChildStdout, Command as Process, Stdio};

use super::harness::*;
use crate::embedded::wire::{HEARTBEAT, Message, Wire};

#[tokio::test]
async fn what_a_position_says_is_there() {
    for mode in MODES {
        let (primary, replica) = (Node::new(PRIMARY), Node::new(CopyRole::Replica));
        let _link = Joined::new(&primary, &replica);
        let app = primary.app(mode);
        for n in 1..=50 {
            insert(&app);
            let written = primary.now().await;
            replica.reaches(written).await;
            assert!(replica.count() >= n, "{mode}: write {n}");
            assert_eq!(replica.now().await, written);
        }
    }
}

#[tokio::test]
async fn applications_are_told_where_they_are() {
    let (primary, replica) = (Node::new(PRIMARY), Node::new(CopyRole::Replica));
    replica.engine.become_replica(Some("node-1".parse().unwrap())).await.unwrap();
    let _link = Joined::new(&primary, &replica);
    let app = primary.app("wal");
    insert(&app);
    replica_is_level(&primary, &replica).await;
    let pos =
        |node: &Node| fs::read_to_string(node.mount().join("db.sqlite3-pos")).unwrap_or_default();
    until("equal files", || pos(&primary).len() == 34 && pos(&primary) == pos(&replica)).await;
    assert!(pos(&replica).starts_with(&format!("{}/", replica.now().await.txid)));
    assert_eq!(fs::read_to_string(replica.mount().join(".primary")).unwrap(), "node-1\n");
    assert!(!primary.mount().join(".primary").exists());
    replica.engine.become_primary(Epoch(2)).await.unwrap();
    assert!(!replica.mount().join(".primary").exists());
}

#[tokio::test]
async fn restarts_in_any_order_resume() {
    for mode in MODES {
        let (mut primary, mut replica) = (Node::new(PRIMARY), Node::new(CopyRole::Replica));
        let mut link = Joined::new(&primary, &replica);
        let app = primary.app(mode);
        for round in 0..6 {
            insert(&app);
            replica_is_level(&primary, &replica).await;
            drop(link);
            if round % 2 == 0 {
                let had = replica.now().await;
                replica.restart(CopyRole::Replica);
                assert_eq!(replica.now().await, had, "{mode}: what it had is known at once");
            }
            insert(&app);
            if round % 3 == 0 {
                let before = primary.now().await;
                primary.restart(PRIMARY);
                assert!(primary.now().await > before);
            }
            link = Joined::new(&primary, &replica);
        }
        replica_is_level(&primary, &replica).await;
        assert_eq!(replica.count(), 12, "{mode}");
        assert!(replica.archived().is_empty(), "nothing diverged");
    }
}

#[tokio::test]
async fn the_primary_role_moves_and_the_old_primary_follows() {
    for mode in MODES {
        let (first, second) = (Node::new(PRIMARY), Node::new(CopyRole::Replica));
        let link = Joined::new(&first, &second);
        insert(&first.app(mode));
        replica_is_level(&first, &second).await;
        first.engine.become_replica(None).await.unwrap();
        let fenced = first.connect().execute("DELETE FROM t", ()).unwrap_err();
        assert!(fenced.to_string().contains("readonly"), "{fenced}");
        drop(link);
        second.engine.become_primary(Epoch(2)).await.unwrap();
        assert!(second.now().await > first.now().await);
        let link = Joined::new(&second, &first);
        insert(&second.app(mode));
        replica_is_level(&second, &first).await;
        assert_eq!(first.count(), 2, "{mode}");
        assert_eq!(first.now().await.epoch, Epoch(2));
        drop(link);
        // And back.
        second.engine.become_replica(None).await.unwrap();
        first.engine.become_primary(Epoch(3)).await.unwrap();
        let _link = Joined::new(&first, &second);
        insert(&first.app(mode));
        replica_is_level(&first, &second).await;
        assert_eq!(second.count(), 3, "{mode}");
        for node in [&first, &second] {
            assert!(node.archived().is_empty(), "nothing diverged");
        }
    }
}

#[tokio::test]
async fn what_nobody_else_has_is_saved_before_it_is_replaced() {
    for mode in MODES {
        let (primary, mut other) = (Node::new(PRIMARY), Node::new(CopyRole::Primary(Epoch(1))));
        insert(&primary.app(mode));
        let own = other.app(mode);
        own.execute_batch("CREATE TABLE mine (x); INSERT INTO mine VALUES ('precious')").unwrap();
        drop(own);
        other.restart(CopyRole::Replica);
        let _link = Joined::new(&primary, &other);
        until("replaced", || other.count() == 1).await;
        let [saved] = &other.archived()[..] else { panic!("{mode}: not saved") };
        let saved = Connection::open(saved).unwrap();
        let x: String = saved.query_row("SELECT x FROM mine", (), |row| row.get(0)).unwrap();
        assert_eq!(x, "precious");
        saved.execute("DELETE FROM mine", ()).unwrap();
    }
}

#[tokio::test]
async fn equal_data_need_not_be_sent() {
    let (primary, mut other) = (Node::new(PRIMARY), Node::new(PRIMARY));
    insert(&primary.app("delete"));
    fs::copy(primary.database(), other.database()).unwrap();
    other.restart(CopyRole::Replica);
    let _link = Joined::new(&primary, &other);
    replica_is_level(&primary, &other).await;
    assert!(other.archived().is_empty());
}

#[tokio::test]
async fn a_stale_primary_is_not_followed() {
    let (old, new, replica) =
        (Node::new(PRIMARY), Node::new(CopyRole::Primary(Epoch(2))), Node::new(CopyRole::Replica));
    insert(&old.app("wal"));
    insert(&new.app("wal"));
    let link = Joined::new(&new, &replica);
    replica_is_level(&new, &replica).await;
    drop(link);
    let error = Joined::new(&old, &replica).failure().await;
    assert!(error.to_string().contains("epoch"), "{error}");
    let error = Joined::new(&replica, &old).failure().await;
    assert!(error.to_string().contains("not a replica"), "{error}");
}

#[tokio::test]
async fn an_empty_primary_wipes_nothing() {
    let (primary, mut other) = (Node::new(PRIMARY), Node::new(PRIMARY));
    insert(&other.app("wal"));
    other.restart(CopyRole::Replica);
    let _link = Joined::new(&primary, &other);
    let held = other.engine.clone();
    for _ in 0..3 {
        primary.engine.ask(Worker::ship).await.unwrap();
        tokio::time::sleep(HEARTBEAT).await;
    }
    assert_eq!(other.count(), 1);
    assert_eq!(held.lag(), None, "it is not level");
}

#[tokio::test]
async fn too_large_a_database_is_refused_and_shrinking_it_helps() {
    let (primary, replica) = (Node::new(PRIMARY), Node::new(CopyRole::Replica));
    let app = primary.app("delete");
    let fill = "WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c LIMIT 70)
        INSERT INTO t SELECT n, zeroblob(1048576) FROM c";
    app.execute_batch(fill).unwrap();
    let error = Joined::new(&primary, &replica).failure().await;
    assert!(error.to_string().contains("at most 64 MiB"), "{error}");
    for node in [&primary, &replica] {
        let state = node.engine.state().state;
        assert!(state.contains("at most 64 MiB"), "{state}");
    }
    app.execute_batch("DELETE FROM t WHERE n > 3; VACUUM").unwrap();
    let _link = Joined::new(&primary, &replica);
    replica_is_level(&primary, &replica).await;
    assert_eq!(replica.count(), 3);
    assert_eq!(replica.engine.state().state, "running");
}

#[tokio::test]
async fn lag_grows_while_the_link_is_cut() {
    let (primary, replica) = (Node::new(PRIMARY), Node::new(CopyRole::Replica));
    assert_eq!(primary.engine.lag(), Some(Duration::ZERO));
    assert_eq!(replica.engine.lag(), None);
    let link = Joined::new(&primary, &replica);
    insert(&primary.app("wal"));
    replica_is_level(&primary, &replica).await;
    until("known to be level", || replica.engine.lag().is_some()).await;
    drop(link);
    let cut = replica.engine.lag().unwrap();
    until("lagging", || replica.engine.lag().unwrap() > cut + 2 * HEARTBEAT).await;
    let _link = Joined::new(&primary, &replica);
    until("level again", || replica.engine.lag().unwrap() < cut + HEARTBEAT).await;
}

#[tokio::test]
async fn a_link_that_falls_silent_is_given_up() {
    let (primary, replica) = (Node::new(PRIMARY), Node::new(CopyRole::Replica));
    insert(&primary.app("wal"));
    let (near, far) = tokio::io::duplex(1 << 20);
    let mut far = Wire::new(far);
    far.send(&Message::Hello(Position::default())).await.unwrap();
    let (silent, _held) = tokio::io::duplex(1 << 20);
    let ended = tokio::join!(primary.engine.serve(near, |_| {}), replica.engine.follow(silent));
    for ended in [ended.0, ended.1] {
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}

/// An application in a process of its own that reads in a loop, with connections that stay and
/// connections that do not, and checks that what it sees belongs together.
struct Reader {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

const READER: &str = r#"
import os, select, sqlite3, sys
stay = sqlite3.connect(sys.argv[1], timeout=30)
print("ready", flush=True)
seen, last = set(), -1
while not select.select([sys.stdin], [], [], 0)[0]:
    for db in (stay, sqlite3.connect(sys.argv[1], timeout=30)):
        low, high, rows, size = db.execute("SELECT min(v), max(v), count(*), sum(length(x)) FROM t").fetchone()
        assert low == high and rows == 300, (low, high, rows)
        assert high >= last, (high, last)
        seen.add(high); last = high
        if db is not stay:
            try:
                db.execute("UPDATE t SET v = -1"); raise SystemExit("wrote to a replica")
            except sqlite3.OperationalError as e:
                assert "readonly" in str(e), e
            db.rollback(); db.close()
assert stay.execute("PRAGMA integrity_check").fetchone() == ("ok",)
print(len(seen), flush=True)
"#;

impl Reader {
    fn new(database: &Path) -> Self {
        let mut process = Process::new("python3")
            .args(["-c", READER])
            .arg(database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { process, input, output }
    }

    /// How many states it saw, all of them whole.
    fn finish(mut self) -> usize {
        drop(self.input.take());
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(self.process.wait().unwrap().success(), "the reader saw something wrong");
        line.trim().parse().unwrap()
    }
}

/// Several hundred rows on as many pages, all with the same `v` in every committed state.
fn fill(app: &Connection) {
    app.execute_batch(
        "CREATE TABLE t (n INTEGER PRIMARY KEY, v, x);
         WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c LIMIT 300)
         INSERT INTO t SELECT n, 0, randomblob(1500) FROM c",
    )
    .unwrap();
}

#[tokio::test]
async fn readers_in_other_processes_never_see_a_torn_state() {
    for mode in MODES {
        let (primary, replica) = (Node::new(PRIMARY), Node::new(CopyRole::Replica));
        let _link = Joined::new(&primary, &replica);
        let app = primary.connect();
        app.pragma_update(None, "journal_mode", mode).unwrap();
        fill(&app);
        replica_is_level(&primary, &replica).await;
        let readers = [Reader::new(&replica.database()), Reader::new(&replica.database())];
        for v in 1..=60 {
            app.execute("UPDATE t SET v = ?1, x = randomblob(1000 + 10 * ?1)", [v]).unwrap();
            replica_is_level(&primary, &replica).await;
        }
        for reader in readers {
            let seen = tokio::task::spawn_blocking(|| reader.finish()).await.unwrap();
            assert!(seen > 3, "{mode}: it looked only at {seen} states");
        }
    }
}
