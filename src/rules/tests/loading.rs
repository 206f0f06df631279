//! What a user is told about a rule file.

use super::*;

/// The problems of a file, each as the user sees it.
fn problems(text: &str) -> Vec<String> {
    let problems = file::parse("t.yml", text.as_bytes()).unwrap_err();
    problems.iter().map(ToString::to_string).collect()
}

/// That a file has one problem, there, whose message says this.
#[track_caller]
fn refused(text: &str, place: &str, says: &str) {
    let problems = problems(text);
    let [problem] = problems.as_slice() else { panic!("{text}: {problems:#?}") };
    assert!(problem.starts_with(&format!("t.yml:{place}: ")), "{text}: {problem}");
    assert!(problem.contains(says), "{text}: {problem}");
}

#[test]
fn each_bundled_set_loads_by_its_name() {
    for (name, _) in BUNDLED {
        let rules = bundled(&[name]);
        assert_eq!(rules.class("POST /"), Class::Write, "{name}");
        assert_eq!(rules.class("GET /"), Class::Read, "{name}");
    }
}

#[test]
fn each_bundled_rule_says_why() {
    for (name, text) in BUNDLED {
        let mut before = "";
        for line in text.lines() {
            let commented = before.trim_start().starts_with('#');
            assert!(!line.trim_start().starts_with("- match") || commented, "{name}: {line}");
            before = line;
        }
    }
}

#[test]
fn the_default_set_comes_last_wherever_it_is_named() {
    let rules = bundled(&["default", "static"]);
    assert_eq!(rules.class("GET /static/x"), Class::Passthrough);
}

#[test]
fn sets_and_files_are_taken_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mine.yaml");
    std::fs::write(&path, "rules:\n- match: {path: /static/x}\n  as: write\n").unwrap();
    let mine = path.to_str().unwrap().to_owned();
    let first = RuleSet::load(&[mine.clone(), "static".into()]).unwrap();
    let verdict = first.verdict("GET /static/x", &[]);
    assert_eq!(verdict.class, Class::Write);
    assert_eq!(first.place(verdict.rule), format!("{mine}:2"));
    let last = RuleSet::load(&["static".into(), mine]).unwrap();
    assert_eq!(last.class("GET /static/x"), Class::Passthrough);
}

#[test]
fn all_problems_of_all_sources_are_reported_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bad.yml");
    std::fs::write(&path, "rules:\n- {match: {pth: /a}, as: read}\n- {as: writes}\n").unwrap();
    let missing = directory.path().join("missing.yml");
    let sources = ["djagno", path.to_str().unwrap(), missing.to_str().unwrap()];
    let found = RuleSet::load(&sources.map(str::to_owned)).unwrap_err();
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 5, "{found:#?}");
    assert!(found[0].contains("`djagno`: there are default, django, static"), "{}", found[0]);
    assert!(
        found[1].contains("bad.yml:2:12: unknown key `pth`: did you mean path?"),
        "{}",
        found[1]
    );
    assert!(found[2].contains("bad.yml:3:8: the text \"writes\" is not one of read, write, passthrough: did you mean write?"), "{}", found[2]);
    assert!(found[3].contains("bad.yml:3:3: `match` is missing"), "{}", found[3]);
    assert!(found[4].contains("missing.yml:1:1: this rule file cannot be read"), "{}", found[4]);
}

#[test]
fn files_of_another_shape_are_refused() {
    refused("", "1:1", "the file is empty");
    refused("[]", "1:1", "a rule file is `rules:`");
    refused("{}", "1:1", "`rules` is missing");
    refused("rules:\n", "1:6", "a list of rules");
    refused("rules: []\nrule: []", "2:1", "unknown key `rule`: did you mean rules?");
    refused("rules: [a]", "1:9", "a rule has the keys");
    refused("rules: [\n", "1:8", "unclosed bracket");
}

#[test]
fn an_empty_list_of_rules_is_fine() {
    assert_eq!(rules("rules: []").class("GET /"), Class::Read);
}

#[test]
fn each_mistake_in_a_rule_has_its_place_and_its_remedy() {
    for (rule, place, says) in [
        ("{match: {}}", "1:9", "`as` is missing: one of read, write, passthrough"),
        ("{as: read}", "1:9", "for every request: `match: {}`"),
        ("{match: [], as: read}", "1:17", "for every request `{}`"),
        ("{match: , as: read}", "1:15", "for every request `{}`"),
        ("{match: {}, as: [read]}", "1:25", "a list is not one of"),
        ("{match: {}, as: READ}", "1:25", "read, write, passthrough"),
        ("{match: {}, as: read, acks: one}", "1:31", "did you mean ack?"),
        ("{match: {}, as: write, ack: all}", "1:37", "primary, one, majority"),
        ("{match: {}, as: read, consistency: weak}", "1:44", "eventual, read-your-writes"),
        ("{match: {}, as: read, read_wait: 5}", "1:42", "5s"),
        ("{match: {}, as: write, write_hold: soon}", "1:44", "5s"),
        ("{match: {}, as: passthrough, ack: one}", "1:38", "remove it"),
        ("{match: {paths: /a}, as: read}", "1:18", "did you mean path?"),
        ("{match: {cookie: a}, as: read}", "1:18", "known here: method, path, path_regex"),
        ("{match: {path: a}, as: read}", "1:24", "`/a`"),
        ("{match: {path: '/a[b'}, as: read}", "1:24", "unclosed"),
        ("{match: {path: }, as: read}", "1:22", "nothing where text is expected"),
        ("{match: {path_regex: ''}, as: read}", "1:30", "remove the key"),
        ("{match: {path_regex: (}, as: read}", "1:30", "unclosed"),
        ("{match: {method: get}, as: read}", "1:26", "`GET`"),
        ("{match: {method: []}, as: read}", "1:26", "without `method` every one does"),
        ("{match: {method: [GET, 'A B']}, as: read}", "1:32", "no method"),
        ("{match: {host: 'a:80'}, as: read}", "1:24", "without scheme, port"),
        ("{match: {content_type: json}, as: read}", "1:32", "`multipart/*`"),
        ("{match: {header: {'a b': present}}, as: read}", "1:27", "no header's name"),
        ("{match: {header: X}, as: read}", "1:26", "`{X-Fresh: present}`"),
        ("{match: {query: {a: [b]}}, as: read}", "1:29", "a list where text"),
    ] {
        refused(&format!("rules: [{rule}]"), place, says);
    }
}
