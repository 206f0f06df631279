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

    pub fn any(ttl: u64, chance: &mut SmallRng) -> Self {
        let most = if chance.random_bool(0.2) { 3 * ttl } else { ttl * 7 / 10 };
        Self {
            delay: chance.random_range(0..=6),
            late: (chance.random_range(0.0..0.05), chance.random_range(20..most)),
            lost: chance.random_range(0.0..0.04),
            twice: chance.random_range(0.0..0.03),
        }
    }
}

/// What an adversary keeps back: messages of a kind ([`Load::key`]) from one node to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    pub from: Option<usize>,
    pub to: Option<usize>,
    /// How they begin.
    pub kind: &'static str,
    /// What they have in them; after a `!`: what they have not.
    pub with: &'static str,
}

impl Hold {
    /// All of that kind, whoever sends it.
    pub fn any(kind: &'static str) -> Self {
        Self { from: None, to: None, kind, with: "" }
    }

    pub fn between(from: usize, to: usize, kind: &'static str) -> Self {
        Self { from: Some(from), to: Some(to), kind, with: "" }
    }

    pub fn with(self, with: &'static str) -> Self {
        Self { with, ..self }
    }

    fn fits(&self, packet: &Packet) -> bool {
        let ends = self.from.is_none_or(|from| from == packet.from)
            && self.to.is_none_or(|to| to == packet.to);
        if !ends {
            return false;
        }
        let key = packet.load.key();
        let inside = match self.with.strip_prefix('!') {
            Some(without) => !key.contains(without),
            None => key.contains(self.with),
        };
        inside && key.starts_with(self.kind)
    }
}

/// Messages on their way.
pub struct Net {
    pub weather: Weather,
    holds: Vec<Hold>,
    held: Vec<Packet>,
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
        Self {
            weather: Weather::calm(),
            holds: Vec::new(),
            held: Vec::new(),
            cuts,
            queue: BinaryHeap::new(),
            on_the_way,
            last: 0,
        }
    }

    /// Such messages are kept back from now on.
    pub fn hold(&mut self, hold: Hold) {
        self.holds.push(hold);
    }

    /// And those that are on their way.
    pub fn catch(&mut self, hold: Hold) {
        let fits = |(number, packet): (&u64, &Packet)| hold.fits(packet).then_some(*number);
        let caught: Vec<u64> = self.on_the_way.iter().filter_map(fits).collect();
        self.held.extend(caught.iter().filter_map(|number| self.on_the_way.remove(number)));
        self.hold(hold);
    }

    /// From whom to whom the first message of that kind is that is kept back.
    pub fn held(&self, kind: &str) -> Option<(usize, usize)> {
        let held = self.held.iter().find(|packet| packet.load.key().starts_with(kind));
        held.map(|packet| (packet.from, packet.to))
    }

    /// What only this has kept back arrives, and no more is kept back by it.
    pub fn release(&mut self, hold: &Hold, now: u64) {
        self.holds.retain(|known| known != hold);
        for packet in std::mem::take(&mut self.held) {
            match self.is_held(&packet) {
                true => self.held.push(packet),
                false => self.carry(packet, now + 1),
            }
        }
    }

    /// Everything that was kept back arrives.
    pub fn release_all(&mut self, now: u64) {
        for hold in self.holds.clone() {
            self.release(&hold, now);
        }
    }

    fn is_held(&self, packet: &Packet) -> bool {
        self.holds.iter().any(|hold| hold.fits(packet))
    }

    /// Cuts a link one way; several may, and all have to repair it.
    pub fn cut(&mut self, from: usize, to: usize) {
        *self.cuts.entry((from, to)).or_default() += 1;
    }

    pub fn repair(&mut self, from: usize, to: usize) {
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
        let packet = Packet { from, to, life, load };
        if self.is_held(&packet) {
            self.held.push(packet);
        } else {
            self.carry(packet, now + takes);
        }
    }

    fn carry(&mut self, packet: Packet, due: u64) {
        self.last += 1;
        self.queue.push(Reverse((due, self.last)));
        self.on_the_way.insert(self.last, packet);
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
