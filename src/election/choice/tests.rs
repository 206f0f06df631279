use proptest::prelude::*;

use super::super::table::Session;
use super::*;
use crate::cluster::Epoch;
use crate::txid::{Checksum, Position, Txid};

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

pub(crate) fn fitness(epoch: u64, txid: u64) -> Fitness {
    let position = EpochTxid { epoch: Epoch(epoch), txid: Txid(txid) };
    Fitness {
        held: Position { at: position, checksum: Checksum(epoch * 1000 + txid) },
        empty: txid == 0,
        candidate: true,
        unfit: None,
        app_up: true,
        lacks_litefs_id: false,
        sole_until: None,
        session: Session("s".to_owned()),
    }
}

fn unfit(epoch: u64, txid: u64) -> Fitness {
    Fitness { unfit: Some("its engine has failed".to_owned()), ..fitness(epoch, txid) }
}

fn answers<const N: usize>(all: [(&str, Fitness); N]) -> BTreeMap<NodeId, Fitness> {
    all.into_iter().map(|(name, fitness)| (node(name), fitness)).collect()
}

fn abc() -> Vec<NodeId> {
    ["a", "b", "c"].map(node).to_vec()
}

fn situation<'a>(
    electorate: &'a [NodeId],
    answers: &'a BTreeMap<NodeId, Fitness>,
) -> Situation<'a> {
    Situation {
        electorate,
        answers,
        first: false,
        had_data: true,
        held_up: Duration::ZERO,
        patience: Duration::from_secs(2),
        promised: Epoch(0),
        counted: &[],
        unheard: &[],
        forced: None,
        rather_not: None,
    }
}

fn elect(name: &str) -> Verdict {
    Verdict::Elect(node(name))
}

#[test]
fn the_freshest_of_enough_wins() {
    let (abc, two) = (abc(), answers([("b", fitness(2, 7)), ("c", fitness(2, 8))]));
    assert_eq!(choose(&situation(&abc, &two)), elect("c"));
    let one = answers([("c", fitness(2, 8))]);
    let Verdict::Wait(Why::TooFew { missing, needed, first }) = choose(&situation(&abc, &one))
    else {
        panic!("one of three is too few");
    };
    assert_eq!((missing, needed, first), (vec![node("a"), node("b")], 1, false));
    let refusals = [("b", "no disk"), ("c", "no vote")].map(|(of, why)| (node(of), why.to_owned()));
    let why = Why::TooFew { missing: vec![node("a"), node("b")], needed, first };
    assert!(why.explained(&refusals.into()).ends_with("acknowledged is lost; b: no disk"), "{why}");
    let later = answers([("b", fitness(3, 1)), ("c", fitness(2, 8))]);
    assert_eq!(choose(&situation(&abc, &later)), elect("b"), "epochs before transactions");
    let both = [node("a"), node("b")];
    assert_eq!(choose(&situation(&both, &answers([("b", fitness(2, 1))]))), elect("b"));
}

#[test]
fn of_equals_not_the_raft_leader() {
    let (abc, equal) = (abc(), answers([("b", fitness(2, 7)), ("c", fitness(2, 7))]));
    for (leader, chosen) in [("b", "c"), ("c", "b")] {
        let leader = node(leader);
        let situation = Situation { rather_not: Some(&leader), ..situation(&abc, &equal) };
        assert_eq!(choose(&situation), elect(chosen));
    }
}

#[test]
fn an_application_that_is_down_only_loses_against_an_equal() {
    let down = |epoch, txid| Fitness { app_up: false, ..fitness(epoch, txid) };
    let (abc, everywhere) = (abc(), answers([("b", down(2, 7)), ("c", down(2, 6))]));
    assert_eq!(choose(&situation(&abc, &everywhere)), elect("b"), "at once");
    let equal = answers([("b", down(2, 7)), ("c", fitness(2, 7))]);
    let leads = node("c");
    let situation_of_equals = Situation { rather_not: Some(&leads), ..situation(&abc, &equal) };
    assert_eq!(choose(&situation_of_equals), elect("c"));
    let fresher = answers([("b", down(2, 8)), ("c", fitness(2, 7))]);
    assert_eq!(choose(&situation(&abc, &fresher)), elect("b"), "no write is given up for it");
    let forced = node("b");
    let forcing = Situation { forced: Some(&forced), ..situation(&abc, &fresher) };
    assert_eq!(choose(&forcing), elect("b"));
}

#[test]
fn a_fresher_node_that_cannot_holds_it_up() {
    let (abc, both) = (abc(), answers([("b", fitness(2, 7)), ("c", unfit(2, 8))]));
    let mut now = situation(&abc, &both);
    assert!(matches!(choose(&now), Verdict::Wait(Why::HeldUp { by, .. }) if by == node("c")));
    now.held_up = Duration::from_secs(2);
    assert_eq!(choose(&now), elect("b"));
    now.promised = Epoch(2);
    assert!(matches!(choose(&now), Verdict::Wait(Why::HeldUp { .. })), "a client relies on it");
    now.promised = Epoch(1);
    assert_eq!(choose(&now), elect("b"), "b is of a later epoch, and has what was promised");
    now.promised = Epoch(2);
    let b = node("b");
    now.forced = Some(&b);
    assert_eq!(choose(&now), elect("b"));
    let equal = answers([("b", fitness(2, 8)), ("c", unfit(2, 8))]);
    assert_eq!(choose(&situation(&abc, &equal)), elect("b"), "equals do not wait for each other");
}

#[test]
fn who_is_no_candidate_neither_wins_nor_holds_up() {
    let never = Fitness { candidate: false, ..fitness(2, 9) };
    let (abc, both) = (abc(), answers([("b", fitness(2, 7)), ("c", never)]));
    assert_eq!(choose(&situation(&abc, &both)), elect("b"));
    let nobody = answers([("b", unfit(2, 7)), ("c", unfit(2, 6))]);
    assert!(matches!(choose(&situation(&abc, &nobody)), Verdict::Wait(Why::NobodyFit(_))));
}

#[test]
fn what_the_last_primary_counted_is_what_is_chosen_among() {
    let (abcd, counted) = (["a", "b", "c", "d"].map(node), [vec![node("a"), node("b")]]);
    let of_two = |answers: &BTreeMap<NodeId, Fitness>| {
        choose(&Situation { counted: &counted, promised: Epoch(2), ..situation(&abcd, answers) })
    };
    let others = answers([("c", fitness(2, 9)), ("d", fitness(2, 9))]);
    let Verdict::Wait(Why::TooFew { missing, needed, .. }) = of_two(&others) else {
        panic!("neither of the two has answered")
    };
    assert_eq!((missing, needed), (counted[0].clone(), 1));
    assert_eq!(of_two(&answers([("a", fitness(2, 8))])), elect("a"), "one of two is enough");
    // It counted when it was a candidate, and is none any more.
    let former = Fitness { candidate: false, ..fitness(2, 9) };
    let held = answers([("a", former.clone()), ("b", fitness(2, 8))]);
    assert!(matches!(of_two(&held), Verdict::Wait(Why::HeldUp { by, .. }) if by == node("a")));
    let stranger = answers([("a", fitness(2, 8)), ("c", former)]);
    assert_eq!(of_two(&stranger), elect("a"), "what only c has nobody was told of");
    let unheard = [node("a")];
    let early = Situation { counted: &counted, unheard: &unheard, ..situation(&abcd, &held) };
    assert_eq!(choose(&early), elect("b"), "it was never heard to be a candidate");
    let both = [counted[0].clone(), vec![node("c"), node("d")]];
    let joint = Situation { counted: &both, ..situation(&abcd, &stranger) };
    assert!(matches!(choose(&joint), Verdict::Wait(Why::HeldUp { by, .. }) if by == node("c")));
    let level = answers([("a", fitness(2, 8)), ("c", fitness(2, 7))]);
    let joint = Situation { counted: &both, ..situation(&abcd, &level) };
    assert_eq!(choose(&joint), elect("a"));
    let one = answers([("a", fitness(2, 8))]);
    let joint = Situation { counted: &both, ..situation(&abcd, &one) };
    assert!(matches!(choose(&joint), Verdict::Wait(Why::TooFew { .. })), "a majority of each");
}

#[test]
fn the_first_is_chosen_among_all() {
    let abc = abc();
    let first = |answers: &BTreeMap<NodeId, Fitness>| {
        choose(&Situation { first: true, had_data: false, ..situation(&abc, answers) })
    };
    let two = answers([("a", fitness(0, 0)), ("b", fitness(0, 0))]);
    assert!(matches!(first(&two), Verdict::Wait(Why::TooFew { first: true, .. })));
    let data = answers([("a", fitness(0, 0)), ("b", fitness(1, 3)), ("c", fitness(0, 0))]);
    assert_eq!(first(&data), elect("b"), "data beats empty");
    let empty = answers([("a", fitness(0, 0)), ("b", fitness(0, 0)), ("c", fitness(0, 0))]);
    assert!(matches!(first(&empty), Verdict::Elect(_)));
    let differing = answers([("a", fitness(0, 0)), ("b", fitness(1, 3)), ("c", fitness(1, 5))]);
    assert_eq!(first(&differing), Verdict::Wait(Why::Histories(node("b"), node("c"))));
}

#[test]
fn an_empty_node_never_wins_where_there_was_data() {
    let abc = abc();
    let empty = answers([("a", fitness(0, 0)), ("b", fitness(0, 0))]);
    assert_eq!(choose(&situation(&abc, &empty)), Verdict::Wait(Why::NoData));
    let late = answers([("a", fitness(0, 0)), ("b", unfit(1, 4))]);
    let patient = Situation { held_up: Duration::from_secs(9), ..situation(&abc, &late) };
    assert_eq!(choose(&patient), Verdict::Wait(Why::NoData));
}

proptest! {
    /// Whatever a majority of the candidates holds, the winner holds: unless patience was lost or
    /// somebody forced it, no choice loses it.
    #[test]
    fn nothing_that_a_majority_holds_is_lost(
        held in proptest::collection::vec((1u64..4, 1u64..4, any::<bool>(), any::<bool>()), 1..6),
    ) {
        let electorate: Vec<_> = (0..held.len()).map(|i| node(&format!("n{i}"))).collect();
        let majority = held.len() / 2 + 1;
        let mut positions: Vec<_> = held.iter().map(|(e, t, ..)| (*e, *t)).collect();
        positions.sort_unstable();
        // What the majority with the newest data has in common.
        let safe = positions[held.len() - majority];
        let answers: BTreeMap<_, _> = held
            .iter()
            .enumerate()
            .filter(|(_, (.., answers))| *answers)
            .map(|(i, (epoch, txid, fit, _))| {
                let fitness = if *fit { fitness(*epoch, *txid) } else { unfit(*epoch, *txid) };
                (electorate[i].clone(), fitness)
            })
            .collect();
        let strict = Situation { promised: Epoch(9), ..situation(&electorate, &answers) };
        if let Verdict::Elect(winner) = choose(&strict) {
            let position = answers[&winner].held.at;
            prop_assert!((position.epoch.0, position.txid.0) >= safe);
            prop_assert!(answers[&winner].unfit.is_none());
        }
    }
}

#[test]
fn what_is_held_of_one_database_counts_as_far_as_there_was_one() {
    let nodes = abc();
    let at = |epoch, txid| EpochTxid { epoch: Epoch(epoch), txid: Txid(txid) };
    let knows = |txid| Fitness { sole_until: Some(at(2, 5)), ..fitness(2, txid) };
    let chosen = |b: Fitness, c: Fitness| {
        let answers = answers([("b", b), ("c", c)]);
        choose(&situation(&nodes, &answers))
    };
    let b = || Verdict::Elect(node("b"));
    // It has got 7 of the first database, and lacks the second one.
    assert_eq!(chosen(knows(6), fitness(2, 7)), b());
    assert_eq!(chosen(fitness(2, 7), knows(5)), b(), "equal for certain, and holds more");
    assert_eq!(chosen(fitness(3, 1), knows(6)), b(), "of a later epoch");
    assert_eq!(chosen(knows(7), knows(6)), b());
}
