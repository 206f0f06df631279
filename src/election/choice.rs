//! Who becomes primary of a vacant lease. Pure.
//!
//! A write that a majority of the D candidates holds is held by at least one of any D − ⌊D/2⌋ of them:
//! so many have to answer, and the freshest of these wins. A cluster's first primary is chosen among
//! all of them, so that an empty node that starts first can never wipe the one with the data.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::rpc::Fitness;
use crate::cluster::NodeId;

/// What is known when the choice is made.
#[derive(Clone, Debug)]
pub(crate) struct Situation<'a> {
    /// Every member that holds data.
    pub(crate) electorate: &'a [NodeId],
    /// What those who promised have to offer.
    pub(crate) answers: &'a BTreeMap<NodeId, Fitness>,
    /// There was never a primary.
    pub(crate) first: bool,
    /// An epoch of this cluster began with data.
    pub(crate) had_data: bool,
    /// For how long a fresher node that is not fit has held the choice up.
    pub(crate) held_up: Duration,
    /// After that it is not waited for any longer; `None`: forever (`ack: majority`).
    pub(crate) patience: Option<Duration>,
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
            None => Verdict::Wait(too_few(situation, &answers, 1)),
        };
    }
    let needed = match situation.first {
        true => electorate.len(),
        false => electorate.len() - electorate.len() / 2,
    };
    if answers.len() < needed || answers.is_empty() {
        return Verdict::Wait(too_few(situation, &answers, needed - answers.len()));
    }
    if situation.first
        && let Some(why) = two_histories(&answers)
    {
        return Verdict::Wait(why);
    }
    if situation.had_data && answers.iter().all(|(_, fitness)| fitness.empty) {
        return Verdict::Wait(Why::NoData);
    }
    let rank = |(node, fitness): &(&NodeId, &Fitness)| {
        let rather = situation.rather_not != Some(*node);
        (!fitness.empty, fitness.held.at, fitness.app_up, rather)
    };
    let fit = answers.iter().filter(|(_, fitness)| fitness.is_fit()).max_by_key(|a| rank(a));
    let Some(fittest) = fit else {
        return Verdict::Wait(Why::NobodyFit(answers.iter().map(reason).collect()));
    };
    // Others may know more, but only candidates acknowledge.
    let fresher = answers
        .iter()
        .filter(|(_, fitness)| fitness.candidate && is_fresher(fitness, fittest.1))
        .max_by_key(|a| rank(a));
    match fresher {
        Some(by) if situation.patience.is_none_or(|limit| situation.held_up < limit) => {
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

fn is_fresher(one: &Fitness, other: &Fitness) -> bool {
    (!one.empty, one.held.at) > (!other.empty, other.held.at)
}

fn reason((node, fitness): &(&NodeId, &Fitness)) -> (NodeId, String) {
    let unfit = match &fitness.unfit {
        _ if !fitness.candidate => "it is no candidate".to_owned(),
        Some(unfit) => unfit.clone(),
        None => "it could".to_owned(),
    };
    ((*node).clone(), unfit)
}

fn too_few(situation: &Situation<'_>, answers: &[(&NodeId, &Fitness)], needed: usize) -> Why {
    let silent = |node: &&NodeId| !answers.iter().any(|(answered, _)| answered == node);
    let missing = situation.electorate.iter().filter(silent).cloned().collect();
    Why::TooFew { missing, needed, first: situation.first }
}

/// Before the first epoch nobody can tell which of two differing copies is the newer.
fn two_histories(answers: &[(&NodeId, &Fitness)]) -> Option<Why> {
    let mut with_data = answers.iter().filter(|(_, fitness)| !fitness.empty);
    let (first, one) = with_data.next()?;
    let (second, _) = with_data.find(|(_, other)| other.held.checksum != one.held.checksum)?;
    Some(Why::Histories((*first).clone(), (*second).clone()))
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names =
            |nodes: &[NodeId]| nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ");
        match self {
            Self::TooFew { missing, first: true, .. } => write!(
                f,
                "the first primary is chosen among all nodes that hold data, and {} did not answer \
                 yet: start it, or force one with `litepilot promote NODE --force`",
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
mod tests;
