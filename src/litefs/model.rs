//! What ships of seq, run against every order of events that a generator finds: three nodes with three
//! databases, whose LiteFS sends each database by itself, under failovers and restarts.
//!
//! Nodes, links and LiteFS are played; [`Store`], [`Joining`] and the databases are the real ones. A
//! database is the list of the writes in it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tempfile::TempDir;

use super::content::Told;
use super::databases::Databases;
use super::joining::Joining;
use super::position::LitefsPosition;
use super::sole::Sole;
use super::store::Store;
use crate::cluster::{ClusterView, Epoch, EpochStart};
use crate::copy::state_file::CRC64;
use crate::election::choice::certain;
use crate::txid::{Checksum, EpochTxid, FLAG, Txid};

const NODES: usize = 3;
const NAMES: [&str; 3] = ["app.db", "queue.db", "cache.db"];

#[derive(Clone, Debug)]
enum Step {
    /// The primary's application writes into a database.
    Commit(usize),
    /// LiteFS brings a node so many transactions of a database.
    Deliver(usize, usize, usize),
    /// The primary tells a node how far it is.
    Announce(usize),
    /// The node hears the next that was announced.
    Hear(usize),
    /// It looks how far it is, and acknowledges that.
    Acknowledge(usize),
    /// Litepilot is started again there.
    Restart(usize),
    /// It follows the primary, over a new connection.
    Follow(usize),
    /// A new primary is chosen; this node does not answer.
    Elect(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (node, database) = (0..NODES, 0..NAMES.len());
    prop_oneof![
        6 => database.clone().prop_map(Step::Commit),
        8 => (node.clone(), database, 1..4usize).prop_map(|(i, db, n)| Step::Deliver(i, db, n)),
        5 => node.clone().prop_map(Step::Announce),
        8 => node.clone().prop_map(Step::Hear),
        6 => node.clone().prop_map(Step::Acknowledge),
        1 => node.clone().prop_map(Step::Restart),
        3 => node.clone().prop_map(Step::Follow),
        1 => node.prop_map(Step::Elect),
    ]
}

struct Node {
    dir: TempDir,
    store: Store,
    content: [Vec<u32>; 3],
    /// It follows the primary.
    joining: Option<Joining>,
    link: VecDeque<(EpochTxid, Databases, Option<Sole>)>,
    /// What it was told over this connection.
    told: Databases,
    /// It has heard something over this connection.
    heard: bool,
    /// Copies that were archived: name and checksum.
    kept: BTreeSet<(String, String)>,
}

fn open(dir: &Path) -> Store {
    Store::open(dir, Path::new(NAMES[0])).unwrap()
}

impl Node {
    fn new() -> Self {
        // Each step of a store waits for the disk.
        let memory = Path::new("/dev/shm");
        let dir = match memory.is_dir() {
            true => tempfile::tempdir_in(memory).unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        let store = open(dir.path());
        let (content, link, told, kept) = Default::default();
        Self { dir, store, content, joining: None, link, told, heard: false, kept }
    }

    fn databases(&self) -> Databases {
        let mut all = Databases::default();
        for (name, writes) in NAMES.iter().zip(&self.content) {
            let bytes: Vec<u8> = writes.iter().flat_map(|write| write.to_le_bytes()).collect();
            let checksum = Checksum(CRC64.checksum(&bytes) | FLAG);
            all.set(name, LitefsPosition { txid: Txid(writes.len() as u64), checksum });
        }
        all
    }

    fn holds(&self, write: u32) -> bool {
        self.content.iter().any(|writes| writes.contains(&write))
    }

    fn disconnect(&mut self) {
        self.joining = None;
        self.link.clear();
    }

    fn join(&mut self) {
        let content = self.databases();
        self.store.name(&content, None).unwrap();
        if let Some(joining) = &self.joining {
            self.store.join(joining, true, &content).unwrap();
        }
    }
}

struct World {
    nodes: Vec<Node>,
    primary: usize,
    epoch: Epoch,
    starts: Vec<EpochStart>,
    /// What the primary holds, as it was read last.
    read: Told,
    /// Each with the token that its client got.
    writes: BTreeMap<u32, EpochTxid>,
    written: u32,
    /// What a majority holds for good.
    majority: EpochTxid,
}

impl World {
    fn new() -> Self {
        let nodes = (0..NODES).map(|_| Node::new()).collect();
        let (writes, majority, starts, read) = Default::default();
        let (primary, epoch, written) = Default::default();
        let mut world = Self { nodes, primary, epoch, starts, read, writes, written, majority };
        world.begin(0);
        world
    }

    fn begin(&mut self, i: usize) {
        self.epoch = Epoch(self.epoch.0 + 1);
        let content = self.nodes[i].databases();
        let held = self.nodes[i].store.begin(self.epoch, &content).unwrap();
        self.starts.push(EpochStart { epoch: self.epoch, held });
        self.primary = i;
        self.read = Told::default();
        self.look();
        self.nodes.iter_mut().for_each(Node::disconnect);
    }

    /// The primary reads what it holds.
    fn look(&mut self) {
        let primary = &mut self.nodes[self.primary];
        let databases = primary.databases();
        let at = EpochTxid { epoch: self.epoch, txid: databases.seq() };
        let sole = Sole::between(&self.read, at, &databases);
        primary.store.name(&databases, sole).unwrap();
        self.read = Told { at, databases };
    }

    /// As the primary says it.
    fn sole(&self) -> Option<Sole> {
        let sole = self.nodes[self.primary].store.sole();
        sole.filter(|sole| sole.is_over() && sole.until.epoch == self.epoch).cloned()
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Commit(database) => self.commit(database),
            Step::Elect(absent) => self.elect(absent),
            Step::Deliver(i, ..)
            | Step::Announce(i)
            | Step::Hear(i)
            | Step::Acknowledge(i)
            | Step::Restart(i)
            | Step::Follow(i)
                if i == self.primary => {}
            Step::Deliver(i, database, by) => self.deliver(i, database, by),
            Step::Announce(i) => self.announce(i),
            Step::Hear(i) => self.hear(i),
            Step::Acknowledge(i) => self.acknowledge(i),
            Step::Restart(i) => {
                let node = &mut self.nodes[i];
                node.store = open(node.dir.path());
                node.disconnect();
            }
            Step::Follow(i) => self.follow(i),
        }
    }

    fn commit(&mut self, database: usize) {
        let write = self.written;
        self.written += 1;
        self.nodes[self.primary].content[database].push(write);
        self.look();
        self.writes.insert(write, self.read.at);
    }

    /// What fits is appended; any other copy gets a snapshot.
    fn deliver(&mut self, i: usize, database: usize, by: usize) {
        if self.nodes[i].joining.is_none() {
            return;
        }
        let theirs = self.nodes[self.primary].content[database].clone();
        let ours = &mut self.nodes[i].content[database];
        match theirs.strip_prefix(ours.as_slice()) {
            Some(missing) => ours.extend(&missing[..by.min(missing.len())]),
            None => *ours = theirs,
        }
        self.nodes[i].join();
    }

    fn announce(&mut self, i: usize) {
        let (sole, Told { at, databases: now }) = (self.sole(), &self.read);
        let node = &mut self.nodes[i];
        if node.joining.is_some() {
            node.link.push_back((*at, now.other_than(&node.told), sole));
            node.told = now.clone();
        }
    }

    fn hear(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        if let Some((at, changed, sole)) = node.link.pop_front() {
            node.store.named(at.epoch, &changed, sole).unwrap();
            node.store.announced().hear(at, changed);
            node.heard = true;
            node.join();
        }
    }

    fn acknowledge(&mut self, i: usize) {
        let node = &self.nodes[i];
        let content = node.databases();
        let at = node.store.position(&content).at;
        // A known gap: who was restarted, and has not heard of a second database, counts too much.
        if node.heard || node.store.are_several(&content) {
            self.check_tokens(i, at);
        }
        if at.epoch == self.epoch && node.joining.is_some() && node.heard {
            if node.store.are_several(&content) {
                node.store.reached_file().save(at).unwrap();
            }
            self.majority = self.majority.max(at);
        }
    }

    /// A copy that is said to be that far holds every write whose token it satisfies.
    fn check_tokens(&self, i: usize, at: EpochTxid) {
        if at.epoch < self.epoch {
            // Such a copy serves no tokens.
            return;
        }
        let starts = self.starts.clone().into();
        let view = ClusterView { starts, ..ClusterView::single("a".parse().unwrap(), at.epoch) };
        for (write, token) in &self.writes {
            if *token <= at && !view.lost(*token) {
                assert!(self.nodes[i].holds(*write), "{write} at {token}, node {i} at {at}");
            }
        }
    }

    fn follow(&mut self, i: usize) {
        let lineage = self.nodes[self.primary].store.lineage().clone();
        let theirs = self.nodes[self.primary].content.clone();
        let (sole, names) = (self.sole(), self.read.databases.names().cloned().collect());
        let start = self.starts[self.starts.len() - 1];
        let node = &mut self.nodes[i];
        if node.joining.is_none() {
            let content = node.databases();
            node.store.learn(&lineage, &names, sole).unwrap();
            node.store.close(&content).unwrap();
            let diverged = node.store.diverged(&content, &self.starts, true);
            node.store.follow(&content, &diverged, &self.starts).unwrap();
            for (name, at) in diverged.iter() {
                node.kept.insert((name.clone(), at.checksum.to_string()));
            }
            for (k, name) in NAMES.iter().enumerate() {
                let lost = node.content[k].iter().any(|write| !theirs[k].contains(write));
                let copy = ((*name).to_owned(), content.get(name).checksum.to_string());
                assert!(!lost || node.kept.contains(&copy), "{name} of node {i} is not kept");
            }
            let begun = lineage.of(start.epoch).cloned().unwrap();
            node.joining = Some(Joining { start, begun });
        }
        node.store.announced().begin(self.epoch);
        node.link.clear();
        (node.told, node.heard) = (Databases::default(), false);
        node.join();
    }

    /// The freshest of two answers; an acknowledged write is held by a primary and one more of three.
    fn elect(&mut self, absent: usize) {
        let next = Epoch(self.epoch.0 + 1);
        let mut answers = Vec::new();
        for i in (0..NODES).filter(|i| *i != absent) {
            let node = &mut self.nodes[i];
            node.store.promise(next).unwrap();
            let content = node.databases();
            if i == self.primary {
                node.store.close(&content).unwrap();
            }
            let knows = node.store.sole_until();
            answers.push((node.store.held(&content).at, knows, i));
        }
        let sole = answers.iter().filter_map(|(_, knows, _)| *knows).max();
        let rank = |(held, knows, i): &(EpochTxid, Option<EpochTxid>, usize)| {
            (certain(*held, *knows, sole), *held, *i)
        };
        let chosen = answers.iter().map(rank).max().unwrap().2;
        for (write, token) in &self.writes {
            let acked = token.epoch == self.majority.epoch && token.txid <= self.majority.txid;
            assert!(!acked || self.nodes[chosen].holds(*write), "{write} at {token} is lost");
        }
        self.forget_untold(chosen);
        self.begin(chosen);
    }

    /// A known gap: whoever has not heard that a second database has come does not tell that what was
    /// written to it is lost.
    fn forget_untold(&mut self, chosen: usize) {
        let (Some(sole), chosen) = (self.sole(), &self.nodes[chosen]) else { return };
        if chosen.store.sole_until().is_none_or(|known| known.epoch != self.epoch) {
            let untold = |token: &EpochTxid| token.epoch == self.epoch && *token > sole.until;
            self.writes.retain(|write, token| !untold(token) || chosen.holds(*write));
        }
    }
}

/// `LITEPILOT_MODEL_CASES` and `LITEPILOT_MODEL_SEED` play more of them, or the same again.
fn config() -> ProptestConfig {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seed = number("LITEPILOT_MODEL_SEED").unwrap_or_else(|| {
        let mut random = [0; 8];
        getrandom::fill(&mut random).unwrap();
        u64::from_le_bytes(random)
    });
    println!("again: LITEPILOT_MODEL_SEED={seed} cargo test --lib litefs::model");
    let cases = number("LITEPILOT_MODEL_CASES").unwrap_or(48) as u32;
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(seed), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_acknowledged_write_is_lost_and_no_token_satisfied_without_it(
        steps in prop::collection::vec(step(), 1..160),
    ) {
        let mut world = World::new();
        for step in steps {
            world.run(step);
        }
    }
}
