//! Promises, epochs, and what becomes of copies that a new primary knows nothing of.

use tokio::io::DuplexStream;

use super::harness::*;
use crate::cluster::EpochStart;
use crate::embedded::image::Image;
use crate::embedded::lineage::Lineage;
use crate::embedded::wire::{Message, Wire};

async fn promise(node: &Node, epoch: u64) -> Held {
    node.engine.promise(Epoch(epoch)).await.unwrap()
}

async fn lead(node: &Node, epoch: u64) -> Position {
    node.engine.become_primary(Epoch(epoch)).await.unwrap()
}

fn rows(path: &PathBuf) -> i64 {
    let saved = Connection::open(path).unwrap();
    saved.query_row("SELECT count(*) FROM t", (), |row| row.get(0)).unwrap()
}

/// Three nodes that hold the same, the first of which is primary in epoch 1.
async fn cluster(mode: &str) -> (Node, Node, Node) {
    let nodes = (Node::new(PRIMARY), Node::new(CopyRole::Replica), Node::new(CopyRole::Replica));
    insert(&nodes.0.app(mode));
    for replica in [&nodes.1, &nodes.2] {
        let _link = Joined::new(&nodes.0, replica);
        replica_is_level(&nodes.0, replica).await;
    }
    nodes
}

/// Has `replica` follow a primary of epoch 1 that is in the hand of the test.
async fn by_hand(replica: &Node) -> (Wire<DuplexStream>, Task<io::Result<()>>) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let engine = replica.engine.clone();
    let following = tokio::spawn(async move { engine.follow(far).await });
    let mut wire = Wire::new(near);
    assert!(matches!(wire.receive().await.unwrap(), Message::Hello(_)));
    let starts = vec![EpochStart { epoch: Epoch(1), held: Position::default() }];
    wire.send(&Message::Lineage(Lineage::new(starts).unwrap())).await.unwrap();
    (wire, following)
}

/// As many states of a database.
fn images(count: usize) -> Vec<Image> {
    let source = Node::new(CopyRole::Replica);
    source.engine.stop();
    let path = source.mount().join("source");
    let app = Connection::open(&path).unwrap();
    app.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY, x)").unwrap();
    let mut images: Vec<Image> = Vec::new();
    for _ in 0..count {
        insert(&app);
        let last = images.last().cloned().unwrap_or_default();
        let at = EpochTxid { epoch: Epoch(1), txid: Txid(last.at.txid.0 + 1) };
        let mut image = Image::read(&app, &path, &last).unwrap();
        image.at = at;
        images.push(image);
    }
    images
}

#[tokio::test]
async fn a_promise_outlives_everything() {
    for mode in MODES {
        let (primary, mut replica, _) = cluster(mode).await;
        let before = primary.held().await;
        assert_eq!(replica.held().await, before);
        let link = Joined::new(&primary, &replica);
        for epoch in [2, 2, 1, 2] {
            assert_eq!(promise(&replica, epoch).await, before, "{mode}: epoch {epoch}");
        }
        let error = link.failure().await;
        assert!(error.to_string().contains("epoch 1"), "{error}");
        insert(&primary.app(mode));
        for restart in [false, true] {
            if restart {
                replica.restart(CopyRole::Replica);
            }
            let error = Joined::new(&primary, &replica).failure().await;
            assert!(error.to_string().contains("promised 2"), "{error}");
            assert_eq!(replica.held().await, before);
            let error = replica.engine.become_primary(Epoch(1)).await.unwrap_err();
            assert!(error.to_string().contains("epoch 2"), "{error}");
        }
        // The next is not affected.
        lead(&primary, 2).await;
        let _link = Joined::new(&primary, &replica);
        replica_is_level(&primary, &replica).await;
        assert_eq!(promise(&replica, 2).await, primary.held().await);
    }
}

#[tokio::test]
async fn a_primary_that_promises_a_later_epoch_ends_its_own() {
    for mode in MODES {
        let mut node = Node::new(PRIMARY);
        let app = node.app(mode);
        insert(&app);
        let before = node.held().await;
        assert_eq!(promise(&node, 1).await, before, "its own epoch is not before itself");
        insert(&app);
        let now = promise(&node, 2).await;
        assert!(now.position.at > before.position.at && now.position != before.position);
        assert!(app.execute("DELETE FROM t", ()).is_err(), "{mode}");
        for _ in 0..2 {
            assert_eq!(node.held().await, now);
            assert_eq!(promise(&node, 1).await, now);
            assert!(node.engine.become_primary(Epoch(1)).await.is_err());
            node.restart(CopyRole::Replica);
        }
        assert_eq!(lead(&node, 2).await, now.position);
        insert(&node.app(mode));
    }
}

#[tokio::test]
async fn a_primary_whose_promise_a_writer_holds_up_serves_nobody_any_more() {
    let (primary, replica, _) = cluster("wal").await;
    let app = primary.connect();
    let link = Joined::new(&primary, &replica);
    app.execute_batch("BEGIN IMMEDIATE; INSERT INTO t (x) VALUES (1)").unwrap();
    let error = primary.engine.promise(Epoch(2)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy, "{error}");
    link.failure().await;
    app.execute_batch("COMMIT").unwrap();
    primary.now().await;
    Joined::new(&primary, &replica).failure().await;
    assert_eq!(replica.count(), 1);
    assert!(primary.engine.become_primary(Epoch(1)).await.is_err(), "its epoch is over");
    promise(&primary, 2).await;
    assert_eq!(primary.count(), 2);
}

#[tokio::test]
async fn after_a_promise_nothing_is_applied_and_nothing_acknowledged() {
    let images = images(12);
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..36_u64 {
        let replica = Node::new(CopyRole::Replica);
        let (mut wire, following) = by_hand(&replica).await;
        for image in &images {
            wire.send(&Message::Update(image.update(None))).await.unwrap();
        }
        // Somewhere in the middle.
        replica.reaches(EpochTxid { epoch: Epoch(1), txid: Txid(round % 12) }).await;
        let then = replica.engine.promise(Epoch(2)).await.unwrap();
        // What was acknowledged until now is there already.
        while let Ok(Ok(message)) = timeout(Duration::ZERO, wire.receive()).await {
            if let Message::Applied(applied) = message {
                assert!(applied.at <= then.position.at, "round {round}: {applied:?}, {then:?}");
            }
        }
        while let Ok(message) = wire.receive().await {
            assert!(!matches!(message, Message::Applied(_)), "round {round}: {message:?}");
        }
        timeout(PATIENCE, following).await.unwrap().unwrap().unwrap_err();
        let at = usize::try_from(then.position.at.txid.0).unwrap();
        match at.checked_sub(1).map(|at| &images[at]) {
            Some(image) => assert_eq!(image.position().checksum, then.position.checksum),
            None => assert!(then.empty),
        }
        assert_eq!(replica.held().await, then, "round {round}");
        seen.insert(at);
    }
    assert!(seen.len() > 2, "always at the same place: {seen:?}");
}

#[tokio::test]
async fn what_a_replica_holds_is_told_once_it_is_there() {
    for mode in MODES {
        let (primary, replica) = (Node::new(PRIMARY), Node::new(CopyRole::Replica));
        let told = Arc::new(Mutex::new(Vec::new()));
        let telling = {
            let told = told.clone();
            move |position| told.lock().push(position)
        };
        let _link = Joined::telling(&primary, &replica, telling.clone());
        let app = primary.app(mode);
        for _ in 0..10 {
            insert(&app);
            let written = primary.now().await;
            until("acknowledged", || {
                told.lock().last().is_some_and(|last: &Position| last.at >= written)
            })
            .await;
            assert!(replica.engine.position().get() >= written);
        }
        let last = *told.lock().last().unwrap();
        assert_eq!((last, last), (primary.held().await.position, replica.held().await.position));
        // What is level already is told too, in terms of the new epoch.
        lead(&primary, 2).await;
        let now = primary.now().await;
        let before = told.lock().len();
        let _link = Joined::telling(&primary, &replica, telling);
        until("acknowledged", || told.lock().len() > before).await;
        let first = told.lock()[before];
        assert_eq!((first.at, first.checksum), (now, last.checksum), "{mode}");
        assert_eq!(now.epoch, Epoch(2));
    }
}

#[tokio::test]
async fn what_an_epoch_began_with_is_the_same_whenever_it_is_asked() {
    for mode in MODES {
        let (primary, mut node, _) = cluster(mode).await;
        let before = node.held().await.position;
        assert_eq!(before, primary.held().await.position);
        assert_eq!(before.at.epoch, Epoch(1));
        for round in 0..4 {
            assert_eq!(lead(&node, 3).await, before, "{mode}, round {round}");
            insert(&node.app(mode));
            let now = node.now().await;
            assert!(now > before.at && now.epoch == Epoch(3));
            assert_eq!(lead(&node, 3).await, before, "{mode}, round {round}");
            node.restart(if round % 2 == 0 {
                CopyRole::Replica
            } else {
                CopyRole::Primary(Epoch(3))
            });
        }
        promise(&node, 4).await;
        let now = node.held().await.position;
        assert_eq!(lead(&node, 4).await, now);
    }
}

/// How an old primary ends up as a replica.
#[derive(Clone, Copy, Debug)]
enum End {
    Demoted,
    Promised,
    Killed,
}

#[tokio::test]
async fn what_the_new_primary_lacks_is_saved_before_it_is_replaced() {
    for mode in MODES {
        for end in [End::Demoted, End::Promised, End::Killed] {
            let (mut old, new, _) = cluster(mode).await;
            // Nobody else gets these. The last one is not even noticed.
            insert(&old.app(mode));
            old.now().await;
            insert(&old.connect());
            match end {
                End::Demoted => old.engine.become_replica(None).await.unwrap(),
                End::Promised => drop(promise(&old, 2).await),
                End::Killed => old.restart(CopyRole::Replica),
            }
            let before = old.held().await;
            lead(&new, 2).await;
            insert(&new.app(mode));
            let _link = Joined::new(&new, &old);
            replica_is_level(&new, &old).await;
            assert_eq!(old.count(), 2, "{mode} {end:?}");
            let [saved] = &old.archived()[..] else { panic!("{mode} {end:?}: not saved") };
            assert_eq!(rows(saved), 3, "{mode} {end:?}");
            assert!(saved.to_string_lossy().contains(&before.position.checksum.to_string()));
            assert!(new.archived().is_empty());
        }
    }
}

#[tokio::test]
async fn a_copy_that_is_behind_or_level_is_not_saved() {
    for mode in MODES {
        for killed in [false, true] {
            let (mut first, mut second, third) = cluster(mode).await;
            // Two epochs go by; the last, of which nobody knew all the time, follows the second.
            for (epoch, rows) in [(2, 2), (3, 3)] {
                match killed {
                    true => first.restart(CopyRole::Replica),
                    false => first.engine.become_replica(None).await.unwrap(),
                }
                let began = lead(&second, epoch).await;
                assert_eq!(began, first.held().await.position, "{mode}: level");
                let _link = Joined::new(&second, &first);
                replica_is_level(&second, &first).await;
                insert(&second.app(mode));
                replica_is_level(&second, &first).await;
                assert_eq!(first.count(), rows);
                std::mem::swap(&mut first, &mut second);
            }
            assert_eq!(third.held().await.position.at.epoch, Epoch(1));
            let _link = Joined::new(&first, &third);
            replica_is_level(&first, &third).await;
            assert_eq!(third.count(), 3, "{mode}");
            for node in [&first, &second, &third] {
                assert!(node.archived().is_empty(), "{mode}, killed: {killed}");
            }
        }
    }
}

#[tokio::test]
async fn a_copy_is_of_a_new_epoch_once_its_content_is_found_there() {
    for mode in MODES {
        let (old, new, mut behind) = cluster(mode).await;
        {
            let _link = Joined::new(&old, &new);
            insert(&old.app(mode));
            replica_is_level(&old, &new).await;
        }
        // In the journal mode that the first copy brought.
        behind.restart(CopyRole::Replica);
        let before = behind.held().await;
        lead(&new, 2).await;
        // Readers keep the update from being applied; in WAL mode nothing does.
        let reader = behind.connect();
        reader.execute_batch("BEGIN; SELECT * FROM t").unwrap();
        let link = Joined::new(&new, &behind);
        if mode == "delete" {
            let asked = timeout(Duration::from_millis(600), link.failure());
            assert!(asked.await.is_err(), "it is still being tried");
            assert_eq!(behind.held().await, before);
            behind.restart(CopyRole::Replica);
            assert_eq!(behind.held().await, before, "nothing was applied");
        }
        drop(reader);
        let _link = Joined::new(&new, &behind);
        replica_is_level(&new, &behind).await;
        let now = behind.held().await;
        assert_eq!((now, now.position.at.epoch), (new.held().await, Epoch(2)));
        behind.restart(CopyRole::Replica);
        assert_eq!(behind.held().await, now, "{mode}");
    }
}

#[tokio::test]
async fn a_connection_of_before_the_promotion_has_to_be_closed() {
    for mode in MODES {
        let (_, mut node, _) = cluster(mode).await;
        node.restart(CopyRole::Replica);
        let stays = node.connect();
        let count: i64 = stays.query_row("SELECT count(*) FROM t", (), |row| row.get(0)).unwrap();
        assert_eq!(count, 1);
        let is_refused = || {
            let error = stays.execute("DELETE FROM t", ()).unwrap_err();
            assert!(error.to_string().contains("readonly"), "{mode}: {error}");
        };
        is_refused();
        lead(&node, 2).await;
        is_refused();
        insert(&node.connect());
        assert_eq!(node.count(), 2, "{mode}");
    }
}
