//! Whether a node with an empty disk may take part. Pure.
//!
//! A node that has lost its disk has forgotten whom it voted for and what it promised to keep: if it
//! took part under its old identity, what a majority had agreed upon could be undone. So nobody
//! votes or appends before enough others have remembered its disk, and they remember the first one
//! of each name and generation for good.
//!
//! * A cluster begins with nodes that are all empty and configured alike: half of the others,
//!   rounded down, must know its disk (with itself: a majority).
//! * Once it has begun, a node that is empty needs a majority of the others. Among these is one of
//!   those that knew its former disk, if there was one, and that one refuses.
//!
//! What remains: a node that loses its disk while most others are still empty is not told from one
//! that starts for the first time. But then most disks of the cluster are empty.

use std::collections::{BTreeMap, BTreeSet};

use super::Member;
use super::identity::DiskId;
use super::message::Greeting;
use crate::cluster::NodeId;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Begin a cluster of those that are configured.
    Found,
    /// Take part in the cluster that there is.
    Join(u64),
    /// Ask again, and ask to be remembered under this generation.
    Register(u64),
    /// Ask again later: this is missing.
    Wait(String),
    /// Ask again later, but somebody has to fix this first.
    Refused(String),
}

/// Judges by what those who answered know.
pub(crate) fn decide(
    own: &NodeId,
    disk: &DiskId,
    seeds: &[Member],
    greetings: &BTreeMap<NodeId, Greeting>,
) -> Verdict {
    let newest = greetings.values().filter(|greeting| greeting.begun).max_by_key(|g| g.as_of);
    match newest {
        Some(newest) => join(own, disk, &newest.members, greetings),
        None => found(own, disk, seeds, greetings),
    }
}

fn join(
    own: &NodeId,
    disk: &DiskId,
    members: &[Member],
    greetings: &BTreeMap<NodeId, Greeting>,
) -> Verdict {
    let mine = members.iter().filter(|member| member.name == *own);
    let Some(generation) = mine.map(|member| member.generation).max() else {
        return Verdict::Wait(format!(
            "this node is no member of the cluster: `litepilot members add {own}=HOST:PORT` makes \
             it one"
        ));
    };
    let others: BTreeSet<_> = members.iter().map(|m| &m.name).filter(|name| *name != own).collect();
    let of_others = greetings.iter().filter(|(node, greeting)| {
        others.contains(node) && greeting.begun && greeting.generation == generation
    });
    let need = others.len() / 2 + usize::from(!others.is_empty());
    match known(own, disk, of_others, need) {
        Ok(true) => Verdict::Join(generation),
        Ok(false) => Verdict::Register(generation),
        Err(verdict) => verdict,
    }
}

fn found(
    own: &NodeId,
    disk: &DiskId,
    seeds: &[Member],
    greetings: &BTreeMap<NodeId, Greeting>,
) -> Verdict {
    if !seeds.iter().any(|seed| seed.name == *own) {
        return Verdict::Refused(format!("{own} is not among the peers of its own configuration"));
    }
    for (node, greeting) in greetings {
        if let Some(difference) = difference(node, seeds, &greeting.members) {
            return Verdict::Refused(format!(
                "{node} is configured with other peers than this node: {difference}. Make \
                 `cluster.peers` the same on every node"
            ));
        }
    }
    match known(own, disk, greetings.iter(), seeds.len() / 2) {
        Ok(true) => Verdict::Found,
        Ok(false) => Verdict::Register(0),
        Err(verdict) => verdict,
    }
}

/// Whether `need` nodes know this disk already; `false` if they would on request.
fn known<'a>(
    own: &NodeId,
    disk: &DiskId,
    greetings: impl Iterator<Item = (&'a NodeId, &'a Greeting)>,
    need: usize,
) -> Result<bool, Verdict> {
    let (mut sure, mut willing) = (0, 0);
    for (node, greeting) in greetings {
        match &greeting.known {
            Some(known) if known == disk => sure += 1,
            Some(_) => {
                return Err(Verdict::Refused(format!(
                    "{node} knows another disk under this node's name. If its data_dir was lost, \
                     run `litepilot members replace {own}` on another node; if two nodes have this \
                     name, give each its own"
                )));
            }
            None => willing += 1,
        }
    }
    match () {
        () if sure >= need => Ok(true),
        () if sure + willing >= need => Ok(false),
        () => Err(Verdict::Wait(format!(
            "{need} other nodes have to answer first; {} did",
            sure + willing
        ))),
    }
}

/// The first thing in which two configurations differ.
fn difference(node: &NodeId, ours: &[Member], theirs: &[Member]) -> Option<String> {
    let by_name = |members: &[Member]| -> BTreeMap<_, _> {
        members.iter().map(|member| (member.name.clone(), member.clone())).collect()
    };
    let (ours, theirs) = (by_name(ours), by_name(theirs));
    let names: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    names.into_iter().find_map(|name| match (ours.get(name), theirs.get(name)) {
        (Some(_), None) => Some(format!("{name} is missing on {node}")),
        (None, Some(_)) => Some(format!("{name} is missing here")),
        (Some(our), Some(their)) if our.address != their.address => {
            Some(format!("{name} is at {} here, and at {} on {node}", our.address, their.address))
        }
        (Some(our), Some(their)) if our.witness != their.witness => {
            Some(format!("{name} is a witness only {}", if our.witness { "here" } else { "there" }))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::election::raft::types::LogId;

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn members(names: &[&str]) -> Vec<Member> {
        names.iter().map(|name| member(name, 0)).collect()
    }

    fn member(name: &str, generation: u64) -> Member {
        Member { name: node(name), generation, address: format!("{name}:1"), witness: false }
    }

    /// One that knows `known` under the asker's name.
    fn greeting(begun: bool, members: Vec<Member>, known: Option<&DiskId>) -> Greeting {
        let of_a = members.iter().filter(|m| m.name == node("a"));
        let generation = of_a.map(|m| m.generation).max().unwrap_or(0);
        Greeting { begun, members, as_of: None, known: known.cloned(), generation }
    }

    fn decide_a(disk: &DiskId, greetings: &[(&str, Greeting)]) -> Verdict {
        let greetings = greetings.iter().map(|(name, g)| (node(name), g.clone())).collect();
        decide(&node("a"), disk, &members(&["a", "b", "c"]), &greetings)
    }

    #[test]
    fn a_node_alone_begins_at_once_and_three_need_two() {
        let disk = DiskId::new();
        let alone = decide(&node("a"), &disk, &members(&["a"]), &BTreeMap::new());
        assert_eq!(alone, Verdict::Found);
        let abc = || members(&["a", "b", "c"]);
        assert!(matches!(decide_a(&disk, &[]), Verdict::Wait(_)));
        assert_eq!(decide_a(&disk, &[("b", greeting(false, abc(), None))]), Verdict::Register(0));
        let knows = greeting(false, abc(), Some(&disk));
        assert_eq!(decide_a(&disk, &[("b", knows)]), Verdict::Found);
    }

    #[test]
    fn a_cluster_that_has_begun_is_joined_only_with_a_majority_of_the_others() {
        let disk = DiskId::new();
        let abc = || members(&["a", "b", "c"]);
        let knows = || greeting(true, abc(), Some(&disk));
        assert!(matches!(decide_a(&disk, &[("b", knows())]), Verdict::Wait(_)));
        let empty = greeting(false, abc(), Some(&disk));
        assert!(matches!(decide_a(&disk, &[("b", knows()), ("c", empty)]), Verdict::Wait(_)));
        assert_eq!(decide_a(&disk, &[("b", knows()), ("c", knows())]), Verdict::Join(0));
        let ignorant = greeting(true, abc(), None);
        assert_eq!(decide_a(&disk, &[("b", knows()), ("c", ignorant)]), Verdict::Register(0));
    }

    #[test]
    fn another_disk_under_the_name_is_refused_until_it_is_replaced() {
        let (old, new) = (DiskId::new(), DiskId::new());
        let abc = || members(&["a", "b", "c"]);
        for begun in [false, true] {
            let b = greeting(begun, abc(), None);
            let c = greeting(begun, abc(), Some(&old));
            let Verdict::Refused(why) = decide_a(&new, &[("b", b), ("c", c)]) else { panic!() };
            assert!(why.contains("members replace a"), "{why}");
        }
        let replaced = || vec![member("a", 1), member("b", 0), member("c", 0)];
        let b = greeting(true, replaced(), None);
        let c = greeting(true, replaced(), None);
        assert_eq!(decide_a(&new, &[("b", b), ("c", c)]), Verdict::Register(1));
    }

    #[test]
    fn the_newest_membership_counts() {
        let disk = DiskId::new();
        let old = greeting(true, members(&["a", "b", "c"]), Some(&disk));
        let at = |index| Some(LogId::new_term_index(1, index));
        let without = Greeting { as_of: at(9), ..greeting(true, members(&["b", "c"]), None) };
        let old = Greeting { as_of: at(3), ..old };
        let verdict = decide_a(&disk, &[("b", without), ("c", old)]);
        assert!(
            matches!(&verdict, Verdict::Wait(why) if why.contains("members add a=")),
            "{verdict:?}"
        );
    }

    #[test]
    fn a_difference_in_the_configuration_is_named() {
        let disk = DiskId::new();
        let differs = |theirs: Vec<Member>, text: &str| {
            let verdict = decide_a(&disk, &[("b", greeting(false, theirs, None))]);
            let Verdict::Refused(why) = verdict else { panic!("{verdict:?}") };
            assert!(why.contains(text), "{why}");
        };
        differs(members(&["a", "b"]), "c is missing on b");
        differs(members(&["a", "b", "c", "d"]), "d is missing here");
        let mut moved = members(&["a", "b", "c"]);
        moved[2].address = "elsewhere:1".to_owned();
        differs(moved, "c is at c:1 here, and at elsewhere:1 on b");
        let mut witness = members(&["a", "b", "c"]);
        witness[2].witness = true;
        differs(witness, "c is a witness only there");
        let stranger = decide(&node("x"), &disk, &members(&["a"]), &BTreeMap::new());
        assert!(matches!(stranger, Verdict::Refused(_)));
    }
}
