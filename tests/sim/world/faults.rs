//! What befalls a cluster, at random.

use litepilot::election::PATIENCE;
use rand::RngExt;

use super::{Stood, World};
use crate::net::some;

/// What ends a fault.
#[derive(Clone, Debug)]
pub(super) enum End {
    Start(usize),
    Wake(usize),
    Repair(Vec<(usize, usize)>),
    AppUp(usize),
    HookRuns(usize),
    DiskIsMended(usize),
    ReaderEnds(usize),
}

impl World {
    pub(super) fn fault(&mut self) {
        let n = self.slots.len();
        let i = self.whom();
        let lasts = match self.chance.random_range(0..3) {
            0 => self.chance.random_range(5..200),
            1 => self.chance.random_range(200..1500),
            _ => self.chance.random_range(1000..4000),
        } * self.plan.ttl
            / 1000;
        if self.slots[i].out {
            return;
        }
        let end = match self.chance.random_range(0..100) {
            0..18 => {
                if self.slots[i].life.is_none() {
                    return;
                }
                self.crash(i);
                End::Start(i)
            }
            18..40 => {
                let machine = self.chance.random_bool(0.4);
                let unseen = machine && self.plan.unseen;
                self.stand(i, Stood { machine, unseen });
                End::Wake(i)
            }
            40..75 => {
                let links = self.some_links(n, i);
                let said: Vec<_> = links
                    .iter()
                    .map(|(a, b)| format!("{}-{}", self.names[*a], self.names[*b]))
                    .collect();
                self.truth.note("world", &format!("cuts {} for {lasts} ms", said.join(" ")));
                self.truth.see().count("cuts");
                for (from, to) in &links {
                    self.net.cut(*from, *to);
                }
                End::Repair(links)
            }
            75..83 => {
                self.truth.note(self.names[i].as_str(), "its application is down");
                self.slots[i].place.app.lock().unwrap().down = true;
                End::AppUp(i)
            }
            83..86 if self.plan.hooks => {
                self.truth.note(self.names[i].as_str(), "its `on_promote` fails");
                self.slots[i].place.app.lock().unwrap().hook_fails = true;
                End::HookRuns(i)
            }
            86..88 => {
                self.truth.note(self.names[i].as_str(), "its disk is full");
                self.slots[i].place.shelf.fill(true);
                End::DiskIsMended(i)
            }
            88 if !self.slots[i].place.witness => {
                self.truth.note(self.names[i].as_str(), "somebody there reads for long");
                self.truth.see().count("long readers");
                self.slots[i].place.copy.state().reader = true;
                End::ReaderEnds(i)
            }
            89..93 if self.plan.members => return self.begin_change(i, lasts),
            93..95 => return self.fail_engine(i),
            _ => return self.operate(i),
        };
        self.count += 1;
        self.ends.insert((self.now + lasts, self.count), end);
    }

    fn fail_engine(&mut self, i: usize) {
        if let Some(life) = &self.slots[i].life {
            self.truth.note(self.names[i].as_str(), "its engine dies");
            self.truth.see().count("engines that died");
            life.fail_engine();
        }
    }

    /// Somebody; more often the primary, or whoever leads Raft.
    fn whom(&mut self) -> usize {
        match self.chance.random_range(0..4) {
            0 => self.primary(),
            1 => (0..self.slots.len()).find(|i| self.leads(*i)),
            _ => None,
        }
        .unwrap_or_else(|| self.chance.random_range(0..self.slots.len()))
    }

    fn some_links(&mut self, n: usize, i: usize) -> Vec<(usize, usize)> {
        let others: Vec<usize> = (0..n).filter(|other| *other != i).collect();
        let other = others[self.chance.random_range(0..others.len())];
        let both = |a: usize, b: usize| [(a, b), (b, a)];
        match self.chance.random_range(0..6) {
            0 => both(i, other).into(),
            1 => vec![(i, other)],
            2 => others.iter().map(|other| (i, *other)).collect(),
            3 => others.iter().map(|other| (*other, i)).collect(),
            4 => others.iter().flat_map(|other| both(i, *other)).collect(),
            _ => {
                let side = some(n, &mut self.chance);
                let rest: Vec<usize> = (0..n).filter(|i| !side.contains(i)).collect();
                let across = side.iter().flat_map(|a| rest.iter().map(|b| (*a, *b)));
                across.flat_map(|(a, b)| both(a, b)).collect()
            }
        }
    }

    pub(super) fn stand(&mut self, i: usize, stood: Stood) {
        let slot = &mut self.slots[i];
        if slot.stands.is_none() {
            let what = if stood.machine { "machine" } else { "process" };
            let seen = if stood.unseen { ", and its clock" } else { "" };
            let text = format!("its {what} stands still{seen}");
            self.truth.note(slot.place.name.as_str(), &text);
            self.truth.see().count("stops");
            slot.stands = Some(stood);
        }
    }

    pub(super) fn wake(&mut self, i: usize) {
        self.slots[i].stands = None;
        self.truth.note(self.names[i].as_str(), "goes on");
    }

    pub(super) fn end(&mut self, end: End) {
        match end {
            End::Start(i) => self.start(i),
            End::Wake(i) => self.wake(i),
            End::Repair(links) => {
                self.truth.note("world", &format!("repairs {} links", links.len()));
                for (from, to) in links {
                    self.net.repair(from, to);
                }
            }
            End::AppUp(i) => {
                self.slots[i].place.app.lock().unwrap().down = false;
                self.truth.note(self.names[i].as_str(), "its application is up");
            }
            End::HookRuns(i) => self.slots[i].place.app.lock().unwrap().hook_fails = false,
            End::ReaderEnds(i) => self.slots[i].place.copy.state().reader = false,
            End::DiskIsMended(i) => {
                self.slots[i].place.shelf.fill(false);
                self.truth.note(self.names[i].as_str(), "its disk is repaired");
            }
        }
    }

    /// Somebody asks a node for something.
    fn operate(&mut self, i: usize) {
        let to = self.names[self.chance.random_range(0..self.slots.len())].clone();
        let resigns = self.chance.random_bool(0.4);
        let slot = &self.slots[i];
        let Some(life) = slot.life.as_ref().filter(|_| self.plan.operators) else { return };
        let (election, truth) = (life.election.clone(), self.truth.clone());
        let name = slot.place.name.clone();
        self.truth.see().count("wishes of operators");
        life.spawn(async move {
            let (what, done) = match resigns {
                true => ("resign".to_owned(), election.resign(PATIENCE).await),
                false => (format!("promote {to}"), election.promote(&to, false).await),
            };
            truth.see().count(if done.is_ok() { "wishes fulfilled" } else { "wishes refused" });
            truth.note(name.as_str(), &format!("{what}: {done:?}"));
        });
    }
}
