//! Where rules come from: sets compiled in, and the user's files.

use std::path::Path;

use super::file::parse;
use super::{Rule, RuleSet};
use crate::yaml::{self, Place, Problem};

/// The sets compiled in: name and text. The set `default` always comes last.
pub(crate) const BUNDLED: [(&str, &str); 3] = [
    (DEFAULT, include_str!("../../proxy-rules/default.yml")),
    ("django", include_str!("../../proxy-rules/django.yml")),
    ("static", include_str!("../../proxy-rules/static.yml")),
];

const DEFAULT: &str = "default";

/// Whether a source names a bundled set or looks like a rule file; opens nothing.
pub(crate) fn check_source(source: &str) -> Result<(), String> {
    let known = BUNDLED.iter().any(|(name, _)| *name == source);
    if known || is_file(source) {
        return Ok(());
    }
    let names = BUNDLED.map(|(name, _)| name).join(", ");
    Err(format!(
        "no bundled rule set is called `{}`: there are {names}; a file's name ends in .yml or .yaml",
        yaml::shorten(source)
    ))
}

fn is_file(source: &str) -> bool {
    source.ends_with(".yml") || source.ends_with(".yaml")
}

impl RuleSet {
    /// Loads bundled sets by name and files by path, in order. The default set comes last, whether
    /// it is named or not.
    ///
    /// # Errors
    ///
    /// Every problem of every source.
    pub fn load(sources: &[String]) -> Result<Self, Vec<Problem>> {
        let named = sources.iter().map(String::as_str).filter(|source| *source != DEFAULT);
        let mut rules = Vec::new();
        let mut problems = Vec::new();
        for source in named.chain([DEFAULT]) {
            match read(source) {
                Ok(read) => rules.extend(read),
                Err(found) => problems.extend(found),
            }
        }
        if problems.is_empty() { Ok(Self::new(rules)) } else { Err(problems) }
    }
}

fn read(source: &str) -> Result<Vec<Rule>, Vec<Problem>> {
    if let Some((name, text)) = BUNDLED.iter().find(|(name, _)| *name == source) {
        let mut rules = parse(&format!("{name}.yml"), text.as_bytes())?;
        rules.iter_mut().for_each(|rule| rule.verdict.by_default = *name == DEFAULT);
        return Ok(rules);
    }
    let problem = |message| vec![Problem::new(source, Place::START, message)];
    check_source(source).map_err(problem)?;
    let text = yaml::read(Path::new(source))
        .map_err(|error| problem(format!("this rule file cannot be read: {error}")))?;
    parse(source, &text)
}
