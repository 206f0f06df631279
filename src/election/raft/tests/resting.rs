//! What a cluster costs that has nothing to do.

use std::time::SystemTime;

use super::*;

/// A window without an election in which nothing was written on any node: twenty heartbeats.
#[tokio::test]
async fn nothing_is_written_while_nothing_happens() {
    let names = ["a", "b", "c"];
    let cluster = Cluster::running(&names).await;
    cluster.propose(Command::Found { cluster: "x".to_owned() }).await;
    cluster.agree("one").await;
    let written = || -> Vec<SystemTime> {
        let file = |name: &&str| cluster.store_dir(name).join("raft.redb");
        names.iter().map(|name| file(name).metadata().unwrap().modified().unwrap()).collect()
    };
    // Asking a majority is no reason to write either.
    let (_, leader) = cluster.leader().await;
    eventually(|| async {
        let before = written();
        for _ in 0..20 {
            sleep(TTL / 10).await;
            leader.confirm().await.ok()?;
        }
        (written() == before).then_some(())
    })
    .await;
}
