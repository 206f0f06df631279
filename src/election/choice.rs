//! Who becomes primary of a vacant lease. Pure.
//!
//! A write that a majority of the D nodes holds which the last primary counted is held by at least one
//! of any D − ⌊D/2⌋ of them: so many have to answer, and the freshest of these wins. A cluster's first
//! primary is chosen among all of them, so that an empty node that starts first can never wipe the one
//! with the data.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::rpc::Fitness;
use crate::cluster::{Epoch, NodeId};
use crate::txid::EpochTxid;

/// What is known when the choice is made.
#[derive(Clone, Debug)]
pub(crate) struct Situation<'a> {
    /// Every member that holds data.
    pub(crate) electorate: &'a [NodeId],
    /// Those whose majority the last primary counted, in each of these sets; none: the same as above.
    pub(crate) counted: &'a [Vec<NodeId>],
    /// Those of them whose acknowledgements did not count yet.
    pub(crate) unheard: &'a [NodeId],
    /// What those who promised have to offer.
    pub(crate) answers: &'a BTreeMap<NodeId, Fitness>,
    /// There was never a primary that took writes.
    pub(crate) first: bool,
    /// An epoch of this cluster began with data.
    pub(crate) had_data: bool,
    /// For how long a fresher node that is not fit has held the choice up.
    pub(crate) held_up: Duration,
    /// After that it is not waited for any longer, but for what a client relies on.
    pub(crate) patience: Duration,
    /// The last epoch in which clients were told that a majority holds their writes; 0: none.
    pub(crate) promised: Epoch,
    /// The operator wants this one.
    pub(crate) forced: Option<&'a NodeId>,
    /// Of equals not this one: it leads Raft, and would have to pass that on.
    pub(crate) rather_not: Option<&'a NodeId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Elect(NodeId),
    Wait(Why),
}

/// What is waited for. Its text says what an operator can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    TooFew {
        /// Who has not answered.
        missing: Vec<NodeId>,
        /// How many of them are needed.
        needed: usize,
        /// There was never a primary.
        first: bool,
    },
    NobodyFit(Vec<(NodeId, String)>),
    HeldUp {
        by: NodeId,
        /// Why it cannot become primary.
        unfit: String,
        /// Whoever would be chosen without it.
        instead: NodeId,
    },
    /// The operator: there are two histories.
    Histories(NodeId, NodeId),
    /// The operator: there was data, and nobody here has it.
    NoData,
}

pub(crate) fn choose(situation: &Situation<'_>) -> Verdict {
    let electorate = situation.electorate;
    let answers: Vec<(&NodeId, &Fitness)> =
        electorate.iter().filter_map(|node| situation.answers.get_key_value(node)).collect();
    if let Some(forced) = situation.forced {
        return match answers.iter().find(|(node, _)| *node == forced) {
            Some((node, fitness)) if fitness.is_fit() => Verdict::Elect((*node).clone()),
            Some(answer) => Verdict::Wait(Why::NobodyFit(vec![reason(answer)])),
            None => Verdict::Wait(too_few(situation, std::slice::from_ref(forced), &answers, 1)),
        };
    }
    if let Some(why) = are_too_few(situation, &answers) {
        return Verdict::Wait(why);
    }
    if situation.first
        && let Some(why) = two_histories(&answers)
    {
        return Verdict::Wait(why);
    }
    if situation.had_data && answers.iter().all(|(_, fitness)| fitness.empty) {
        return Verdict::Wait(Why::NoData);
    }
    let sole = answers.iter().filter_map(|(_, fitness)| fitness.sole_until).max();
    let holds = |fitness: &Fitness| {
        (!fitness.empty, certain(fitness.held.at, fitness.sole_until, sole), fitness.held.at)
    };
    let rank = |(node, fitness): &(&NodeId, &Fitness)| {
        let rather = situation.rather_not != Some(*node);
        (holds(fitness), fitness.app_up, rather)
    };
    let fit = answers.iter().filter(|(_, fitness)| fitness.is_fit()).max_by_key(|a| rank(a));
    let Some(fittest) = fit else {
        return Verdict::Wait(Why::NobodyFit(answers.iter().map(reason).collect()));
    };
    // Others may know more, but what they hold nobody was told of.
    let counts = |node: &NodeId, fitness: &Fitness| match situation.counted {
        [] => fitness.candidate,
        sets => {
            let counted = fitness.candidate || !situation.unheard.contains(node);
            counted && sets.iter().any(|nodes| nodes.contains(node))
        }
    };
    let fresher = answers
        .iter()
        .filter(|(node, fitness)| counts(node, fitness) && holds(fitness) > holds(fittest.1))
        .max_by_key(|a| rank(a));
    // A copy of a later epoch has all that was promised before: its primary was chosen so.
    let promised = situation.promised;
    let relied_on = promised > Epoch(0) && fittest.1.held.at.epoch <= promised;
    match fresher {
        Some(by) if relied_on || situation.held_up < situation.patience => {
            let (by, unfit) = reason(by);
            Verdict::Wait(Why::HeldUp { by, unfit, instead: fittest.0.clone() })
        }
        // An empty node does not win over one with data because it lost patience.
        Some(_) if fittest.1.empty => Verdict::Wait(Why::NoData),
        _ => Verdict::Elect(fittest.0.clone()),
    }
}

impl Fitness {
    /// Whether its application answers does not matter: whoever is chosen hands over if it stays down.
    pub(crate) fn is_fit(&self) -> bool {
        self.candidate && self.unfit.is_none()
    }
}

/// What of `held` counts first. Who does not know yet that there are several databases takes all that it
/// holds of one for what it has reached, and has that for certain up to where there was one: `sole`, as far
/// as any of those knows who answer.
pub(crate) fn certain(
    held: EpochTxid,
    knows: Option<EpochTxid>,
    sole: Option<EpochTxid>,
) -> EpochTxid {
    match sole.filter(|sole| sole.epoch == held.epoch) {
        Some(sole) if knows.is_none_or(|known| known.epoch != sole.epoch) => held.min(sole),
        _ => held,
    }
}

fn reason((node, fitness): &(&NodeId, &Fitness)) -> (NodeId, String) {
    let unfit = match &fitness.unfit {
        _ if !fitness.candidate => "it is no candidate".to_owned(),
        Some(unfit) => unfit.clone(),
        None => "it could".to_owned(),
    };
    ((*node).clone(), unfit)
}

/// Each write that a majority of a set holds is held by one of any that are not in a majority of it.
fn are_too_few(situation: &Situation<'_>, answers: &[(&NodeId, &Fitness)]) -> Option<Why> {
    let missing = |nodes: &[NodeId]| {
        let needed = if situation.first { nodes.len() } else { nodes.len() - nodes.len() / 2 };
        let answered = nodes.iter().filter(|node| answers.iter().any(|(a, _)| a == node)).count();
        needed.saturating_sub(answered)
    };
    let sets = match situation.counted {
        sets if sets.is_empty() || situation.first => vec![situation.electorate],
        sets => sets.iter().map(Vec::as_slice).collect(),
    };
    let most = sets.into_iter().map(|nodes| (missing(nodes), nodes)).max_by_key(|(n, _)| *n);
    match most {
        Some((missing, nodes)) if missing > 0 => Some(too_few(situation, nodes, answers, missing)),
        _ if answers.is_empty() => Some(too_few(situation, situation.electorate, answers, 1)),
        _ => None,
    }
}

fn too_few(
    situation: &Situation<'_>,
    nodes: &[NodeId],
    answers: &[(&NodeId, &Fitness)],
    needed: usize,
) -> Why {
    let silent = |node: &&NodeId| !answers.iter().any(|(answered, _)| answered == node);
    let missing = nodes.iter().filter(silent).cloned().collect();
    Why::TooFew { missing, needed, first: situation.first }
}

/// Before the first epoch nobody can tell which of two differing copies is the newer.
fn two_histories(answers: &[(&NodeId, &Fitness)]) -> Option<Why> {
    let mut with_data = answers.iter().filter(|(_, fitness)| !fitness.empty);
    let (first, one) = with_data.next()?;
    let (second, _) = with_data.find(|(_, other)| other.held.checksum != one.held.checksum)?;
    Some(Why::Histories((*first).clone(), (*second).clone()))
}

impl Why {
    /// With what those said who answered that they cannot tell.
    pub(crate) fn explained(&self, refusals: &BTreeMap<NodeId, String>) -> String {
        let mut text = self.to_string();
        if let Self::TooFew { missing, .. } = self {
            let said = missing.iter().filter_map(|node| Some((node, refusals.get(node)?)));
            said.for_each(|(node, why)| text += &format!("; {node}: {why}"));
        }
        text
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names =
            |nodes: &[NodeId]| nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ");
        match self {
            Self::TooFew { missing, first: true, .. } => write!(
                f,
                "the first primary is chosen among all nodes that hold data, and what is on {} is not \
                 known yet: start what does not run, or force one with `litepilot promote NODE --force`",
                names(missing)
            ),
            Self::TooFew { missing, needed, .. } => write!(
                f,
                "{needed} more of {} must answer before it is sure that nothing acknowledged is lost",
                names(missing)
            ),
            Self::NobodyFit(why) => {
                f.write_str("no node can become primary:")?;
                why.iter().try_for_each(|(node, why)| write!(f, " {node}: {why};"))
            }
            Self::HeldUp { by, unfit, instead } => write!(
                f,
                "{by} has newer data than {instead}, but cannot become primary: {unfit}; fix it, \
                 or give its newest writes up with `litepilot promote {instead} --force`"
            ),
            Self::Histories(one, other) => write!(
                f,
                "{one} and {other} have different databases, and there was no primary before: keep \
                 the right one with `litepilot promote NODE --force`; the other is archived"
            ),
            Self::NoData => f.write_str(
                "the cluster had data, and no node that answers has any: start the one that has it, \
                 or begin anew with `litepilot promote NODE --force`",
            ),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
