//! Becoming primary, following, ceasing to be: what a node's copy is then, and holds.

use std::sync::atomic::Ordering;
use std::time::Duration;

use litepilot::cluster::Epoch;
use litepilot::engine::Engine;
use litepilot::txid::{EpochTxid, Txid};

use tokio::time::timeout;

use super::support::{LONG, Nodes, until};

#[tokio::test]
async fn a_replica_gets_what_its_primary_writes() {
    let mut nodes = Nodes::start(&["node-1", "node-2"]).await;
    assert!(nodes.nodes[0].held().await.empty);
    let epoch = nodes.serve(0, &[1]).await;
    nodes.create(0, "wal").await;
    nodes.write(0, 1).await;
    nodes.write(0, 2).await;
    let position = nodes.nodes[0].litefs.read_position().await.unwrap();
    assert_eq!(position.epoch, epoch);
    // The replica's cell is fed by events.
    let cell = nodes.nodes[1].litefs.position().clone();
    timeout(LONG, cell.wait(position)).await.unwrap();
    nodes.level(0, 1).await;
    assert_eq!(nodes.nodes[1].rows().unwrap(), [1, 2]);
    assert!(nodes.nodes[0].litefs.position().reached(position), "the primary's own, by events");
    nodes.stop().await;
}

#[tokio::test]
async fn the_primary_moves_without_a_restart() {
    let mut nodes = Nodes::start(&["node-1", "node-2", "node-3"]).await;
    nodes.serve(0, &[1, 2]).await;
    nodes.create(0, "wal").await;
    for (x, next) in [1, 2, 0, 2, 1].into_iter().enumerate() {
        let now = (0..3).find(|i| nodes.nodes[*i].litefs.seen().borrow().is_primary()).unwrap();
        nodes.write(now, x as i64).await;
        for other in (0..3).filter(|i| *i != now) {
            nodes.level(now, other).await;
        }
        let others: Vec<_> = (0..3).filter(|i| *i != next).collect();
        let epoch = nodes.serve(next, &others).await;
        assert_eq!(nodes.nodes[next].litefs.read_position().await.unwrap().epoch, epoch);
        for other in others {
            // Each replica takes the new epoch over once it knows to be of its history.
            nodes.level(next, other).await;
        }
    }
    for node in &nodes.nodes {
        assert_eq!(node.rows().unwrap(), [0, 1, 2, 3, 4]);
        assert_eq!(node.restarts(), 0);
    }
    nodes.stop().await;
}

#[tokio::test]
async fn a_claim_that_ends_ends_the_epoch() {
    let mut nodes = Nodes::start(&["node-1"]).await;
    let (epoch, _) = nodes.elect(0, &[]).await;
    nodes.create(0, "wal").await;
    let node = &nodes.nodes[0];
    node.member.claim(epoch).end();
    let mut seen = node.litefs.seen();
    timeout(LONG, seen.wait_for(|seen| !seen.is_primary())).await.unwrap().unwrap();
    assert!(node.litefs.read_position().await.is_err(), "it cannot vouch for any write");
    assert_eq!(timeout(LONG, node.litefs.lost()).await.unwrap(), epoch);
    assert!(
        node.litefs.become_primary(node.member.grant(epoch)).await.is_err(),
        "an epoch does not begin twice"
    );
    node.litefs.become_replica().await.unwrap();
    assert!(node.litefs.read_position().await.is_ok());
    nodes.elect(0, &[]).await;
    nodes.write(0, 1).await;
    assert_eq!(nodes.nodes[0].restarts(), 0);
    nodes.stop().await;
}

#[tokio::test]
async fn a_promise_outlives_a_restart() {
    let mut nodes = Nodes::start(&["node-1"]).await;
    nodes.next();
    nodes.nodes[0].litefs.promise(Epoch(5)).await.unwrap();
    let agreed = nodes.agreed.clone();
    let dir = nodes.nodes.pop().unwrap().stop().await;
    nodes.nodes.push(super::support::Node::start_in(dir, "node-1", &agreed).await);
    nodes.nodes[0].ready().await;
    nodes.claim(0, Epoch(4));
    assert!(
        nodes.nodes[0].litefs.become_primary(nodes.nodes[0].member.grant(Epoch(4))).await.is_err()
    );
    nodes.claim(0, Epoch(5));
    nodes.nodes[0].litefs.become_primary(nodes.nodes[0].member.grant(Epoch(5))).await.unwrap();
    nodes.stop().await;
}

#[tokio::test]
async fn what_the_new_history_lacks_is_kept_before_it_is_replaced() {
    let mut nodes = Nodes::start(&["node-1", "node-2"]).await;
    nodes.serve(0, &[1]).await;
    nodes.create(0, "wal").await;
    nodes.write(0, 1).await;
    nodes.level(0, 1).await;
    // Node 1 is cut off, and writes what nobody else gets.
    nodes.unlink(1);
    nodes.nodes[1].litefs.become_replica().await.unwrap();
    nodes.write(0, 100).await;
    nodes.write(0, 101).await;
    nodes.serve(1, &[]).await;
    nodes.write(1, 2).await;
    nodes.follow(0, 1).await;
    nodes.level(1, 0).await;
    assert_eq!(nodes.nodes[0].rows().unwrap(), [1, 2]);
    let kept = nodes.nodes[0].config.data_dir.join("diverged");
    let kept: Vec<_> = std::fs::read_dir(kept).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(kept.len(), 1);
    let copy = rusqlite::Connection::open(&kept[0]).unwrap();
    let rows: i64 =
        copy.query_row("SELECT count(*) FROM t WHERE x >= 100", [], |r| r.get(0)).unwrap();
    assert_eq!(rows, 2);
    // The other one lost nothing.
    assert!(!nodes.nodes[1].config.data_dir.join("diverged").exists());
    nodes.stop().await;
}

#[tokio::test]
async fn a_replica_that_was_cut_off_misses_nothing() {
    let mut nodes = Nodes::start(&["node-1", "node-2"]).await;
    nodes.serve(0, &[1]).await;
    nodes.create(0, "delete").await;
    nodes.level(0, 1).await;
    nodes.nodes[1].member.cut_off.store(true, Ordering::SeqCst);
    nodes.unlink(1);
    nodes.nodes[1].litefs.become_replica().await.unwrap();
    for x in 0..20 {
        nodes.write(0, x).await;
    }
    nodes.nodes[1].member.cut_off.store(false, Ordering::SeqCst);
    nodes.follow(1, 0).await;
    let end = nodes.nodes[0].litefs.read_position().await.unwrap();
    let cell = nodes.nodes[1].litefs.position().clone();
    timeout(LONG, cell.wait(end)).await.unwrap();
    assert_eq!(nodes.nodes[1].rows().unwrap().len(), 20);
    assert!(!nodes.nodes[1].config.data_dir.join("diverged").exists());
    nodes.stop().await;
}

#[tokio::test]
async fn a_fence_keeps_writers_out_until_it_is_lifted() {
    for mode in ["wal", "delete"] {
        let mut nodes = Nodes::start(&["node-1"]).await;
        nodes.serve(0, &[]).await;
        nodes.create(0, mode).await;
        let node = &nodes.nodes[0];
        let at = node.litefs.fence(LONG).await.unwrap();
        let writer = node.open().unwrap();
        writer.busy_timeout(Duration::ZERO).unwrap();
        assert!(writer.execute("INSERT INTO t VALUES (NULL)", []).is_err(), "{mode}");
        assert_eq!(node.held().await.position, at);
        node.litefs.lift_fence().await.unwrap();
        writer.busy_timeout(LONG).unwrap();
        writer.execute("INSERT INTO t VALUES (NULL)", []).unwrap();
        drop(writer);
        until("the write", async || node.held().await.position.at > at.at).await;
        nodes.stop().await;
    }
}

#[tokio::test]
async fn an_empty_replica_gets_everything() {
    let mut nodes = Nodes::start(&["node-1", "node-2"]).await;
    nodes.serve(0, &[]).await;
    nodes.create(0, "wal").await;
    for x in 0..10 {
        nodes.write(0, x).await;
    }
    assert!(nodes.nodes[1].litefs.unfit().is_some(), "it has no cluster ID");
    nodes.follow(1, 0).await;
    nodes.level(0, 1).await;
    assert_eq!(nodes.nodes[1].rows().unwrap().len(), 10);
    until("it is fit", async || nodes.nodes[1].litefs.unfit().is_none()).await;
    let position = nodes.nodes[0].litefs.read_position().await.unwrap();
    assert!(position >= EpochTxid { epoch: Epoch(1), txid: Txid(11) });
    nodes.nodes[1].litefs.primary_is_at(position, std::time::Instant::now());
    // Its events may come a little after the position can be read.
    until("it is level", async || nodes.nodes[1].litefs.lag().is_some_and(|lag| lag < LONG)).await;
    nodes.stop().await;
}
