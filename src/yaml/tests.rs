use proptest::prelude::*;

use super::*;

fn env(name: &str) -> Option<String> {
    match name {
        "N" => Some("8".to_owned()),
        "INJECT" => Some("x\nevil: true".to_owned()),
        _ => None,
    }
}

fn value(text: &str) -> Value {
    parse("f.yml", text.as_bytes(), &env).unwrap().value
}

/// The value under `key` of a mapping.
fn at(text: &str, key: &str) -> Node {
    match value(text) {
        Value::Map(entries) => entries.into_iter().find(|(k, _)| k.text == key).unwrap().1,
        other => panic!("no mapping: {other:?}"),
    }
}

fn problems(text: &[u8]) -> Vec<String> {
    parse("f.yml", text, &env).unwrap_err().iter().map(ToString::to_string).collect()
}

/// Asserts the only problem's place and a piece of its message.
#[track_caller]
fn refused(text: impl AsRef<[u8]>, place: &str, message: &str) {
    let problems = problems(text.as_ref());
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(problems[0].starts_with(&format!("f.yml:{place}: ")), "{problems:?}");
    assert!(problems[0].contains(message), "{problems:?}");
}

#[test]
fn places_are_lines_and_columns_in_characters() {
    let Value::Map(entries) = value("# é\nä: 1\nö: {ü: [x, \"y\"]}\n") else { panic!() };
    assert_eq!(entries[0].1.place, Place { line: 2, column: 4 });
    assert_eq!(entries[1].0.place, Place { line: 3, column: 1 });
    let Value::Map(inner) = &entries[1].1.value else { panic!() };
    assert_eq!(inner[0].1.place, Place { line: 3, column: 8 });
    let Value::List(items) = &inner[0].1.value else { panic!() };
    assert_eq!(items[1].place, Place { line: 3, column: 12 });
}

#[test]
fn a_byte_order_mark_and_carriage_returns_are_fine() {
    assert_eq!(at("\u{feff}a: 1\r\nb: 2\r\n", "b").value, Value::Int(2));
    assert_eq!(at("\u{feff}a: 1\r\n", "a").place, Place { line: 1, column: 4 });
}

#[test]
fn a_variable_counts_as_if_written_there() {
    assert_eq!(at("a: ${N}", "a").value, Value::Int(8));
    assert_eq!(at("a: ${N}s", "a").value, Value::Text("8s".to_owned()));
    assert_eq!(at("a: \"${N}\"", "a").value, Value::Text("8".to_owned()));
    assert_eq!(at("a: ${UNSET:-true}", "a").value, Value::Bool(true));
    assert_eq!(at("a: ${UNSET:-}", "a").value, Value::Null);
    assert_eq!(at("a: $${N}", "a").value, Value::Text("${N}".to_owned()));
    assert_eq!(at("a: |\n  x ${N}\n", "a").value, Value::Text("x 8\n".to_owned()));
}

#[test]
fn a_variable_cannot_add_structure() {
    let Value::Map(entries) = value("a: ${INJECT}\nb: 1") else { panic!() };
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0].1.value, Value::Text("x\nevil: true".to_owned()));
}

#[test]
fn a_variable_that_is_not_set_is_reported_where_it_stands() {
    refused("a: 1\nb: x-${NOPE}", "2:6", "the variable NOPE is not set");
    refused("b: |\n  x\n  y ${NOPE}", "3:5", "NOPE");
    refused("b: \"é ${N} ${NOPE}\"", "1:12", "${NOPE:-default}");
}

#[test]
fn aliases_repeat_a_value() {
    let text = "a: &x [1, 2]\nb: *x";
    assert_eq!(at(text, "b").value, at(text, "a").value);
    assert_eq!(at(text, "b").place, Place { line: 2, column: 4 });
}

#[test]
fn every_duplicate_key_is_reported_with_the_first() {
    let problems = problems(b"a: 1\nb: {c: 1, c: 2}\na: 2\na: 3\n");
    assert_eq!(
        problems,
        [
            "f.yml:2:11: the key \"c\" was already given at 2:5: keep one of them",
            "f.yml:3:1: the key \"a\" was already given at 1:1: keep one of them",
            "f.yml:4:1: the key \"a\" was already given at 1:1: keep one of them",
        ]
    );
}

#[test]
fn empty_files_are_refused() {
    for text in ["", "\n\n", "# only a comment\n", "---\n", "null", "---\n...\n"] {
        refused(text, "1:1", "the file is empty");
    }
}

#[test]
fn bytes_that_are_not_text_are_refused_where_they_stand() {
    refused(b"a: 1\nb: \xc3\xa9\xff", "2:5", "byte 0xff is not UTF-8");
    refused(b"\xff\xfea\0", "1:1", "save the file as UTF-8");
}

#[test]
fn tabs_are_named() {
    refused("a:\n\tb: 1\n", "2:1", "a tab in the indentation");
    refused("a:\n  b: 1\n \tc: 1\n", "3:2", "only spaces");
}

#[test]
fn big_deep_and_many_are_refused() {
    refused(vec![b'a'; 10 << 20], "1:1", "larger than 1 MiB");
    refused("[".repeat(100_000), "1:33", "nested deeper than 32 levels");
    refused("{a: ".repeat(100_000), "1:129", "nested deeper than 32 levels");
    refused("- ".repeat(100_000), "1:65", "nested deeper than 32 levels");
    refused(format!("a: [{}]", "1,".repeat(30_000)), "1:39999", "more than 20000 values");
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let before = format!("*a{}, ", level - 1).repeat(9);
        bomb.push_str(&format!("a{level}: &a{level} [{before}]\n"));
    }
    let problems = problems(bomb.as_bytes());
    assert_eq!(problems.len(), 1);
    assert!(problems[0].contains("more than 20000 values"), "{problems:?}");
}

#[test]
fn what_is_not_yaml_is_explained() {
    refused("a: b: c\n", "1:5", "in quotes");
    refused("a: \"x\nb: 1\n", "2:1", "close the quote");
    refused("a: [1, 2\nb: 1\n", "2:2", "close the bracket");
    refused("a: *.example.com\n", "1:4", "must be in quotes");
    refused("a: @x\n", "1:4", "must be in quotes");
    refused("a: {b: ${N}}\n", "1:9", "a ${VARIABLE} must be in quotes");
    refused("a: 1\n b: 2\n", "2:3", "indent the keys");
    refused("a: 1\n---\nb: 2\n", "2:1", "a second document");
    refused("a: !!str 1\n", "1:10", "tags");
    refused("[a]: 1\n", "1:1", "a key must be text");
    refused(": 1\n", "1:1", "a key must be text");
    refused("a: &x [*x]\n", "1:8", "alias");
}

proptest! {
    #[test]
    fn no_byte_soup_panics(soup in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse("f.yml", &soup, &env);
    }

    #[test]
    fn no_yaml_soup_panics(soup in "[-a:{}\\[\\],&*!|>'\"#%@`$\\t\\n é~?0]{0,200}") {
        if let Err(problems) = parse("f.yml", soup.as_bytes(), &env) {
            for problem in problems {
                prop_assert!(problem.place.line >= 1 && problem.place.column >= 1);
                prop_assert!(problem.place.line <= soup.split('\n').count() + 1, "{problem}");
            }
        }
    }
}
