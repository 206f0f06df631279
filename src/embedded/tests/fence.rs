//! The fence against applications that write past the proxy: other processes, with the SQLite that
//! comes with Python.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command as Process, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};

use super::harness::*;

/// How often it is tried.
const ROUNDS: usize = 10;

/// Writes without a pause until its input ends: with a connection that stays, and with new ones.
/// Says of each transaction what SQLite has told it.
const WRITER: &str = r#"
import select, sqlite3, sys
connect = lambda: sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
stay, turn, ended = connect(), 0, False
while not ended:
    # Once more after the end: it has met what was there then.
    ended = bool(select.select([sys.stdin], [], [], 0)[0])
    for db in (stay, connect()):
        turn += 1
        try:
            if turn % 3 == 0:
                db.execute("INSERT INTO t (x) VALUES (randomblob(100))")
            else:
                db.execute("BEGIN IMMEDIATE")
                db.execute("INSERT INTO t (x) VALUES (randomblob(100))")
                db.execute("COMMIT")
            print("committed", flush=True)
        except sqlite3.OperationalError as e:
            print(e, flush=True)
        if db is not stay:
            db.close()
"#;

struct Writer {
    process: Child,
    input: Option<ChildStdin>,
    committed: Arc<AtomicI64>,
    /// What it was told last.
    output: JoinHandle<String>,
}

impl Writer {
    fn new(node: &Node) -> Self {
        let mut process = Process::new("python3")
            .args(["-c", WRITER])
            .arg(node.database())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (process.stdin.take(), process.stdout.take().unwrap());
        let committed = Arc::new(AtomicI64::new(0));
        let counted = committed.clone();
        let output = std::thread::spawn(move || {
            let mut last = String::new();
            for line in BufReader::new(output).lines().map(Result::unwrap) {
                counted.fetch_add(i64::from(line == "committed"), Ordering::SeqCst);
                last = line;
            }
            last
        });
        Self { process, input, committed, output }
    }

    /// How many transactions it was told are committed, and what it was told last.
    fn finish(mut self) -> (i64, String) {
        drop(self.input.take());
        let last = self.output.join().unwrap();
        assert!(self.process.wait().unwrap().success());
        (self.committed.load(Ordering::SeqCst), last)
    }
}

/// Counts what is there. Writers that leave no gap make a reader wait, and links must not.
async fn count(node: &Node) -> i64 {
    let connection = node.connect();
    let count = move || connection.query_row("SELECT count(*) FROM t", (), |row| row.get(0));
    tokio::task::spawn_blocking(count).await.unwrap().unwrap()
}

/// Each of them gets something done.
async fn at_work(writers: &[Writer]) {
    for writer in writers {
        let before = writer.committed.load(Ordering::SeqCst);
        until("a writer at work", || writer.committed.load(Ordering::SeqCst) > before).await;
    }
}

/// How many transactions they were told are committed. They are refused by now.
async fn finish(writers: Vec<Writer>) -> i64 {
    let finish = || writers.into_iter().map(Writer::finish).collect::<Vec<_>>();
    let ended = tokio::task::spawn_blocking(finish).await.unwrap();
    for (_, last) in &ended {
        assert_eq!(last, "attempt to write a readonly database");
    }
    ended.iter().map(|e| e.0).sum()
}

#[tokio::test]
async fn behind_it_nothing_is_committed_and_nothing_lost() {
    for mode in MODES {
        let (primary, replica) = (Node::new(PRIMARY), Node::new(CopyRole::Replica));
        drop(primary.app(mode));
        let link = Joined::new(&primary, &replica);
        let writers: Vec<_> = (0..2).map(|_| Writer::new(&primary)).collect();
        let mut taken = Vec::new();
        for round in 0..ROUNDS {
            at_work(&writers).await;
            let began = Instant::now();
            let position = primary.engine.fence(PATIENCE).await.unwrap();
            taken.push(began.elapsed());
            let written = count(&primary).await;
            replica_is_level(&primary, &replica).await;
            assert_eq!(
                count(&replica).await,
                written,
                "{mode}, round {round}: in what was shipped"
            );
            assert_eq!(
                replica.engine.held().await.unwrap().position,
                position,
                "{mode}: all of it"
            );
            // Fenced again, it is still the same.
            assert_eq!(primary.engine.fence(Duration::ZERO).await.unwrap(), position);
            assert_eq!(count(&primary).await, written, "{mode}, round {round}: since the fence");
            let held = primary.engine.held().await.unwrap();
            assert_eq!((held.position, primary.now().await), (position, position.at), "{mode}");
            primary.engine.lift_fence().await.unwrap();
        }
        taken.sort();
        println!("{mode}: fenced within {:?}, at most {:?}", taken[ROUNDS / 2], taken[ROUNDS - 1]);
        let position = primary.engine.fence(PATIENCE).await.unwrap();
        drop(link);
        primary.engine.become_replica(None).await.unwrap();
        let held = primary.engine.held().await.unwrap();
        assert_eq!(held.position, position, "{mode}: nothing came in between");
        let written = count(&primary).await;
        assert_eq!(finish(writers).await, written, "{mode}: nothing was lost");
        assert_eq!(count(&primary).await, written, "{mode}: nothing was written");
    }
}

/// As often as it takes: writers that leave no gap may hold it up.
async fn promise(node: &Node, epoch: u64) -> Held {
    let asked = async {
        loop {
            match node.engine.promise(Epoch(epoch)).await {
                Ok(held) => return held,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::ResourceBusy, "{error}"),
            }
        }
    };
    timeout(PATIENCE, asked).await.unwrap()
}

#[tokio::test]
async fn an_ended_epoch_lost_nothing_without_a_fence_before() {
    for mode in MODES {
        let node = Node::new(PRIMARY);
        drop(node.app(mode));
        let mut before = 0;
        for epoch in 2..6 {
            let writers: Vec<_> = (0..2).map(|_| Writer::new(&node)).collect();
            at_work(&writers).await;
            let held = promise(&node, epoch).await;
            let now = count(&node).await;
            assert_eq!(finish(writers).await, now - before, "{mode}: nothing was lost");
            assert_eq!(count(&node).await, now, "{mode}: nothing was written");
            assert_eq!(node.engine.held().await.unwrap(), held, "{mode}");
            assert_eq!(node.engine.become_primary(Epoch(epoch)).await.unwrap(), held.position);
            before = now;
        }
    }
}

#[tokio::test]
async fn writers_that_do_not_end_prevent_it() {
    for mode in MODES {
        let node = Node::new(PRIMARY);
        let app = node.app(mode);
        app.execute_batch("BEGIN IMMEDIATE; INSERT INTO t (x) VALUES (1)").unwrap();
        let error = node.engine.fence(Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy, "{mode}: {error}");
        app.execute_batch("COMMIT").unwrap();
        // Nothing has changed.
        insert(&app);
        insert(&node.connect());
        let position = node.engine.fence(PATIENCE).await.unwrap();
        assert_eq!(position.at, node.now().await);
        let short = Connection::open(node.database()).unwrap();
        let error = short.execute("DELETE FROM t", ()).unwrap_err();
        assert!(error.to_string().contains("locked"), "{mode}: {error}");
        node.engine.lift_fence().await.unwrap();
        node.engine.lift_fence().await.unwrap();
        // It has left no trace in a connection that met it.
        short.execute("DELETE FROM t", ()).unwrap();
        insert(&app);
    }
}

#[tokio::test]
async fn it_stays_when_the_epoch_is_confirmed_and_ends_with_it() {
    let node = Node::new(PRIMARY);
    let app = Connection::open(node.database()).unwrap();
    app.execute_batch("CREATE TABLE t (x)").unwrap();
    let fenced = |app: &Connection| app.execute("INSERT INTO t VALUES (1)", ()).is_err();
    node.engine.fence(PATIENCE).await.unwrap();
    node.engine.become_primary(Epoch(1)).await.unwrap();
    assert!(fenced(&app));
    node.engine.become_primary(Epoch(2)).await.unwrap();
    assert!(!fenced(&app));
    node.engine.fence(PATIENCE).await.unwrap();
    node.engine.promise(Epoch(3)).await.unwrap();
    assert!(fenced(&app));
    node.engine.become_primary(Epoch(3)).await.unwrap();
    assert!(!fenced(&Connection::open(node.database()).unwrap()));
    let error = Node::new(CopyRole::Replica).engine.fence(PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("not the primary"), "{error}");
}

#[tokio::test]
async fn a_database_that_is_not_there_yet_is_fenced_too() {
    for mode in MODES {
        let node = Node::new(PRIMARY);
        let position = node.engine.fence(PATIENCE).await.unwrap();
        let held = node.engine.held().await.unwrap();
        assert_eq!((held.position, held.empty), (position, true));
        let app = Connection::open(node.database()).unwrap();
        assert!(app.execute_batch("CREATE TABLE t (x)").is_err());
        node.engine.lift_fence().await.unwrap();
        // It begins as if nothing had been there, with the connection that it has.
        app.pragma_update(None, "journal_mode", mode).unwrap();
        app.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
        assert!(node.now().await.txid > Txid(0));

        let node = Node::new(PRIMARY);
        let position = node.engine.fence(PATIENCE).await.unwrap();
        node.engine.become_replica(None).await.unwrap();
        let held = node.engine.held().await.unwrap();
        assert_eq!((held.position.checksum, held.empty), (position.checksum, true));
        let app = node.connect();
        let error = app.execute_batch("CREATE TABLE t (x)").unwrap_err().to_string();
        assert!(error.contains("readonly"), "{error}");
    }
}

#[tokio::test]
async fn readers_hold_up_the_end_of_an_epoch_in_rollback_mode_only() {
    for mode in MODES {
        let node = Node::new(PRIMARY);
        insert(&node.app(mode));
        let reader = node.connect();
        reader.execute_batch("BEGIN; SELECT * FROM t").unwrap();
        // Not the fence.
        let position = node.engine.fence(PATIENCE).await.unwrap();
        let ended = node.engine.become_replica(None).await;
        assert_eq!(ended.is_ok(), mode == "wal", "{mode}: {ended:?}");
        let app = Connection::open(node.database()).unwrap();
        assert!(app.execute("DELETE FROM t", ()).is_err(), "{mode}: still fenced, or a replica");
        reader.execute_batch("COMMIT").unwrap();
        node.engine.become_replica(None).await.unwrap();
        assert_eq!(node.engine.held().await.unwrap().position, position, "{mode}");
    }
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_no_fence() {
    let node = Node::new(PRIMARY);
    let app = node.app("wal");
    for _ in 0..20 {
        // Asked, and not waited for.
        tokio::select! {
            biased;
            _ = node.engine.fence(PATIENCE) => {}
            () = std::future::ready(()) => {}
        }
        insert(&app);
    }
}
