//! The election under seeded faults, in simulated time. See `tests/README.md`.

mod app;
mod disk;
mod engine;
mod net;
mod node;
mod plan;
mod post;
mod stream;
mod truth;
mod world;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;

use plan::Plan;
use world::World;

/// Seeds of `cargo test`.
const SEEDS: u64 = 24;
/// So many lines of a failing run are shown.
const SHOWN: usize = 400;

thread_local! {
    static PANICKED: Cell<bool> = const { Cell::new(false) };
}

/// Whether something on this thread has panicked since the last call: a task's panic goes nowhere.
fn panicked() -> bool {
    PANICKED.replace(false)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// What a run came to.
struct Outcome {
    violation: Option<String>,
    trace: Vec<String>,
    hash: u64,
    counts: BTreeMap<&'static str, u64>,
}

fn run(plan: Plan, print: bool) -> Outcome {
    run_as(plan, print, World::run)
}

fn run_as(plan: Plan, print: bool, as_what: impl FnOnce(&mut World)) -> Outcome {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICKED.set(true);
            before(info);
        }));
    });
    let mut world = World::new(plan, print);
    as_what(&mut world);
    let seen = world.truth.see();
    Outcome {
        violation: seen.violation.clone(),
        trace: seen.trace(),
        hash: seen.hash(),
        counts: seen.counts.clone(),
    }
}

fn report(seed: u64, outcome: &Outcome) -> Option<String> {
    let violation = outcome.violation.as_ref()?;
    let shown = outcome.trace.len().saturating_sub(SHOWN);
    let trace = outcome.trace[shown..].join("\n");
    Some(format!(
        "{trace}\nseed {seed}: {violation}\nagain: LITEPILOT_SIM_SEED={seed} cargo test --test sim -- --nocapture\n",
    ))
}

/// `LITEPILOT_SIM_SEED` runs one seed and prints what happens; `LITEPILOT_SIM_SEEDS` runs so many.
#[test]
fn what_always_holds_holds_under_faults() {
    if let Some(seed) = number("LITEPILOT_SIM_SEED") {
        let outcome = run(Plan::of(seed), true);
        assert!(outcome.violation.is_none(), "seed {seed}: {:?}", outcome.violation);
        return;
    }
    let (first, seeds) = (
        number("LITEPILOT_SIM_FIRST").unwrap_or(0),
        number("LITEPILOT_SIM_SEEDS").unwrap_or(SEEDS),
    );
    let next = AtomicU64::new(first);
    let (failed, counts) = (Mutex::new(BTreeMap::new()), Mutex::new(BTreeMap::<_, u64>::new()));
    let threads = thread::available_parallelism().map_or(2, |n| n.get());
    let threads = number("LITEPILOT_SIM_THREADS").unwrap_or(threads as u64);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, SeqCst);
                    if seed >= first + seeds || failed.lock().unwrap().len() >= 5 {
                        return;
                    }
                    let outcome = run(Plan::of(seed), false);
                    for (what, count) in &outcome.counts {
                        *counts.lock().unwrap().entry(*what).or_default() += count;
                    }
                    if let Some(report) = report(seed, &outcome) {
                        println!("seed {seed}: {:?}", outcome.violation);
                        failed.lock().unwrap().insert(seed, (outcome.violation, report));
                    }
                }
            });
        }
    });
    println!("{seeds} seeds: {:?}", counts.lock().unwrap());
    let failed = failed.into_inner().unwrap();
    if let Some((_, (_, report))) = failed.first_key_value() {
        println!("{report}");
    }
    let failed: Vec<_> =
        failed.into_iter().map(|(seed, (violation, _))| (seed, violation)).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Runs a script under some seeds; that of `LITEPILOT_SIM_SEED` prints what happens.
fn script(nodes: usize, seeds: u64, as_what: impl Fn(&mut World)) {
    scripts((0..seeds).map(|seed| Plan::scripted(seed, nodes)), as_what);
}

/// The last of three nodes is no candidate.
fn script_with_reader(seeds: u64, as_what: impl Fn(&mut World)) {
    let plan = |seed| Plan { reader: true, ..Plan::scripted(seed, 3) };
    scripts((0..seeds).map(plan), as_what);
}

fn scripts(plans: impl Iterator<Item = Plan>, as_what: impl Fn(&mut World)) {
    for plan in plans {
        let seed = plan.seed;
        let print = number("LITEPILOT_SIM_SEED") == Some(seed);
        let outcome = run_as(plan, print, &as_what);
        assert!(outcome.violation.is_none(), "{}", report(seed, &outcome).unwrap_or_default());
    }
}

#[test]
fn an_application_that_is_down_delays_no_choice_and_no_handoff() {
    script(3, 6, World::run_apps_down);
}

#[test]
fn what_only_a_node_that_is_no_candidate_holds_is_not_held_by_a_majority() {
    script_with_reader(4, World::run_no_candidate);
}

#[test]
fn a_node_that_is_no_candidate_keeps_nobody_from_a_new_cluster() {
    script_with_reader(40, World::run_early_death);
}

#[test]
fn who_was_not_heard_to_be_a_candidate_is_in_no_majority() {
    script_with_reader(4, World::run_unheard);
}

#[test]
fn a_failover_waits_for_no_reader() {
    script(3, 4, World::run_long_reader);
}

#[test]
fn what_one_client_was_promised_is_waited_for_by_whoever_chooses() {
    script(3, 8, World::run_promised);
}

#[test]
fn what_a_lost_disk_held_does_not_count_for_the_one_in_its_place() {
    script(3, 4, World::run_lost_disk);
    script(3, 4, World::run_quiet_lost_disk);
}

#[test]
fn who_holds_what_was_promised_is_removed_once_others_hold_it() {
    script(3, 6, World::run_remove_holder);
}

#[test]
fn a_primary_that_is_removed_hands_over_first() {
    script(3, 2, World::run_remove_primary);
}

#[test]
fn a_first_primary_is_chosen_among_all_unless_forced() {
    script(3, 3, World::run_forced);
    script(5, 4, World::run_forced_in_vain);
    script(3, 4, World::run_unopened);
}

#[test]
fn a_node_with_a_new_disk_is_replaced_and_nothing_is_lost() {
    script(3, 3, World::run_replacing);
}

#[test]
fn a_renewal_while_the_lease_expires_revives_nothing() {
    script(3, 12, World::run_late_grant);
}

#[test]
fn who_has_said_what_it_holds_acknowledges_nothing_to_the_old_primary() {
    script(3, 6, World::run_late_acknowledgement);
}

#[test]
fn a_raft_leader_in_a_minority_renews_nothing() {
    script(5, 2, World::run_minority);
}

#[test]
fn the_longer_history_is_not_the_newer_one() {
    script(3, 4, World::run_two_histories);
}

#[test]
fn a_late_answer_to_a_renewal_revives_no_claim() {
    script(3, 6, World::run_late_answer);
}

#[test]
fn a_primary_whose_death_is_told_is_replaced_at_once() {
    script(3, 6, World::run_last_will);
    script(5, 2, World::run_last_will);
}

#[test]
fn a_primary_that_led_raft_is_replaced_at_once_too() {
    script(3, 6, World::run_last_will_of_leader);
}

#[test]
fn the_word_of_a_former_life_ends_nothing() {
    script(3, 4, World::run_late_will);
}

#[test]
fn a_seed_gives_the_same_run_again() {
    for seed in 0..4 {
        let [one, two] = [0, 1].map(|_| run(Plan::of(seed), false));
        if one.hash != two.hash {
            let pairs = one.trace.iter().zip(&two.trace);
            let differs = pairs.enumerate().find(|(_, (a, b))| a != b);
            panic!("seed {seed} differs at {differs:?}");
        }
    }
}
