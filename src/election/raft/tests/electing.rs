//! Who leads, and what is agreed upon, while nodes come and go.

use super::*;
use crate::election::raft::{ConfirmError, ProposeError};
use crate::election::table::Term;

#[tokio::test]
async fn three_nodes_elect_one_and_agree() {
    let cluster = Cluster::running(&["a", "b", "c"]).await;
    let (name, leader) = cluster.leader().await;
    cluster.agree("one").await;
    assert!(knows(&leader.confirm().await.unwrap(), "one"));
    for other in cluster.followers().await {
        let raft = cluster.raft(&other);
        let known = raft.leadership().borrow().clone();
        assert_eq!((known.leader, known.ours), (Some(id(&name)), false));
        assert_eq!(raft.confirm().await, Err(ConfirmError::NotLeader(Some(id(&name)))));
        let proposed = raft.propose(mark("two")).await;
        assert_eq!(proposed, Err(ProposeError::NotLeader(Some(id(&name)))));
        assert!(raft.in_contact(TTL));
    }
    assert!(leader.in_contact(TTL));
}

#[tokio::test]
async fn a_node_alone_is_a_cluster() {
    let mut cluster = Cluster::running(&["a"]).await;
    cluster.agree("one").await;
    let (_, leader) = cluster.leader().await;
    assert!(knows(&leader.confirm().await.unwrap(), "one") && leader.in_contact(TTL));
    drop(leader);
    cluster.kill("a");
    cluster.start("a", &["a"]).await;
    cluster.all_know("one").await;
}

#[tokio::test]
async fn the_loss_of_a_leader_is_survived_and_it_comes_back() {
    let names = ["a", "b", "c"];
    let mut cluster = Cluster::running(&names).await;
    cluster.agree("before").await;
    let (first, _) = cluster.leader().await;
    cluster.kill(&first);
    cluster.agree("without it").await;
    cluster.start(&first, &names).await;
    cluster.agree("with it again").await;
    cluster.all_know("without it").await;
}

#[tokio::test]
async fn all_that_was_agreed_upon_outlives_all_processes() {
    let names = ["a", "b", "c"];
    let mut cluster = Cluster::running(&names).await;
    cluster.propose(Command::Found { cluster: "x".to_owned() }).await;
    assert_eq!(cluster.propose(Command::Acquire(holder("a", 1))).await, Applied::Done);
    cluster.agree("one").await;
    let terms = cluster.leader().await.1.leadership().borrow().term;
    for name in names {
        cluster.kill(name);
    }
    for name in names {
        cluster.start(name, &names).await;
    }
    cluster.all_know("one").await;
    let (_, leader) = cluster.leader().await;
    let table = leader.confirm().await.unwrap();
    assert_eq!(table.holder, Some(holder("a", 1)));
    assert_eq!(table.cluster.as_deref(), Some("x"));
    assert!(leader.leadership().borrow().term > terms, "nobody leads on without being elected");
}

#[tokio::test]
async fn a_minority_confirms_nothing_and_agrees_on_nothing() {
    let mut cluster = Cluster::running(&["a", "b", "c"]).await;
    cluster.agree("one").await;
    let (_, leader) = cluster.leader().await;
    for other in cluster.followers().await {
        cluster.kill(&other);
    }
    eventually(|| async { leader.confirm().await.is_err().then_some(()) }).await;
    assert!(leader.propose(mark("two")).await.is_err());
    assert!(!knows(&leader.table().borrow(), "two"));
    eventually(|| async { (!leader.in_contact(TTL)).then_some(()) }).await;
}

#[tokio::test]
async fn leadership_is_passed_on() {
    let cluster = Cluster::running(&["a", "b", "c"]).await;
    cluster.agree("one").await;
    let (_, leader) = cluster.leader().await;
    let to = cluster.followers().await.remove(0);
    let term = leader.leadership().borrow().term;
    leader.transfer_leadership(&id(&to)).await.unwrap();
    let (now, leader) = cluster.leader().await;
    assert_eq!(now, to);
    assert!(leader.leadership().borrow().term > term);
    cluster.agree("two").await;
}

#[tokio::test]
async fn an_expiry_that_another_leader_proposed_is_void() {
    let cluster = Cluster::running(&["a", "b", "c"]).await;
    assert_eq!(cluster.propose(Command::Acquire(holder("a", 1))).await, Applied::Done);
    let (_, leader) = cluster.leader().await;
    let Leadership { term: Term(term), .. } = *leader.leadership().borrow();
    let expire = |term| Command::Expire { epoch: Epoch(1), term: Term(term) };
    assert!(matches!(cluster.propose(expire(term - 1)).await, Applied::Rejected(_)));
    assert!(leader.confirm().await.unwrap().holder.is_some());
    let now = cluster.leader().await.1.leadership().borrow().term;
    assert_eq!(cluster.propose(expire(now.0)).await, Applied::Done);
}

/// More than the log keeps: whoever was away gets the snapshot.
#[tokio::test]
async fn a_node_that_was_away_for_long_gets_a_snapshot() {
    let names = ["a", "b", "c"];
    let mut cluster = Cluster::running(&names).await;
    cluster.agree("first").await;
    let away = cluster.followers().await.remove(0);
    cluster.kill(&away);
    let (_, leader) = cluster.leader().await;
    for n in 0..1500 {
        let key = mark(&format!("{}", n % 7));
        if leader.propose(key).await.is_err() {
            cluster.agree("elsewhere").await;
        }
    }
    cluster.start(&away, &names).await;
    cluster.agree("last").await;
    let mine = cluster.raft(&away).table().borrow().clone();
    assert!(knows(&mine, "first") && knows(&mine, "6"));
    assert_eq!(mine, *cluster.leader().await.1.table().borrow());
}
