//! Runs that follow a script.

use litepilot::control::MemberChange;
use litepilot::election::PATIENCE;

use super::{Stood, World};
use crate::net::{Hold, Weather};

impl World {
    /// No application answers when the cluster begins, nor when the primary stops: the choice and the
    /// handoff do not wait. Once one answers elsewhere it gets the lease.
    pub fn run_apps_down(&mut self) {
        for i in 0..self.slots.len() {
            self.slots[i].place.app.lock().unwrap().down = true;
            self.start(i);
        }
        if !self.run_until(5 * self.plan.ttl, |world| world.primary().is_some()) {
            return self.stuck("no primary while no application answers");
        }
        let Some(first) = self.primary() else { return };
        self.run_until(6 * self.plan.ttl, |_| false);
        if self.primary() != Some(first) {
            return self.stuck("a primary hands over although no application answers elsewhere");
        }
        self.wish(first, |election, _| async move { election.resign(PATIENCE).await });
        let next = |world: &Self| world.primary().filter(|i| *i != first);
        if !self.run_until(self.plan.ttl, |world| next(world).is_some()) {
            return self.stuck("a handoff waits for an application");
        }
        self.slots[first].place.app.lock().unwrap().down = false;
        if !self.run_until(4 * self.plan.ttl, |world| world.primary() == Some(first)) {
            return self.stuck("a primary without an application does not hand over");
        }
        self.crash(first);
        if !self.run_until(3 * self.plan.ttl, |world| next(world).is_some()) {
            return self.stuck("a failover waits for an application");
        }
        for slot in &self.slots {
            slot.place.app.lock().unwrap().down = false;
        }
        self.start(first);
        self.calm_down();
    }

    /// The third node may never become primary. What it holds beside the primary is not held by a
    /// majority, and the other candidate has not got it when the primary is lost.
    pub fn run_no_candidate(&mut self) {
        let Some((primary, other)) = self.begin_with(|world, i| world.slots[i].place.candidate)
        else {
            return self.stuck("no first primary");
        };
        self.net.hold(Hold::between(other, primary, "pull"));
        self.run_until(3 * self.plan.ttl, |_| false);
        self.crash(primary);
        if !self.run_until(4 * self.plan.ttl, |world| world.primary() == Some(other)) {
            return self.stuck("the other candidate is not chosen");
        }
        self.net.release_all(self.now);
        self.start(primary);
        self.calm_down();
    }

    /// The same, and the primary has not heard that the third node may never become primary.
    pub fn run_unheard(&mut self) {
        let last = self.slots.len() - 1;
        (0..last).for_each(|i| self.net.hold(Hold::between(last, i, "gossip")));
        self.run_no_candidate();
    }

    /// The first primary dies before it has heard that the third node may never become primary. That one
    /// knows of its epoch, and keeps nobody from the next.
    pub fn run_early_death(&mut self) {
        for i in 0..self.slots.len() {
            self.start(i);
        }
        if !self.run_until(20 * self.plan.ttl, |world| world.primary().is_some()) {
            return self.stuck("no first primary");
        }
        let Some(first) = self.primary() else { return };
        self.run_until(self.plan.seed % 4, |_| false);
        self.crash(first);
        let next = |world: &Self| world.primary().is_some_and(|i| i != first);
        if !self.run_until(8 * self.plan.ttl, next) {
            return self.stuck("the other candidate is not chosen");
        }
        self.start(first);
        self.calm_down();
    }

    /// A reader keeps one replica from letting go of the primary, which is lost: what that replica holds
    /// is known all the same, and the other takes over.
    pub fn run_long_reader(&mut self) {
        let Some((primary, other)) = self.begin_with(|_, _| true) else {
            return self.stuck("no first primary");
        };
        self.slots[other].place.copy.state().reader = true;
        self.run_until(self.plan.ttl / 2, |_| false);
        self.crash(primary);
        if !self.run_until(3 * self.plan.ttl, |world| world.primary().is_some()) {
            return self.stuck("a failover waits for a reader");
        }
        if self.primary() == Some(other) {
            return self.stuck("it lets go of its primary although somebody reads");
        }
        self.slots[other].place.copy.state().reader = false;
        self.start(primary);
        self.calm_down();
    }

    /// Who holds with the primary what a client was promised cannot take over, and whoever chooses has no
    /// `cluster.ack` of its own: the third node, which has not got it, is not chosen however long that lasts.
    pub fn run_promised(&mut self) {
        let Some((primary, holder, _)) = self.held_by_two() else { return };
        self.slots[holder].place.copy.state().reader = true;
        self.crash(primary);
        self.run_until(6 * self.plan.ttl, |_| false);
        self.slots[holder].place.copy.state().reader = false;
        let next = |world: &Self| world.primary() == Some(holder);
        if !self.run_until(4 * self.plan.ttl, next) {
            return self.stuck("the one that holds it is not chosen");
        }
        self.net.release_all(self.now);
        self.start(primary);
        self.calm_down();
    }

    /// One node holds with the primary what the third has not got, and loses its disk. What it held does
    /// not count for the disk in its place, which has nothing yet.
    pub fn run_lost_disk(&mut self) {
        let Some((primary, lost)) = self.begin_with(|_, _| true) else {
            return self.stuck("no first primary");
        };
        let Some(third) = (0..3).find(|i| ![primary, lost].contains(i)) else { return };
        self.net.hold(Hold::between(third, primary, "pull"));
        self.run_until(self.plan.ttl, |_| false);
        self.lose_disk(lost, primary);
        self.crash(primary);
        self.run_until(6 * self.plan.ttl, |_| false);
        self.net.release_all(self.now);
        self.start(primary);
        let node = self.names[lost].clone();
        self.wish(third, |election, _| async move {
            election.change_members(MemberChange::Replace { node, generation: None }).await
        });
        self.calm_down();
    }

    /// A node comes back with an empty disk, gets nothing from the primary, and operators replace it.
    fn lose_disk(&mut self, lost: usize, primary: usize) {
        self.crash(lost);
        self.slots[lost].place.shelf.wipe();
        self.slots[lost].place.copy.wipe();
        self.net.hold(Hold::between(lost, primary, "pull"));
        self.start(lost);
        for _ in 0..3 {
            let node = self.names[lost].clone();
            self.wish(primary, |election, _| async move {
                election.change_members(MemberChange::Replace { node, generation: None }).await
            });
            self.run_until(4 * self.plan.ttl, |_| false);
        }
    }

    /// Nothing is written any more. The node that holds with the primary what the third has not got loses
    /// its disk: the one in its place counts for what it holds by then, which is nothing.
    pub fn run_quiet_lost_disk(&mut self) {
        let Some((primary, lost, third)) = self.held_by_two() else { return };
        for slot in &self.slots {
            slot.place.app.lock().unwrap().down = true;
        }
        self.run_until(self.plan.ttl, |_| false);
        self.lose_disk(lost, primary);
        self.end_without(primary, third);
    }

    /// The node that holds with the primary what the third has not got is removed: not before that one
    /// has it.
    pub fn run_remove_holder(&mut self) {
        let Some((primary, holder, third)) = self.held_by_two() else { return };
        let node = self.names[holder].clone();
        self.wish(primary, |election, _| async move {
            election.change_members(MemberChange::Remove { node }).await
        });
        self.run_until(2 * self.plan.ttl, |_| false);
        self.end_without(primary, third);
    }

    /// A primary, a node that holds with it what a client was told that a majority holds, and the third,
    /// which gets nothing.
    fn held_by_two(&mut self) -> Option<(usize, usize, usize)> {
        let Some((primary, holder)) = self.begin_with(|_, _| true) else {
            self.stuck("no first primary");
            return None;
        };
        let third = (0..3).find(|i| ![primary, holder].contains(i))?;
        self.net.hold(Hold::between(third, primary, "pull"));
        let known = self.truth.see().majority.len();
        let told = |world: &Self| world.truth.see().majority.len() > known + 3;
        if !self.run_until(4 * self.plan.ttl, told) {
            self.stuck("no client is told of a majority");
            return None;
        }
        Some((primary, holder, third))
    }

    /// The primary is lost for a while.
    fn end_without(&mut self, primary: usize, third: usize) {
        self.crash(primary);
        self.run_until(6 * self.plan.ttl, |_| false);
        if self.primary() == Some(third) {
            return self.stuck("one that lacks what was promised is chosen");
        }
        for slot in &self.slots {
            slot.place.app.lock().unwrap().down = false;
        }
        self.net.release_all(self.now);
        self.start(primary);
        self.calm_down();
    }

    /// The primary is removed: once another node is.
    pub fn run_remove_primary(&mut self) {
        let Some((primary, other)) = self.begin_with(|_, _| true) else {
            return self.stuck("no first primary");
        };
        let removal = MemberChange::Remove { node: self.names[primary].clone() };
        let asked = removal.clone();
        self.wish(other, |election, _| async move { election.change_members(asked).await });
        if !self.run_until(10 * self.plan.ttl, |world| world.is_changed(&removal, primary)) {
            return self.stuck("the primary is not removed");
        }
        if !self.truth.see().saw("hands over") {
            return self.stuck("the primary was removed before another one was");
        }
        self.crash(primary);
        self.slots[primary].out = true;
        self.calm_down();
    }

    /// A cluster with a primary for a while: that one, and another node that fits.
    fn begin_with(&mut self, fits: impl Fn(&Self, usize) -> bool) -> Option<(usize, usize)> {
        for i in 0..self.slots.len() {
            self.start(i);
        }
        self.run_until(20 * self.plan.ttl, |world| world.primary().is_some());
        self.run_until(2 * self.plan.ttl, |_| false);
        let primary = self.primary()?;
        let other = (0..self.slots.len()).find(|i| *i != primary && fits(self, *i))?;
        Some((primary, other))
    }

    /// Only some are there when the cluster begins: nobody is primary, until the operator forces it.
    pub fn run_forced(&mut self) {
        let last = self.slots.len() - 1;
        for i in 0..last {
            self.start(i);
        }
        if self.run_until(5 * self.plan.ttl, |world| world.primary().is_some()) {
            return self.stuck("a first primary was chosen among some of the nodes");
        }
        self.truth.see().forced = true;
        self.wish(0, |election, own| async move { election.promote(&own, true).await });
        if !self.run_until(5 * self.plan.ttl, |world| world.primary() == Some(0)) {
            return self.stuck("the one that was forced is not primary");
        }
        self.start(last);
        self.calm_down();
    }

    /// The operator forces a node that is not there, and the leader that was asked is cut off meanwhile: the
    /// next one says what is missing.
    pub fn run_forced_in_vain(&mut self) {
        let last = self.slots.len() - 1;
        for i in 0..last {
            self.start(i);
        }
        // Who is cut off does not hear that it leads no more.
        let leader = |world: &Self, but: Option<usize>| {
            (0..last).find(|i| Some(*i) != but && world.leads(*i))
        };
        self.run_until(5 * self.plan.ttl, |world| leader(world, None).is_some());
        let Some(first) = leader(self, None) else { return self.stuck("nobody leads") };
        let wanted = self.names[last].clone();
        self.wish(first, |election, _| async move { election.promote(&wanted, true).await });
        self.run_until(1000, |_| false);
        for other in (0..last).filter(|i| *i != first) {
            self.net.cut(first, other);
            self.net.cut(other, first);
        }
        let next = |world: &Self| leader(world, Some(first)).is_some();
        if !self.run_until(20 * self.plan.ttl, next) {
            return self.stuck("nobody leads in its place");
        }
        for other in (0..last).filter(|i| *i != first) {
            self.net.repair(first, other);
            self.net.repair(other, first);
        }
        let told = "an operator's wish: Err(Refused(\"the first primary is chosen among all";
        if !self.run_until(15_000, |world| world.truth.see().saw(told)) {
            return self.stuck("the operator was not told what is missing");
        }
        self.start(last);
        self.calm_down();
    }

    /// The first primary is lost before its epoch begins: the next is chosen among all again.
    pub fn run_unopened(&mut self) {
        self.net.hold(Hold::any("ask Granted"));
        for i in 0..self.slots.len() {
            self.start(i);
        }
        if !self.run_until(20 * self.plan.ttl, |world| world.net.held("ask Granted").is_some()) {
            return self.stuck("no first primary");
        }
        let Some((_, holder)) = self.net.held("ask Granted") else { return };
        self.crash(holder);
        if self.truth.see().saw("begins") {
            return self.stuck("it has begun");
        }
        self.net.release_all(self.now);
        if self.run_until(6 * self.plan.ttl, |world| world.primary().is_some()) {
            return self.stuck("a first primary was chosen among some of the nodes");
        }
        self.start(holder);
        self.calm_down();
    }

    /// The last node comes back with an empty disk, under faults of the network.
    pub fn run_replacing(&mut self) {
        for i in 0..self.slots.len() {
            self.start(i);
        }
        let primary = |world: &Self| world.primary().is_some();
        if !self.run_until(20 * self.plan.ttl, primary) {
            return self.stuck("no first primary");
        }
        self.run_until(3 * self.plan.ttl, |_| false);
        let last = self.slots.len() - 1;
        self.crash(last);
        self.slots[last].place.shelf.wipe();
        self.slots[last].place.copy.wipe();
        self.start(last);
        if !self.run_until(20 * self.plan.ttl, primary) {
            return self.stuck("no primary without the one that was lost");
        }
        self.net.weather = Weather::any(self.plan.ttl, &mut self.chance);
        self.net.weather.late.1 = 100;
        let node = self.names[last].clone();
        for i in 0..last {
            let node = node.clone();
            self.wish(i, |election, _| async move {
                election.change_members(MemberChange::Replace { node, generation: None }).await
            });
            self.run_until(4 * self.plan.ttl, |_| false);
        }
        self.calm_down();
    }

    /// The holder hears of its grant when the lease is just being expired: its first renewal comes
    /// while that is agreed upon.
    pub fn run_late_grant(&mut self) {
        let grants = Hold::any("ask Granted");
        self.net.hold(grants.clone());
        for i in 0..self.slots.len() {
            self.start(i);
        }
        if !self.run_until(20 * self.plan.ttl, |world| world.net.held("ask Granted").is_some()) {
            return self.stuck("no first primary");
        }
        let (leader, holder) = self.net.held("ask Granted").unwrap();
        self.net.catch(Hold::between(leader, holder, "ask Raft"));
        let expiry = Hold::any("ask Raft").with("Expire");
        self.net.hold(expiry.clone());
        if !self.run_until(2 * self.plan.ttl, |world| world.truth.see().saw("lease-expired")) {
            return self.stuck("the lease does not expire");
        }
        self.net.release(&grants, self.now);
        self.run_until(self.plan.seed % 30, |_| false);
        self.net.release(&expiry, self.now);
        self.net.hold(Hold::between(leader, holder, "ask"));
        self.run_until(self.plan.ttl, |_| false);
        self.net.release_all(self.now);
        self.calm_down();
    }

    /// The primary's machine stands still and does not know it. It wakes when the others have said
    /// what they hold, and have not heard yet who is next: none of them acknowledges anything to it.
    pub fn run_late_acknowledgement(&mut self) {
        for i in 0..self.slots.len() {
            self.start(i);
        }
        self.run_until(20 * self.plan.ttl, |world| world.primary().is_some());
        self.run_until(2 * self.plan.ttl, |_| false);
        let leads = |world: &Self| (0..3).find(|i| world.leads(*i));
        let (Some(primary), Some(leader)) = (self.primary(), leads(self)) else {
            return self.stuck("no first primary");
        };
        let Some(third) = (0..3).find(|i| ![primary, leader].contains(i)) else { return };
        // Else it would be the next primary, with all that it has acknowledged.
        self.slots[third].place.app.lock().unwrap().down = true;
        self.run_until(self.plan.ttl, |world| world.claims_for(primary) > world.plan.ttl * 7 / 10);
        self.stand(primary, Stood { machine: true, unseen: true });
        if !self.run_until(2 * self.plan.ttl, |world| world.truth.see().saw("lease-expired")) {
            return self.stuck("the lease does not expire");
        }
        self.net.hold(Hold::between(leader, primary, ""));
        self.net.hold(Hold::between(primary, leader, ""));
        self.net.hold(Hold::between(leader, third, "ask Raft").with("!Expire"));
        self.run_until(15, |_| false);
        let commits = self.truth.see().counts["commits"];
        self.wake(primary);
        self.run_until(self.plan.ttl / 4, |_| false);
        if self.truth.see().counts["commits"] == commits {
            return self.stuck("the one that stood still writes nothing");
        }
        self.net.release_all(self.now);
        self.slots[third].place.app.lock().unwrap().down = false;
        self.calm_down();
    }

    /// The primary and the Raft leader are cut off together: the one still hears the other.
    pub fn run_minority(&mut self) {
        for i in 0..self.slots.len() {
            self.start(i);
        }
        self.run_until(20 * self.plan.ttl, |world| world.primary().is_some());
        self.run_until(2 * self.plan.ttl, |_| false);
        let n = self.slots.len();
        let (Some(primary), Some(leader)) = (self.primary(), (0..n).find(|i| self.leads(*i)))
        else {
            return self.stuck("no first primary");
        };
        let inside = |i: usize| i == primary || i == leader;
        for (a, b) in (0..n).flat_map(|a| (0..n).map(move |b| (a, b))) {
            if inside(a) != inside(b) {
                self.net.hold(Hold::between(a, b, ""));
            }
        }
        let next = |world: &Self| world.primary().is_some_and(|i| !inside(i));
        if !self.run_until(6 * self.plan.ttl, next) {
            return self.stuck("the majority has no primary");
        }
        self.net.release_all(self.now);
        self.calm_down();
    }

    /// A primary that is cut off commits much, its successor little, which a majority acknowledges.
    /// When the successor is lost, the longer history is not the newer one.
    pub fn run_two_histories(&mut self) {
        for i in 0..self.slots.len() {
            self.start(i);
        }
        self.run_until(20 * self.plan.ttl, |world| world.primary().is_some());
        self.run_until(2 * self.plan.ttl, |_| false);
        let Some(first) = self.primary() else { return self.stuck("no first primary") };
        for i in 0..self.slots.len() {
            self.net.hold(Hold::between(i, first, ""));
            self.net.hold(Hold::between(first, i, ""));
        }
        let next = |world: &Self| world.primary().filter(|i| *i != first);
        if !self.run_until(6 * self.plan.ttl, |world| next(world).is_some()) {
            return self.stuck("no second primary");
        }
        let Some(second) = next(self) else { return };
        let known = self.truth.see().majority.len();
        self.run_until(self.plan.ttl, |world| world.truth.see().majority.len() > known);
        self.crash(second);
        self.net.release_all(self.now);
        if !self.run_until(6 * self.plan.ttl, |world| next(world).is_some()) {
            return self.stuck("no third primary");
        }
        self.start(second);
        self.calm_down();
    }

    /// The answer to a renewal comes when the claim has just been handed over.
    pub fn run_late_answer(&mut self) {
        for i in 0..self.slots.len() {
            self.start(i);
        }
        self.run_until(20 * self.plan.ttl, |world| world.primary().is_some());
        self.run_until(2 * self.plan.ttl, |_| false);
        let leader = (0..3).find(|i| self.leads(*i));
        let (Some(primary), Some(leader)) = (self.primary(), leader) else {
            return self.stuck("no first primary");
        };
        let Some(third) = (0..3).find(|i| ![primary, leader].contains(i)) else { return };
        let answers = Hold::between(leader, primary, "said Renewed");
        self.net.hold(answers.clone());
        self.run_until(self.plan.ttl / 2, |world| world.net.held("said Renewed").is_some());
        self.net.hold(Hold::between(leader, primary, "ask Raft"));
        self.net.hold(Hold::between(third, primary, "said Done"));
        let to = self.names[third].clone();
        self.wish(primary, |election, _| async move { election.promote(&to, false).await });
        if !self.run_until(self.plan.ttl / 2, |world| world.primary() == Some(third)) {
            return self.stuck("the lease is not handed over");
        }
        self.net.release(&answers, self.now);
        self.run_until(self.plan.ttl / 10, |_| false);
        self.net.release_all(self.now);
        self.calm_down();
    }
}
