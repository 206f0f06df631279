//! Several databases in one mount: each is as safe as the first.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use litepilot::acks::{Acks, Electorate};
use litepilot::cluster::{Epoch, NodeId};
use litepilot::engine::replication::{Dial, Stream};
use litepilot::engine::{BoxFuture, Engine};
use litepilot::litefs::engine::Litefs;
use rusqlite::Connection;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::handoffs::{Writer, pass, progress, stop};
use super::harness::exchange;
use super::support::{DB, LONG, Member, Nodes, program};
use super::whole::Plan;

const QUEUE: &str = "queue.db";
const CACHE: &str = "cache.db";

/// Nodes whose replicas hear what their primary announces, as those of a cluster do.
struct Linked {
    nodes: Nodes,
    acks: Arc<Acks>,
    links: Vec<Option<JoinHandle<()>>>,
}

/// Dials a primary in this process.
struct ToPrimary {
    own: NodeId,
    member: Arc<Member>,
    primary: Arc<Litefs>,
    acks: Arc<Acks>,
}

impl Dial for ToPrimary {
    fn dial<'a>(
        &'a self,
        node: &'a NodeId,
        protocol: &'static str,
    ) -> BoxFuture<'a, io::Result<Stream>> {
        if !protocol.starts_with("litepilot-positions") {
            return self.member.dial(node, protocol);
        }
        let (ours, theirs) = tokio::io::duplex(4096);
        let (own, primary, acks) = (self.own.clone(), self.primary.clone(), self.acks.clone());
        tokio::spawn(async move {
            let Err(_) = primary.tell(theirs, |at| acks.heard(&own, at)).await;
        });
        Box::pin(async { Ok(Box::new(ours) as Stream) })
    }
}

impl Linked {
    async fn start(names: &[&str]) -> Self {
        let nodes = Nodes::start(names).await;
        let links = names.iter().map(|_| None).collect();
        Self { nodes, acks: Arc::default(), links }
    }

    fn engine(&self, i: usize) -> &Arc<Litefs> {
        &self.nodes.nodes[i].litefs
    }

    /// That many nodes, the first of them primary, with the same tables in these databases.
    async fn serve(names: &[&str], databases: &[&str], mode: &str) -> Self {
        let mut linked = Self::start(names).await;
        let others: Vec<_> = (1..names.len()).collect();
        let (epoch, _) = linked.nodes.elect(0, &others).await;
        let others: Vec<NodeId> = names[1..].iter().map(|name| name.parse().unwrap()).collect();
        linked.acks.begin(epoch, vec![Electorate { others }]);
        for name in databases {
            let app = linked.open(0, name);
            app.pragma_update(None, "journal_mode", mode).unwrap();
            app.execute_batch("CREATE TABLE t (x INTEGER PRIMARY KEY)").unwrap();
        }
        linked.nodes.settle(0).await;
        for i in 1..names.len() {
            linked.link(i, 0, epoch);
            linked.nodes.level(0, i).await;
        }
        linked
    }

    /// From now on node `i` follows that primary.
    fn link(&mut self, i: usize, primary: usize, epoch: Epoch) {
        let node = &self.nodes.nodes[i];
        let (engine, name) = (node.litefs.clone(), self.nodes.nodes[primary].name.clone());
        let dial: Arc<dyn Dial> = Arc::new(ToPrimary {
            own: node.name.clone(),
            member: node.member.clone(),
            primary: self.engine(primary).clone(),
            acks: self.acks.clone(),
        });
        let (member, next) = (node.member.clone(), Epoch(epoch.0 + 1));
        self.unlink(i);
        self.links[i] = Some(tokio::spawn(async move {
            // Until it is to be primary itself.
            while !member.was_granted(next) {
                let Err(_) = engine.follow(&name, epoch, &dial).await;
                sleep(Duration::from_millis(20)).await;
            }
        }));
    }

    fn unlink(&mut self, i: usize) {
        if let Some(link) = self.links[i].take() {
            link.abort();
        }
    }

    fn open(&self, i: usize, database: &str) -> Connection {
        let path = self.nodes.nodes[i].config.litefs.mount.join(database);
        let connection = Connection::open(path).unwrap();
        connection.busy_timeout(Duration::from_secs(10)).unwrap();
        connection
    }

    async fn insert(&self, i: usize, database: &str, x: i64) {
        self.open(i, database).execute("INSERT INTO t VALUES (?)", [x]).unwrap();
        self.nodes.settle(i).await;
    }

    fn rows(&self, i: usize, database: &str) -> Vec<i64> {
        rows(&self.nodes.nodes[i].config.litefs.mount.join(database))
    }

    async fn hand_over(&mut self, from: usize, to: usize) -> Duration {
        let took = pass(&mut self.nodes, from, to).await;
        self.unlink(to);
        let epoch = self.engine(to).read_position().await.unwrap().epoch;
        self.link(from, to, epoch);
        took
    }

    async fn stop(mut self) {
        (0..self.links.len()).for_each(|i| self.unlink(i));
        self.nodes.stop().await;
    }
}

fn rows(database: &Path) -> Vec<i64> {
    let connection = Connection::open(database).unwrap();
    let mut all = connection.prepare("SELECT x FROM t ORDER BY x").unwrap();
    all.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// What a majority has acknowledged, and what a replica says that it has reached, is there: whichever
/// database it was written to, also one that was just made.
#[tokio::test]
async fn a_write_into_any_database_is_waited_for() {
    let linked = Linked::serve(&["node-1", "node-2"], &[DB, QUEUE], "delete").await;
    let mut before = linked.engine(0).read_position().await.unwrap();
    for x in 0..12 {
        let database = [DB, QUEUE, CACHE][x as usize % 3];
        if x == 2 {
            linked.open(0, CACHE).execute_batch("CREATE TABLE t (x INTEGER PRIMARY KEY)").unwrap();
        }
        linked.insert(0, database, x).await;
        let token = linked.engine(0).read_position().await.unwrap();
        assert!(token > before, "a commit in {database} moves the position");
        before = token;
        timeout(LONG, linked.acks.majority(token)).await.expect("it is acknowledged");
        timeout(LONG, linked.engine(1).position().wait(token)).await.expect("it is reached");
        assert!(linked.rows(1, database).contains(&x), "{x} in {database}");
    }
    linked.stop().await;
}

/// A deleted database still counts: LiteFS keeps its number, and the position does not go back.
#[tokio::test]
async fn a_deleted_database_does_not_take_the_position_back() {
    if !program().1 {
        eprintln!("skipped: a stand-in does not see that a database is deleted");
        return;
    }
    let linked = Linked::serve(&["node-1", "node-2"], &[DB, QUEUE], "delete").await;
    let before = linked.engine(0).read_position().await.unwrap();
    std::fs::remove_file(linked.nodes.nodes[0].config.litefs.mount.join(QUEUE)).unwrap();
    let after = linked.engine(0).read_position().await.unwrap();
    assert_eq!(after.txid.0, before.txid.0 + 1, "LiteFS counts the deletion");
    timeout(LONG, linked.acks.majority(after)).await.expect("it is acknowledged");
    linked.open(0, QUEUE).execute_batch("CREATE TABLE t (x INTEGER PRIMARY KEY)").unwrap();
    linked.insert(0, QUEUE, 7).await;
    let token = linked.engine(0).read_position().await.unwrap();
    assert!(token > after);
    timeout(LONG, linked.engine(1).position().wait(token)).await.expect("it is reached");
    assert_eq!(linked.rows(1, QUEUE), [7]);
    linked.stop().await;
}

/// Of two replicas the one with the later transaction of the second database is ahead.
#[tokio::test]
async fn the_freshest_is_so_in_every_database() {
    let mut linked = Linked::serve(&["node-1", "node-2", "node-3"], &[DB, QUEUE], "delete").await;
    let reader = linked.open(2, QUEUE);
    reader.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
    linked.insert(0, QUEUE, 1).await;
    linked.insert(0, DB, 2).await;
    let token = linked.engine(0).read_position().await.unwrap();
    timeout(LONG, linked.acks.majority(token)).await.expect("node-2 acknowledges it");
    let (ahead, behind) =
        (linked.nodes.nodes[1].held().await.position, linked.nodes.nodes[2].held().await.position);
    assert_eq!(ahead.at, token);
    assert!(behind.at < ahead.at, "{behind:?}");
    reader.execute_batch("COMMIT").unwrap();
    drop(reader);
    // The primary is gone.
    linked.unlink(1);
    linked.unlink(2);
    let (epoch, held) = linked.nodes.elect(1, &[2]).await;
    assert_eq!(held.at, token);
    linked.link(2, 1, epoch);
    linked.nodes.level(1, 2).await;
    assert_eq!((linked.rows(2, QUEUE), linked.rows(2, DB)), (vec![1], vec![2]));
    linked.stop().await;
}

/// What only the old primary has of the second database is kept, and the first is not.
#[tokio::test]
async fn a_second_database_that_diverged_is_archived() {
    let mut linked = Linked::serve(&["node-1", "node-2"], &[DB, QUEUE], "delete").await;
    linked.unlink(1);
    let (epoch, _) = linked.nodes.elect(1, &[]).await;
    linked.insert(0, QUEUE, 99).await;
    for x in 1..4 {
        linked.insert(1, DB, x).await;
    }
    linked.engine(0).become_replica().await.unwrap();
    linked.link(0, 1, epoch);
    linked.nodes.level(1, 0).await;
    assert_eq!(linked.rows(0, QUEUE), [] as [i64; 0]);
    assert_eq!(linked.rows(0, DB), [1, 2, 3]);
    let kept = std::fs::read_dir(linked.nodes.nodes[0].config.data_dir.join("diverged")).unwrap();
    let kept: Vec<_> = kept.map(|file| file.unwrap().path()).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(kept[0].to_str().unwrap().contains("-queue.db-"), "{kept:?}");
    assert_eq!(rows(&kept[0]), [99]);
    linked.stop().await;
}

async fn handoffs_lose_nothing(mode: &str) {
    if !program().1 {
        eprintln!("skipped: a stand-in cannot keep a replica's application from writing");
        return;
    }
    let databases = [DB, QUEUE, CACHE];
    let mut linked = Linked::serve(&["node-1", "node-2"], &databases, mode).await;
    let mut writers = Vec::new();
    for (k, database) in databases.iter().enumerate() {
        for i in 0..2 {
            let path = linked.nodes.nodes[i].config.litefs.mount.join(database);
            // Each database's rows are told apart by their first digit.
            writers.push(Writer::start(&path, (k as i64 + 1) * 1_000_000_000 + i as i64));
        }
    }
    let mut times = Vec::new();
    for round in 0..20 {
        let (from, to) = (round % 2, (round + 1) % 2);
        progress(&linked.nodes, from).await;
        times.push(linked.hand_over(from, to).await);
    }
    progress(&linked.nodes, 0).await;
    let (committed, bus_errors) = stop(writers).await;
    linked.nodes.level(0, 1).await;
    times.sort();
    println!("{mode}: {} rows, {bus_errors} bus errors, handoffs {times:?}", committed.len());
    for i in 0..2 {
        let mut have: Vec<_> = databases.iter().flat_map(|db| linked.rows(i, db)).collect();
        have.sort_unstable();
        let lost: Vec<_> = committed.iter().filter(|x| have.binary_search(x).is_err()).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        assert_eq!(linked.nodes.nodes[i].restarts(), 0, "LiteFS did not exit");
    }
    linked.stop().await;
}

#[tokio::test]
async fn handoffs_lose_nothing_of_three_databases_in_wal_mode() {
    handoffs_lose_nothing("wal").await;
}

#[tokio::test]
async fn handoffs_lose_nothing_of_three_databases_in_rollback_mode() {
    handoffs_lose_nothing("delete").await;
}

fn queue(place: &Path) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/litefs/two_databases.py");
    let (script, place) = (script.display(), place.display());
    format!("  command: [python3, {script}, {place}/s, {place}/mount]\n  health: /health\n")
}

/// Through the whole of it: a write into a database that the configuration does not even name.
#[test]
fn whoever_has_written_into_a_second_database_reads_it_everywhere() {
    if !program().1 {
        eprintln!("skipped: a stand-in sees a write a little after it was made");
        return;
    }
    let cluster = Plan { cluster: "  ack: majority\n", app: queue, ..Plan::default() }.start();
    let mut primary = cluster.primary();
    for n in 1..=20 {
        let written = exchange(cluster.proxy(n % 3), "POST", "/jobs", "", b"");
        assert_eq!((written.code, written.body.as_str()), (200, n.to_string().as_str()));
        assert_eq!(written.header("litepilot-ack"), Some("majority"));
        let token = format!(
            "Litepilot-Txid: {}\r\nLitepilot-Epoch: {}\r\n",
            written.header("litepilot-txid").unwrap(),
            written.header("litepilot-epoch").unwrap(),
        );
        for reader in 0..3 {
            let read = exchange(cluster.proxy(reader), "GET", "/jobs", &token, b"");
            assert_eq!(read.body, n.to_string(), "{read:?}");
            assert_eq!(read.header("litepilot-lost-write"), None);
        }
        if n % 5 == 0 {
            let next = (primary + 1) % 3;
            let promoted = cluster.admin(primary, "POST", &format!("/promote?node=n{next}"));
            assert_eq!(promoted.code, 200, "{promoted:?}");
            primary = cluster.primary();
        }
    }
    cluster.stop();
}
