//! `litepilot check`, the program itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use super::files::Files;
use super::minimal;

/// Runs it in a directory.
fn litepilot(directory: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_litepilot"))
        .args(args)
        .current_dir(directory)
        .env_remove("LITEFS_NODE_ID")
        .env("LITEPILOT_NODE", "node-1")
        .output()
        .unwrap()
}

/// The lines on standard output and the exit code, for a configuration `litepilot.yml`.
fn check(directory: &Path, text: impl AsRef<[u8]>) -> (Vec<String>, Option<i32>) {
    check_with(directory, text, &["--elsewhere"])
}

/// The same, with what the file names on this machine.
fn check_here(directory: &Path, text: impl AsRef<[u8]>) -> (Vec<String>, Option<i32>) {
    check_with(directory, text, &[])
}

fn check_with(
    directory: &Path,
    text: impl AsRef<[u8]>,
    more: &[&str],
) -> (Vec<String>, Option<i32>) {
    fs::write(directory.join("litepilot.yml"), text).unwrap();
    let output = litepilot(directory, &[&["check", "-c", "litepilot.yml"], more].concat());
    let lines = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    (lines, output.status.code())
}

/// A configuration whose directories are in the test's own.
fn local(more: &str) -> String {
    minimal(&format!("data_dir: data\nlitefs: {{mount: mount, engine: embedded}}\n{more}"))
}

#[test]
fn a_good_file_is_fine() {
    let home = tempfile::tempdir().unwrap();
    let (lines, code) = check(home.path(), local(""));
    assert_eq!(code, Some(0), "{lines:?}");
    assert_eq!(lines, ["litepilot.yml: configuration, rules and certificates are fine"]);
}

#[test]
fn a_bucket_takes_a_build_that_knows_buckets_and_it_says_which() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("mount")).unwrap();
    let text = minimal("data_dir: data\nlitefs: {mount: mount}\nbackup: {url: 's3://bucket/shop'}");
    let (lines, code) = check_here(home.path(), text);
    let refused =
        lines.iter().any(|line| line.contains("backup.url: this build knows directories only"));
    match cfg!(feature = "cloud") {
        true => assert_eq!(code, Some(0), "{lines:?}"),
        false => assert!(refused && code == Some(78), "{lines:?}"),
    }
}

#[test]
fn a_replica_that_is_asked_for_and_does_not_exist_is_noted() {
    let home = tempfile::tempdir().unwrap();
    let rules = "rules:\n  - {match: {path: /pay}, as: write, ack: one}\n";
    fs::write(home.path().join("rules.yml"), rules).unwrap();
    let by_rule = local("").replace("proxy: {", "proxy: {rules: [rules.yml], ");
    for text in [local("cluster: {ack: one}\n"), by_rule] {
        let (lines, code) = check(home.path(), &text);
        assert_eq!(code, Some(0), "{lines:?}");
        assert!(lines[1].contains("note: ack: `one`") && lines[1].contains("peers"), "{lines:?}");
    }
    let (lines, _) = check(home.path(), local("cluster: {ack: majority}\n"));
    assert_eq!(lines.len(), 1, "{lines:?}");
}

#[test]
fn without_c_the_file_in_this_directory_counts() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("litepilot.yml"), local("")).unwrap();
    fs::create_dir(home.path().join("mount")).unwrap();
    assert_eq!(litepilot(home.path(), &["check"]).status.code(), Some(0));
}

#[test]
fn every_problem_has_its_line_and_the_exit_code_is_78() {
    let home = tempfile::tempdir().unwrap();
    let (lines, code) = check(home.path(), "proxy: {target: 8000}\nlog: {levle: info}\n");
    assert_eq!(code, Some(78));
    assert_eq!(
        lines,
        [
            "litepilot.yml:1:1: proxy.db: missing, but required: the name of the database in litefs.mount, like db.sqlite3",
            "litepilot.yml:1:17: proxy.target: the number 8000 is no address: write HOST:PORT",
            "litepilot.yml:2:7: log.levle: unknown key: did you mean level?",
        ]
    );
}

#[test]
fn a_command_that_needs_the_configuration_says_that_it_is_bad() {
    let home = tempfile::tempdir().unwrap();
    for command in [&["status"][..], &["backup", "list"]] {
        let output = litepilot(home.path(), &[command, &["-c", "nowhere.yml"]].concat());
        assert_eq!(output.status.code(), Some(78), "{command:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.starts_with("nowhere.yml:1:1: cannot be read: No such file"), "{text}");
    }
}

#[test]
fn a_file_that_is_not_there_or_too_big_is_a_bad_configuration() {
    let home = tempfile::tempdir().unwrap();
    let output = litepilot(home.path(), &["check", "-c", "nowhere.yml"]);
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("nowhere.yml:1:1: cannot be read: No such file"), "{text}");

    let (lines, code) = check(home.path(), vec![b'a'; 10 << 20]);
    assert_eq!(code, Some(78));
    assert!(lines[0].contains("larger than 1 MiB"), "{lines:?}");
}

#[test]
fn rules_certificates_and_directories_are_checked_too() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("rules.yml"), "rules:\n  - match: {path: /x}\n    as: reed\n")
        .unwrap();
    fs::write(home.path().join("a.pem"), "no certificate").unwrap();
    fs::write(home.path().join("data"), "a file").unwrap();
    let text = "proxy:
  target: ':1'
  db: db
  rules: [rules.yml]
  tls: {cert: a.pem, key: none.key}
data_dir: data
litefs: {mount: mount}
";
    let (lines, code) = check(home.path(), text);
    assert_eq!(code, Some(78));
    for expected in [
        "litepilot.yml:5:15: proxy.tls.cert: ",
        "litepilot.yml:5:27: proxy.tls.key: ",
        "litepilot.yml:6:11: data_dir: ",
        "rules.yml:3:",
    ] {
        assert!(lines.iter().any(|line| line.contains(expected)), "{expected}: {lines:#?}");
    }
    assert_eq!(lines.len(), 4, "{lines:#?}");
}

#[test]
fn certificates_that_no_client_would_take_are_told_with_the_remedy() {
    let (home, files) = (tempfile::tempdir().unwrap(), Files::of_shop());
    files.issue_until("old", &["old.test"], SystemTime::now() - Duration::from_secs(3600));
    files.issue("odd", &["odd.test"]);
    fs::copy(files.path("shop.key"), files.path("odd.key")).unwrap();
    let text = |names: &[&str]| {
        let tls = files.tls(names);
        format!(
            "data_dir: data\nproxy:\n  target: ':1'\n  db: db\n  {tls}\nlitefs: {{mount: m, engine: embedded}}\n"
        )
    };
    let (lines, code) = check(home.path(), text(&["shop", "old", "odd"]));
    assert_eq!((lines.len(), code), (2, Some(78)), "{lines:#?}");
    assert!(lines[0].contains("proxy.tls.cert: ") && lines[0].contains("old.crt: it expired on"));
    assert!(lines[0].ends_with(": issue a new one"), "{lines:#?}");
    let key = "odd.key: it is not the key of the first certificate in ";
    assert!(lines[1].contains("proxy.tls.key: ") && lines[1].contains(key), "{lines:#?}");
    assert!(lines[1].contains(": name that one's key, or put"), "{lines:#?}");

    let readable = fs::Permissions::from_mode(0o644);
    fs::set_permissions(files.path("shop.key"), readable).unwrap();
    let (lines, code) = check(home.path(), text(&["shop"]));
    assert_eq!((lines.len(), code), (2, Some(0)), "{lines:#?}");
    assert!(lines[1].contains("note: proxy.tls.key: ") && lines[1].ends_with("chmod 600"));
}

#[test]
fn what_the_file_names_and_this_machine_has_not_is_refused() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("a-file"), "").unwrap();
    let text = "proxy: {target: ':1', db: db}
data_dir: a-file/data
litefs: {mount: nowhere, engine: embedded}
app:
  command: [no-such-program-here, -x]
  user: no-such-user-here
  on_promote: [./a-file]
";
    let (lines, code) = check_here(home.path(), text);
    assert_eq!(code, Some(78));
    for expected in [
        "litepilot.yml:2:11: data_dir: ",
        "litepilot.yml:3:17: litefs.mount: there is no ",
        "litepilot.yml:5:12: app.command: no-such-program-here is not in PATH",
        "litepilot.yml:6:9: app.user: there is no user \"no-such-user-here\"",
        "litepilot.yml:7:15: app.on_promote: ./a-file is not there, or cannot be executed",
    ] {
        assert!(lines.iter().any(|line| line.starts_with(expected)), "{expected}: {lines:#?}");
    }
    assert_eq!(lines.len(), 5, "{lines:#?}");
    // On another machine they may be there.
    let (lines, code) = check(home.path(), text.replace("a-file/data", "data"));
    assert_eq!(code, Some(0), "{lines:#?}");
}

#[test]
fn wrong_usage_is_another_exit_code() {
    let home = tempfile::tempdir().unwrap();
    assert_eq!(litepilot(home.path(), &["check", "--nonsense"]).status.code(), Some(2));
}
