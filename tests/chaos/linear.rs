//! Whether a history of one register is linearizable: whether each operation can have taken effect at one
//! moment between its call and its return, such that each saw what the ones before it had left.
//!
//! The search is Wing and Gong's, with Lowe's memory of what was tried: "Testing for linearizability",
//! 2017.

use std::collections::HashSet;

use serde::Serialize;

/// The most operations of one history: they are bits of a set.
pub const MOST: usize = 128;
/// When an operation returns of which nobody knows whether it was done: perhaps later than all others.
pub const NEVER: u64 = u64::MAX;

/// What was asked of a register, and what it answered. Each value is written once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    Read(u64),
    Write(u64),
    /// Set to `to` if it was `from`. `before`: what it was; `None`: there was no answer.
    Swap {
        from: u64,
        to: u64,
        before: Option<u64>,
    },
}

/// One operation.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Operation {
    pub called: u64,
    /// [`NEVER`]: it may have been done, or may be yet.
    pub returned: u64,
    pub action: Action,
}

impl Action {
    /// What a register that is `value` becomes by it; `None`: it would have answered otherwise.
    fn done_to(self, value: u64) -> Option<u64> {
        match self {
            Self::Read(seen) => (seen == value).then_some(value),
            Self::Write(written) => Some(written),
            Self::Swap { before: Some(before), .. } if before != value => None,
            Self::Swap { from, to, .. } => Some(if from == value { to } else { value }),
        }
    }

    /// What it would leave.
    fn writes(self) -> Option<u64> {
        match self {
            Self::Read(_) => None,
            Self::Write(to) | Self::Swap { to, .. } => Some(to),
        }
    }

    /// What it is known to have seen, or has to have seen to have done anything.
    fn saw(self) -> Option<u64> {
        match self {
            Self::Read(value) => Some(value),
            Self::Write(_) => None,
            Self::Swap { from, before, .. } => Some(before.unwrap_or(from)),
        }
    }
}

/// Whether a register that began as 0 can have answered so.
pub fn is_linearizable(history: &[Operation]) -> bool {
    let history = without_the_unseen(history);
    assert!(history.len() <= MOST, "{} operations", history.len());
    let wanted = bits(&history, |operation| operation.returned != NEVER);
    Search { history, wanted, tried: HashSet::new() }.succeeds(0, 0)
}

/// What may have been done and was never seen is as well not done: each value is written once.
fn without_the_unseen(history: &[Operation]) -> Vec<Operation> {
    let seen: HashSet<_> = history.iter().filter_map(|operation| operation.action.saw()).collect();
    let matters = |operation: &&Operation| {
        let left = operation.action.writes();
        operation.returned != NEVER || left.is_none_or(|value| seen.contains(&value))
    };
    history.iter().filter(matters).copied().collect()
}

fn bits(history: &[Operation], which: impl Fn(&Operation) -> bool) -> u128 {
    history.iter().enumerate().filter(|(_, it)| which(it)).fold(0, |set, (i, _)| set | 1 << i)
}

struct Search {
    history: Vec<Operation>,
    /// All that have returned.
    wanted: u128,
    /// What was done, and what the register was then: from there it does not go on.
    tried: HashSet<(u128, u64)>,
}

impl Search {
    /// Whether the rest can follow, once those in `done` have left the register at `value`.
    fn succeeds(&mut self, done: u128, value: u64) -> bool {
        if self.wanted & !done == 0 {
            return true;
        }
        if !self.tried.insert((done, value)) {
            return false;
        }
        let left: Vec<_> = (0..self.history.len()).filter(|i| done & (1 << i) == 0).collect();
        // What was called after one has returned cannot have come before it.
        let first = left.iter().map(|i| self.history[*i].returned).min().unwrap_or(NEVER);
        left.into_iter().any(|i| {
            let Operation { called, action, .. } = self.history[i];
            called <= first
                && action.done_to(value).is_some_and(|next| self.succeeds(done | 1 << i, next))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Action::{Read, Swap, Write};
    use super::*;

    /// Operations as (called, returned, what).
    fn holds(history: &[(u64, u64, Action)]) -> bool {
        let of = |&(called, returned, action): &_| Operation { called, returned, action };
        is_linearizable(&history.iter().map(of).collect::<Vec<_>>())
    }

    #[test]
    fn what_one_client_does_after_the_other_is_seen_in_order() {
        assert!(holds(&[(0, 1, Read(0)), (2, 3, Write(7)), (4, 5, Read(7))]));
        assert!(!holds(&[(0, 1, Write(7)), (2, 3, Read(0))]), "stale");
        assert!(!holds(&[(0, 1, Read(7)), (2, 3, Write(7))]), "from the future");
        assert!(!holds(&[(0, 1, Read(3))]), "from nowhere");
    }

    #[test]
    fn what_happens_at_once_may_have_happened_in_any_order() {
        let both = [(0, 9, Write(1)), (0, 9, Write(2))];
        for last in [1, 2] {
            assert!(holds(&[&both[..], &[(10, 11, Read(last))]].concat()));
        }
        let seen = |values: &[u64]| {
            let reads = (2..).step_by(2).zip(values).map(|(at, it)| (at, at + 1, Read(*it)));
            both.into_iter().chain(reads).collect::<Vec<_>>()
        };
        assert!(holds(&seen(&[1, 2])) && holds(&seen(&[0, 2])));
        assert!(!holds(&seen(&[1, 2, 1])), "it went back");
        assert!(!holds(&seen(&[2, 0])), "it went back to what was before both");
    }

    #[test]
    fn a_swap_is_done_only_at_what_it_expects() {
        let swap = |from, to, before| Swap { from, to, before: Some(before) };
        assert!(holds(&[(0, 1, swap(0, 5, 0)), (2, 3, swap(0, 6, 5)), (4, 5, Read(5))]));
        assert!(!holds(&[(0, 1, swap(0, 5, 0)), (2, 3, swap(0, 6, 0))]), "both took place");
        assert!(!holds(&[(0, 1, swap(0, 5, 0)), (2, 3, Read(0))]));
        assert!(!holds(&[(0, 1, Write(1)), (2, 3, swap(0, 5, 1)), (4, 5, Read(5))]));
    }

    #[test]
    fn what_nobody_answered_may_have_been_done_at_any_time_later_or_never() {
        let lost = (0, NEVER, Write(7));
        assert!(holds(&[lost, (2, 3, Read(0))]));
        assert!(holds(&[lost, (2, 3, Read(0)), (4, 5, Read(7))]));
        assert!(!holds(&[lost, (2, 3, Read(7)), (4, 5, Read(0))]), "it was undone");
        assert!(!holds(&[(2, 3, Read(7)), (4, NEVER, Write(7))]), "before it was called");
        let swap = (0, NEVER, Swap { from: 0, to: 5, before: None });
        assert!(holds(&[swap, (2, 3, Read(5))]) && holds(&[swap, (2, 3, Read(0))]));
        assert!(!holds(&[swap, (0, 1, Write(1)), (2, 3, Read(1)), (4, 5, Read(5))]));
        let after = (1, NEVER, Swap { from: 7, to: 8, before: None });
        assert!(holds(&[lost, after, (2, 3, Read(8))]), "the one was done, hence the other");
        assert!(!holds(&[after, (2, 3, Read(8))]));
    }

    /// As long as the histories of the chaos: three clients, and one of five operations without an answer.
    #[test]
    fn a_long_history_is_judged_and_one_wrong_read_in_it_is_noticed() {
        let mut history = Vec::new();
        for turn in 1..=40 {
            let at = turn * 10;
            let end = if turn % 5 == 0 { NEVER } else { at + 8 };
            history.push((at, end, Write(turn)));
            history.push((at, at + 9, Read(turn)));
            history.push((at + 1, at + 9, Swap { from: turn - 1, to: 1000, before: Some(turn) }));
        }
        assert!(holds(&history));
        for turn in 1..=40 {
            let mut wrong = history.clone();
            wrong[(turn - 1) * 3 + 1].2 = Read((turn as u64).saturating_sub(2) + 500);
            assert!(!holds(&wrong), "{turn}");
        }
        history.push((500, 501, Read(39)));
        assert!(!holds(&history), "an acknowledged write is lost");
    }
}
