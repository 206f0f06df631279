//! What holds for every path, however it is written.

use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// A byte as itself or as an escape.
fn escaped(byte: u8) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just(char::from(byte).to_string()),
        1 => Just(format!("%{byte:02X}")),
        1 => Just(format!("%{byte:02x}")),
    ]
}

/// Text, each byte as itself or as an escape.
fn written(text: &str) -> impl Strategy<Value = String> + use<> {
    text.bytes().map(escaped).collect::<Vec<_>>().prop_map(|bytes| bytes.concat())
}

/// What reads as one slash to some application.
fn slash() -> impl Strategy<Value = String> {
    const SLASHES: &[&str] =
        &["/", "/", "/", "//", "/./", "\\", "/x/../", "/;v=1/", "/.;/", "/x/..;v=1/"];
    select(SLASHES).prop_flat_map(written)
}

/// A path in its simplest form, and an odd way to write it.
fn path_and_disguise() -> impl Strategy<Value = (String, String)> {
    let parameters = select(["", "", ";", ";v=1"].as_slice());
    let segment = ("[a-z0-9._~-]{0,3}[a-z0-9]", parameters)
        .prop_flat_map(|(name, cut)| (slash(), written(&name), written(cut), Just(name)));
    proptest::collection::vec(segment, 1..5).prop_map(|segments| {
        let simple = segments.iter().map(|(_, _, _, name)| format!("/{name}")).collect();
        let mut odd: String = segments
            .iter()
            .map(|(slash, name, parameters, _)| [slash.as_str(), name, parameters].concat())
            .collect();
        // A request's target begins with a slash that nobody can write otherwise.
        if !odd.starts_with('/') {
            odd.insert(0, '/');
        }
        (simple, odd)
    })
}

/// Any path that a request's target may hold.
fn any_path() -> impl Strategy<Value = String> {
    prop_oneof![
        "/[!-\"$->@-~\u{a0}-\u{ffff}]{0,40}",
        proptest::collection::vec(
            select(
                ["/", ".", "..", "%2e", "%2F", "%", "%0", ";", "\\", "a", "static", "%ff"]
                    .as_slice()
            ),
            0..12
        )
        .prop_map(|parts| format!("/{}", parts.concat())),
    ]
}

fn uri(path: &str) -> Option<Uri> {
    Uri::try_from(path).ok()
}

fn class_of(rules: &RuleSet, path: &str) -> Result<Class, BadPath> {
    let uri: Uri = path.parse().unwrap();
    rules.classify(&Method::GET, &uri, &HeaderMap::new()).map(|verdict| verdict.class)
}

/// Some way to name a path in a rule.
fn conditions(path: &str) -> impl Strategy<Value = String> + use<> {
    let last = path.rsplit_once('/').map_or("", |(_, last)| last);
    select(vec![
        format!("path: '{path}'"),
        format!("path: '/**/{last}'"),
        format!("path: '{}*'", &path[..path.len() - 1]),
        format!("path_regex: '^{path}$'"),
    ])
}

/// The sets that most tests use, loaded once.
static BOTH: LazyLock<RuleSet> = LazyLock::new(|| bundled(&["django", "static"]));

proptest! {
    #[test]
    fn no_disguise_takes_a_path_past_its_rule(
        ((path, odd), conditions) in path_and_disguise()
            .prop_flat_map(|(path, odd)| (Just((path.clone(), odd)), conditions(&path))),
        (class, other) in
            select(&[("write", "passthrough"), ("write", "read"), ("read", "passthrough")][..]),
    ) {
        let rules = rules(&format!(
            "rules: [{{match: {{{conditions}}}, as: {class}}}, {{match: {{}}, as: {other}}}]"
        ));
        prop_assert_eq!(class_of(&rules, &path).unwrap().as_str(), class, "{}", conditions);
        let found = class_of(&rules, &odd).unwrap();
        prop_assert_eq!(found.as_str(), class, "{} as {}", conditions, odd);
    }

    #[test]
    fn every_path_gets_the_same_answer_twice_and_never_a_panic(path in any_path()) {
        let rules = &*BOTH;
        if let Some(uri) = uri(&path) {
            let classify = || rules.classify(&Method::GET, &uri, &HeaderMap::new());
            let verdict = classify();
            prop_assert_eq!(verdict, classify());
            if let Ok(verdict) = verdict {
                prop_assert!(!rules.place(verdict.rule).is_empty());
            }
        }
    }

    #[test]
    fn a_path_is_at_least_as_strict_as_each_of_its_readings(path in any_path()) {
        let rules = &*BOTH;
        if let (Some(_), Ok(readings)) = (uri(&path), path::readings(path.as_bytes())) {
            let class = class_of(rules, &path).unwrap();
            for reading in readings {
                // Only readings with nothing left to decode are paths by themselves.
                let text = String::from_utf8_lossy(&reading);
                if path::is_plain(&reading) && uri(&text).is_some() {
                    prop_assert!(class >= class_of(rules, &text).unwrap(), "{} {}", path, text);
                }
            }
        }
    }

    #[test]
    fn plain_paths_read_as_they_came(path in any_path()) {
        if path::is_plain(path.as_bytes()) {
            prop_assert_eq!(path::readings(path.as_bytes()), Ok(Vec::new()));
        }
    }
}
