//! Which keys differ between two trees.

use super::{Node, Value};

/// The keys, like `proxy.listen`, whose values differ. A list counts as one value; where things stand and
/// how they are written does not count.
pub(crate) fn keys(one: &Node, other: &Node) -> Vec<String> {
    let mut keys = Vec::new();
    compare("", one, other, &mut keys);
    keys.sort_unstable();
    keys
}

fn compare(path: &str, one: &Node, other: &Node, keys: &mut Vec<String>) {
    let (Some(one), Some(other)) = (entries(one), entries(other)) else {
        if !same(one, other) {
            keys.push(path.to_owned());
        }
        return;
    };
    let absent = Node { place: super::Place::START, value: Value::Null, plain: None };
    let only_there = other.iter().filter(|(key, _)| find(one, &key.text).is_none());
    for (key, _) in one.iter().chain(only_there) {
        let path = if path.is_empty() { key.text.clone() } else { format!("{path}.{}", key.text) };
        let of = |entries| find(entries, &key.text).unwrap_or(&absent);
        compare(&path, of(one), of(other), keys);
    }
}

type Entries = [(super::Key, Node)];

/// Nothing is as good as an empty mapping.
fn entries(node: &Node) -> Option<&Entries> {
    match &node.value {
        Value::Map(entries) => Some(entries),
        Value::Null => Some(&[]),
        _ => None,
    }
}

fn find<'a>(entries: &'a Entries, name: &str) -> Option<&'a Node> {
    entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node)
}

fn same(one: &Node, other: &Node) -> bool {
    match (&one.value, &other.value) {
        (Value::List(one), Value::List(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Map(_), Value::Map(_)) => keys(one, other).is_empty(),
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differ(one: &str, other: &str) -> Vec<String> {
        let tree = |text: &str| crate::yaml::parse("t", text.as_bytes(), &|_| None).unwrap();
        keys(&tree(one), &tree(other))
    }

    #[test]
    fn keys_are_named_by_their_paths() {
        let old = "a: 1\nb: {c: [1, {d: 2}], e: x}\n";
        assert!(differ(old, "\n\nb:\n  e: x\n  c: [1, {d: 2}]\na: 1\nf: null\n").is_empty());
        assert_eq!(differ(old, "a: 2\nb: {c: [1, {d: 3}], e: x}\n"), ["a", "b.c"]);
        assert_eq!(differ(old, "a: 1\ng: {h: 1}\n"), ["b.c", "b.e", "g.h"]);
        assert_eq!(differ("a: 1", "a: {b: 1}"), ["a"]);
    }
}
