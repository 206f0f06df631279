//! The network between the nodes: slow, lossy, cut, and it may deliver twice and out of order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use litepilot::cluster::NodeId;
use litepilot::election::rpc::CallError;
use rand::RngExt;
use rand::rngs::SmallRng;

use super::post::Load;

/// How bad the network is, for one run.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// The usual delay, in ms.
    pub delay: u64,
    /// What may come on top, and how often.
    pub late: (f64, u64),
    pub lost: f64,
    pub twice: f64,
}

impl Weather {
    pub fn calm() -> Self {
        Self { delay: 1, late: (0.0, 1), lost: 0.0, twice: 0.0 }
    }

    pub fn any(chance: &mut SmallRng) -> Self {
        Self {
            delay: chance.random_range(0..=6),
            late: (chance.random_range(0.0..0.05), chance.random_range(20..700)),
            lost: chance.random_range(0.0..0.04),
            twice: chance.random_range(0.0..0.03),
        }
    }
}

/// Messages on their way.
pub struct Net {
    pub weather: Weather,
    /// Nothing gets from the one to the other.
    cuts: BTreeMap<(usize, usize), u32>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    on_the_way: BTreeMap<u64, Packet>,
    last: u64,
}

struct Packet {
    from: usize,
    to: usize,
    life: u64,
    load: Load,
}

impl Net {
    pub fn new() -> Self {
        let (cuts, on_the_way) = (BTreeMap::new(), BTreeMap::new());
        Self { weather: Weather::calm(), cuts, queue: BinaryHeap::new(), on_the_way, last: 0 }
    }

    /// Cuts a link one way; several may, and all have to mend it.
    pub fn cut(&mut self, from: usize, to: usize) {
        *self.cuts.entry((from, to)).or_default() += 1;
    }

    pub fn mend(&mut self, from: usize, to: usize) {
        if let Some(cuts) = self.cuts.get_mut(&(from, to)) {
            *cuts = cuts.saturating_sub(1);
        }
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.get(&(from, to)).is_some_and(|cuts| *cuts > 0)
    }

    /// `life` is the receiver's; `None`: it does not run.
    pub fn send(
        &mut self,
        (from, to): (usize, usize),
        life: Option<u64>,
        load: Load,
        now: u64,
        chance: &mut SmallRng,
    ) {
        let Weather { lost, twice, .. } = self.weather;
        let Some(life) = life else {
            // Its machine says that nobody listens there, or nothing.
            if let Load::Ask(id, _) = load
                && chance.random_bool(0.5)
                && !self.is_cut(from, to)
            {
                let why = CallError::Unreachable("nobody listens there".to_owned());
                self.put((to, from), u64::MAX, Load::Said(id, Err(why)), now, chance);
            }
            return;
        };
        if chance.random_bool(lost) || self.is_cut(from, to) {
            return;
        }
        if chance.random_bool(twice) {
            self.put((from, to), life, load.clone(), now, chance);
        }
        self.put((from, to), life, load, now, chance);
    }

    fn put(
        &mut self,
        (from, to): (usize, usize),
        life: u64,
        load: Load,
        now: u64,
        chance: &mut SmallRng,
    ) {
        let Weather { delay, late: (often, most), .. } = self.weather;
        let mut takes = 1 + chance.random_range(0..=delay);
        if chance.random_bool(often) {
            takes += chance.random_range(0..most);
        }
        self.last += 1;
        self.queue.push(Reverse((now + takes, self.last)));
        self.on_the_way.insert(self.last, Packet { from, to, life, load });
    }

    /// What arrives now: for whom, which life, from whom. A cut also holds up what is on its way.
    pub fn arrived(&mut self, now: u64) -> Vec<(usize, u64, usize, Load)> {
        let mut arrived = Vec::new();
        while let Some(Reverse((due, number))) = self.queue.peek().copied() {
            if due > now {
                break;
            }
            self.queue.pop();
            let Some(Packet { from, to, life, load }) = self.on_the_way.remove(&number) else {
                continue;
            };
            if !self.is_cut(from, to) {
                arrived.push((to, life, from, load));
            }
        }
        arrived
    }
}

/// Names by number.
pub fn number(names: &[NodeId], name: &NodeId) -> Option<usize> {
    names.iter().position(|known| known == name)
}

/// Some of `0..n`, at least one and not all.
pub fn some(n: usize, chance: &mut SmallRng) -> BTreeSet<usize> {
    loop {
        let some: BTreeSet<usize> = (0..n).filter(|_| chance.random_bool(0.5)).collect();
        if !some.is_empty() && some.len() < n {
            return some;
        }
    }
}
