//! The claims of all nodes, as their logs tell of them, on the clock of the machine that they share.

use std::collections::{BTreeMap, BTreeSet};

use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use crate::cluster::Cluster;

/// A node's process was gone by then, and its claim with it.
pub struct Death {
    node: usize,
    at: u64,
}

impl Death {
    /// It is gone now.
    pub fn of(node: usize) -> Self {
        let now = clock_gettime(ClockId::Boottime);
        Self { node, at: now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64 }
    }
}

/// When one node could take writes in one epoch; nanoseconds of CLOCK_BOOTTIME.
#[derive(Clone, Debug)]
pub struct Span {
    node: usize,
    epoch: u64,
    begin: u64,
    /// Unless it is renewed.
    deadline: u64,
    /// It was ended earlier.
    ended: u64,
}

impl Span {
    fn end(&self) -> u64 {
        self.deadline.min(self.ended)
    }
}

/// All of them, by their beginning.
pub fn of(cluster: &Cluster, deaths: &[Death]) -> Vec<Span> {
    let mut spans = Vec::new();
    for (number, node) in cluster.nodes.iter().enumerate() {
        let log = std::fs::read_to_string(node.log()).unwrap();
        spans.extend(told_by(number, &log));
    }
    for span in &mut spans {
        let ends = deaths.iter().filter(|death| death.node == span.node && death.at > span.begin);
        span.ended = ends.map(|death| death.at).fold(span.ended, u64::min);
    }
    spans.sort_by_key(|span| span.begin);
    spans
}

/// Epochs that were claimed, and in which nobody has taken writes.
pub fn unopened(cluster: &Cluster, spans: &[Span]) -> BTreeSet<u64> {
    let mut claimed: BTreeSet<_> = spans.iter().map(|span| span.epoch).collect();
    for node in &cluster.nodes {
        let log = std::fs::read_to_string(node.log()).unwrap();
        claimed.retain(|epoch| !log.contains(&format!(" in epoch {epoch} takes writes")));
    }
    claimed
}

fn told_by(node: usize, log: &str) -> Vec<Span> {
    let mut spans: BTreeMap<u64, Span> = BTreeMap::new();
    // A line may be cut where a process was killed.
    for line in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let number = |key: &str| line[key].as_u64().unwrap();
        match line["message"].as_str() {
            Some("the claim is valid") => {
                let (epoch, begin, deadline) = (number("epoch"), number("at"), number("until"));
                let begun = Span { node, epoch, begin, deadline, ended: u64::MAX };
                let span = spans.entry(epoch).or_insert(begun);
                span.deadline = span.deadline.max(deadline);
            }
            Some("the claim is over") => {
                if let Some(span) = spans.get_mut(&number("epoch")) {
                    span.ended = span.ended.min(number("at"));
                }
            }
            _ => {}
        }
    }
    spans.into_values().collect()
}

/// Two that were valid at the same time, in words.
pub fn overlap(spans: &[Span]) -> Option<String> {
    let mut latest: Option<&Span> = None;
    for span in spans {
        if let Some(before) = latest.filter(|before| before.end() > span.begin) {
            let (a, b) = (before.node, span.node);
            return Some(format!(
                "node {a} in epoch {} until {}, node {b} in epoch {} from {}",
                before.epoch,
                before.end(),
                span.epoch,
                span.begin,
            ));
        }
        latest = Some(span);
    }
    None
}

#[test]
fn claims_at_the_same_time_are_noticed() {
    let valid = |epoch: u64, at: u64, until: u64| {
        format!(
            "{{\"message\":\"the claim is valid\",\"epoch\":{epoch},\"at\":{at},\"until\":{until}}}\n"
        )
    };
    let over = "{\"message\":\"the claim is over\",\"epoch\":1,\"at\":25}\n{\"mess";
    let renewed = valid(1, 10, 20) + &valid(1, 15, 30);
    let next = told_by(1, &valid(2, 26, 40));
    assert!(overlap(&[told_by(0, &renewed), next.clone()].concat()).is_some());
    assert!(overlap(&[told_by(0, &(renewed + over)), next].concat()).is_none());
}
