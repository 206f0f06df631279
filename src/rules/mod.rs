//! A request's class: read, write or passthrough. Pure: no I/O (but for loading), no clock.
//!
//! | file | subject |
//! | --- | --- |
//! | [`path`] | how a path may read to an application |
//! | [`glob`] | compiled patterns |
//! | [`matching`] | what a rule asks of a request |
//! | [`load`] | where rules come from: sets compiled in, and the user's files |
//! | [`mod@file`] | a rule file, checked |
//! | [`write_route`] | requests that were found to write, and the rule that says so |

use std::cmp::Reverse;
use std::time::Duration;

use http::{HeaderMap, Method, Uri};

use crate::guarantee::{Ack, Consistency, ReplayPolicy};

mod file;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod glob;
mod load;
mod matching;
pub(crate) mod path;
pub(crate) mod target;
#[cfg(test)]
mod tests;
mod write_route;

pub use write_route::WriteRoute;

pub(crate) use load::{BUNDLED, check_source};
pub(crate) use path::BadPath;

use matching::{Match, Request};

/// What a request does to the database, ordered by strictness.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Nothing: to the local app without waiting, holding, cookie or replay.
    Passthrough,
    Read,
    Write,
}

impl Class {
    /// The name used in rules, in metrics and by `litepilot classify`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passthrough => "passthrough",
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// What the rules say of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The class.
    pub class: Class,
    /// The rule's own level, if it sets one.
    pub consistency: Option<Consistency>,
    /// The rule's own `read_wait`, if it sets one.
    pub(crate) read_wait: Option<Duration>,
    /// The rule's own `write_hold`, if it sets one.
    pub(crate) write_hold: Option<Duration>,
    /// The rule's own `ack`, if it sets one.
    pub(crate) ack: Option<Ack>,
    /// The rule's own `response_timeout`, if it sets one.
    pub(crate) response_timeout: Option<Duration>,
    /// The rule's own `body_timeout`, if it sets one.
    pub(crate) body_timeout: Option<Duration>,
    /// The rule's own `replay`, if it sets one.
    pub(crate) replay: Option<ReplayPolicy>,
    /// No rule but those of the default set had anything to say.
    pub(crate) by_default: bool,
    /// The index of the rule that decided, for [`RuleSet::place`].
    pub(crate) rule: usize,
}

impl Verdict {
    /// A verdict that sets nothing but the class.
    pub(crate) fn of(class: Class) -> Self {
        Self {
            class,
            consistency: None,
            read_wait: None,
            write_hold: None,
            ack: None,
            response_timeout: None,
            body_timeout: None,
            replay: None,
            by_default: false,
            rule: 0,
        }
    }
}

/// Rules in order; the first that matches decides.
#[derive(Debug)]
pub struct RuleSet {
    rules: Vec<Rule>,
    /// The rules that may match requests of a method that some rule names.
    by_method: Vec<(Method, Candidates)>,
    /// The rules that may match requests of any other method.
    any_method: Candidates,
}

/// Indexes of rules by the byte behind the path's first slash: most rules have a fixed one, so
/// that a request meets few of them.
type Candidates = Box<[Vec<usize>; 256]>;

#[derive(Debug)]
struct Rule {
    /// `None`: any.
    methods: Option<Vec<Method>>,
    conditions: Match,
    verdict: Verdict,
    /// `file:line`
    place: String,
}

impl Rule {
    fn takes(&self, method: &Method) -> bool {
        self.methods.as_ref().is_none_or(|methods| methods.contains(method))
    }

    /// Whether a path with this byte behind its first slash may match.
    fn may_begin(&self, byte: usize) -> bool {
        let fixed = self.conditions.path.as_ref().and_then(|glob| glob.prefix().get(1));
        fixed.is_none_or(|fixed| usize::from(*fixed) == byte)
    }
}

impl RuleSet {
    /// Numbers the rules and sorts them by method and first byte.
    fn new(mut rules: Vec<Rule>) -> Self {
        for (index, rule) in rules.iter_mut().enumerate() {
            rule.verdict.rule = index;
        }
        let candidates = |takes: &dyn Fn(&Rule) -> bool| -> Candidates {
            Box::new(std::array::from_fn(|byte| {
                let may = |index: &usize| takes(&rules[*index]) && rules[*index].may_begin(byte);
                (0..rules.len()).filter(may).collect()
            }))
        };
        let mut by_method: Vec<(Method, Candidates)> = Vec::new();
        for method in rules.iter().filter_map(|rule| rule.methods.as_ref()).flatten() {
            if by_method.iter().all(|(known, _)| known != method) {
                by_method.push((method.clone(), candidates(&|rule| rule.takes(method))));
            }
        }
        let any_method = candidates(&|rule| rule.methods.is_none());
        Self { rules, by_method, any_method }
    }

    /// What a request is taken for. Where its path can be read in several ways, the strictest
    /// class wins, and of rules that say the same class the first.
    ///
    /// Does not allocate if the path has one reading only.
    ///
    /// # Errors
    ///
    /// If the path holds a NUL.
    pub fn classify(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Verdict, BadPath> {
        let request = Request { uri, headers };
        let as_it_came = &*target::bytes(uri.path());
        let candidates = self.candidates(method);
        let verdict = self.first(candidates, request, as_it_came);
        if path::is_plain(as_it_came) {
            return Ok(verdict);
        }
        let readings = path::readings(as_it_came)?;
        let others = readings.iter().map(|reading| self.first(candidates, request, reading));
        Ok(others.fold(verdict, |one, other| {
            std::cmp::max_by_key(one, other, |verdict| (verdict.class, Reverse(verdict.rule)))
        }))
    }

    /// Whether a rule asks for this to hold a write before its client is answered.
    pub(crate) fn asks_for(&self, ack: Ack) -> bool {
        self.rules.iter().any(|rule| rule.verdict.ack == Some(ack))
    }

    /// Where a rule stands, as `file:line`; of [`Verdict::rule`].
    pub(crate) fn place(&self, rule: usize) -> &str {
        self.rules.get(rule).map_or("", |rule| &rule.place)
    }

    fn candidates(&self, method: &Method) -> &Candidates {
        let known = self.by_method.iter().find(|(known, _)| known == method);
        known.map_or(&self.any_method, |(_, candidates)| candidates)
    }

    fn first(&self, candidates: &Candidates, request: Request<'_>, path: &[u8]) -> Verdict {
        // No rule with more than the slash matches a path without: any byte will do for it.
        let byte = path.get(1).copied().unwrap_or_default();
        let mut rules = candidates[usize::from(byte)].iter().map(|index| &self.rules[*index]);
        let rule = rules.find(|rule| rule.conditions.matches(request, path));
        rule.map_or(self.otherwise(), |rule| rule.verdict)
    }

    /// The default set ends with a rule for everything; should that be lost, all are writes.
    fn otherwise(&self) -> Verdict {
        Verdict { rule: self.rules.len().saturating_sub(1), ..Verdict::of(Class::Write) }
    }
}
