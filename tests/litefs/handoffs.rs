//! Changes of primary under writers that bypass the proxy: nothing that SQLite said was committed is
//! lost in a handoff.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use litepilot::engine::Engine;
use tokio::time::{sleep, timeout};

use super::support::{LONG, Nodes, program, until};

/// An application on one node, which writes without end: a process of its own, started again if it dies,
/// as by a server.
pub struct Writer {
    /// The standard input of the present process: it ends with that. `None`: no more are started.
    stdin: Arc<Mutex<Option<Option<ChildStdin>>>>,
    thread: JoinHandle<Written>,
}

/// What became of it.
struct Written {
    committed: Vec<i64>,
    /// How often it was killed by SIGBUS: a mapping of a file system that has gone.
    bus_errors: usize,
}

impl Writer {
    pub fn start(path: &Path, first: i64) -> Self {
        let stdin = Arc::new(Mutex::new(Some(None)));
        let (input, path) = (stdin.clone(), path.to_owned());
        let thread = thread::spawn(move || {
            let mut written = Written { committed: Vec::new(), bus_errors: 0 };
            loop {
                let next = written.committed.last().copied().unwrap_or(first);
                let Some(mut child) = spawn(&path, next, &input) else { return written };
                for line in BufReader::new(child.stdout.take().unwrap()).lines() {
                    written.committed.push(line.unwrap().parse().unwrap());
                }
                let end = child.wait().unwrap();
                written.bus_errors += usize::from(end.signal() == Some(7));
            }
        });
        Self { stdin, thread }
    }

    fn stop(self) -> Written {
        drop(self.stdin.lock().unwrap().take());
        self.thread.join().unwrap()
    }
}

fn spawn(path: &Path, next: i64, input: &Mutex<Option<Option<ChildStdin>>>) -> Option<Child> {
    let mut input = input.lock().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/litefs/writer.py");
    let mut python = Command::new("python3");
    python.arg(script).arg(path).arg(next.to_string()).arg(STEP.to_string());
    let place = input.as_mut()?;
    let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    *place = child.stdin.take();
    Some(child)
}

/// Each node's rows are its own.
const STEP: i64 = 2;

/// Two nodes, the first of them primary, each with a writer.
async fn busy(mode: &str) -> (Nodes, Vec<Writer>) {
    let mut nodes = Nodes::start(&["node-1", "node-2"]).await;
    nodes.serve(0, &[1]).await;
    nodes.create(0, mode).await;
    nodes.level(0, 1).await;
    let writer = |i: usize| Writer::start(&nodes.nodes[i].path(), i as i64);
    let writers = vec![writer(0), writer(1)];
    (nodes, writers)
}

/// Ends the writers: what they committed, and how often they died of a mapping.
pub async fn stop(writers: Vec<Writer>) -> (Vec<i64>, usize) {
    let stopping =
        tokio::task::spawn_blocking(|| writers.into_iter().map(Writer::stop).collect::<Vec<_>>());
    let written = stopping.await.unwrap();
    let bus_errors = written.iter().map(|w| w.bus_errors).sum();
    (written.into_iter().flat_map(|w| w.committed).collect(), bus_errors)
}

/// Something was committed since, so that the writer is at work.
pub async fn progress(nodes: &Nodes, i: usize) {
    let before = nodes.nodes[i].held().await.position.at;
    let later = async || nodes.nodes[i].held().await.position.at.txid.0 > before.txid.0 + 5;
    until("a write", later).await;
}

/// Twenty handoffs there and back under these writers. Returns what these committed, once it is on both
/// nodes.
pub async fn hand_over_often(nodes: &mut Nodes, writers: Vec<Writer>, mode: &str) -> Vec<i64> {
    let mut times = Vec::new();
    for round in 0..20 {
        let (from, to) = (round % 2, (round + 1) % 2);
        progress(nodes, from).await;
        times.push(hand_over(nodes, from, to).await);
    }
    progress(nodes, 0).await;
    let (committed, bus_errors) = stop(writers).await;
    nodes.level(0, 1).await;
    times.sort();
    println!("{mode}: {} rows, {bus_errors} bus errors, handoffs {times:?}", committed.len());
    committed
}

/// As the election does it.
pub async fn hand_over(nodes: &mut Nodes, from: usize, to: usize) -> Duration {
    let began = Instant::now();
    let at = nodes.nodes[from].litefs.fence(LONG).await.unwrap();
    timeout(LONG, async {
        while !nodes.nodes[to].litefs.held().await.is_ok_and(|held| held.position == at) {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .expect("the successor is level");
    nodes.unlink(to);
    let epoch = nodes.next();
    nodes.nodes[from].member.claim(litepilot::cluster::Epoch(epoch.0 - 1)).end();
    nodes.claim(to, epoch);
    let old = nodes.nodes[from].litefs.clone();
    let old = tokio::spawn(async move { old.become_replica().await });
    let held =
        nodes.nodes[to].litefs.become_primary(nodes.nodes[to].member.grant(epoch)).await.unwrap();
    let took = began.elapsed();
    assert_eq!(held, at);
    nodes.open(epoch, held);
    old.await.unwrap().unwrap();
    nodes.follow(from, to).await;
    took
}

async fn handoffs_lose_nothing(mode: &str) {
    if !program().1 {
        eprintln!("skipped: a stand-in cannot keep a replica's application from writing");
        return;
    }
    let (mut nodes, writers) = busy(mode).await;
    let committed = hand_over_often(&mut nodes, writers, mode).await;
    for node in &nodes.nodes {
        let rows = node.rows().unwrap();
        let lost: Vec<_> = committed.iter().filter(|x| rows.binary_search(x).is_err()).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        assert_eq!(node.restarts(), 0, "LiteFS did not exit");
    }
    nodes.stop().await;
}

#[tokio::test]
async fn handoffs_lose_nothing_in_wal_mode() {
    handoffs_lose_nothing("wal").await;
}

#[tokio::test]
async fn handoffs_lose_nothing_in_rollback_mode() {
    handoffs_lose_nothing("delete").await;
}

/// A claim that lapses: LiteFS learns it by 404, fenced or not. What was committed and not replicated is
/// lost to the cluster, but kept in `diverged`; and the cluster goes on.
async fn lapsed_claims(mode: &str) {
    if !program().1 {
        eprintln!("skipped: a stand-in cannot keep a replica's application from writing");
        return;
    }
    let (mut nodes, writers) = busy(mode).await;
    let (mut fates, mut kept) = (Vec::new(), Vec::new());
    for round in 0..20 {
        let (from, to) = (round % 2, (round + 1) % 2);
        progress(&nodes, from).await;
        nodes.level(from, to).await;
        let epoch = litepilot::cluster::Epoch(round as u64 + 1);
        nodes.nodes[from].member.claim(epoch).end();
        timeout(LONG, nodes.nodes[from].litefs.become_replica()).await.unwrap().unwrap();
        assert!(!nodes.nodes[from].litefs.seen().borrow().is_primary());
        nodes.nodes[from].ready().await;
        nodes.serve(to, &[from]).await;
        // Only the newest stay.
        kept.extend(nodes.nodes.iter().flat_map(archived));
        fates.push(nodes.nodes[from].restarts());
    }
    let (committed, bus_errors) = stop(writers).await;
    nodes.level(0, 1).await;
    let rows = nodes.nodes[0].rows().unwrap();
    assert_eq!(nodes.nodes[1].rows().unwrap(), rows);
    kept.extend(nodes.nodes.iter().flat_map(archived));
    let lost: Vec<_> = committed.iter().filter(|x| rows.binary_search(x).is_err()).collect();
    let gone = lost.iter().filter(|x| !kept.contains(x)).count();
    println!(
        "{mode}: {} rows, {} lost, {gone} of them gone, {bus_errors} bus errors, restarts {fates:?}",
        committed.len(),
        lost.len(),
    );
    // A commit that was under way without a fence is what LiteFS itself exits for.
    let exits: u64 = nodes.nodes.iter().map(super::support::Node::restarts).sum();
    assert!(gone as u64 <= exits, "gone without a trace: {lost:?}");
    nodes.stop().await;
}

/// The rows of the copies that were replaced by another history.
fn archived(node: &super::support::Node) -> Vec<i64> {
    let Ok(kept) = std::fs::read_dir(node.config.data_dir.join("diverged")) else {
        return Vec::new();
    };
    let rows = |file: std::io::Result<std::fs::DirEntry>| {
        let copy = rusqlite::Connection::open(file.unwrap().path()).unwrap();
        let mut all = copy.prepare("SELECT x FROM t").unwrap();
        all.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect::<Vec<i64>>()
    };
    kept.flat_map(rows).collect()
}

#[tokio::test]
async fn lapsed_claims_end_the_epoch_in_wal_mode() {
    lapsed_claims("wal").await;
}

#[tokio::test]
async fn lapsed_claims_end_the_epoch_in_rollback_mode() {
    lapsed_claims("delete").await;
}

/// Somebody asks LiteFS itself: nobody becomes primary by that, and the old epoch is over.
#[tokio::test]
async fn a_handoff_that_nobody_decided_leaves_no_primary() {
    let mut nodes = Nodes::start(&["node-1", "node-2"]).await;
    let epoch = nodes.serve(0, &[1]).await;
    nodes.create(0, "wal").await;
    nodes.write(0, 1).await;
    nodes.level(0, 1).await;
    let api = litepilot::litefs::api::Api(nodes.nodes[1].config.litefs.http);
    let connected = async || nodes.nodes[1].litefs.seen().borrow().follows().is_some();
    until("it is connected", connected).await;
    let _ = api.promote(LONG).await;
    assert_eq!(timeout(LONG, nodes.nodes[0].litefs.lost()).await.unwrap(), epoch);
    assert!(!nodes.nodes[1].litefs.seen().borrow().is_primary());
    assert!(nodes.nodes[0].litefs.read_position().await.is_err());
    // As the election does when an epoch was lost.
    nodes.nodes[0].litefs.become_replica().await.unwrap();
    nodes.serve(1, &[0]).await;
    nodes.write(1, 2).await;
    nodes.level(0, 1).await;
    assert_eq!(nodes.nodes[0].rows().unwrap(), [1, 2]);
    nodes.stop().await;
}

/// A replica with an open read transaction, which keeps it from applying what its primary has written.
async fn held_up(mode: &str) -> (Nodes, rusqlite::Connection) {
    let mut nodes = Nodes::start(&["node-1", "node-2"]).await;
    nodes.serve(0, &[1]).await;
    nodes.create(0, mode).await;
    nodes.write(0, 1).await;
    nodes.level(0, 1).await;
    let reader = nodes.nodes[1].open().unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
    nodes.write(0, 2).await;
    (nodes, reader)
}

#[tokio::test]
async fn a_promise_does_not_wait_for_a_reader() {
    for mode in ["delete", "wal"] {
        let (mut nodes, reader) = held_up(mode).await;
        let epoch = nodes.next();
        let litefs = &nodes.nodes[1].litefs;
        let held = litefs.held().await.unwrap();
        nodes.nodes[1]
            .litefs
            .primary_is_at(nodes.nodes[0].held().await.position.at, Instant::now());
        let mut found = litefs.stalled().unwrap();
        let by = timeout(LONG, found.wait_for(Option::is_some)).await.unwrap().unwrap().clone();
        assert!(
            by.unwrap().openers.iter().any(|opener| opener.pid == std::process::id()),
            "{mode}"
        );
        assert_eq!(litefs.promise(epoch).await.unwrap(), held, "{mode}");
        assert!(litefs.unfit().unwrap().contains("an open transaction holds LiteFS up"), "{mode}");
        reader.execute_batch("COMMIT").unwrap();
        until("it is fit", async || {
            litefs.promise(epoch).await.is_ok() && litefs.unfit().is_none()
        })
        .await;
        nodes.serve(1, &[]).await;
        assert_eq!(nodes.nodes[1].rows().unwrap()[0], 1);
        nodes.stop().await;
    }
}
