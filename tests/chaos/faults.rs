//! What happens to the nodes: one of three at a time.

use std::fs;
use std::thread;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use rustix::process::{Pid, Signal, kill_process};

use crate::claims::Death;
use crate::cluster::Cluster;
use crate::harness::until;

/// The kinds of faults.
#[derive(Clone, Copy, Debug)]
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
}

/// All of them.
pub const KINDS: [Fault; 5] =
    [Fault::Kill, Fault::KillAll, Fault::Stop, Fault::Promote, Fault::Restart];

impl Fault {
    /// Does it to a node, and undoes it after a while. Says when that killed it.
    pub fn happen(
        self,
        cluster: &mut Cluster,
        node: usize,
        chance: &mut SmallRng,
    ) -> Option<Death> {
        // Shorter and longer than a claim and a lease last.
        let pause = Duration::from_millis(chance.random_range(100..4500));
        match self {
            Self::Kill | Self::KillAll => {
                let children = match self {
                    Self::KillAll => descendants(cluster.nodes[node].it.pid),
                    _ => Vec::new(),
                };
                cluster.nodes[node].kill();
                let death = Death::of(node);
                for child in children {
                    // It may have noticed and gone already.
                    let _ = kill_process(child, Signal::KILL);
                }
                thread::sleep(pause);
                cluster.nodes[node].start();
                return Some(death);
            }
            Self::Stop => {
                cluster.nodes[node].signal(Signal::STOP);
                thread::sleep(pause);
                cluster.nodes[node].signal(Signal::CONT);
            }
            Self::Promote => {
                let name = cluster.nodes[node].it.name.clone();
                // Refused to a node that is not level yet: then nothing happens.
                let (code, said) = cluster.nodes[node].command(&["promote", &name]);
                assert!(matches!(code, Some(0 | 1)), "{said}");
            }
            Self::Restart => {
                assert!(cluster.nodes[node].stop(), "it ends well");
                cluster.nodes[node].start();
            }
        }
        None
    }
}

/// Waits until the next fault would not be one too many: the node takes part, and writes are taken.
pub fn recover(cluster: &Cluster, node: usize) {
    until("it takes part again", || {
        cluster.nodes[node].status().is_some_and(|status| {
            status["quorum"] == true
                && status["primary"].is_object()
                && status["app"]["state"] == "up"
                && status["lag_ms"].as_u64().is_some_and(|lag| lag < 1000)
        })
    });
    cluster.primary();
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
