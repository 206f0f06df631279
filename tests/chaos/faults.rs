//! What happens to the nodes: one of three at a time.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rustix::process::{Pid, Signal, kill_process};

use crate::beside::Beside;
use crate::cable::Cable;
use crate::claims::Death;
use crate::cluster::{self, Cluster};
use crate::freezer::Freezer;
use crate::harness::until;
use crate::network::Network;
use crate::preload::{self, Failure, Faults};

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `kill -9` of Litepilot.
    Kill,
    /// `kill -9` of everything on the node.
    KillAll,
    /// SIGSTOP, and SIGCONT later.
    Stop,
    /// `litepilot promote`.
    Promote,
    /// SIGTERM, and started again.
    Restart,
    /// `kill -9` of the application.
    KillApp,
    /// The application takes its time.
    SlowApp,
    /// A read transaction that does not end, on a replica.
    OpenReader,
    /// `kill -9` of LiteFS.
    KillLitefs,
    /// SIGSTOP of LiteFS, and SIGCONT later.
    StopLitefs,
    /// What a node sends and receives is late or lost, differently in either direction.
    BadCable,
    /// Of what a node sends or receives some does not arrive.
    Cut,
    /// The primary's machine stands still, with a writer on it that bypasses the proxy.
    Freeze,
    /// The time of day is set an hour on or back.
    SetClock,
    /// Timers go 5 % too fast or too slow, from a restart on.
    Drift,
    /// Syncs take their time.
    SlowDisk,
    /// There is no room, or a call fails.
    BadDisk,
}

const ALWAYS: [Fault; 8] = [
    Fault::Kill,
    Fault::KillAll,
    Fault::Stop,
    Fault::Promote,
    Fault::Restart,
    Fault::KillApp,
    Fault::SlowApp,
    Fault::OpenReader,
];

/// Where faults happen, and what came of them.
pub struct Field {
    pub cluster: Cluster,
    /// The nodes' own, if such can be made here.
    pub network: Option<Network>,
    pub freezer: Option<Freezer>,
    pub deaths: Vec<Death>,
    /// What SQLite told writers beside the proxy was committed.
    pub bypassed: Vec<String>,
    /// How often each kind happened.
    pub happened: BTreeMap<Fault, usize>,
}

impl Field {
    pub fn new(cluster: Cluster, network: Option<Network>, freezer: Option<Freezer>) -> Self {
        let (deaths, bypassed, happened) = Default::default();
        Self { cluster, network, freezer, deaths, bypassed, happened }
    }

    /// All that can happen here, in random order.
    pub fn deck(&self, chance: &mut SmallRng) -> Vec<Fault> {
        let litefs = cluster::litefs().map(|_| [Fault::KillLitefs, Fault::StopLitefs]);
        let network = self.network.as_ref().map(|_| [Fault::BadCable, Fault::Cut]);
        let freezer = self.freezer.as_ref().map(|_| Fault::Freeze);
        let preloaded = [Fault::SetClock, Fault::Drift, Fault::SlowDisk, Fault::BadDisk];
        let preloaded = preload::is_possible().then_some(preloaded).into_iter().flatten();
        let some = litefs.into_iter().chain(network).flatten().chain(freezer).chain(preloaded);
        let mut deck: Vec<_> = ALWAYS.into_iter().chain(some).collect();
        deck.shuffle(chance);
        deck
    }

    /// Has it happen to a node, undoes it after a while, and waits until the next would not be one too many.
    pub fn suffer(&mut self, fault: Fault, node: usize, chance: &mut SmallRng) {
        *self.happened.entry(fault).or_default() += 1;
        // Shorter and longer than a claim and a lease last.
        let pause = Duration::from_millis(chance.random_range(100..4500));
        match fault {
            Fault::Kill => self.kill(node, pause, false, drop),
            Fault::KillAll => self.kill(node, pause, true, drop),
            Fault::Restart => self.restart(node),
            Fault::Promote => self.promote(node),
            Fault::Stop => self.stop(self.cluster.nodes[node].it.pid, pause),
            Fault::KillApp => self.send(Signal::KILL, self.child(node, "app")),
            Fault::KillLitefs => self.send(Signal::KILL, self.child(node, "litefs")),
            Fault::StopLitefs => self.child(node, "litefs").into_iter().for_each(|litefs| {
                self.stop(litefs, pause);
            }),
            Fault::SlowApp => self.slow_down(node, pause, chance),
            Fault::OpenReader => {
                let _reader = Beside::reader(&self.cluster.nodes[node].database());
                thread::sleep(pause);
            }
            Fault::BadCable => {
                let _cable = Cable::splice(node, chance);
                thread::sleep(pause);
            }
            Fault::Cut => self.cut(node, pause, chance),
            Fault::Freeze => {
                self.freeze(node, Duration::from_millis(chance.random_range(3000..10_000)))
            }
            Fault::SetClock => {
                self.faults(node).set_clock([-3600, 3600][chance.random_range(0..2)]);
                thread::sleep(pause);
                // Back half of the times.
                if chance.random_bool(0.5) {
                    self.faults(node).set_clock(0);
                }
            }
            Fault::Drift => {
                self.kill(node, pause / 4, false, |faults| {
                    faults.run_at([950_000, 1_050_000][chance.random_range(0..2)]);
                });
            }
            Fault::SlowDisk => {
                self.faults(node).slow_down(chance.random_range(20..800));
                thread::sleep(pause);
                self.faults(node).heal();
            }
            Fault::BadDisk => self.fail_disk(node, pause, chance),
        }
        self.recover(node);
    }

    fn faults(&self, node: usize) -> Faults {
        Faults::of(&self.cluster.nodes[node].it.data_dir)
    }

    /// A node may end of that, if it says why.
    fn fail_disk(&mut self, node: usize, pause: Duration, chance: &mut SmallRng) {
        let with = [Failure::Full, Failure::Broken][chance.random_range(0..2)];
        self.faults(node).fail(chance.random_range(1..40), with);
        thread::sleep(pause);
        self.faults(node).heal();
        if !self.cluster.nodes[node].runs() {
            println!("    it has ended: {}", self.cluster.nodes[node].last_words(5));
            self.kill(node, Duration::ZERO, false, drop);
        }
    }

    fn kill(
        &mut self,
        node: usize,
        pause: Duration,
        everything: bool,
        meanwhile: impl FnOnce(Faults),
    ) {
        let pid = self.cluster.nodes[node].it.pid;
        let children = if everything { descendants(pid) } else { Vec::new() };
        self.cluster.nodes[node].kill();
        self.deaths.push(Death::of(node));
        for child in children {
            // It may have noticed and gone already.
            let _ = kill_process(child, Signal::KILL);
        }
        thread::sleep(pause);
        if preload::is_possible() {
            meanwhile(self.faults(node));
        }
        self.cluster.nodes[node].start();
    }

    fn restart(&mut self, node: usize) {
        assert!(self.cluster.nodes[node].stop(), "it ends well");
        self.cluster.nodes[node].start();
    }

    fn promote(&self, node: usize) {
        let name = &self.cluster.nodes[node].it.name;
        // Refused to a node that is not level yet: then nothing happens.
        let (code, said) = self.cluster.nodes[node].command(&["promote", name]);
        assert!(matches!(code, Some(0 | 1)), "{said}");
    }

    /// The process of a node's application, or of its LiteFS, if it has one now.
    fn child(&self, node: usize, of: &str) -> Option<u32> {
        let status = self.cluster.nodes[node].status()?;
        status[of]["pid"].as_u64().map(|pid| pid as u32)
    }

    /// Nothing happens if it is gone.
    fn send(&self, signal: Signal, process: Option<u32>) {
        if let Some(pid) = process.and_then(|pid| Pid::from_raw(pid as i32)) {
            let _ = kill_process(pid, signal);
        }
    }

    fn stop(&self, process: u32, pause: Duration) {
        self.send(Signal::STOP, Some(process));
        thread::sleep(pause);
        self.send(Signal::CONT, Some(process));
    }

    fn slow_down(&self, node: usize, pause: Duration, chance: &mut SmallRng) {
        let slow = self.cluster.nodes[node].it.data_dir.join("s.slow");
        fs::write(&slow, format!("0.{:03}", chance.random_range(50..1000))).unwrap();
        thread::sleep(pause);
        fs::remove_file(slow).unwrap();
    }

    fn cut(&self, node: usize, pause: Duration, chance: &mut SmallRng) {
        let network = self.network.as_ref().unwrap();
        let ways = self.cluster.others(node).into_iter().flat_map(|it| [(node, it), (it, node)]);
        let mut ways: Vec<_> = ways.collect();
        ways.shuffle(chance);
        ways.truncate(chance.random_range(1..=ways.len()));
        println!("    cut, from and to: {ways:?}");
        ways.iter().for_each(|(from, to)| network.cut(*from, *to));
        thread::sleep(pause);
        ways.iter().for_each(|(from, to)| network.mend(*from, *to));
    }

    fn freeze(&mut self, node: usize, pause: Duration) {
        let name = format!("d{}", self.happened[&Fault::Freeze]);
        let writer = Beside::writer(&self.cluster.nodes[node].database(), &name);
        let of_node = self.cluster.nodes[node].it.pid;
        let all = || [descendants(of_node), vec![writer.pid(), pid(of_node)]].concat();
        let frozen = self.freezer.as_ref().unwrap().freeze(all);
        thread::sleep(pause);
        drop(frozen);
        self.recover(node);
        self.bypassed.extend(writer.stop());
    }

    /// Waits until the node takes part, and writes are taken.
    fn recover(&self, node: usize) {
        until("it takes part again", || {
            self.cluster.nodes[node].status().is_some_and(|status| {
                status["quorum"] == true
                    && status["primary"].is_object()
                    && status["app"]["state"] == "up"
                    && status["lag_ms"].as_u64().is_some_and(|lag| lag < 1000)
            })
        });
        self.cluster.primary();
    }
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(number as i32).unwrap()
}

/// The processes that it started, and those that they did.
fn descendants(of: u32) -> Vec<Pid> {
    let (mut found, mut waiting) = (Vec::new(), vec![of]);
    while let Some(parent) = waiting.pop() {
        for task in fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            let children = children.split(' ').filter_map(|pid| pid.parse::<u32>().ok());
            waiting.extend(children.clone());
            found.extend(children.filter_map(|pid| Pid::from_raw(pid.try_into().ok()?)));
        }
    }
    found
}
