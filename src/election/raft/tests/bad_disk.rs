//! A disk that takes nothing more, or takes its time.

use super::*;
use crate::election::raft::ProposeError;
use crate::election::raft::store::testing::Shelf;

impl Cluster {
    /// On a disk that can be full.
    async fn start_on(&mut self, name: &str, seeds: &[&str], shelf: &Shelf) {
        let seeds = self.seeds(seeds);
        self.start_in(name, seeds, shelf.store().unwrap()).await;
    }
}

#[tokio::test]
async fn a_node_with_a_full_disk_goes_on_once_there_is_room() {
    let shelf = Shelf::default();
    let mut cluster = Cluster::new();
    cluster.start_on("a", &["a"], &shelf).await;
    cluster.agree("before").await;
    let raft = cluster.raft("a");
    shelf.set_full(true);
    let proposed = raft.propose(mark("lost")).await;
    assert!(proposed.is_err());
    eventually(|| async { raft.confirm().await.is_err().then_some(()) }).await;
    eventually(|| async { raft.leadership().borrow().leader.is_none().then_some(()) }).await;
    assert!(knows(&raft.table().borrow(), "before"), "what is known is still known");
    shelf.set_full(false);
    cluster.agree("after").await;
    assert!(knows(&raft.table().borrow(), "before"));
}

#[tokio::test]
async fn the_others_go_on_without_a_node_whose_disk_is_full() {
    let names = ["a", "b", "c"];
    let shelf = Shelf::default();
    let mut cluster = Cluster::new();
    for name in ["a", "b"] {
        cluster.start(name, &names).await;
    }
    cluster.start_on("c", &names, &shelf).await;
    cluster.agree("before").await;
    shelf.set_full(true);
    let full = cluster.nodes.remove(&id("c")).unwrap();
    // If it leads, it goes on doing so until it has something to write.
    let _ = full.raft.propose(mark("whatever")).await;
    cluster.agree("without it").await;
    cluster.agree("again").await;
    assert!(!knows(&full.raft.table().borrow(), "again"));
    shelf.set_full(false);
    cluster.nodes.insert(id("c"), full);
    cluster.agree("with it").await;
    cluster.all_know("again").await;
}

/// An `fsync` may take seconds where an application writes much. What was agreed upon before is
/// confirmed meanwhile, and the others' disks make a majority.
#[tokio::test]
async fn a_leader_whose_disk_is_slow_goes_on_leading() {
    let names = ["a", "b", "c"];
    let shelves: BTreeMap<_, _> = names.iter().map(|name| (*name, Shelf::default())).collect();
    let mut cluster = Cluster::new();
    for name in names {
        cluster.start_on(name, &names, &shelves[name]).await;
    }
    cluster.agree("before").await;
    let table: Arc<Table> = eventually(|| async {
        let (name, leader) = cluster.leader().await;
        shelves[name.as_str()].set_stalled(true);
        let proposed = leader.propose(mark("meanwhile")).await;
        let confirmed = leader.confirm().await;
        shelves[name.as_str()].set_stalled(false);
        proposed.and(confirmed.map_err(|why| ProposeError::Unknown(why.to_string()))).ok()
    })
    .await;
    assert!(knows(&table, "meanwhile"));
    cluster.agree("after").await;
}
