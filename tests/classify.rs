//! `litepilot classify`, as a user runs it.
#![allow(clippy::unwrap_used, reason = "a failed expectation is the report")]

use std::path::Path;
use std::process::{Command, Output};

/// Runs it in a directory; gives exit code, standard output and standard error.
fn classify(directory: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_litepilot"));
    let Output { status, stdout, stderr } =
        command.arg("classify").args(arguments).current_dir(directory).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// A directory with a configuration whose own rules lie beside it.
fn configured(rules: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let config = "node: n\n\
                  proxy: {target: '127.0.0.1:8000', db: db, rules: [mine.yml, static]}\n";
    std::fs::write(directory.path().join("litepilot.yml"), config).unwrap();
    std::fs::write(directory.path().join("mine.yml"), rules).unwrap();
    directory
}

#[test]
fn it_says_the_class_and_the_rule_that_gave_it() {
    let directory = configured(
        "rules:\n\
         - match: {path: /reports/**, header: {X-Fresh: present}}\n  as: read\n  consistency: strong\n",
    );
    let (code, line, _) =
        classify(directory.path(), &["GET", "http://h/r%65ports/1", "-H", "X-Fresh: 1"]);
    assert_eq!(code, Some(0));
    assert!(line.starts_with("read  "), "{line}");
    assert!(line.ends_with("mine.yml:2  (consistency: strong)\n"), "{line}");

    let (_, line, _) = classify(directory.path(), &["GET", "/static/a.css"]);
    assert!(line.starts_with("passthrough  static.yml:"), "{line}");
}

#[test]
fn a_configuration_elsewhere_is_named() {
    let directory = configured("rules: [{match: {path: /a}, as: write}]\n");
    let config = directory.path().join("litepilot.yml");
    let elsewhere = tempfile::tempdir().unwrap();
    let arguments = ["-c", config.to_str().unwrap(), "GET", "/a"];
    let (code, line, _) = classify(elsewhere.path(), &arguments);
    assert_eq!(code, Some(0));
    assert!(line.starts_with("write  ") && line.ends_with("mine.yml:1\n"), "{line}");
}

#[test]
fn a_bad_request_is_wrong_usage() {
    let directory = configured("rules: []\n");
    for (arguments, says) in [
        (&["G T", "/"][..], "like GET or POST"),
        (&["GET", "/a b"], "percent-encoded"),
        (&["GET", "/", "-H", "X"], "'Name: value'"),
        (&["GET", "/a%00b"], "400"),
    ] {
        let (code, line, error) = classify(directory.path(), arguments);
        assert_eq!(code, Some(2), "{arguments:?}");
        assert!(line.is_empty() && error.contains(says), "{arguments:?}: {line}{error}");
    }
}

#[test]
fn bad_rules_are_bad_configuration() {
    let directory = configured("rules: [{match: {pth: /a}, as: red}]\n");
    let (code, _, error) = classify(directory.path(), &["GET", "/"]);
    assert_eq!(code, Some(78));
    assert!(error.contains("mine.yml:1:18: unknown key"), "{error}");
    assert!(error.contains("mine.yml:1:32: "), "{error}");
}
