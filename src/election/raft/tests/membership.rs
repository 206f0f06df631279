//! Members come and go while the cluster runs.

use super::*;

async fn change(cluster: &Cluster, change: MemberChange) {
    eventually(|| async {
        let (_, leader) = cluster.leader().await;
        match change_at(&leader, change.clone()).await {
            Ok(()) => Some(()),
            Err(ChangeError::NotLeader(_)) => None,
            Err(ChangeError::Refused(why)) => panic!("{why}"),
        }
    })
    .await;
}

#[tokio::test]
async fn a_node_is_added() {
    let names = ["a", "b", "c"];
    let mut cluster = Cluster::running(&names).await;
    cluster.agree("one").await;
    let address: HostPort = cluster.address("d").to_string().parse().unwrap();
    cluster.start("d", &["a", "b", "c", "d"]).await;
    change(&cluster, MemberChange::Add { node: id("d"), address: address.clone() }).await;
    cluster.agree("two").await;
    cluster.all_know("one").await;
    let (_, leader) = cluster.leader().await;
    let members = leader.members().borrow().clone();
    assert!(members.get(&id("d")).unwrap().voter);
    // Whoever has not heard the answer asks again.
    change(&cluster, MemberChange::Add { node: id("d"), address }).await;
    let elsewhere = MemberChange::Add { node: id("d"), address: "elsewhere:1".parse().unwrap() };
    let again = change_at(&cluster.leader().await.1, elsewhere).await;
    assert!(matches!(again, Err(ChangeError::Refused(why)) if why.contains("member already")));
}

/// Whoever has not heard the answer asks again: the new disk must not be taken for the lost one.
#[tokio::test]
async fn a_node_that_was_replaced_is_not_replaced_again() {
    let names = ["a", "b", "c"];
    let mut cluster = Cluster::running(&names).await;
    cluster.agree("one").await;
    let lost = cluster.followers().await.remove(0);
    cluster.lose_disk(&lost, &names).await;
    let address: HostPort = cluster.address(&lost).to_string().parse().unwrap();
    let add = MemberChange::Add { node: id(&lost), address };
    let added = change_at(&cluster.leader().await.1, add).await;
    assert!(matches!(added, Err(ChangeError::Refused(why)) if why.contains("members replace")));
    let replace = |generation| MemberChange::Replace { node: id(&lost), generation };
    for _ in 0..2 {
        change(&cluster, replace(Some(0))).await;
        let (_, leader) = cluster.leader().await;
        assert_eq!(leader.table().borrow().generation(&id(&lost)), 1);
        assert!(leader.members().borrow().get(&id(&lost)).unwrap().voter);
    }
    let again = change_at(&cluster.leader().await.1, replace(Some(1))).await;
    assert!(matches!(again, Err(ChangeError::Refused(why)) if why.contains("stop it first")));
    // It can be lost once more.
    cluster.lose_disk(&lost, &names).await;
    change(&cluster, replace(None)).await;
    let (_, leader) = cluster.leader().await;
    assert_eq!(leader.table().borrow().generation(&id(&lost)), 2);
    cluster.agree("two").await;
}

#[tokio::test]
async fn a_node_that_is_not_there_is_not_given_a_vote() {
    let mut cluster = Cluster::running(&["a"]).await;
    cluster.agree("one").await;
    let (_, leader) = cluster.leader().await;
    let address: HostPort = cluster.address("b").to_string().parse().unwrap();
    let add = MemberChange::Add { node: id("b"), address };
    let added = change_at(&leader, add.clone()).await;
    assert!(matches!(added, Err(ChangeError::Refused(why)) if why.contains("not caught up")));
    // Else it would have no majority now.
    cluster.agree("two").await;
    cluster.start("b", &["a", "b"]).await;
    change_at(&leader, add).await.unwrap();
    cluster.agree("three").await;
}

#[tokio::test]
async fn a_node_is_removed_and_its_disk_is_void() {
    let names = ["a", "b", "c"];
    let mut cluster = Cluster::running(&names).await;
    cluster.agree("one").await;
    let gone = cluster.followers().await.remove(0);
    change(&cluster, MemberChange::Remove { node: id(&gone) }).await;
    let removed = cluster.raft(&gone);
    let (_, leader) = cluster.leader().await;
    assert!(!leader.members().borrow().contains(&id(&gone)));
    assert_eq!(leader.table().borrow().generation(&id(&gone)), 1);
    let term = leader.leadership().borrow().term;
    // It is still up, and would stand for election if it was listened to.
    sleep(TTL * 2).await;
    let now = cluster.leader().await.1.leadership().borrow().term;
    assert_eq!(now, term, "a removed node disturbs the others");
    assert!(removed.confirm().await.is_err());
    drop(removed);
    cluster.kill(&gone);
    cluster.agree("two").await;
    // It may come back, but only as a new one.
    cluster.wipe(&gone);
    let address: HostPort = cluster.address(&gone).to_string().parse().unwrap();
    cluster.start(&gone, &names).await;
    change(&cluster, MemberChange::Add { node: id(&gone), address }).await;
    cluster.agree("three").await;
}

/// Else nothing would complete its log: the leader is none of those that it knows.
#[tokio::test]
async fn a_leader_of_later_days_reaches_nodes_with_an_old_log_and_with_none() {
    let names = ["a", "b", "c"];
    let mut cluster = Cluster::running(&names).await;
    cluster.agree("one").await;
    let stays = cluster.leader().await.0;
    let mut others = names.into_iter().filter(|name| *name != stays);
    let (sleeper, lost) = (others.next().unwrap(), others.next().unwrap());

    let address: HostPort = cluster.address("d").to_string().parse().unwrap();
    cluster.start("d", &["a", "b", "c", "d"]).await;
    cluster.kill(sleeper);
    change(&cluster, MemberChange::Add { node: id("d"), address }).await;
    cluster.agree("two").await;
    eventually(|| async {
        let (name, leader) = cluster.leader().await;
        if name != "d" {
            let _ = leader.transfer_leadership(&id("d")).await;
        }
        (name == "d").then_some(())
    })
    .await;
    cluster.start(sleeper, &names).await;
    cluster.agree("three").await;

    cluster.lose_disk(lost, &names).await;
    change(&cluster, MemberChange::Replace { node: id(lost), generation: None }).await;
    cluster.agree("four").await;
    assert_eq!(cluster.leader().await.0, "d", "else this shows nothing");
}

#[tokio::test]
async fn the_leader_removes_itself_by_way_of_another() {
    let cluster = Cluster::running(&["a", "b", "c"]).await;
    cluster.agree("one").await;
    let (name, leader) = cluster.leader().await;
    let remove = MemberChange::Remove { node: id(&name) };
    let next = match change_at(&leader, remove.clone()).await {
        Err(ChangeError::NotLeader(Some(next))) => next,
        other => panic!("{other:?}"),
    };
    assert_ne!(next, id(&name));
    change(&cluster, remove).await;
    let (_, leader) = cluster.leader().await;
    assert!(!leader.members().borrow().contains(&id(&name)));
}

#[tokio::test]
async fn nonsense_is_refused_with_a_reason() {
    let cluster = Cluster::running(&["a"]).await;
    let (_, leader) = cluster.leader().await;
    let refused = |change: MemberChange, text: &'static str| {
        let leader = leader.clone();
        async move {
            match change_at(&leader, change).await {
                Err(ChangeError::Refused(why)) => assert!(why.contains(text), "{why}"),
                other => panic!("{other:?}"),
            }
        }
    };
    refused(MemberChange::Remove { node: id("x") }, "x is no member").await;
    refused(MemberChange::Replace { node: id("x"), generation: None }, "x is no member").await;
    refused(MemberChange::Remove { node: id("a") }, "only node that could lead").await;
}

/// Whoever waits for acknowledgements is asked before they come from others, and may refuse.
#[tokio::test]
async fn the_gate_decides_about_other_data_nodes() {
    let mut cluster = Cluster::running(&["a"]).await;
    cluster.agree("one").await;
    let address: HostPort = cluster.address("b").to_string().parse().unwrap();
    cluster.start("b", &["a", "b"]).await;
    let (_, leader) = cluster.leader().await;
    let add = MemberChange::Add { node: id("b"), address };
    let asked = std::sync::Mutex::new(Vec::new());
    let closed = |next: Vec<NodeId>| -> BoxFuture<'_, Result<(), String>> {
        asked.lock().unwrap().push(next);
        Box::pin(async { Err("not now".to_owned()) })
    };
    let refused = leader.change_members(add.clone(), &closed).await;
    assert_eq!(refused, Err(ChangeError::Refused("not now".to_owned())));
    assert_eq!(*asked.lock().unwrap(), [vec![id("a"), id("b")]]);
    assert_eq!(leader.members().borrow().data_nodes(), [id("a")]);
    change_at(&leader, add).await.unwrap();
    assert_eq!(leader.members().borrow().data_nodes(), [id("a"), id("b")]);
}
