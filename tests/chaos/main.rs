//! Faults by chance on real processes, and whether everything that clients were told holds. See
//! `tests/README.md`.

use std::collections::HashSet;
use std::time::{Instant, SystemTime};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use claims::Death;
use cluster::{Cluster, Plan};
use faults::KINDS;
use harness::{texts, until};
use oracle::{Oracle, Told};

mod claims;
#[path = "../election/cluster.rs"]
#[expect(dead_code, reason = "the election's tests use the rest")]
mod cluster;
mod faults;
#[path = "../demo/harness.rs"]
#[expect(dead_code, reason = "the demo's tests use the rest")]
mod harness;
mod oracle;

/// Of `cargo test`; `LITEPILOT_CHAOS_FAULTS` has so many happen.
const FAULTS: u64 = 30;
const CLIENTS: u64 = 4;
/// Repeats a run's faults, though not the moments at which they meet the nodes.
const SEED: &str = "LITEPILOT_CHAOS_SEED";

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn what_clients_were_told_holds_whatever_happens_to_the_nodes() {
    let seed = number(SEED).unwrap_or_else(by_time);
    println!("again: {SEED}={seed} cargo test --test chaos -- --nocapture");
    let plan = Plan {
        cluster: "  ack: majority\n",
        // Not a line of `app:`, but the claims are in it.
        app: "log: {format: json, level: debug}\n",
        ..Plan::default()
    };
    let mut cluster = plan.start();
    let addresses: Vec<_> = cluster.nodes.iter().map(|node| node.it.url).collect();
    let oracle = Oracle::start(CLIENTS, &addresses, seed);
    let deaths = torment(&mut cluster, &mut SmallRng::seed_from_u64(seed));
    let told = oracle.stop();
    let history = settled(&cluster);
    judge(&told, &history);
    let spans = claims::of(&cluster, &deaths);
    println!("{} claims", spans.len());
    assert!(spans.len() > 5, "there were few claims");
    assert_eq!(claims::overlap(&spans), None);
}

/// A seed that is new each time.
fn by_time() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_millis().try_into().unwrap()
}

/// Has faults happen; says when nodes were killed.
fn torment(cluster: &mut Cluster, chance: &mut SmallRng) -> Vec<Death> {
    let begin = Instant::now();
    let mut deaths = Vec::new();
    for turn in 0..number("LITEPILOT_CHAOS_FAULTS").unwrap_or(FAULTS) {
        let fault = KINDS[chance.random_range(0..KINDS.len())];
        let primary = cluster.primary();
        let node = match chance.random_bool(0.5) {
            true => primary,
            false => chance.random_range(0..cluster.nodes.len()),
        };
        let (at, epoch) = (begin.elapsed(), cluster.epoch(primary));
        println!("{at:.1?}: {turn}: {fault:?} of {node}; {primary} is primary in {epoch}");
        deaths.extend(fault.happen(cluster, node, chance));
        faults::recover(cluster, node);
    }
    deaths
}

/// What all nodes hold once nothing happens any more.
fn settled(cluster: &Cluster) -> Vec<String> {
    let primary = cluster.primary();
    for node in cluster.others(primary) {
        cluster.until_level(node);
    }
    let of = |node: usize| cluster.nodes[node].it.get("/api/entries");
    let position = |node: usize| cluster.nodes[node].status().unwrap()["position"].clone();
    until("all hold the same", || {
        [1, 2].iter().all(|node| position(*node) == position(0) && of(*node).body == of(0).body)
    });
    texts(&of(0))
}

fn judge(told: &Told, history: &[String]) {
    let (held, other, reads) = (told.by_majority.len(), told.otherwise.len(), told.reads);
    println!(
        "{held} writes acknowledged by a majority, {other} otherwise, {} not; {reads} reads",
        told.refused
    );
    assert!(told.wrong.is_empty(), "{}: {:?}", told.wrong.len(), told.wrong.first());
    let kept: HashSet<_> = history.iter().collect();
    assert_eq!(kept.len(), history.len(), "no write was done twice");
    let lost: Vec<_> = told.by_majority.iter().filter(|text| !kept.contains(text)).collect();
    assert!(lost.is_empty(), "{} of {held} writes are lost: {lost:?}", lost.len());
    assert!(held * 100 >= (held + other) * 95, "{held} of {}", held + other);
    assert!(held > 100 && reads > 100, "the clients did little");
}
