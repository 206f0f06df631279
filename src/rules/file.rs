//! A rule file, checked: every problem of it at once, each with its place and its remedy.
//!
//! | key of `match` | holds if |
//! | --- | --- |
//! | `method` | it is the request's, or in the list; capitals count; `GET` also means `HEAD` |
//! | `path` | the glob fits the whole path, written decoded: `*` and `?` within a segment, `**` as a segment for any number of them, `{a,b}`, `[a-z]`, `\` before one of these for itself |
//! | `path_regex` | the expression is found somewhere in the path; `^` and `$` anchor it. It works on bytes: `.` is any of them, `\w` is ASCII |
//! | `host` | the glob fits the host without its port; capitals do not count |
//! | `query` | every parameter named is as said: `present`, `absent`, or a glob for one of its values, decoded |
//! | `header` | every field named is as said: `present`, `absent`, or a glob for one of its lines |
//! | `content_type` | the glob fits the media type without its parameters |
//! | `upgrade` | the glob fits one of the protocols that `Upgrade` names |

use std::str::FromStr;

use http::{HeaderName, Method};

use super::glob::{self, Glob};
use super::matching::{Condition, Match};
use super::{Class, Rule, Verdict};
use crate::guarantee;
use crate::yaml::value::ValueError;
use crate::yaml::{self, Node, Place, Problem, Value, suggest, value};

const FILE_KEYS: [&str; 1] = ["rules"];
const RULE_KEYS: [&str; 9] = [
    "match",
    "as",
    "consistency",
    "read_wait",
    "write_hold",
    "ack",
    "response_timeout",
    "body_timeout",
    "replay",
];
/// What does nothing where a request passes through.
const SETTINGS: [&str; 5] = ["consistency", "read_wait", "write_hold", "ack", "replay"];
const MATCH_KEYS: [&str; 8] =
    ["method", "path", "path_regex", "host", "query", "header", "content_type", "upgrade"];

/// Checks a rule file.
pub(super) fn parse(file: &str, text: &[u8]) -> Result<Vec<Rule>, Vec<Problem>> {
    let root = yaml::parse(file, text, &|name| std::env::var(name).ok())?;
    let mut reader = Reader { file, problems: Vec::new() };
    let rules = reader.file(&root);
    if reader.problems.is_empty() { Ok(rules) } else { Err(reader.problems) }
}

/// Reads a file's tree and gathers what is wrong with it. What cannot be read is reported and left
/// out, so that the rest is checked too.
///
/// Not the configuration's reader: there nothing behind a key means its default, but a condition
/// without a value must never become a rule for every request.
struct Reader<'a> {
    file: &'a str,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn file(&mut self, root: &Node) -> Vec<Rule> {
        let mut rules: &[Node] = &[];
        for (key, node) in self.map(root, "a rule file is `rules:` and a list below it") {
            match (key.text.as_str(), &node.value) {
                ("rules", Value::List(items)) => rules = items,
                ("rules", _) => self.wrong(node, "a list of rules"),
                _ => self.unknown(key, &FILE_KEYS),
            }
        }
        self.require(root, "rules", "a list of rules stands below it");
        rules.iter().map(|item| self.rule(item)).collect()
    }

    fn rule(&mut self, node: &Node) -> Rule {
        let mut matching = None;
        let mut class = None;
        let mut verdict = Verdict::of(Class::Write);
        let entries = self.map(node, "a rule has the keys `match` and `as`");
        for (key, value) in entries {
            match key.text.as_str() {
                "match" => matching = Some(self.conditions(value)),
                "as" => class = self.read(value, class_from),
                "consistency" => verdict.consistency = self.read(value, guarantee::consistency),
                "read_wait" => verdict.read_wait = self.read(value, value::duration_or_zero),
                "write_hold" => verdict.write_hold = self.read(value, value::duration_or_zero),
                "ack" => verdict.ack = self.read(value, guarantee::ack),
                "response_timeout" => verdict.response_timeout = self.read(value, value::duration),
                "body_timeout" => verdict.body_timeout = self.read(value, value::duration),
                "replay" => verdict.replay = self.read(value, guarantee::replay),
                _ => self.unknown(key, &RULE_KEYS),
            }
        }
        self.require(node, "match", "for every request: `match: {}`");
        self.require(node, "as", "one of read, write, passthrough");
        if class == Some(Class::Passthrough) {
            self.refuse_settings(entries);
        }
        verdict.class = class.unwrap_or(verdict.class);
        let place = format!("{}:{}", self.file, node.place.line);
        let (methods, conditions) = matching.unwrap_or_default();
        Rule { methods, conditions, verdict, place }
    }

    /// Reports that a mapping lacks a key.
    fn require(&mut self, node: &Node, required: &str, remedy: &str) {
        let Value::Map(entries) = &node.value else { return };
        if entries.iter().all(|(key, _)| key.text != required) {
            self.report(node.place, format!("`{required}` is missing: {remedy}"));
        }
    }

    /// What passes through neither waits nor is held nor acknowledged.
    fn refuse_settings(&mut self, entries: &[(yaml::Key, Node)]) {
        for (key, _) in entries {
            if SETTINGS.contains(&key.text.as_str()) {
                let message = "does nothing where `as` is passthrough: remove it, or use read";
                self.report(key.place, format!("`{}` {message}", key.text));
            }
        }
    }

    /// A rule's `match`: its methods and the rest.
    fn conditions(&mut self, node: &Node) -> (Option<Vec<Method>>, Match) {
        let mut methods = None;
        let mut conditions = Match::default();
        for (key, value) in self.map(node, "a mapping of conditions; for every request `{}`") {
            match key.text.as_str() {
                "method" => methods = Some(self.methods(value)),
                "path" => conditions.path = self.parsed(value, Glob::path),
                "path_regex" => conditions.path_regex = self.parsed(value, glob::regex),
                "host" => conditions.host = self.parsed(value, host_from),
                "query" => conditions.query = self.named(value, |name| Ok(name.to_owned())),
                "header" => conditions.header = self.named(value, header_from),
                "content_type" => conditions.content_type = self.parsed(value, media_type_from),
                "upgrade" => conditions.upgrade = self.parsed(value, Glob::any_case),
                _ => self.unknown(key, &MATCH_KEYS),
            }
        }
        (methods, conditions)
    }

    /// One method or a list; GET brings HEAD along.
    fn methods(&mut self, node: &Node) -> Vec<Method> {
        let items = match &node.value {
            Value::List(items) if items.is_empty() => {
                self.report(node.place, "no method would match; without `method` every one does");
                return Vec::new();
            }
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut methods: Vec<Method> =
            items.iter().filter_map(|item| self.parsed(item, method_from)).collect();
        if methods.contains(&Method::GET) {
            methods.push(Method::HEAD);
        }
        methods
    }

    /// A mapping of names to what their values must be.
    fn named<T>(
        &mut self,
        node: &Node,
        name_from: impl Fn(&str) -> Result<T, ValueError>,
    ) -> Vec<(T, Condition)> {
        let mut conditions = Vec::new();
        for (key, value) in
            self.map(node, "a mapping of names to values, as in `{X-Fresh: present}`")
        {
            let condition = self.parsed(value, condition_from);
            match name_from(&key.text) {
                Ok(name) => conditions.extend(condition.map(|condition| (name, condition))),
                Err(why) => self.report(key.place, why.to_string()),
            }
        }
        conditions
    }

    /// The entries of a mapping; none if it is something else, which is reported.
    fn map<'n>(&mut self, node: &'n Node, expected: &str) -> &'n [(yaml::Key, Node)] {
        match &node.value {
            Value::Map(entries) => entries,
            _ => {
                self.wrong(node, expected);
                &[]
            }
        }
    }

    /// A value, if it can be read; otherwise a problem.
    fn read<T>(&mut self, node: &Node, read: impl Fn(&Node) -> Result<T, ValueError>) -> Option<T> {
        read(node).map_err(|why| self.report(node.place, why.to_string())).ok()
    }

    /// The same for what is read from a text.
    fn parsed<T>(
        &mut self,
        node: &Node,
        from: impl Fn(&str) -> Result<T, ValueError>,
    ) -> Option<T> {
        self.read(node, |node| from(&value::word(node)?))
    }

    fn wrong(&mut self, node: &Node, expected: &str) {
        self.report(node.place, format!("this is {}, expected: {expected}", node.describe()));
    }

    fn unknown(&mut self, key: &yaml::Key, known: &[&str]) {
        let remedy = suggest::among(&key.text, known);
        let name = yaml::shorten(&key.text);
        self.report(key.place, format!("unknown key `{name}`: {remedy}"));
    }

    fn report(&mut self, place: Place, message: impl Into<String>) {
        self.problems.push(Problem::new(self.file, place, message));
    }
}

fn class_from(node: &Node) -> Result<Class, ValueError> {
    let classes = [Class::Read, Class::Write, Class::Passthrough];
    value::one_of(&classes.map(|class| (class.as_str(), class)))(node)
}

/// Methods are case-sensitive: a rule for `get` would never match.
fn method_from(text: &str) -> Result<Method, ValueError> {
    let upper = text.to_ascii_uppercase();
    if upper != text {
        return Err(format!("methods are written in capitals: `{}`", yaml::shorten(&upper)).into());
    }
    Method::from_str(text).map_err(|_| format!("`{}` is no method", yaml::shorten(text)).into())
}

fn header_from(name: &str) -> Result<HeaderName, ValueError> {
    HeaderName::from_str(name)
        .map_err(|_| format!("`{}` is no header's name", yaml::shorten(name)).into())
}

/// Hosts are compared without their port.
fn host_from(text: &str) -> Result<Glob, ValueError> {
    if text.starts_with('[') && text.ends_with(']') {
        return Ok(Glob::ExactAnyCase(text.into()));
    }
    if text.contains([':', '/']) {
        return Err(
            "a host stands here without scheme, port or path, an IPv6 address in brackets".into()
        );
    }
    Glob::any_case(text)
}

/// Media types are compared without their parameters.
fn media_type_from(text: &str) -> Result<Glob, ValueError> {
    if text.contains(';') || !text.contains('/') {
        return Err("a media type has a `/` and no parameters here, as in `multipart/*`".into());
    }
    Glob::any_case(text)
}

fn condition_from(text: &str) -> Result<Condition, ValueError> {
    Ok(match text {
        "present" => Condition::Present,
        "absent" => Condition::Absent,
        _ => Condition::Like(Glob::value(text)?),
    })
}
