//! YAML as a tree that knows where everything stood, within bounds.
//!
//! [`parse`] reads from the events of the parser beneath serde-saphyr rather than through serde: only
//! they tell quoted from unquoted, show every duplicate key with both places, and stay cheap to bound.
//!
//! # Variables
//!
//! `${VAR}` and `${VAR:-default}` are expanded inside scalar values, after the structure is known, so
//! that no variable can add a key. The result counts as if it had been written there: without quotes
//! `${N}` may be a number, `true` or nothing at all; in quotes it is text. Keys are never expanded.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

pub(crate) mod de;
pub(crate) mod diff;
mod scalar;
pub(crate) mod suggest;
mod syntax;
mod tree;
pub(crate) mod value;
mod variables;

/// The largest file that is read, in bytes. Real ones have a few KiB.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// How deep lists and mappings may nest. Our files need five levels.
const MAX_DEPTH: usize = 32;
/// How many values and keys a file may hold, those repeated by aliases included.
const MAX_NODES: usize = 20_000;

/// A value and the place where it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Line and column, both from 1.
    pub(crate) place: Place,
    pub(crate) value: Value,
    /// The text of a scalar without quotes, as written but for variables: where a name is wanted,
    /// `007` is no number.
    pub(crate) plain: Option<String>,
}

/// A place in a file, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub(crate) column: usize,
}

/// The kinds of value that our files use.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`, and only these.
    Bool(bool),
    Int(i128),
    /// A number with a fraction.
    Float(f64),
    /// Text, `${VAR}` already expanded.
    Text(String),
    List(Vec<Node>),
    /// A mapping, in the order of the file. Duplicate keys are already reported.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping, with its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Key {
    pub(crate) place: Place,
    pub(crate) text: String,
}

/// One thing wrong with a file: what it is, where it stands, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file as the user named it.
    pub(crate) file: String,
    /// Where.
    pub place: Place,
    /// What is wrong, and what would be right.
    pub(crate) message: String,
}

/// Reads a file whole, but never more than one byte beyond [`MAX_BYTES`]: enough for [`parse`] to
/// refuse it.
///
/// # Errors
///
/// When it cannot be opened or read.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// Parses one document. `file` is only used to name it; `env` gives the value of a variable.
///
/// # Errors
///
/// Every problem that could be found, in the order of the file. After a syntax error nothing more
/// can be found.
pub(crate) fn parse(
    file: &str,
    text: &[u8],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Node, Vec<Problem>> {
    tree::build(file, decoded(file, text)?, Some(env))
}

/// As [`parse`], for a file in which `${VAR}` has no meaning of ours.
pub(crate) fn parse_literally(file: &str, text: &[u8]) -> Result<Node, Vec<Problem>> {
    tree::build(file, decoded(file, text)?, None)
}

fn decoded<'a>(file: &str, text: &'a [u8]) -> Result<&'a str, Vec<Problem>> {
    decode(text).map_err(|(place, message)| vec![Problem::new(file, place, message)])
}

/// The text, if it is short enough and UTF-8. A byte order mark is no part of it.
fn decode(text: &[u8]) -> Result<&str, (Place, String)> {
    if text.len() > MAX_BYTES {
        let message = format!(
            "the file is larger than {} MiB, the most that is read: is it the right file?",
            MAX_BYTES >> 20
        );
        return Err((Place::START, message));
    }
    let decoded = std::str::from_utf8(text).map_err(|error| {
        let (good, bad) = text.split_at(error.valid_up_to());
        let good = str::from_utf8(good).unwrap_or_default();
        let byte = bad.first().copied().unwrap_or_default();
        (
            Place::START.after(good),
            format!("byte 0x{byte:02x} is not UTF-8: save the file as UTF-8"),
        )
    })?;
    Ok(decoded.strip_prefix('\u{feff}').unwrap_or(decoded))
}

impl Node {
    /// What stands here, for a message: `the number 5`, `a list`. Long text is cut.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => format!("the boolean {value}"),
            Value::Int(_) | Value::Float(_) => {
                format!("the number {}", shorten(self.plain.as_deref().unwrap_or_default()))
            }
            Value::Text(text) => format!("the text {:?}", shorten(text)),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }

    /// The text of a scalar whatever its type: `8` and `true` are good arguments of a program and
    /// good names. `None` for nothing, lists and mappings.
    pub(crate) fn word(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => self.plain.as_deref(),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }
}

/// At most 60 characters of a text, for a message.
pub(crate) fn shorten(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl Place {
    pub(crate) const START: Self = Self { line: 1, column: 1 };

    /// The place behind `text` that begins here.
    fn after(self, text: &str) -> Self {
        match text.rfind('\n') {
            None => Self { line: self.line, column: self.column + text.chars().count() },
            Some(last) => Self {
                line: self.line + text.matches('\n').count(),
                column: 1 + text[last + 1..].chars().count(),
            },
        }
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::START
    }
}

impl Problem {
    /// A problem with what is written at a place.
    pub(crate) fn new(file: &str, place: Place, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), place, message: message.into() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.place, self.message)
    }
}

#[cfg(test)]
mod tests;
