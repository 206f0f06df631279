//! Whole nodes' gossip.

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;
use crate::cluster::{Epoch, Role};
use crate::peer::gossip::{self, Gossip, Heard, Peers, Report};
use crate::peer::{DialError, GOSSIP};
use crate::relay::{Link, Relay};

const GENEROUS: Duration = Duration::from_secs(30);

/// A node that only gossips. Dropping it takes it off the network.
struct Gossiper {
    report: watch::Sender<Report>,
    peers: watch::Receiver<Peers>,
    _tasks: JoinSet<()>,
}

impl Gossiper {
    fn start(name: &str, listener: Listener, peers: &[(&str, SocketAddr)]) -> Self {
        Self::with(Arc::new(dialer(name, peers)), name, listener)
    }

    fn with(dialer: Arc<Dialer>, name: &str, listener: Listener) -> Self {
        let (report, own) = watch::channel(Report::new(node(name), Role::Replica));
        let gossip = Gossip::new(own);
        let heard = gossip.peers();
        let mut listener = listener;
        listener.handle(GOSSIP, gossip::LIMITS, gossip.handler());
        let mut tasks = JoinSet::new();
        tasks.spawn(listener.run());
        tasks.spawn(gossip.run(dialer));
        Self { report, peers: heard, _tasks: tasks }
    }

    /// Returns once what was heard of `peer` is as expected.
    async fn hears(&self, peer: &str, expected: impl Fn(&Heard) -> bool) {
        let mut peers = self.peers.clone();
        let peer = node(peer);
        let heard = peers.wait_for(|peers| peers.get(&peer).is_some_and(&expected));
        if timeout(GENEROUS, heard).await.is_err() {
            panic!("{peer}: {:?}", self.peers.borrow().get(&peer));
        }
    }
}

#[tokio::test]
async fn every_node_hears_every_other_and_each_change() {
    let listeners = [bind("n1", TIMES).await, bind("n2", TIMES).await, bind("n3", TIMES).await];
    let names = ["n1", "n2", "n3"];
    let at: Vec<_> =
        names.into_iter().zip(listeners.each_ref().map(|l| l.local_addr().unwrap())).collect();
    let nodes: Vec<_> = names
        .into_iter()
        .zip(listeners)
        .map(|(name, listener)| Gossiper::start(name, listener, &at))
        .collect();
    for epoch in 1..=20 {
        for node in &nodes {
            node.report.send_modify(|report| report.epoch = Epoch(epoch));
        }
        for (hearer, own) in nodes.iter().zip(names) {
            for peer in names.into_iter().filter(|peer| *peer != own) {
                hearer
                    .hears(peer, |heard| heard.reachable && heard.report.epoch == Epoch(epoch))
                    .await;
            }
            assert!(!hearer.peers.borrow().contains_key(&node(own)));
        }
    }
}

#[tokio::test]
async fn one_direction_that_works_is_enough() {
    let (one, two) = (bind("n1", TIMES).await, bind("n2", TIMES).await);
    let nowhere = bind("n3", TIMES).await.local_addr().unwrap();
    let at_one = one.local_addr().unwrap();
    let one = Gossiper::start("n1", one, &[("n2", nowhere)]);
    let two = Gossiper::start("n2", two, &[("n1", at_one)]);
    one.hears("n2", |heard| heard.reachable).await;
    two.hears("n1", |heard| heard.reachable).await;
}

#[tokio::test]
async fn a_peer_that_goes_is_noticed_and_heard_again_when_it_is_back() {
    let (one, two) = (bind("n1", TIMES).await, bind("n2", TIMES).await);
    let at_one = one.local_addr().unwrap();
    let at_two = two.local_addr().unwrap();
    let one = Gossiper::start("n1", one, &[("n2", at_two)]);
    let two = Gossiper::start("n2", two, &[("n1", at_one)]);
    two.report.send_modify(|report| report.epoch = Epoch(9));
    one.hears("n2", |heard| heard.report.epoch == Epoch(9)).await;
    drop(two);
    one.hears("n2", |heard| !heard.reachable).await;

    let members = Arc::new(|_: &NodeId| true);
    let again = Listener::bind(node("n2"), at_two, members, TIMES).await.unwrap();
    let _two = Gossiper::start("n2", again, &[("n1", at_one)]);
    one.hears("n2", |heard| heard.reachable && heard.report.epoch == Epoch(0)).await;
}

#[tokio::test]
async fn a_peer_that_was_away_for_long_is_dialed_as_soon_as_it_has_called() {
    let (one, two) = (bind("n1", TIMES).await, bind("n2", TIMES).await);
    let (at_one, at_two) = (one.local_addr().unwrap(), two.local_addr().unwrap());
    drop(two);
    let calls = Arc::new(dialer("n1", &[("n2", at_two)]));
    let one = Gossiper::with(calls.clone(), "n1", one);
    let is_spared = async || match calls.dial(&node("n2"), GOSSIP).await {
        Err(DialError::BackOff { retry_in, .. }) => retry_in > Duration::from_millis(500),
        _ => false,
    };
    while !is_spared().await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let members = Arc::new(|_: &NodeId| true);
    let two = Listener::bind(node("n2"), at_two, members, TIMES).await.unwrap();
    let _two = Gossiper::start("n2", two, &[("n1", at_one)]);
    one.hears("n2", |heard| heard.reachable).await;
    calls.dial(&node("n2"), GOSSIP).await.unwrap();
}

#[tokio::test]
async fn cut_and_stalled_links_are_noticed_and_heal() {
    let (one, two) = (bind("n1", TIMES).await, bind("n2", TIMES).await);
    let to_one = Relay::to(one.local_addr().unwrap()).await;
    let to_two = Relay::to(two.local_addr().unwrap()).await;
    let one = Gossiper::start("n1", one, &[("n2", to_two.addr())]);
    let two = Gossiper::start("n2", two, &[("n1", to_one.addr())]);
    for fault in [Link::Cut, Link::Stalled] {
        for link in [Link::Whole, fault] {
            to_one.set(link);
            to_two.set(link);
            one.hears("n2", |heard| heard.reachable == (link == Link::Whole)).await;
            two.hears("n1", |heard| heard.reachable == (link == Link::Whole)).await;
        }
    }
}

/// Members are added and removed while nodes run.
#[tokio::test]
async fn peers_come_and_go() {
    let (one, two) = (bind("n1", TIMES).await, bind("n2", TIMES).await);
    let at = [("n1", one.local_addr().unwrap()), ("n2", two.local_addr().unwrap())];
    // n2 dials nobody: what it hears comes from a peer that n1 was told of later.
    let n2 = Gossiper::start("n2", two, &[]);
    let late = Arc::new(dialer("n1", &[]));
    let (_report, own) = watch::channel(Report::new(node("n1"), Role::Replica));
    let mut tasks = JoinSet::from_iter([Gossip::new(own).run(late.clone())]);
    tasks.spawn(one.run());
    let peers = at.map(|(name, at)| (node(name), host_port(at)));
    late.set_peers(&peers);
    n2.hears("n1", |heard| heard.reachable).await;
    // Setting the same again disturbs nothing.
    late.set_peers(&peers);
    late.dial(&node("n2"), GOSSIP).await.unwrap();
    late.set_peers(&[]);
    let error = late.dial(&node("n2"), GOSSIP).await.unwrap_err();
    assert!(matches!(error, DialError::Unknown(_)), "{error:?}");
}
