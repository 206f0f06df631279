//! Nodes that are lost for good, replaced, removed and added, while all else goes wrong.

use litepilot::cluster::NodeId;
use litepilot::control::MemberChange;
use rand::RngExt;

use super::World;
use super::faults::End;

/// What is being done, until it is done.
pub(super) struct Change {
    what: MemberChange,
    node: usize,
    /// The operator asks again.
    next: u64,
}

impl World {
    /// Begins something with node `i`, or with one that is out. A node that is lost comes back after
    /// `lasts` ms, with an empty disk.
    pub(super) fn begin_change(&mut self, i: usize, lasts: u64) {
        if self.change.is_some() || self.slots[i].place.witness {
            return;
        }
        let out = self.slots.iter().position(|slot| slot.out);
        let data = self.slots.iter().filter(|slot| !slot.out && !slot.place.witness).count();
        let replaces = self.chance.random_bool(0.5);
        let node = out.filter(|_| !replaces || data < 3).unwrap_or(i);
        let name = self.names[node].clone();
        let what = match out == Some(node) {
            true => {
                let address = self.slots[node].address().parse().unwrap();
                MemberChange::Add { node: name, address }
            }
            false if replaces || data < 3 => {
                let generation = self.generation(&name);
                MemberChange::Replace { node: name, generation }
            }
            false => MemberChange::Remove { node: name },
        };
        self.truth.note("world", &format!("an operator begins: {what:?}"));
        self.truth.see().count("changes of members begun");
        if !matches!(what, MemberChange::Remove { .. }) {
            self.lose(node);
            self.count += 1;
            self.ends.insert((self.now + lasts, self.count), End::Start(node));
        }
        self.change = Some(Change { what, node, next: self.now });
    }

    /// Of the disk that it has now, as far as anybody knows.
    fn generation(&self, name: &NodeId) -> Option<u64> {
        let lives = self.slots.iter().filter_map(|slot| slot.life.as_ref());
        lives.map(|life| life.raft.table().borrow().generation(name)).max()
    }

    /// With all that it had.
    fn lose(&mut self, i: usize) {
        self.crash(i);
        let slot = &mut self.slots[i];
        slot.out = false;
        slot.place.shelf.wipe();
        slot.place.copy.wipe();
    }

    pub(super) fn pursue_change(&mut self) {
        let Some(Change { what, node, next }) = &self.change else { return };
        let (what, node, next) = (what.clone(), *node, *next);
        if self.is_changed(&what, node) {
            self.truth.note("world", "the members are changed");
            self.truth.see().count("changes of members done");
            if matches!(what, MemberChange::Remove { .. }) {
                self.crash(node);
                self.slots[node].out = true;
            }
            self.change = None;
        } else if self.now >= next {
            let any = self.chance.random_range(0..self.slots.len());
            self.wish(any, {
                let what = what.clone();
                |election, _| async move { election.change_members(what).await }
            });
            let next = self.now + 2 * self.plan.ttl;
            self.change = Some(Change { what, node, next });
        }
    }

    pub(super) fn is_changed(&self, what: &MemberChange, node: usize) -> bool {
        if !matches!(what, MemberChange::Remove { .. }) {
            return self.slots[node].life.as_ref().is_some_and(|life| life.raft.votes());
        }
        let name = &self.names[node];
        let leader = (0..self.slots.len()).find(|i| *i != node && self.leads(*i));
        let life = leader.and_then(|leader| self.slots[leader].life.as_ref());
        life.is_some_and(|life| {
            !life.raft.members().borrow().contains(name)
                && life.raft.table().borrow().generation(name) > 0
        })
    }
}
