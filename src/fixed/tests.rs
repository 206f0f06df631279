//! Decisions from what is known, and whole nodes that gossip.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;
use crate::config::HostPort;
use crate::peer::gossip::{self, Gossip, Heard, Report};
use crate::peer::{Dialer, GOSSIP, Listener, Times};
use crate::relay::{Link, Relay};

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn setup(own: &str) -> FixedPrimary {
    FixedPrimary { node: node(own), primary: node("a"), witness: false, nodes: 3 }
}

/// A peer that is heard; `epoch` if it takes writes.
fn heard(name: &str, epoch: Option<u64>) -> Heard {
    let role = if epoch.is_some() { Role::Primary } else { Role::Replica };
    let mut report = Report::new(node(name), role);
    report.writable = epoch.is_some();
    report.epoch = Epoch(epoch.unwrap_or(0));
    Heard::new(report, Instant::now())
}

fn peers<const N: usize>(heard: [Heard; N]) -> Peers {
    heard.into_iter().map(|heard| (heard.report.node.clone(), heard)).collect()
}

fn seen(own: &str, peers: &Peers, last: Option<&Primary>) -> ClusterView {
    view(&setup(own), Epoch(0), false, peers, last, SystemTime::now())
}

#[test]
fn the_primary_takes_writes_once_its_engine_is_ready() {
    let now = SystemTime::now();
    let waiting = view(&setup("a"), Epoch(3), false, &Peers::new(), None, now);
    assert_eq!((waiting.role, waiting.writable), (Role::Primary, false));
    assert_eq!(waiting.primary, None);
    let ready = view(&setup("a"), Epoch(3), true, &Peers::new(), None, now);
    assert!(ready.writable);
    assert_eq!(ready.primary, Some(Primary { node: node("a"), epoch: Epoch(3), since: now }));
}

#[test]
fn a_replica_sees_the_primary_while_it_is_heard_and_takes_writes() {
    let up = seen("b", &peers([heard("a", Some(3))]), None);
    assert_eq!((up.role, up.writable, up.epoch()), (Role::Replica, false, Epoch(3)));

    let mut silent = heard("a", Some(3));
    silent.reachable = false;
    assert_eq!(seen("b", &peers([silent]), None).primary, None);
    assert_eq!(seen("b", &peers([heard("a", None)]), None).primary, None);
    assert_eq!(seen("b", &Peers::new(), None).primary, None);
}

#[test]
fn nobody_else_is_ever_the_primary() {
    assert_eq!(seen("b", &peers([heard("c", Some(9))]), None).primary, None);
}

#[test]
fn an_epoch_keeps_its_beginning_and_never_goes_back() {
    let then = SystemTime::now() - Duration::from_secs(60);
    let last = Primary { node: node("a"), epoch: Epoch(3), since: then };
    let same = seen("b", &peers([heard("a", Some(3))]), Some(&last));
    assert_eq!(same.primary, Some(last.clone()));
    let next = seen("b", &peers([heard("a", Some(4))]), Some(&last)).primary.unwrap();
    assert!(next.epoch == Epoch(4) && next.since > then);
    assert_eq!(seen("b", &peers([heard("a", Some(2))]), Some(&last)).primary, None);
}

#[test]
fn quorum_is_a_majority_of_all_nodes() {
    assert!(!seen("b", &Peers::new(), None).quorum);
    assert!(seen("b", &peers([heard("c", None)]), None).quorum);
    let mut silent = heard("c", None);
    silent.reachable = false;
    assert!(!seen("b", &peers([silent]), None).quorum);
    let four = FixedPrimary { nodes: 4, ..setup("b") };
    let one_of_three = peers([heard("c", None)]);
    let now = SystemTime::now();
    assert!(!view(&four, Epoch(0), false, &one_of_three, None, now).quorum);
}

#[test]
fn a_witness_stays_one() {
    let witness = FixedPrimary { witness: true, ..setup("b") };
    let seen = view(&witness, Epoch(0), false, &Peers::new(), None, SystemTime::now());
    assert_eq!(seen.role, Role::Witness);
}

#[tokio::test]
async fn each_start_of_the_primary_begins_an_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let (ready, is_ready) = watch::channel(false);
    let (_peers, peers) = watch::channel(Peers::new());
    for start in 1..=3 {
        let fixed = Fixed::new(setup("a"), dir.path(), is_ready.clone(), peers.clone()).unwrap();
        let mut view = fixed.view();
        let running = tokio::spawn(fixed.run());
        ready.send_replace(true);
        let view = view.wait_for(|view| view.writable).await.unwrap().clone();
        assert_eq!(view.epoch(), Epoch(start));
        running.abort();
        ready.send_replace(false);
    }
}

#[tokio::test]
async fn a_primary_that_lost_its_data_dir_overtakes_what_its_peers_know() {
    let dir = tempfile::tempdir().unwrap();
    let (_ready, is_ready) = watch::channel(true);
    let (gossip, peers_heard) = watch::channel(Peers::new());
    let fixed = Fixed::new(setup("a"), dir.path(), is_ready, peers_heard).unwrap();
    let mut view = fixed.view();
    tokio::spawn(fixed.run());
    assert_eq!(view.wait_for(|view| view.writable).await.unwrap().epoch(), Epoch(1));
    let mut replica = heard("b", None);
    replica.report.position.epoch = Epoch(7);
    gossip.send_replace(peers([replica]));
    let after = view.wait_for(|view| view.epoch() > Epoch(1)).await.unwrap().clone();
    assert_eq!((after.epoch(), after.writable), (Epoch(8), true));
}

#[tokio::test]
async fn a_primary_that_cannot_begin_the_epoch_it_needs_takes_no_writes() {
    let dir = tempfile::tempdir().unwrap();
    let (_ready, is_ready) = watch::channel(true);
    let (gossip, peers_heard) = watch::channel(Peers::new());
    let fixed = Fixed::new(setup("a"), dir.path(), is_ready, peers_heard).unwrap();
    let mut view = fixed.view();
    tokio::spawn(fixed.run());
    view.wait_for(|view| view.writable).await.unwrap();
    let data_dir = dir.path().to_owned();
    drop(dir);
    gossip.send_replace(peers([heard("b", Some(7))]));
    view.wait_for(|view| !view.writable && view.primary.is_none()).await.unwrap();
    std::fs::create_dir(&data_dir).unwrap();
    gossip.send_replace(peers([heard("b", Some(7)), heard("c", None)]));
    assert_eq!(view.wait_for(|view| view.writable).await.unwrap().epoch(), Epoch(8));
    std::fs::remove_dir_all(&data_dir).unwrap();
}

#[tokio::test]
async fn replicas_write_no_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let (_ready, is_ready) = watch::channel(true);
    let (_peers, peers) = watch::channel(Peers::new());
    Fixed::new(setup("b"), dir.path(), is_ready, peers).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// A node with a peer port, its gossip and its view. Dropping it takes it off the network.
struct Member {
    view: watch::Receiver<ClusterView>,
    ready: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Member {
    fn start(name: &str, dir: &Path, mut listener: Listener, peers: &[(NodeId, HostPort)]) -> Self {
        let (report, own) = watch::channel(Report::new(node(name), Role::Replica));
        let gossip = Gossip::new(own);
        listener.handle(GOSSIP, gossip::LIMITS, gossip.handler());
        let (ready, is_ready) = watch::channel(false);
        let fixed = Fixed::new(setup(name), dir, is_ready, gossip.peers()).unwrap();
        let view = fixed.view();
        let dialer = Dialer::new(node(name), peers, Times::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(listener.run());
        tasks.spawn(gossip.run(Arc::new(dialer)));
        tasks.spawn(fixed.run());
        tasks.spawn(tell(view.clone(), report));
        Self { view, ready, _tasks: tasks }
    }

    async fn sees(&self, what: &str, expected: impl FnMut(&ClusterView) -> bool) -> ClusterView {
        let mut view = self.view.clone();
        let seen = timeout(Duration::from_secs(30), view.wait_for(expected)).await;
        let Ok(Ok(seen)) = seen else { panic!("{what}: {:?}", self.view.borrow()) };
        seen.clone()
    }
}

/// Puts what the view says into the node's report, as a running node does.
async fn tell(mut view: watch::Receiver<ClusterView>, report: watch::Sender<Report>) {
    loop {
        let seen = view.borrow_and_update().clone();
        report.send_modify(|report| {
            report.role = seen.role;
            report.writable = seen.writable;
            report.epoch = report.epoch.max(seen.epoch());
        });
        if view.changed().await.is_err() {
            return;
        }
    }
}

async fn bind(name: &str) -> (Listener, SocketAddr) {
    let at = (Ipv4Addr::LOCALHOST, 0).into();
    let everybody = Arc::new(|_: &NodeId| true);
    let listener = Listener::bind(node(name), at, everybody, Times::default()).await.unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

#[tokio::test]
async fn replicas_learn_the_primary_and_its_epoch_by_gossip() {
    let dir = tempfile::tempdir().unwrap();
    let ((a, at_a), (b, at_b)) = (bind("a").await, bind("b").await);
    let (to_a, to_b) = (Relay::to(at_a).await, Relay::to(at_b).await);
    let peers = [("a", to_a.addr()), ("b", to_b.addr())]
        .map(|(name, at)| (node(name), HostPort { host: at.ip().to_string(), port: at.port() }));
    let a = Member::start("a", dir.path(), a, &peers);
    let b = Member::start("b", dir.path(), b, &peers);

    let before = b.sees("contact", |view| view.quorum).await;
    assert_eq!((before.role, before.primary), (Role::Replica, None));
    a.ready.send_replace(true);
    let first = b.sees("a primary", |view| view.primary.is_some()).await;
    assert_eq!((first.epoch(), first.writable), (Epoch(1), false));

    for relay in [&to_a, &to_b] {
        relay.set(Link::Cut);
    }
    b.sees("isolation", |view| view.primary.is_none() && !view.quorum).await;
    a.sees("its own epoch", |view| view.writable && !view.quorum).await;
    for relay in [&to_a, &to_b] {
        relay.set(Link::Whole);
    }
    let healed = b.sees("the same epoch", |view| view.primary.is_some()).await;
    assert_eq!(healed.primary, first.primary);

    drop(a);
    b.sees("no primary", |view| view.primary.is_none()).await;
    let everybody = Arc::new(|_: &NodeId| true);
    let a = Listener::bind(node("a"), at_a, everybody, Times::default()).await.unwrap();
    let a = Member::start("a", dir.path(), a, &peers);
    a.ready.send_replace(true);
    let again = b.sees("the next epoch", |view| view.primary.is_some()).await;
    assert_eq!(again.epoch(), Epoch(2));
}
