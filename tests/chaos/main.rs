//! Faults by chance on real processes, and whether everything that clients were told holds. See
//! `tests/README.md`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use cluster::{Cluster, Plan};
use faults::{Fault, Field};
use freezer::Freezer;
use harness::{texts, until};
use history::History;
use network::Network;
use oracle::Oracle;
use told::Told;

mod beside;
mod cable;
mod claims;
#[path = "../election/cluster.rs"]
#[expect(dead_code, reason = "the election's tests use the rest")]
mod cluster;
mod faults;
mod freezer;
#[path = "../demo/harness.rs"]
#[expect(dead_code, reason = "the demo's tests use the rest")]
mod harness;
mod history;
mod http;
mod jar;
mod linear;
#[path = "../support/need.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod need;
#[path = "../support/network.rs"]
mod network;
mod oracle;
#[path = "../support/preload.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod preload;
mod registers;
mod told;

/// Of `cargo test`; `LITEPILOT_CHAOS_FAULTS` has so many happen.
const FAULTS: usize = 16;
/// Only these kinds of faults happen, by name, with commas between; all, if it is not set.
const ONLY: &str = "LITEPILOT_CHAOS_ONLY";
/// Repeats a run's faults, though not the moments at which they meet the nodes.
const SEED: &str = "LITEPILOT_CHAOS_SEED";

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn what_clients_were_told_holds_whatever_happens_to_the_nodes() {
    if network::enter() {
        chaos(Some(Network::new(3)));
    } else if network::is_possible() {
        in_a_network_of_its_own("what_clients_were_told_holds_whatever_happens_to_the_nodes");
    } else {
        chaos(None);
    }
}

/// Runs this test in another process, and says what it said.
fn in_a_network_of_its_own(test: &str) {
    let mut again = network::once_more();
    again.args(["--exact", test, "--nocapture"]);
    let success = if std::env::args().any(|argument| argument == "--nocapture") {
        again.status().unwrap().success()
    } else {
        let output = again.output().unwrap();
        println!("{}{}", harness::text(&output.stdout), harness::text(&output.stderr));
        output.status.success()
    };
    assert!(success);
}

fn chaos(network: Option<Network>) {
    let seed = number(SEED).unwrap_or_else(by_time);
    let engine = if cluster::litefs().is_some() { "a real LiteFS" } else { "the embedded engine" };
    let journal = if seed.is_multiple_of(2) { "wal" } else { "delete" };
    println!("over {engine}, journal_mode={journal}");
    println!("again: {SEED}={seed} cargo test --test chaos -- --nocapture");
    let plan = Plan {
        cluster: "  ack: majority\n",
        // Not a line of `app:`, but the claims are in it.
        app: "log: {format: json, level: debug}\n",
        habit: Some(journal),
        script: "chaos/app.py",
        hosts: network.as_ref().map(|it| it.hosts.clone()).unwrap_or_default(),
        environment: preload::environment,
        ..Plan::default()
    };
    let cluster = plan.start();
    let addresses: Vec<_> = cluster.nodes.iter().map(|node| node.it.url).collect();
    let mut field = Field::new(cluster, network, Freezer::find());
    let history = Arc::new(History::new());
    let oracle = Oracle::start(&addresses, seed, &history);
    torment(&mut field, &mut SmallRng::seed_from_u64(seed));
    let told = oracle.stop();
    let entries = settled(&field.cluster);
    registers::read_all(&history, &addresses);
    println!("{:?}", field.happened);
    // All of it is judged, whatever is wrong.
    let wrong: Vec<_> = [
        wrong_in_writes(&told, &entries),
        wrong_in_claims(&field, &told),
        history.judge(seed).err(),
    ]
    .into_iter()
    .flatten()
    .collect();
    println!("{}", lost_beside(&field, &entries));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A seed that is new each time.
fn by_time() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_millis().try_into().unwrap()
}

/// Has faults happen, all kinds about as often.
fn torment(field: &mut Field, chance: &mut SmallRng) {
    let begin = Instant::now();
    let names = std::env::var(ONLY).ok();
    let only = |fault: &Fault| {
        let wanted = |names: &String| names.split(',').any(|name| name == format!("{fault:?}"));
        names.as_ref().is_none_or(wanted)
    };
    let mut deck = Vec::new();
    for turn in 0..number("LITEPILOT_CHAOS_FAULTS").map_or(FAULTS, |it| it as usize) {
        if deck.is_empty() {
            deck = field.deck(chance);
            deck.retain(|fault| only(fault));
        }
        let fault = deck.pop().unwrap();
        let primary = field.cluster.primary();
        let node = match fault {
            Fault::Freeze => primary,
            Fault::OpenReader => field.cluster.others(primary)[chance.random_range(0..2)],
            _ if chance.random_bool(0.5) => primary,
            _ => chance.random_range(0..field.cluster.nodes.len()),
        };
        let (at, epoch) = (begin.elapsed(), field.cluster.epoch(primary));
        println!("{at:.1?}: {turn}: {fault:?} of {node}; {primary} is primary in {epoch}");
        field.suffer(fault, node, chance);
    }
    // By chance most may have met others than the primary.
    for _ in 0..FAULTS {
        let primary = field.cluster.primary();
        if names.is_some() || field.cluster.epoch(primary) > 5 {
            break;
        }
        let other = field.cluster.others(primary)[0];
        field.suffer(Fault::Promote, other, chance);
    }
}

/// What all nodes hold once nothing happens any more, whoever is primary then.
fn settled(cluster: &Cluster) -> Vec<String> {
    let of = |node: usize| cluster.nodes[node].it.get("/api/entries");
    let position =
        |node: usize| cluster.nodes[node].status().map(|status| status["position"].clone());
    until("all hold the same", || {
        cluster.primary();
        let first = position(0);
        first.is_some()
            && [1, 2].iter().all(|node| position(*node) == first && of(*node).body == of(0).body)
    });
    texts(&of(0))
}

/// What is wrong with what clients were told of their entries.
fn wrong_in_writes(told: &Told, entries: &[String]) -> Option<String> {
    let (held, other, reads) = (told.by_majority.len(), told.otherwise.len(), told.reads);
    println!(
        "{held} writes acknowledged by a majority, {other} otherwise, {} not; {reads} reads",
        told.refused
    );
    assert!(held > 100 && reads > 100, "the clients did little");
    let kept: HashSet<_> = entries.iter().collect();
    let lost: Vec<_> = told.by_majority.iter().filter(|text| !kept.contains(text)).collect();
    if !told.wrong.is_empty() {
        Some(format!("{} answers, of which one: {}", told.wrong.len(), told.wrong[0]))
    } else if kept.len() < entries.len() {
        Some(format!("{} writes were done twice", entries.len() - kept.len()))
    } else if !lost.is_empty() {
        Some(format!("{} of {held} writes are lost: {lost:?}", lost.len()))
    } else {
        (other > 0).then(|| format!("{other} writes were acknowledged without a majority"))
    }
}

fn wrong_in_claims(field: &Field, told: &Told) -> Option<String> {
    let spans = claims::of(&field.cluster, &field.deaths);
    println!("{} claims", spans.len());
    assert!(spans.len() > 5 || std::env::var_os(ONLY).is_some(), "there were few claims");
    if let Some(both) = claims::overlap(&spans) {
        return Some(format!("two claims at once: {both}"));
    }
    // What was there when an epoch began that was never opened nobody can know: see "Known gaps" in
    // docs/election.md.
    let unopened = claims::unopened(&field.cluster, &spans);
    println!("losses told without one: {}; not opened: {unopened:?}", told.alarms.len());
    let excused = |epoch: u64| unopened.last().is_some_and(|last| epoch < *last);
    let alarm = told.alarms.iter().find(|(epoch, _)| !excused(*epoch));
    alarm.map(|(_, told)| format!("a loss was told although {told}"))
}

/// What became of writes past the proxy, of which Litepilot promises nothing.
fn lost_beside(field: &Field, entries: &[String]) -> String {
    let kept: HashSet<_> = entries.iter().collect();
    let lost = field.bypassed.iter().filter(|text| !kept.contains(text)).count();
    format!(
        "of {} writes past the proxy, on machines that were frozen, {lost} are lost",
        field.bypassed.len()
    )
}
