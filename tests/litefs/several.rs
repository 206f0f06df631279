//! Several databases in one mount: each is as safe as the first.

use std::path::{Path, PathBuf};
use std::time::Duration;

use litepilot::acks::Electorate;
use litepilot::engine::Engine;
use litepilot::txid::EpochTxid;
use rusqlite::Connection;
use tokio::time::timeout;

use super::handoffs::{Writer, hand_over_often};
use super::harness::exchange;
use super::support::{DB, LONG, Nodes, program};
use super::whole::Plan;

const QUEUE: &str = "queue.db";
const CACHE: &str = "cache.db";
const TABLE: &str = "CREATE TABLE t (x INTEGER PRIMARY KEY)";

/// That many nodes, the first of them primary, with the same tables in these databases.
async fn serve(names: &[&str], databases: &[&str], mode: &str) -> Nodes {
    let mut nodes = Nodes::start(names).await;
    let others: Vec<_> = (1..names.len()).collect();
    let (epoch, _) = nodes.elect(0, &others).await;
    let electorate = names[1..].iter().map(|name| name.parse().unwrap()).collect();
    nodes.agreed.acks.begin(epoch, vec![Electorate { others: electorate, unheard: 0, own: true }]);
    for name in databases {
        let app = open(&nodes, 0, name);
        app.pragma_update(None, "journal_mode", mode).unwrap();
        app.execute_batch(TABLE).unwrap();
    }
    nodes.settle(0).await;
    for i in others {
        nodes.follow(i, 0).await;
        nodes.level(0, i).await;
    }
    nodes
}

fn path(nodes: &Nodes, i: usize, database: &str) -> PathBuf {
    nodes.nodes[i].config.litefs.mount.join(database)
}

fn open(nodes: &Nodes, i: usize, database: &str) -> Connection {
    let connection = Connection::open(path(nodes, i, database)).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    connection
}

async fn insert(nodes: &Nodes, i: usize, database: &str, x: i64) {
    open(nodes, i, database).execute("INSERT INTO t VALUES (?)", [x]).unwrap();
    nodes.settle(i).await;
}

async fn token(nodes: &Nodes, i: usize) -> EpochTxid {
    nodes.nodes[i].litefs.read_position().await.unwrap()
}

/// A majority has acknowledged it.
async fn acknowledged(nodes: &Nodes, token: EpochTxid) {
    timeout(LONG, nodes.agreed.acks.majority(token)).await.expect("it is acknowledged");
}

/// The node says that it is that far.
async fn reached(nodes: &Nodes, i: usize, token: EpochTxid) {
    timeout(LONG, nodes.nodes[i].litefs.position().wait(token)).await.expect("it is reached");
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
    let nodes = serve(&["node-1", "node-2"], &[DB, QUEUE], "delete").await;
    let mut before = token(&nodes, 0).await;
    for x in 0..12 {
        let database = [DB, QUEUE, CACHE][x as usize % 3];
        if x == 2 {
            open(&nodes, 0, CACHE).execute_batch(TABLE).unwrap();
        }
        insert(&nodes, 0, database, x).await;
        let at = token(&nodes, 0).await;
        assert!(at > before, "a commit in {database} moves the position");
        before = at;
        acknowledged(&nodes, at).await;
        reached(&nodes, 1, at).await;
        assert!(rows(&path(&nodes, 1, database)).contains(&x), "{x} in {database}");
    }
    nodes.stop().await;
}

/// A deleted database still counts: LiteFS keeps its number, and the position does not go back.
#[tokio::test]
async fn a_deleted_database_does_not_take_the_position_back() {
    if !program().1 {
        eprintln!("skipped: a stand-in does not see that a database is deleted");
        return;
    }
    let nodes = serve(&["node-1", "node-2"], &[DB, QUEUE], "delete").await;
    let before = token(&nodes, 0).await;
    std::fs::remove_file(nodes.nodes[0].config.litefs.mount.join(QUEUE)).unwrap();
    let after = token(&nodes, 0).await;
    assert_eq!(after.txid.0, before.txid.0 + 1, "LiteFS counts the deletion");
    acknowledged(&nodes, after).await;
    open(&nodes, 0, QUEUE).execute_batch(TABLE).unwrap();
    insert(&nodes, 0, QUEUE, 7).await;
    let at = token(&nodes, 0).await;
    assert!(at > after);
    reached(&nodes, 1, at).await;
    assert_eq!(rows(&path(&nodes, 1, QUEUE)), [7]);
    nodes.stop().await;
}

/// Of two replicas the one with the later transaction of the second database is ahead.
#[tokio::test]
async fn the_freshest_is_so_in_every_database() {
    let mut nodes = serve(&["node-1", "node-2", "node-3"], &[DB, QUEUE], "delete").await;
    let reader = open(&nodes, 2, QUEUE);
    reader.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
    insert(&nodes, 0, QUEUE, 1).await;
    insert(&nodes, 0, DB, 2).await;
    let at = token(&nodes, 0).await;
    acknowledged(&nodes, at).await;
    let (ahead, behind) =
        (nodes.nodes[1].held().await.position, nodes.nodes[2].held().await.position);
    assert_eq!(ahead.at, at);
    assert!(behind.at < ahead.at, "{behind:?}");
    reader.execute_batch("COMMIT").unwrap();
    drop(reader);
    // The primary is gone.
    nodes.unlink(1);
    nodes.unlink(2);
    let (_, held) = nodes.elect(1, &[2]).await;
    assert_eq!(held.at, at);
    nodes.follow(2, 1).await;
    nodes.level(1, 2).await;
    assert_eq!((rows(&path(&nodes, 2, QUEUE)), rows(&path(&nodes, 2, DB))), (vec![1], vec![2]));
    nodes.stop().await;
}

/// What only the old primary has of the second database is kept, and the first is not.
#[tokio::test]
async fn a_second_database_that_diverged_is_archived() {
    let mut nodes = serve(&["node-1", "node-2"], &[DB, QUEUE], "delete").await;
    nodes.unlink(1);
    nodes.elect(1, &[]).await;
    insert(&nodes, 0, QUEUE, 99).await;
    for x in 1..4 {
        insert(&nodes, 1, DB, x).await;
    }
    nodes.nodes[0].litefs.become_replica().await.unwrap();
    nodes.follow(0, 1).await;
    nodes.level(1, 0).await;
    assert_eq!(rows(&path(&nodes, 0, QUEUE)), [] as [i64; 0]);
    assert_eq!(rows(&path(&nodes, 0, DB)), [1, 2, 3]);
    let kept = std::fs::read_dir(nodes.nodes[0].config.data_dir.join("diverged")).unwrap();
    let kept: Vec<_> = kept.map(|file| file.unwrap().path()).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(kept[0].to_str().unwrap().contains("-queue.db-"), "{kept:?}");
    assert_eq!(rows(&kept[0]), [99]);
    nodes.stop().await;
}

async fn handoffs_lose_nothing(mode: &str) {
    if !program().1 {
        eprintln!("skipped: a stand-in cannot keep a replica's application from writing");
        return;
    }
    let databases = [DB, QUEUE, CACHE];
    let mut nodes = serve(&["node-1", "node-2"], &databases, mode).await;
    let mut writers = Vec::new();
    for (k, database) in databases.iter().enumerate() {
        for i in 0..2 {
            let path = nodes.nodes[i].config.litefs.mount.join(database);
            // Each database's rows are told apart by their first digit.
            writers.push(Writer::start(&path, (k as i64 + 1) * 1_000_000_000 + i as i64));
        }
    }
    let committed = hand_over_often(&mut nodes, writers, mode).await;
    for i in 0..2 {
        let mut have: Vec<_> = databases.iter().flat_map(|db| rows(&path(&nodes, i, db))).collect();
        have.sort_unstable();
        let lost: Vec<_> = committed.iter().filter(|x| have.binary_search(x).is_err()).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        assert_eq!(nodes.nodes[i].restarts(), 0, "LiteFS did not exit");
    }
    nodes.stop().await;
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
            cluster.until_level(next);
            let promoted = cluster.admin(primary, "POST", &format!("/promote?node=n{next}"));
            assert_eq!(promoted.code, 200, "{promoted:?}");
            primary = cluster.primary();
        }
    }
    cluster.stop();
}
