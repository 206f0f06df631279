//! What LiteFS still has of a former primary's stream, and tunnels of a former epoch.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use litepilot::engine::Engine;
use litepilot::engine::replication::Dial;
use litepilot::txid::{EpochTxid, Txid};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::support::{LONG, Nodes, until};

/// The protocol of tunnels.
const LITEFS: &str = "litepilot-litefs/1";

#[tokio::test]
async fn what_is_left_of_a_former_primarys_stream_is_not_taken_for_the_new_ones() {
    for mode in ["delete", "wal"] {
        let mut nodes = Nodes::start(&["node-1", "node-2", "node-3"]).await;
        nodes.serve(0, &[1, 2]).await;
        nodes.create(0, mode).await;
        nodes.level(0, 1).await;
        nodes.level(0, 2).await;
        // Node 3 gets no more; node 2 receives it, and cannot apply it yet.
        nodes.unlink(2);
        nodes.nodes[2].litefs.become_replica().await.unwrap();
        let reader = nodes.nodes[1].open().unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
        for x in 100..105 {
            nodes.write(0, x).await;
        }
        nodes.unlink(1);
        let (epoch, _) = nodes.elect(2, &[1]).await;
        nodes.write(2, 1).await;
        let token = nodes.nodes[2].litefs.read_position().await.unwrap();
        let (node, primary) = (&nodes.nodes[1], nodes.nodes[2].name.clone());
        let (cell, dial): (_, Arc<dyn Dial>) =
            (node.litefs.position().clone(), node.member.clone());
        node.member.cut_off.store(true, SeqCst);
        tokio::select! {
            refused = node.litefs.follow(&primary, epoch, &dial) => assert!(refused.is_err()),
            () = cell.wait(EpochTxid { epoch, txid: Txid(0) }) => {
                let follows = node.litefs.seen().borrow().follows().map(str::to_owned);
                assert_eq!(follows, None, "{mode}: it counts while LiteFS follows the old primary");
            }
        }
        reader.execute_batch("COMMIT").unwrap();
        drop(reader);
        until("it has left", async || node.litefs.seen().borrow().follows().is_none()).await;
        assert!(node.held().await.position.at < token, "{mode}: {:?}", node.held().await);
        let left = node.rows().unwrap();
        node.member.cut_off.store(false, SeqCst);
        nodes.follow(1, 2).await;
        nodes.level(2, 1).await;
        assert_eq!(nodes.nodes[1].rows().unwrap(), [1], "{mode}");
        let kept = nodes.nodes[1].config.data_dir.join("diverged").exists();
        assert_eq!(kept, !left.is_empty(), "{mode}: {left:?}");
        nodes.stop().await;
    }
}

#[tokio::test]
async fn a_tunnel_leads_to_litefs_only_in_an_epoch_that_the_replica_has_heard_of() {
    let mut nodes = Nodes::start(&["node-1", "node-2"]).await;
    nodes.serve(0, &[1]).await;
    nodes.create(0, "wal").await;
    nodes.level(0, 1).await;
    // Node 2 hears of nothing more, and its LiteFS would dial again.
    nodes.unlink(1);
    let (primary, dial) = (nodes.nodes[0].name.clone(), nodes.nodes[1].member.clone());
    let mut open = dial.dial(&primary, LITEFS).await.unwrap();
    nodes.nodes[0].litefs.become_replica().await.unwrap();
    let mut rest = Vec::new();
    timeout(LONG, open.read_to_end(&mut rest)).await.expect("it is cut").unwrap();
    nodes.elect(0, &[]).await;
    let mut old = dial.dial(&primary, LITEFS).await.unwrap();
    timeout(LONG, old.read_to_end(&mut rest)).await.expect("it is refused").unwrap();
    assert!(rest.is_empty(), "LiteFS has answered: {}", String::from_utf8_lossy(&rest));
    // Once it has heard of it, it gets what is new.
    nodes.follow(1, 0).await;
    nodes.write(0, 1).await;
    nodes.level(0, 1).await;
    assert_eq!(nodes.nodes[1].rows().unwrap(), [1]);
    nodes.stop().await;
}
