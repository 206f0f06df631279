//! A cluster under faults, one true millisecond after the other. Everything follows from the seed.

mod faults;
mod members;
mod scripts;
mod wills;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use litepilot::cluster::NodeId;
use litepilot::config::Consistency;
use litepilot::election::Election;
use litepilot::election::error::ElectionError;
use litepilot::election::raft::{Member, seed};
use litepilot::proxy::facts::{Progress, RequestFacts};
use litepilot::proxy::route;
use litepilot::rules::Class;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::time::Instant;

use super::app::App;
use super::disk::Shelf;
use super::engine::{Copy, Entry};
use super::net::{Net, Weather, number};
use super::node::{Life, Place};
use super::plan::Plan;
use super::post::Load;
use super::truth::{Truth, show};
use faults::End;
use members::Change;

struct Stood {
    /// The whole machine, with the application and the guard.
    machine: bool,
    /// Its clock stands still, too.
    unseen: bool,
}

struct Slot {
    place: Arc<Place>,
    life: Option<Life>,
    stands: Option<Stood>,
    lives: u64,
    inbox: Vec<(NodeId, Load)>,
    /// It is no member, and does not run.
    out: bool,
}

impl Slot {
    fn address(&self) -> String {
        let own = self.place.seeds.iter().find(|seed| seed.name == self.place.name);
        own.unwrap().address.clone()
    }
}

pub struct World {
    plan: Plan,
    names: Vec<NodeId>,
    slots: Vec<Slot>,
    net: Net,
    pub truth: Truth,
    chance: SmallRng,
    now: u64,
    ends: BTreeMap<(u64, u64), End>,
    count: u64,
    next_fault: u64,
    busy: watch::Sender<bool>,
    /// How often a node that dies leaves no word.
    silent: f64,
    /// Applications write by themselves now and then.
    by_itself: bool,
    /// What is being done to the membership.
    change: Option<Change>,
}

impl World {
    pub fn new(plan: Plan, print: bool) -> Self {
        let truth = Truth::default();
        truth.see().print = print;
        let mut chance = SmallRng::seed_from_u64(plan.seed);
        let name = |i: usize| -> NodeId { ["a", "b", "c", "d", "e", "f"][i].parse().unwrap() };
        // One more may be added later.
        let names: Vec<NodeId> = (0..plan.nodes + usize::from(plan.members)).map(name).collect();
        let is_witness = |i: usize| plan.witness && i + 1 == plan.nodes;
        let data = plan.nodes - usize::from(plan.witness);
        let seeds: Vec<Member> = names
            .iter()
            .enumerate()
            .map(|(i, name)| Member {
                name: name.clone(),
                generation: 0,
                address: format!("127.0.0.{}:1", i + 1),
                witness: is_witness(i),
            })
            .collect();
        let busy = watch::Sender::new(true);
        let think = chance.random_range(4..60);
        let slot = |i: usize, chance: &mut SmallRng| {
            // Often as fast or as slow as they may be.
            let rate = match chance.random_range(0..4) {
                0 => plan.drift,
                1 => -plan.drift,
                _ => chance.random_range(-plan.drift..=plan.drift),
            };
            let place = Place {
                name: names[i].clone(),
                witness: is_witness(i),
                promises: !is_witness(i) && chance.random_bool(0.3),
                candidate: !(is_witness(i) || plan.reader && i + 1 == data),
                ttl: Duration::from_millis(plan.ttl),
                seeds: seeds[..plan.nodes.max(i + 1)].into(),
                shelf: Shelf::default(),
                copy: Copy::new(names[i].clone(), truth.clone()),
                app: Arc::new(Mutex::new(App::new(plan.writes_at_start))),
                truth: truth.clone(),
                rate,
                missed: AtomicU64::new(0),
                origin: chance.random_range(1..1_000_000) * 1_000_000_000,
                writers: 2,
                think,
                busy: busy.subscribe(),
            };
            let place = Arc::new(place);
            Slot {
                place,
                life: None,
                stands: None,
                lives: 0,
                inbox: Vec::new(),
                out: i >= plan.nodes,
            }
        };
        let slots = (0..names.len()).map(|i| slot(i, &mut chance)).collect();
        truth.note("world", &format!("{plan:?}"));
        Self {
            names: names.clone(),
            slots,
            net: Net::new(),
            truth,
            chance,
            now: 1,
            ends: BTreeMap::new(),
            count: 0,
            next_fault: 0,
            busy,
            silent: 0.3,
            by_itself: true,
            change: None,
            plan,
        }
    }

    /// The whole run. What went wrong is in [`World::truth`].
    pub fn run(&mut self) {
        for i in 0..self.slots.len() {
            self.start(i);
        }
        if !self.run_until(20 * self.plan.ttl, |world| world.primary().is_some()) {
            return self.stuck("no first primary");
        }
        if self.plan.weather {
            self.net.weather = Weather::any(self.plan.ttl, &mut self.chance);
            let weather = format!("{:?}", self.net.weather);
            self.truth.note("world", &weather);
        }
        self.next_fault = self.now;
        let end = self.now + self.plan.faults;
        while self.now < end && self.goes_on() {
            if self.now >= self.next_fault {
                self.next_fault = self.now + self.chance.random_range(1..2 * self.plan.every);
                self.fault();
            }
            self.step();
        }
        self.calm_down();
    }

    /// Faults end; then there has to be a primary, and all hold the same.
    fn calm_down(&mut self) {
        self.truth.note("world", "faults end");
        self.net.weather = Weather::calm();
        for (_, end) in std::mem::take(&mut self.ends) {
            self.end(end);
        }
        // A node whose `on_promote` has failed may be the only one with the newest data.
        let limit = 15 * self.plan.ttl + if self.plan.hooks { 31_000 } else { 0 };
        if !self.run_until(60_000, |world| world.change.is_none()) {
            return self.stuck("the members are not changed although faults have ended");
        }
        if !self.run_until(limit, |world| world.primary().is_some()) {
            return self.stuck("no primary although faults have ended");
        }
        let commits = self.commits();
        if !self.run_until(15 * self.plan.ttl, |world| world.commits() > commits + 3) {
            return self.stuck("nothing is written although faults have ended");
        }
        self.busy.send_replace(false);
        self.by_itself = false;
        if !self.run_until(15 * self.plan.ttl, World::is_level) {
            for slot in &self.slots {
                let held = show(&slot.place.copy.state().head);
                self.truth.note(slot.place.name.as_str(), &format!("holds {held}"));
            }
            self.stuck("copies differ although faults have ended");
        }
    }

    /// An operator asks node `i` for something.
    fn wish<F>(&self, i: usize, wish: impl FnOnce(Election, NodeId) -> F)
    where
        F: Future<Output = Result<(), ElectionError>> + Send + 'static,
    {
        let slot = &self.slots[i];
        let Some(life) = &slot.life else { return };
        let (truth, name) = (self.truth.clone(), slot.place.name.clone());
        let wish = wish(life.election.clone(), name.clone());
        life.spawn(async move {
            let done = wish.await;
            truth.note(name.as_str(), &format!("an operator's wish: {done:?}"));
        });
    }

    fn stuck(&self, what: &str) {
        let mut truth = self.truth.see();
        if truth.violation.is_none() {
            truth.broken(format!("liveness: {what}"));
        }
    }

    fn goes_on(&self) -> bool {
        self.truth.see().violation.is_none()
    }

    fn run_until(&mut self, limit: u64, ready: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        while !ready(self) {
            if self.now >= end || !self.goes_on() {
                return false;
            }
            self.step();
        }
        true
    }

    fn commits(&self) -> u64 {
        let truth = self.truth.see();
        let answered = ["writes answered", "writes acknowledged by a majority"];
        answered.iter().filter_map(|what| truth.counts.get(what)).sum()
    }

    /// Who takes writes.
    fn primary(&self) -> Option<usize> {
        let open = |slot: &Slot| {
            let own = slot.life.as_ref().map(|life| life.own.borrow().clone());
            own.is_some_and(|own| own.open && own.claim.is_valid_at(slot.place.clock(self.now)))
        };
        self.slots.iter().position(open)
    }

    fn leads(&self, i: usize) -> bool {
        let life = self.slots[i].life.as_ref();
        life.is_some_and(|life| life.raft.leadership().borrow().ours)
    }

    /// For how long node `i` may take writes without another renewal, in ms of its own.
    fn claims_for(&self, i: usize) -> u64 {
        let slot = &self.slots[i];
        let deadline = slot.life.as_ref().and_then(|life| life.own.borrow().claim.deadline());
        let left = deadline.map(|end| end.since(slot.place.clock(self.now)));
        left.map_or(0, |left| u64::try_from(left.as_millis()).unwrap())
    }

    fn is_level(&self) -> bool {
        let copies = self.slots.iter().filter(|slot| !slot.place.witness && !slot.out);
        let mut stamps = copies.map(|slot| slot.place.copy.state().position());
        let first = stamps.next();
        self.primary().is_some() && stamps.all(|position| Some(position) == first)
    }

    fn start(&mut self, i: usize) {
        let slot = &mut self.slots[i];
        if slot.life.is_some() || slot.out {
            return;
        }
        slot.lives += 1;
        // It would not start; somebody has made room.
        slot.place.shelf.fill(false);
        let of_life = mix(self.plan.seed ^ (i as u64) << 32 ^ slot.lives << 40);
        seed(Some(of_life));
        self.truth.note(slot.place.name.as_str(), "starts");
        slot.life = Some(Life::begin(&slot.place, slot.lives, self.now, of_life));
    }

    /// The power fails, for the process at least: what was not synced may be gone.
    fn crash(&mut self, i: usize) {
        let will = self.last_will(i);
        let slot = &mut self.slots[i];
        self.truth.note(slot.place.name.as_str(), "crashes");
        self.truth.see().count("crashes");
        slot.place.shelf.crash(&mut self.chance);
        slot.place.app.lock().unwrap().kill();
        slot.place.copy.crash();
        slot.stands = None;
        slot.inbox.clear();
        slot.life = None;
        self.execute(i, will);
    }

    fn step(&mut self) {
        self.now += 1;
        self.truth.see().now = self.now;
        while let Some(entry) = self.ends.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let end = entry.remove();
            self.end(end);
        }
        for (to, life, from, load) in self.net.arrived(self.now) {
            let from = self.names[from].clone();
            let slot = &mut self.slots[to];
            let of_this = |running: &Life| running.number == life || life == u64::MAX;
            if slot.life.as_ref().is_some_and(of_this) {
                slot.inbox.push((from, load));
            }
        }
        self.pursue_change();
        let n = self.slots.len();
        for slot in &self.slots {
            if slot.stands.as_ref().is_some_and(|stood| stood.unseen) {
                slot.place.missed.fetch_add(1, SeqCst);
                self.truth.see().excuse(slot.place.name.as_str());
            }
        }
        let first = self.chance.random_range(0..n);
        for i in (0..n).map(|i| (first + i) % n) {
            self.run_node(i);
        }
        for i in 0..n {
            self.run_app(i);
        }
        self.check_claims();
        if self.chance.random_bool(0.3) {
            self.read();
        }
    }

    fn run_node(&mut self, i: usize) {
        let slot = &mut self.slots[i];
        let Some(life) = slot.life.as_mut().filter(|_| slot.stands.is_none()) else { return };
        seed(Some(mix(self.plan.seed ^ self.now << 8 ^ i as u64)));
        let came = std::mem::take(&mut slot.inbox);
        let ran = catch_unwind(AssertUnwindSafe(|| life.run(self.now, came)));
        if ran.is_err() || super::panicked() {
            self.truth.see().broken(format!("{} has panicked", slot.place.name));
            return;
        }
        if life.table.has_changed().unwrap_or(false) {
            let table = life.table.borrow_and_update().clone();
            let name = slot.place.name.as_str();
            let mut truth = self.truth.see();
            truth.table(name, &table);
            if table.last_epoch < life.seen.last_epoch {
                truth.broken(format!(
                    "{name}: epoch {} comes after {}",
                    table.last_epoch, life.seen.last_epoch
                ));
            }
            life.seen = table;
        }
        self.truth.see().check_begun();
        let mut out = life.post.take();
        if out.len() > 1 {
            // tokio wakes those who watch the same value in random order.
            out.sort_by_cached_key(|(to, load)| (to.clone(), load.key()));
        }
        for (to, load) in out {
            let Some(to) = number(&self.names, &to) else { continue };
            let life = self.slots[to].life.as_ref().map(|life| life.number);
            self.net.send((i, to), life, load, self.now, &mut self.chance);
        }
    }

    fn run_app(&mut self, i: usize) {
        let writes = self.by_itself && self.chance.random_bool(0.02);
        let slot = &self.slots[i];
        if slot.life.is_none() || slot.stands.as_ref().is_some_and(|stood| stood.machine) {
            return;
        }
        let by_itself = (writes && !slot.place.witness).then(|| self.truth.see().next_id());
        let clock = slot.place.clock(self.now);
        let mut app = slot.place.app.lock().unwrap();
        let id = || self.truth.see().next_id();
        if app.step(&slot.place.copy, clock, self.now, by_itself, id) {
            let mut truth = self.truth.see();
            truth.note(slot.place.name.as_str(), "the guard kills the application");
            truth.count("kills by the guard");
        }
    }

    /// 1a, and what changes in claims.
    fn check_claims(&mut self) {
        let mut valid = Vec::new();
        for slot in &mut self.slots {
            let Some(life) = &mut slot.life else { continue };
            let own = life.own.borrow().clone();
            let claims = own.claim.is_valid_at(slot.place.clock(self.now));
            if claims != life.claimed {
                life.claimed = claims;
                let text = if claims { "claims" } else { "no longer claims" };
                self.truth.note(slot.place.name.as_str(), &format!("{text} epoch {}", own.epoch));
            }
            let excused = self.truth.see().is_excused(slot.place.name.as_str(), own.epoch);
            if claims && !excused {
                valid.push((slot.place.name.clone(), own.epoch));
            }
        }
        let newest = self.truth.see().newest();
        if valid.len() > 1 {
            self.truth.see().broken(format!("1a: two valid claims: {valid:?}"));
        }
        if let Some((name, epoch)) = valid.iter().find(|(_, epoch)| *epoch < newest) {
            let text = format!("1a: {name} claims epoch {epoch}, and {newest} was granted");
            self.truth.see().broken(text);
        }
    }

    /// A client with a token reads somewhere, by the rule of `proxy/route.rs`.
    fn read(&mut self) {
        let i = self.chance.random_range(0..self.slots.len());
        let slot = &self.slots[i];
        let mut truth = self.truth.see();
        if slot.place.witness || slot.stands.is_some() || truth.tokens.is_empty() {
            return;
        }
        let Some(life) = &slot.life else { return };
        let (id, token) = truth.tokens[self.chance.random_range(0..truth.tokens.len())];
        let (view, position) = (life.view.borrow(), life.engine.position().get());
        let (consistency, started) = (Consistency::ReadYourWrites, Instant::now());
        let facts = RequestFacts::plain(Class::Read, consistency, Some(token), started);
        let takes_writes = view.writable && view.claim.is_valid_at(slot.place.clock(self.now));
        let situation =
            route::Situation { view: &view, takes_writes, position, app_is_up: true, lags: false };
        if route::decide(&facts, &Progress::default(), &situation) != route::Decision::Local {
            return;
        }
        truth.count("reads with a token");
        let lost = position.epoch > token.epoch && view.lost(token);
        let held = Entry::ids(&slot.place.copy.state().head).any(|known| known == id);
        if !held && !lost {
            let name = &slot.place.name;
            truth.broken(format!("3: {name} at {position} serves the token {token} without w{id}"));
        } else if lost {
            truth.count("losses told");
        }
    }
}

/// The output function of SplitMix64.
fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
