//! The text of a `litefs.yml`.
//!
//! LiteFS expands variables in the text of the file, so no `$` may stand in it: in double quotes YAML
//! has another way to write one. serde-saphyr prefers single quotes, so this is ours.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Map, Value};

use super::variables::has_variable;

pub(super) fn text(litefs: &impl Serialize) -> String {
    // Keys are text and no value refuses to be written: this is always an object.
    match serde_json::to_value(litefs) {
        Ok(Value::Object(keys)) => block(&keys, 0),
        _ => String::new(),
    }
}

/// A line for each key. What is not given is left out, and a section in which nothing is.
fn block(keys: &Map<String, Value>, depth: usize) -> String {
    let mut out = String::new();
    let indent = "  ".repeat(depth);
    for (key, value) in keys {
        match value {
            Value::Null => {}
            Value::Array(items) if items.is_empty() => {}
            Value::Object(keys) => {
                let section = block(keys, depth + 1);
                if !section.is_empty() {
                    out += &format!("{indent}{key}:\n{section}");
                }
            }
            value => out += &format!("{indent}{key}: {}\n", flow(value)),
        }
    }
    out
}

/// A value in one line.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", "))
        }
        Value::Object(keys) => {
            let given = keys.iter().filter(|(_, value)| !value.is_null());
            let given = given.map(|(key, value)| format!("{key}: {}", flow(value)));
            format!("{{{}}}", given.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// Text in double quotes, in one line and without a `$`. The escapes are YAML's.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '$' => out.push_str("\\x24"),
            ' '..='~' => out.push(c),
            _ if c.is_alphanumeric() || has_variable(c.encode_utf8(&mut [0; 4])) => out.push(c),
            // Writing to a String does not fail.
            _ if u32::from(c) <= 0xFFFF => drop(write!(out, "\\u{:04x}", u32::from(c))),
            _ => drop(write!(out, "\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}
