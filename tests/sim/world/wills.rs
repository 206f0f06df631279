//! What a node that has died has left to the others: told by a process that outlives it, if at all.

use litepilot::election::rpc::Request;
use litepilot::election::table::Life;
use rand::RngExt;

use super::World;
use crate::net::Hold;
use crate::post::{Ask, Load};

/// Nobody waits for the answers.
const NOBODY: u64 = u64::MAX;

impl World {
    /// What node `i` would leave now.
    pub(super) fn last_will(&self, i: usize) -> Option<Request> {
        let life = self.slots[i].life.as_ref()?;
        let term = life.raft.leadership().borrow().term;
        Some(Request::Ended { life: Life(life.number.to_string()), term })
    }

    /// Its guard has killed the application; now the others are told, or some of them, if it comes to
    /// that. The network does the rest: late, twice, or when a new life has begun.
    pub(super) fn execute(&mut self, i: usize, will: Option<Request>) {
        let Some(will) = will.filter(|_| !self.chance.random_bool(self.silent)) else { return };
        self.truth.see().count("last wills");
        for to in (0..self.slots.len()).filter(|to| *to != i) {
            let life = self.slots[to].life.as_ref().map(|life| life.number);
            let ask = Ask::Election(Box::new(will.clone()));
            self.net.send((i, to), life, Load::Ask(NOBODY, ask), self.now, &mut self.chance);
        }
    }

    /// A primary dies, and its guard says so: nobody waits until its lease expires.
    pub fn run_last_will(&mut self) {
        let Some((primary, _)) = self.begin_for_wills() else { return };
        self.crash(primary);
        self.expect_successor(primary);
    }

    /// As before, but it led Raft as well: nobody waits for an election either.
    pub fn run_last_will_of_leader(&mut self) {
        let Some((primary, leader)) = self.begin_for_wills() else { return };
        // Nobody else can be elected meanwhile.
        let votes = |of: usize| Hold { from: Some(of), to: None, kind: "ask Raft", with: "Vote" };
        let third = (0..3).find(|i| ![primary, leader].contains(i)).unwrap_or(leader);
        self.net.hold(votes(third));
        self.stand(leader, super::Stood { machine: false, unseen: false });
        self.run_until(self.plan.ttl, |world| world.leads(primary));
        self.wake(leader);
        self.net.release_all(self.now);
        if !self.leads(primary) || self.primary() != Some(primary) {
            return self.stuck("the primary does not come to lead Raft");
        }
        self.crash(primary);
        self.expect_successor(primary);
    }

    /// The word of a former life comes when the next one is primary, and leads Raft or not.
    pub fn run_late_will(&mut self) {
        let Some((primary, _)) = self.begin_for_wills() else { return };
        let words = Hold::any("ask Ended");
        self.net.hold(words.clone());
        self.crash(primary);
        let another = |world: &Self| world.primary().is_some_and(|now| now != primary);
        if !self.run_until(6 * self.plan.ttl, another) {
            return self.stuck("no second primary without a last will");
        }
        self.start(primary);
        self.run_until(2 * self.plan.ttl, |_| false);
        for _ in 0..20 {
            let Some(now) = self.primary().filter(|now| *now != primary) else { break };
            let to = self.names[primary].clone();
            self.wish(now, |election, _| async move { election.promote(&to, false).await });
            self.run_until(self.plan.ttl, |world| world.primary() == Some(primary));
        }
        let epoch = self.truth.see().newest();
        self.net.release(&words, self.now);
        self.run_until(3 * self.plan.ttl, |_| false);
        if self.primary() != Some(primary) || self.truth.see().newest() != epoch {
            return self.stuck("the word of a former life has ended this one's tenure");
        }
        self.calm_down();
    }

    fn begin_for_wills(&mut self) -> Option<(usize, usize)> {
        self.silent = 0.0;
        for i in 0..self.slots.len() {
            self.start(i);
        }
        self.run_until(20 * self.plan.ttl, |world| world.primary().is_some());
        self.run_until(2 * self.plan.ttl, |_| false);
        let found = self.primary().zip(self.leader());
        if found.is_none() {
            self.stuck("no first primary");
        }
        found
    }

    /// The lease had more than half of its time left: it is renewed each fifth.
    fn expect_successor(&mut self, of: usize) {
        let next = |world: &Self| world.primary().is_some_and(|now| now != of);
        if !self.run_until(self.plan.ttl / 2, next) {
            return self.stuck("no successor before the lease can have expired");
        }
        self.start(of);
        self.calm_down();
    }

    fn leader(&self) -> Option<usize> {
        (0..self.slots.len()).find(|i| self.leads(*i))
    }
}
