//! How a cluster begins, and who is let into it.

use super::*;
use crate::election::raft::identity::DiskId;

#[tokio::test]
async fn nodes_start_in_any_order_and_some_are_missing() {
    let names = ["a", "b", "c"];
    let mut cluster = Cluster::new();
    cluster.start("c", &names).await;
    let alone = cluster.raft("c");
    cluster.start("a", &names).await;
    cluster.agree("two of three").await;
    drop(alone);
    cluster.start("b", &names).await;
    cluster.agree("three").await;
    cluster.all_know("two of three").await;
}

/// All of them begin it at the same time, and it is one cluster.
#[tokio::test]
async fn five_nodes_begin_one_cluster() {
    let cluster = Cluster::running(&["a", "b", "c", "d", "e"]).await;
    cluster.agree("one").await;
    assert_eq!(cluster.leader().await.1.members().borrow().data_nodes().len(), 5);
}

#[tokio::test]
async fn peers_that_disagree_about_the_members_begin_no_cluster() {
    let mut cluster = Cluster::new();
    let seeds = cluster.seeds(&["a", "b", "c"]);
    let mut others = cluster.seeds(&["a", "b", "c"]);
    others[2].witness = true;
    cluster.start_with("a", seeds.clone()).await;
    cluster.start_with("b", others).await;
    let (a, b) = (cluster.raft("a"), cluster.raft("b"));
    // Long enough for several rounds of questions.
    for raft in [&a, &b] {
        sleep(TTL).await;
        assert_eq!(raft.leadership().borrow().leader, None);
    }
    drop((a, b));
    // Configured right, it begins by itself.
    cluster.kill("b");
    cluster.start_with("b", seeds).await;
    cluster.agree("one").await;
}

/// The others are up, remember the disk that is gone, and go on without it.
#[tokio::test]
async fn an_empty_disk_under_a_known_name_has_no_vote() {
    let names = ["a", "b", "c"];
    let mut cluster = Cluster::running(&names).await;
    cluster.agree("one").await;
    let lost = cluster.followers().await.remove(0);
    cluster.lose_disk(&lost, &names).await;
    let rest: Vec<_> = names.iter().filter(|name| **name != lost).collect();
    let (leader, _) = cluster.leader().await;
    let other = rest.iter().find(|name| ***name != leader).unwrap().to_string();
    // Without this one there is no majority, but for the empty one.
    cluster.kill(&other);
    let (empty, left) = (cluster.raft(&lost), cluster.raft(&leader));
    eventually(|| async { left.confirm().await.is_err().then_some(()) }).await;
    sleep(TTL * 2).await;
    assert!(left.confirm().await.is_err() && !knows(&empty.table().borrow(), "one"));
    drop((empty, left));
    // With it there is one again, and the empty one may be replaced.
    cluster.start(&other, &names).await;
    let replaced = eventually(|| async {
        let (_, leader) = cluster.leader().await;
        change_at(&leader, MemberChange::Replace { node: id(&lost), generation: None }).await.ok()
    });
    replaced.await;
    cluster.agree("two").await;
    cluster.all_know("one").await;
    let members = cluster.leader().await.1.members().borrow().clone();
    assert_eq!(members.get(&id(&lost)).unwrap().member.generation, 1);
}

#[tokio::test]
async fn a_store_of_another_node_is_refused() {
    let names = ["a", "b", "c"];
    let mut cluster = Cluster::running(&names).await;
    cluster.agree("one").await;
    cluster.stop("a").await;
    let dir = cluster.store_dir("a");
    let store = eventually(|| async { Store::open(&dir).ok() }).await;
    let setup = RaftSetup { own: id("b"), seeds: cluster.seeds(&names), ttl: TTL };
    let dialer = Arc::new(Dialer::new(id("b"), &[], Times::default()));
    let error = Raft::start(setup, store, Arc::new(PeerTransport::new(dialer))).await;
    let error = error.err().unwrap().to_string();
    assert!(error.contains("is of node a") && error.contains("this node is b"), "{error}");
}

/// A node that comes with the disk of another cluster is not listened to, and changes nothing.
#[tokio::test]
async fn a_data_dir_of_another_cluster_is_refused() {
    let names = ["a", "b", "c"];
    let mut cluster = Cluster::running(&names).await;
    cluster.propose(Command::Found { cluster: "ours".to_owned() }).await;
    cluster.agree("one").await;
    let victim = cluster.followers().await.remove(0);
    cluster.stop(&victim).await;
    cluster.wipe(&victim);
    {
        let mut other = Cluster::new();
        other.start(&victim, &[&victim]).await;
        other.propose(Command::Found { cluster: "theirs".to_owned() }).await;
        other.agree("foreign").await;
        other.stop(&victim).await;
        let (from, to) = (other.store_dir(&victim), cluster.store_dir(&victim));
        eventually(|| async { Store::open(&from).ok() }).await;
        std::fs::rename(from, to).unwrap();
    }
    cluster.start(&victim, &names).await;
    let foreign = cluster.nodes.remove(&id(&victim)).unwrap();
    eventually(|| async { foreign.raft.confirm().await.ok() }).await;
    // Time for several attempts of either side to win the other over.
    sleep(TTL).await;
    cluster.agree("two").await;
    assert!(!knows(&foreign.raft.table().borrow(), "two"));
    let (_, leader) = cluster.leader().await;
    assert!(!knows(&leader.table().borrow(), "foreign"));
    foreign.runtime.shutdown_background();
}

#[test]
fn a_disk_is_told_from_any_other() {
    assert_ne!(DiskId::new(), DiskId::new());
}
