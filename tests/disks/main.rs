//! Disks that fail or are slow under a real cluster: whatever fails, a node goes on or ends with an error that
//! says what to do, and nothing is forgotten that was acknowledged, voted for or promised.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use cluster::{Cluster, Plan};
use harness::{texts, until};
use preload::{Failure, Faults};

#[path = "../election/cluster.rs"]
#[expect(dead_code, reason = "the tests of the election use the rest")]
mod cluster;
#[path = "../demo/harness.rs"]
#[expect(dead_code, reason = "the demo's tests use the rest")]
mod harness;
#[path = "../support/need.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod need;
#[path = "../support/port.rs"]
mod port;
#[path = "../support/preload.rs"]
#[expect(dead_code, reason = "the chaos uses the rest")]
mod preload;
mod slow;

/// How many of a round's calls fail in turn, spread over all of them; with `LITEPILOT_DISK_FAULTS=all` each does.
const ROUNDS: i64 = 4;

/// The node whose disk fails.
const VICTIM: usize = 2;

/// A cluster, and what must never be forgotten of it.
struct Field {
    cluster: Cluster,
    faults: Faults,
    acknowledged: Vec<String>,
    tried: usize,
    /// The newest that the victim has said of itself.
    term: u64,
    epoch: u64,
    /// Where in its log the victim's present life begins, in bytes.
    begun: usize,
}

/// What the others ask of the victim meanwhile.
#[derive(Clone, Copy, Debug)]
enum While {
    /// It becomes the primary, takes a write, and hands over.
    ItIsPrimary,
    /// It starts, after `kill -9`.
    ItStarts,
}

impl While {
    /// The `embedded` engine of a primary cannot be fenced while its disk is full, and may hold the others
    /// up for so long.
    fn may_stay_full(self, all: bool) -> bool {
        all || matches!(self, Self::ItStarts) || cluster::litefs().is_some()
    }
}

/// Over LiteFS with backups, which are files of the node's, too. Commands are not told where.
fn plan() -> Plan {
    let backup = "backup: {url: \"file://${FAULTS_UNDER:-/nowhere}/backup\", listen: \"127.0.0.1:${BACKUP:-20204}\"}\n";
    let top = if cluster::litefs().is_some() { backup } else { "" };
    Plan { cluster: "  ack: majority\n  ack_timeout: 30s\n", top, environment, ..Plan::default() }
}

fn environment(data_dir: &Path) -> Vec<(&'static str, PathBuf)> {
    let mut all = preload::environment(data_dir);
    all.push(("BACKUP", port::reserve_port().to_string().into()));
    all
}

impl Field {
    fn start() -> Self {
        let cluster = plan().start();
        let faults = Faults::of(&cluster.nodes[VICTIM].it.data_dir);
        Self { cluster, faults, acknowledged: Vec::new(), tried: 0, term: 0, epoch: 0, begun: 0 }
    }

    /// Through a node whose disk works: held meanwhile, if need be, and tried again if not. Each text once.
    fn write(&mut self, words: &str) {
        until("a write is acknowledged", || {
            self.tried += 1;
            let text = format!("{words} {}", self.tried);
            let answer = self.cluster.nodes[0].it.post(&text);
            if answer.code == 201 {
                self.acknowledged.push(text);
            }
            answer.code == 201
        });
    }

    /// Whether it has taken over: a node that cannot now says so, and nothing happens.
    fn promote(&self, node: usize) -> bool {
        let name = &self.cluster.nodes[node].it.name;
        let (code, said) = self.cluster.nodes[0].command(&["promote", name]);
        assert!(matches!(code, Some(0 | 1)), "{said}");
        code == Some(0)
    }

    fn undergo(&mut self, what: While) {
        match what {
            While::ItIsPrimary => {
                self.write("before");
                until("it takes over, or its disk fails", || {
                    self.promote(VICTIM) || self.faults.counted().1 > 0
                });
                self.write("at it");
                self.promote(0);
                self.write("after");
            }
            While::ItStarts => {
                self.start_the_victim();
                until("it is level, or has said why it cannot be", || {
                    self.is_level() || self.has_said_what_to_do()
                });
                self.write("after its start");
            }
        }
    }

    fn runs(&self) -> bool {
        self.cluster.nodes[VICTIM].runs()
    }

    fn status(&self) -> Option<Value> {
        self.cluster.nodes[VICTIM].status()
    }

    fn is_level(&self) -> bool {
        self.status().is_some_and(|status| {
            let level = status["lag_ms"].as_u64().is_some_and(|lag| lag < 1000);
            status["quorum"] == true && status["primary"].is_object() && level
        })
    }

    /// Everything goes on while one call of the victim's fails; returns how many there were, and whether one
    /// did.
    fn round(&mut self, what: While, at: i64, with: Failure) -> (i64, bool) {
        if matches!(what, While::ItStarts) {
            self.stop_the_victim();
        }
        self.faults.fail(at, with);
        self.undergo(what);
        let (calls, failed) = self.faults.counted();
        self.note_what_it_says();
        self.faults.heal();
        println!("{what:?}: {with:?} at {at}, {failed} of {calls} calls failed");
        until("it goes on by itself, or has ended and said why", || {
            self.is_level() || !self.runs() && self.has_said_what_to_do()
        });
        self.restart();
        self.nothing_is_forgotten();
        (calls, failed > 0)
    }

    fn note_what_it_says(&mut self) {
        let Some(status) = self.status() else { return };
        self.term = self.term.max(status["raft"]["term"].as_u64().unwrap_or(0));
        self.epoch = self.epoch.max(status["primary"]["epoch"].as_u64().unwrap_or(0));
    }

    /// One line of its present life names the file, and a remedy.
    fn has_said_what_to_do(&self) -> bool {
        let node = &self.cluster.nodes[VICTIM];
        let dir = node.it.data_dir.to_str().unwrap();
        let remedies = ["make room", "replace it", "make data_dir writable"];
        let helps =
            |line: &str| line.contains(dir) && remedies.iter().any(|words| line.contains(words));
        fs::read_to_string(node.log()).is_ok_and(|log| log[self.begun..].lines().any(helps))
    }

    fn restart(&mut self) {
        self.stop_the_victim();
        self.start_the_victim();
        until("it is level", || self.is_level());
    }

    fn start_the_victim(&mut self) {
        let node = &mut self.cluster.nodes[VICTIM];
        self.begun = fs::read(node.log()).map_or(0, |log| log.len());
        node.start();
    }

    fn stop_the_victim(&mut self) {
        let node = &mut self.cluster.nodes[VICTIM];
        node.kill();
        node.unmount();
    }

    fn nothing_is_forgotten(&mut self) {
        let (term, epoch) = (self.term, self.epoch);
        self.note_what_it_says();
        let mut status = Value::Null;
        until("it knows a primary", || {
            status = self.status().unwrap_or_default();
            status["primary"].is_object()
        });
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        assert!(number(&status["raft"]["term"]) >= term, "a vote is forgotten: {status}");
        assert!(number(&status["primary"]["epoch"]) >= epoch, "an epoch is forgotten: {status}");
        for node in 0..3 {
            let mut missing = String::new();
            until("each node has all that was acknowledged, once", || {
                let entries = texts(&self.cluster.nodes[node].it.get("/api/entries"));
                let times = |text: &String| entries.iter().filter(|entry| *entry == text).count();
                let wrong = self.acknowledged.iter().find(|text| times(text) != 1);
                missing = wrong.cloned().unwrap_or_default();
                missing.is_empty()
            });
        }
    }
}

/// Each of the victim's calls in turn; without `all` some of them, others each time.
fn each_call_fails(what: While) {
    if !preload::is_possible() {
        return;
    }
    let mut field = Field::start();
    let all = std::env::var("LITEPILOT_DISK_FAULTS").is_ok_and(|text| text == "all");
    let (calls, _) = field.round(what, 0, Failure::Broken);
    assert!(calls > 5, "nothing was written");
    let step = if all { 1 } else { (calls / ROUNDS).max(1) };
    let mut at = if all { 1 } else { 1 + i64::from(std::process::id()) % step };
    loop {
        let full = (at / step) % 2 == 0 && what.may_stay_full(all);
        let with = if full { Failure::Full } else { Failure::Broken };
        let (_, failed) = field.round(what, at, with);
        if !failed || !all && at >= calls {
            break;
        }
        at += step;
    }
}

#[test]
fn whatever_write_of_a_primary_fails_nothing_is_forgotten() {
    each_call_fails(While::ItIsPrimary);
}

#[test]
fn whatever_write_of_a_start_fails_nothing_is_forgotten() {
    each_call_fails(While::ItStarts);
}

#[test]
fn a_replica_whose_disk_is_full_says_so_and_goes_on_once_there_is_room() {
    if !preload::is_possible() {
        return;
    }
    let mut field = Field::start();
    until("the victim is a replica", || field.promote(0));
    field.cluster.until_level(VICTIM);
    field.faults.fail(1, Failure::Full);
    until("another one takes over", || field.promote(1));
    until("it says that its disk is full", || field.has_said_what_to_do());
    field.write("meanwhile");
    field.faults.heal();
    until("it goes on by itself", || field.is_level());
    field.nothing_is_forgotten();
}
