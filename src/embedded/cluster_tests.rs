//! Several engines with real files, joined by links that can be cut, and real applications: other
//! processes, with the SQLite that comes with Python.

use super::*;
use crate::txid::Txid;
use rusqlite::Connection;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command as Process, Stdio};
use tokio::task::JoinHandle as Task;
use tokio::time::timeout;

pub(super) const MODES: [&str; 2] = ["delete", "wal"];
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Node {
    dir: PathBuf,
    /// Removed with the node.
    _dir: Option<tempfile::TempDir>,
    pub(super) engine: Arc<Embedded>,
}

impl Node {
    pub(super) fn new(duty: Duty) -> Self {
        Self::delayed(duty, Duration::ZERO)
    }

    fn delayed(duty: Duty, apply_delay: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = Self::start(dir.path(), duty, apply_delay);
        Self { _dir: Some(dir), ..node }
    }

    /// In a directory that stays.
    pub(super) fn at(dir: &Path, duty: Duty) -> Self {
        Self::start(dir, duty, Duration::ZERO)
    }

    fn start(dir: &Path, duty: Duty, apply_delay: Duration) -> Self {
        fs::create_dir_all(dir.join("mount")).unwrap();
        Self { dir: dir.to_owned(), _dir: None, engine: start(dir, duty, apply_delay) }
    }

    pub(super) fn restart(&mut self, duty: Duty) {
        self.engine.stop();
        self.engine = start(&self.dir, duty, Duration::ZERO);
    }

    pub(super) fn mount(&self) -> PathBuf {
        self.dir.join("mount")
    }

    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The copies that were saved, the oldest first.
    pub(super) fn archived(&self) -> Vec<PathBuf> {
        let Ok(found) = fs::read_dir(self.data().join("diverged")) else { return Vec::new() };
        let mut names: Vec<_> = found.map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    }

    pub(super) async fn held(&self) -> Held {
        self.engine.held().await.unwrap()
    }

    pub(super) fn database(&self) -> PathBuf {
        self.mount().join("db.sqlite3")
    }

    pub(super) fn connect(&self) -> Connection {
        let connection = Connection::open(self.database()).unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        connection
    }

    pub(super) fn app(&self, mode: &str) -> Connection {
        let app = self.connect();
        app.pragma_update(None, "journal_mode", mode).unwrap();
        app.execute_batch("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, x)").unwrap();
        app
    }

    pub(super) async fn now(&self) -> EpochTxid {
        self.engine.read_position().await.unwrap()
    }

    pub(super) async fn reaches(&self, position: EpochTxid) {
        timeout(PATIENCE, self.engine.position().wait(position)).await.unwrap_or_else(|_| {
            panic!(
                "at {}, not at {position}; {:?}",
                self.engine.position().get(),
                self.engine.state()
            )
        });
    }

    pub(super) fn count(&self) -> i64 {
        self.connect().query_row("SELECT count(*) FROM t", (), |row| row.get(0)).unwrap()
    }
}

fn start(dir: &Path, duty: Duty, apply_delay: Duration) -> Arc<Embedded> {
    let options = Options {
        mount: dir.join("mount"),
        db: "db.sqlite3".into(),
        data_dir: dir.join("data"),
        duty,
        replicated: true,
        apply_delay,
    };
    Embedded::start(options).unwrap()
}

pub(super) const REIGN: Duty = Duty::Primary(Epoch(1));

/// A link between two engines, until it is dropped or fails.
pub(super) struct Link {
    serving: Task<io::Result<()>>,
    following: Task<io::Result<()>>,
}

impl Link {
    pub(super) fn new(primary: &Node, replica: &Node) -> Self {
        Self::telling(primary, replica, |_| {})
    }

    /// Tells what the replica says that it holds.
    pub(super) fn telling(
        primary: &Node,
        replica: &Node,
        on_applied: impl Fn(Position) + Send + 'static,
    ) -> Self {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (primary, replica) = (primary.engine.clone(), replica.engine.clone());
        Self {
            serving: tokio::spawn(async move { primary.serve(near, on_applied).await }),
            following: tokio::spawn(async move { replica.follow(far).await }),
        }
    }

    /// What made the replica give up.
    pub(super) async fn failure(mut self) -> io::Error {
        timeout(PATIENCE, &mut self.following).await.unwrap().unwrap().unwrap_err()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.serving.abort();
        self.following.abort();
    }
}

pub(super) fn insert(app: &Connection) {
    app.execute("INSERT INTO t (x) VALUES (randomblob(100))", ()).unwrap();
}

pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn what_a_position_says_is_there() {
    for mode in MODES {
        let (primary, replica) = (Node::new(REIGN), Node::new(Duty::Replica));
        let _link = Link::new(&primary, &replica);
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
async fn a_delayed_replica_does_not_claim_what_it_lacks() {
    let delayed = Node::delayed(Duty::Replica, Duration::from_millis(200));
    let primary = Node::new(REIGN);
    let _link = Link::new(&primary, &delayed);
    let app = primary.app("wal");
    replica_is_level(&primary, &delayed).await;
    let mut stale = 0;
    for n in 1..=10 {
        insert(&app);
        let written = primary.now().await;
        stale += i64::from(delayed.count() < n);
        delayed.reaches(written).await;
        assert!(delayed.count() >= n);
    }
    assert!(stale > 0, "a delay that delays nothing");
}

pub(super) async fn replica_is_level(primary: &Node, replica: &Node) {
    replica.reaches(primary.now().await).await;
}

#[tokio::test]
async fn applications_are_told_where_they_are() {
    let (primary, replica) = (Node::new(REIGN), Node::new(Duty::Replica));
    replica.engine.become_replica(Some("node-1".parse().unwrap())).await.unwrap();
    let _link = Link::new(&primary, &replica);
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
        let (mut primary, mut replica) = (Node::new(REIGN), Node::new(Duty::Replica));
        let mut link = Link::new(&primary, &replica);
        let app = primary.app(mode);
        for round in 0..6 {
            insert(&app);
            replica_is_level(&primary, &replica).await;
            drop(link);
            if round % 2 == 0 {
                let had = replica.now().await;
                replica.restart(Duty::Replica);
                assert_eq!(replica.now().await, had, "{mode}: what it had is known at once");
            }
            insert(&app);
            if round % 3 == 0 {
                let before = primary.now().await;
                primary.restart(REIGN);
                assert!(primary.now().await > before);
            }
            link = Link::new(&primary, &replica);
        }
        replica_is_level(&primary, &replica).await;
        assert_eq!(replica.count(), 12, "{mode}");
        assert!(replica.archived().is_empty(), "nothing diverged");
    }
}

#[tokio::test]
async fn the_primary_role_moves_and_the_old_primary_follows() {
    for mode in MODES {
        let (first, second) = (Node::new(REIGN), Node::new(Duty::Replica));
        let link = Link::new(&first, &second);
        insert(&first.app(mode));
        replica_is_level(&first, &second).await;
        first.engine.become_replica(None).await.unwrap();
        let fenced = first.connect().execute("DELETE FROM t", ()).unwrap_err();
        assert!(fenced.to_string().contains("readonly"), "{fenced}");
        drop(link);
        second.engine.become_primary(Epoch(2)).await.unwrap();
        assert!(second.now().await > first.now().await);
        let link = Link::new(&second, &first);
        insert(&second.app(mode));
        replica_is_level(&second, &first).await;
        assert_eq!(first.count(), 2, "{mode}");
        assert_eq!(first.now().await.epoch, Epoch(2));
        drop(link);
        // And back.
        second.engine.become_replica(None).await.unwrap();
        first.engine.become_primary(Epoch(3)).await.unwrap();
        let _link = Link::new(&first, &second);
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
        let (primary, mut other) = (Node::new(REIGN), Node::new(Duty::Primary(Epoch(1))));
        insert(&primary.app(mode));
        let own = other.app(mode);
        own.execute_batch("CREATE TABLE mine (x); INSERT INTO mine VALUES ('precious')").unwrap();
        drop(own);
        other.restart(Duty::Replica);
        let _link = Link::new(&primary, &other);
        until("replaced", || other.count() == 1).await;
        let saved: Vec<_> = fs::read_dir(other.data().join("diverged")).unwrap().collect();
        let [Ok(saved)] = &saved[..] else { panic!("{mode}: saved {saved:?}") };
        let saved = Connection::open(saved.path()).unwrap();
        let x: String = saved.query_row("SELECT x FROM mine", (), |row| row.get(0)).unwrap();
        assert_eq!(x, "precious");
        saved.execute("DELETE FROM mine", ()).unwrap();
    }
}

#[tokio::test]
async fn equal_data_need_not_be_sent() {
    let (primary, mut other) = (Node::new(REIGN), Node::new(REIGN));
    insert(&primary.app("delete"));
    fs::copy(primary.database(), other.database()).unwrap();
    other.restart(Duty::Replica);
    let _link = Link::new(&primary, &other);
    replica_is_level(&primary, &other).await;
    assert!(other.archived().is_empty());
}

#[tokio::test]
async fn a_stale_primary_is_not_followed() {
    let (old, new, replica) =
        (Node::new(REIGN), Node::new(Duty::Primary(Epoch(2))), Node::new(Duty::Replica));
    insert(&old.app("wal"));
    insert(&new.app("wal"));
    let link = Link::new(&new, &replica);
    replica_is_level(&new, &replica).await;
    drop(link);
    let error = Link::new(&old, &replica).failure().await;
    assert!(error.to_string().contains("epoch"), "{error}");
    let error = Link::new(&replica, &old).failure().await;
    assert!(error.to_string().contains("not a replica"), "{error}");
}

#[tokio::test]
async fn an_empty_primary_wipes_nothing() {
    let (primary, mut other) = (Node::new(REIGN), Node::new(REIGN));
    insert(&other.app("wal"));
    other.restart(Duty::Replica);
    let _link = Link::new(&primary, &other);
    let held = other.engine.clone();
    for _ in 0..3 {
        primary.engine.ask(Command::Ship).await.unwrap();
        tokio::time::sleep(wire::HEARTBEAT).await;
    }
    assert_eq!(other.count(), 1);
    assert_eq!(held.lag(), None, "it is not level");
}

#[tokio::test]
async fn too_large_a_database_is_refused_and_shrinking_it_helps() {
    let (primary, replica) = (Node::new(REIGN), Node::new(Duty::Replica));
    let app = primary.app("delete");
    let fill = "WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c LIMIT 70)
        INSERT INTO t SELECT n, zeroblob(1048576) FROM c";
    app.execute_batch(fill).unwrap();
    let error = Link::new(&primary, &replica).failure().await;
    assert!(error.to_string().contains("at most 64 MiB"), "{error}");
    for node in [&primary, &replica] {
        let state = node.engine.state().state;
        assert!(state.contains("at most 64 MiB"), "{state}");
    }
    app.execute_batch("DELETE FROM t WHERE n > 3; VACUUM").unwrap();
    let _link = Link::new(&primary, &replica);
    replica_is_level(&primary, &replica).await;
    assert_eq!(replica.count(), 3);
    assert_eq!(replica.engine.state().state, "running");
}

#[tokio::test]
async fn lag_grows_while_the_link_is_cut() {
    let (primary, replica) = (Node::new(REIGN), Node::new(Duty::Replica));
    assert_eq!(primary.engine.lag(), Some(Duration::ZERO));
    assert_eq!(replica.engine.lag(), None);
    let link = Link::new(&primary, &replica);
    insert(&primary.app("wal"));
    replica_is_level(&primary, &replica).await;
    until("known to be level", || replica.engine.lag().is_some()).await;
    drop(link);
    let cut = replica.engine.lag().unwrap();
    until("lagging", || replica.engine.lag().unwrap() > cut + 2 * wire::HEARTBEAT).await;
    let _link = Link::new(&primary, &replica);
    until("level again", || replica.engine.lag().unwrap() < cut + wire::HEARTBEAT).await;
}

#[tokio::test]
async fn a_link_that_falls_silent_is_given_up() {
    let (primary, replica) = (Node::new(REIGN), Node::new(Duty::Replica));
    insert(&primary.app("wal"));
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let greeting = wire::Message::Hello { version: wire::VERSION, have: Position::default() };
    wire::send(&mut far, &greeting).await.unwrap();
    let (silent, _held) = tokio::io::duplex(1 << 20);
    let ended = tokio::join!(primary.engine.serve(near, |_| {}), replica.engine.follow(silent));
    for ended in [ended.0, ended.1] {
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}

#[tokio::test]
async fn a_demotion_that_a_writer_prevents_leaves_a_primary() {
    for mode in MODES {
        let node = Node::new(REIGN);
        let app = node.app(mode);
        app.execute_batch("BEGIN IMMEDIATE; INSERT INTO t (x) VALUES (1)").unwrap();
        assert!(node.engine.become_replica(None).await.is_err());
        app.execute_batch("COMMIT").unwrap();
        node.now().await;
        insert(&app);
        assert_eq!(node.now().await.epoch, Epoch(1));
        node.engine.become_replica(None).await.unwrap();
        assert!(app.execute("DELETE FROM t", ()).is_err(), "{mode}");
        assert_eq!(node.count(), 2, "{mode}");
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
        let (primary, replica) = (Node::new(REIGN), Node::new(Duty::Replica));
        let _link = Link::new(&primary, &replica);
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

/// Not a test of its own: the process that [`killed_while_applying`] kills.
#[test]
#[ignore = "a helper of another test"]
fn helper_applies_forever() {
    let Some(dir) = std::env::var_os("LITEPILOT_TEST_DIR").map(PathBuf::from) else { return };
    let (source, target) = (dir.join("source"), dir.join("target"));
    let app = Connection::open(&source).unwrap();
    let target = apply::open(&target).unwrap();
    let mut last = image::Image::default();
    let mut out = io::stdout();
    for v in 1.. {
        app.execute("UPDATE t SET v = ?1, x = randomblob(1000 + ?1 % 700)", [v]).unwrap();
        let next = image::Image::read(&app, &source, &last).unwrap();
        let base = Some(&last).filter(|last| !last.is_empty());
        writeln!(out, "applying {v}").unwrap();
        apply::apply(&target, &next.update(base, EpochTxid::default())).unwrap();
        last = next;
    }
}

#[test]
fn killed_while_applying() {
    for mode in MODES {
        let dir = tempfile::tempdir().unwrap();
        let app = Connection::open(dir.path().join("source")).unwrap();
        app.pragma_update(None, "journal_mode", mode).unwrap();
        fill(&app);
        drop(app);
        apply::create(&dir.path().join("target")).unwrap();
        for round in 0..12_u64 {
            let mut helper = Process::new(std::env::current_exe().unwrap())
                .args([
                    "embedded::cluster_tests::helper_applies_forever",
                    "--ignored",
                    "--nocapture",
                ])
                .env("LITEPILOT_TEST_DIR", dir.path())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut output = BufReader::new(helper.stdout.take().unwrap()).lines();
            let begun = (&mut output).map(Result::unwrap).filter(|l| l.starts_with("applying"));
            assert_eq!(begun.take(3).count(), 3, "{mode}: the helper works");
            // Somewhere in the middle: where does not matter, but not always at the same place.
            std::thread::sleep(Duration::from_micros(round * 1_300));
            helper.kill().unwrap();
            helper.wait().unwrap();
            let reader = Connection::open(dir.path().join("target")).unwrap();
            let (low, high, rows): (i64, i64, i64) = reader
                .query_row("SELECT min(v), max(v), count(*) FROM t", (), |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })
                .unwrap();
            assert_eq!((low, rows), (high, 300), "{mode}, round {round}");
            let sound: String =
                reader.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
            assert_eq!(sound, "ok", "{mode}, round {round}");
            let error = reader.execute("DELETE FROM t", ()).unwrap_err();
            assert!(error.to_string().contains("readonly"), "{mode}, round {round}: {error}");
        }
    }
}

#[tokio::test]
async fn txids_go_on_after_a_promotion() {
    let (primary, replica) = (Node::new(REIGN), Node::new(Duty::Replica));
    let link = Link::new(&primary, &replica);
    let app = primary.app("wal");
    for _ in 0..5 {
        insert(&app);
        primary.now().await;
    }
    replica_is_level(&primary, &replica).await;
    let before = replica.now().await;
    drop(link);
    let held = replica.engine.become_primary(Epoch(2)).await.unwrap();
    assert_eq!(held.at, before);
    let after = replica.now().await;
    assert!(after.txid > before.txid && after.txid > Txid(5), "{before} then {after}");
    let error = replica.engine.become_primary(Epoch(1)).await.unwrap_err();
    assert!(error.to_string().contains("epoch 2"), "{error}");
    insert(&replica.app("wal"));
}

/// `cargo test --lib embedded::cluster_tests::speed -- --ignored --nocapture`
#[tokio::test]
#[ignore = "a measurement"]
async fn speed() {
    for (mode, rows) in [("delete", 1), ("wal", 1), ("wal", 15_000)] {
        let (primary, replica) = (Node::new(REIGN), Node::new(Duty::Replica));
        let app = primary.app(mode);
        for _ in 0..rows {
            app.execute_batch("BEGIN").unwrap();
            for _ in 0..rows.min(1_000) {
                app.execute("INSERT INTO t (x) VALUES (zeroblob(3900))", ()).unwrap();
            }
            app.execute_batch("COMMIT").unwrap();
            if app.query_row("SELECT count(*) FROM t", (), |r| r.get::<_, i64>(0)).unwrap() >= rows
            {
                break;
            }
        }
        let _link = Link::new(&primary, &replica);
        let began = Instant::now();
        replica_is_level(&primary, &replica).await;
        println!("{mode}, {rows} pages: first copy {:?}", began.elapsed());
        let mut taken = Vec::new();
        for _ in 0..30 {
            insert(&app);
            let began = Instant::now();
            let written = primary.now().await;
            replica.reaches(written).await;
            taken.push(began.elapsed());
        }
        taken.sort();
        println!("{mode}, {rows} pages: commit to copy p50 {:?}, max {:?}", taken[15], taken[29]);
    }
}
