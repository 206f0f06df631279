//! The claims of all nodes, as their logs tell of them, on the clock of the machine that they share.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::cluster::Cluster;

/// When one node could take writes in one epoch; nanoseconds of CLOCK_BOOTTIME.
#[derive(Clone, Debug)]
pub struct Span {
    pub node: String,
    pub epoch: u64,
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
pub fn of(cluster: &Cluster) -> Vec<Span> {
    let mut spans: BTreeMap<(String, u64), Span> = BTreeMap::new();
    for node in &cluster.nodes {
        let log = std::fs::read_to_string(node.log()).unwrap();
        // A line may be cut where a process was killed.
        for line in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let number = |key: &str| line[key].as_u64().unwrap();
            let name = || node.it.name.clone();
            match line["message"].as_str() {
                Some("the claim is valid") => {
                    let (epoch, at, until) = (number("epoch"), number("at"), number("until"));
                    let begun =
                        Span { node: name(), epoch, begin: at, deadline: until, ended: u64::MAX };
                    let span = spans.entry((name(), epoch)).or_insert(begun);
                    span.deadline = span.deadline.max(until);
                }
                Some("the claim is over") => {
                    if let Some(span) = spans.get_mut(&(name(), number("epoch"))) {
                        span.ended = span.ended.min(number("at"));
                    }
                }
                _ => {}
            }
        }
    }
    let mut spans: Vec<_> = spans.into_values().collect();
    spans.sort_by_key(|span| span.begin);
    spans
}

/// Two that were valid at the same time.
pub fn overlap(spans: &[Span]) -> Option<(Span, Span)> {
    let mut latest: Option<&Span> = None;
    for span in spans {
        if let Some(before) = latest
            && before.end() > span.begin
        {
            return Some((before.clone(), span.clone()));
        }
        latest = latest.filter(|before| before.end() > span.end()).or(Some(span));
    }
    None
}
