//! The same code on one thread, with time that only passes when nobody has anything to do.

use std::sync::Mutex;

use tokio::time::Instant;

use super::*;
use crate::election::raft::store::testing::{Shelf, chance};
use crate::election::rpc::{CallError, Transport};
use crate::peer::tests::log::Log;

/// Messages take 5 ms, and reach only those who are up.
struct Wires {
    own: NodeId,
    nodes: Arc<Mutex<BTreeMap<NodeId, Raft>>>,
}

impl Transport for Wires {
    fn call(
        &self,
        to: NodeId,
        request: Request,
        limit: Duration,
    ) -> BoxFuture<'static, Result<Response, CallError>> {
        let (from, nodes) = (self.own.clone(), self.nodes.clone());
        Box::pin(async move {
            sleep(Duration::from_millis(5)).await;
            let both = |nodes: &BTreeMap<NodeId, Raft>| {
                nodes.contains_key(&from).then(|| nodes.get(&to).cloned())
            };
            let there = both(&nodes.lock().unwrap()).flatten();
            let (Some(raft), Request::Raft(message)) = (there, request) else {
                return Err(CallError::Unreachable("it is down".to_owned()));
            };
            match timeout(limit, raft.answer(&from, message)).await {
                Ok(reply) => Ok(Response::Raft(reply)),
                Err(_) => Err(CallError::Lost("no answer".to_owned())),
            }
        })
    }
}

struct World {
    nodes: Arc<Mutex<BTreeMap<NodeId, Raft>>>,
    shelves: BTreeMap<NodeId, Shelf>,
    began: Instant,
    seen: Vec<String>,
    /// How long each loss of a leader left the others without one.
    gaps: Vec<Duration>,
}

impl World {
    fn new(names: &[&str]) -> Self {
        Self {
            nodes: Arc::default(),
            shelves: names.iter().map(|name| (id(name), Shelf::default())).collect(),
            began: Instant::now(),
            seen: Vec::new(),
            gaps: Vec::new(),
        }
    }

    fn seeds(&self) -> Vec<Member> {
        let member = |name: &NodeId| {
            let address = format!("{name}:1");
            Member { name: name.clone(), generation: 0, address, witness: false }
        };
        self.shelves.keys().map(member).collect()
    }

    async fn start(&mut self, name: &NodeId) {
        let seeds = self.seeds();
        self.start_with(name, seeds).await;
    }

    async fn start_with(&mut self, name: &NodeId, seeds: Vec<Member>) {
        let setup = RaftSetup { own: name.clone(), seeds, ttl: Duration::from_secs(1) };
        let shelf = self.shelves[name].clone();
        let store = Store::with_backend(move || shelf.open()).unwrap();
        let wires = Wires { own: name.clone(), nodes: self.nodes.clone() };
        let raft = Raft::start(setup, store, Arc::new(wires)).await.unwrap();
        self.nodes.lock().unwrap().insert(name.clone(), raft);
    }

    /// The power of a node fails.
    async fn crash(&mut self, name: &NodeId, seed: u64) {
        let raft = self.nodes.lock().unwrap().remove(name).unwrap();
        self.shelves[name].crash(&mut chance(seed));
        raft.stop().await;
    }

    /// Waits for a leader that can prove it, and notes who it is and when.
    async fn elect(&mut self) -> Raft {
        loop {
            let nodes: Vec<_> = self.nodes.lock().unwrap().values().cloned().collect();
            for raft in nodes {
                let known = raft.leadership().borrow().clone();
                if known.ours && raft.confirm().await.is_ok() {
                    let at = self.began.elapsed().as_millis();
                    self.seen.push(format!("{at} ms: {:?} in {:?}", known.leader, known.term));
                    return raft;
                }
            }
            sleep(Duration::from_millis(1)).await;
        }
    }
}

fn in_simulated_time<T>(seed: u64, what: impl Future<Output = T>) -> T {
    let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    super::super::seed(Some(seed));
    let done = runtime.unwrap().block_on(what);
    super::super::seed(None);
    done
}

/// Elections, a leader whose power fails, and its return; what was seen, and when.
fn history(seed: u64) -> (Vec<String>, Vec<Duration>) {
    in_simulated_time(seed, async {
        let mut world = World::new(&["a", "b", "c"]);
        for name in ["a", "b", "c"] {
            world.start(&id(name)).await;
        }
        for round in 0..5 {
            let leader = world.elect().await;
            leader.propose(mark(&format!("round {round}"))).await.unwrap();
            let name = leader.leadership().borrow().leader.clone().unwrap();
            drop(leader);
            let lost = Instant::now();
            world.crash(&name, seed + round).await;
            let next = world.elect().await;
            world.gaps.push(lost.elapsed());
            assert!(knows(&next.confirm().await.unwrap(), &format!("round {round}")));
            world.start(&name).await;
            sleep(Duration::from_secs(1)).await;
        }
        let nodes: Vec<_> = world.nodes.lock().unwrap().values().cloned().collect();
        for raft in nodes {
            assert!(knows(&raft.table().borrow(), "round 4"));
        }
        (world.seen, world.gaps)
    })
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let (one, _) = history(1);
    assert_eq!(one, history(1).0);
    assert_ne!(one, history(2).0);
}

/// Nothing delays an election here but messages: nine of ten are over within 0.4 ttl. Two candidates
/// at the same moment cost another round.
#[test]
fn a_lost_leader_has_a_successor_soon() {
    let mut gaps: Vec<_> = (0..8).flat_map(|seed| history(seed).1).collect();
    gaps.sort();
    assert!(gaps[gaps.len() * 9 / 10] <= Duration::from_millis(400), "{gaps:?}");
    assert!(*gaps.last().unwrap() <= Duration::from_secs(1), "{gaps:?}");
}

/// Runs `what`, and returns what was logged meanwhile.
fn logged(what: impl Future<Output = ()>) -> String {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("litepilot=info")
        .with_writer(log.clone())
        .with_ansi(false);
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    in_simulated_time(1, what);
    log.text()
}

async fn some_time() {
    sleep(Duration::from_secs(5)).await;
}

#[test]
fn what_an_operator_has_to_mend_is_logged() {
    let disagreement = logged(async {
        let mut world = World::new(&["a", "b", "c"]);
        let mut others = world.seeds();
        others[2].address = "elsewhere:1".to_owned();
        world.start(&id("a")).await;
        world.start_with(&id("b"), others).await;
        some_time().await;
    });
    assert!(disagreement.contains("c is at c:1 here, and at elsewhere:1 on b"), "{disagreement}");
    assert_eq!(disagreement.matches("on b. Make").count(), 1, "once is enough\n{disagreement}");

    let mut lost = World::new(&["a", "b", "c"]);
    let lost_disk = logged(async {
        for name in ["a", "b", "c"] {
            lost.start(&id(name)).await;
        }
        lost.elect().await;
        some_time().await;
        lost.crash(&id("c"), 1).await;
        lost.shelves.insert(id("c"), Shelf::default());
        lost.start(&id("c")).await;
        some_time().await;
    });
    assert!(lost_disk.contains("knows another disk under this node's name"), "{lost_disk}");
    assert!(lost_disk.contains("`litepilot members replace c` on another node"), "{lost_disk}");

    let foreign = logged(async {
        let mut other = World::new(&["c"]);
        other.start(&id("c")).await;
        let named = |name: &str| Command::Found { cluster: name.to_owned() };
        other.elect().await.propose(named("theirs")).await.unwrap();
        some_time().await;
        other.crash(&id("c"), 1).await;
        let mut world = World::new(&["a", "b", "c"]);
        for name in ["a", "b"] {
            world.start(&id(name)).await;
        }
        world.elect().await.propose(named("ours")).await.unwrap();
        world.shelves.insert(id("c"), other.shelves[&id("c")].clone());
        world.start(&id("c")).await;
        some_time().await;
    });
    let expected =
        "it belongs to cluster theirs: one of the two has the data_dir of another cluster";
    assert!(foreign.contains(expected), "{foreign}");
}
