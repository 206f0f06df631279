//! `litepilot certs`, and `litepilot check` of what it made.

// clippy.toml allows these in tests, but does not take a test binary's helpers for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use litepilot::tls::Validity;
use litepilot::tls::authority::Authority;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn litepilot(directory: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_litepilot"))
        .args(args)
        .current_dir(directory)
        .output()
        .unwrap()
}

/// What it says, if it succeeds.
#[track_caller]
fn done(directory: &Path, args: &[&str]) -> String {
    let output = litepilot(directory, args);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What it says, if it fails in that way.
#[track_caller]
fn failed(directory: &Path, args: &[&str], code: i32) -> String {
    let output = litepilot(directory, args);
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

/// A directory with an authority and what it issued to `n1`.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    done(home.path(), &["certs", "init", "certs"]);
    done(home.path(), &["certs", "issue", "certs", "n1"]);
    home
}

/// A configuration of `n1` in a cluster on several machines, with more keys of `cluster`.
fn configure(home: &Path, more: &str) {
    let text = format!(
        "node: n1\ndata_dir: data\nlitefs: {{engine: embedded, mount: mount}}\n\
         proxy: {{target: ':8000', db: db}}\n\
         cluster:\n  election: static\n  primary: n1\n  peers: {{n1: 'a.test:1', n2: 'b.test:1'}}\n{more}"
    );
    fs::create_dir_all(home.join("mount")).unwrap();
    fs::write(home.join("litepilot.yml"), text).unwrap();
}

const TLS: &str = "  tls:\n    ca: certs/ca.crt\n    cert: certs/n1.crt\n    key: certs/n1.key\n";

#[test]
fn keys_are_for_their_owner_alone() {
    let home = home();
    for (file, mode) in [("ca.key", 0o600), ("n1.key", 0o600), ("ca.crt", 0o644), ("n1.crt", 0o644)]
    {
        let path = home.path().join("certs").join(file);
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, mode, "{file}");
    }
}

#[test]
fn nothing_is_ever_overwritten() {
    let home = home();
    let read = || {
        let files = ["ca.key", "ca.crt", "n1.key", "n1.crt"];
        files.map(|file| fs::read(home.path().join("certs").join(file)).ok())
    };
    let before = read();
    for args in [&["certs", "init", "certs"][..], &["certs", "issue", "certs", "n1"]] {
        let said = failed(home.path(), args, 1);
        assert!(said.contains("is there already and is never overwritten"), "{said}");
        assert_eq!(read(), before);
    }
    // One file of a pair is enough, whatever it is.
    for (file, args) in [
        ("n2.crt", &["certs", "issue", "certs", "n2"][..]),
        ("n3.key", &["certs", "issue", "certs", "n3"]),
    ] {
        let path = home.path().join("certs").join(file);
        std::os::unix::fs::symlink("/nonexistent", &path).unwrap();
        assert!(failed(home.path(), args, 1).contains(file));
        assert!(path.symlink_metadata().unwrap().is_symlink());
    }
    assert_eq!(fs::read_dir(home.path().join("certs")).unwrap().count(), 6);
    assert!(failed(home.path(), &["certs", "issue", "certs", "ca"], 1).contains("ca.crt"));
}

#[test]
fn what_cannot_be_done_is_said() {
    let home = home();
    for (args, code, words) in [
        (&["certs", "issue", "nowhere", "n1"][..], 1, "litepilot certs init nowhere"),
        (&["certs", "issue", "certs", "n/1"], 2, "no node name"),
        (&["certs", "issue", "certs", "n2", "--host", "a b"], 1, "\"a b\" is no host name"),
        (&["certs", "init", "litepilot.yml/certs"], 1, "cannot be made"),
        (&["certs"], 2, "Usage"),
    ] {
        fs::write(home.path().join("litepilot.yml"), "").unwrap();
        let said = failed(home.path(), args, code);
        assert!(said.contains(words), "{args:?}: {said}");
    }
    assert!(!home.path().join("certs/n2.key").exists());

    fs::write(home.path().join("certs/ca.key"), "").unwrap();
    let said = failed(home.path(), &["certs", "issue", "certs", "n2"], 1);
    assert!(said.contains("ca.key: it holds no PEM block"), "{said}");
}

#[test]
fn check_accepts_what_was_made_as_it_was_said() {
    let home = tempfile::tempdir().unwrap();
    done(home.path(), &["certs", "init", "."]);
    let said = done(home.path(), &["certs", "issue", ".", "n1", "--host", "a.test"]);
    let (_, block) = said.split_once("\ncluster:\n").unwrap();
    configure(home.path(), block);
    let lines = done(home.path(), &["check"]);
    assert_eq!(lines, "./litepilot.yml: configuration, rules and certificates are fine\n");
}

#[test]
fn check_names_what_is_wrong_with_certificates() {
    let home = home();
    configure(home.path(), TLS);
    let certs = home.path().join("certs");
    done(home.path(), &["certs", "issue", "certs", "n2"]);
    done(home.path(), &["certs", "init", "others"]);
    let ca_key = fs::read_to_string(certs.join("ca.key")).unwrap();
    let original = |file: &str| fs::read(certs.join(file)).unwrap();
    for (file, contents, expected) in [
        (
            "ca.crt",
            fs::read(home.path().join("others/ca.crt")).unwrap(),
            "11:11: cluster.tls.cert: ",
        ),
        ("ca.crt", original("n1.crt"), "10:9: cluster.tls.ca: "),
        ("n1.key", original("n2.key"), "12:10: cluster.tls.key: "),
        ("n1.key", Vec::new(), "12:10: cluster.tls.key: "),
        ("n1.crt", ca_key.into_bytes(), "11:11: cluster.tls.cert: "),
    ] {
        let good = original(file);
        fs::write(certs.join(file), contents).unwrap();
        let lines = failed(home.path(), &["check"], 78);
        assert!(lines.starts_with(&format!("./litepilot.yml:{expected}")), "{file}: {lines}");
        assert_eq!(lines.lines().count(), 1, "{lines}");
        fs::write(certs.join(file), good).unwrap();
    }
    configure(home.path(), &TLS.replace("n1", "n2"));
    let lines = failed(home.path(), &["check"], 78);
    assert!(lines.contains("it was issued to n2, but this node is n1"), "{lines}");
}

/// Replaces what `n1` has by something of other dates.
fn issue(home: &Path, validity: Validity) {
    let certs = home.join("certs");
    let authority = Authority::read(&certs.join("ca.crt"), &certs.join("ca.key")).unwrap();
    let issued = authority.issue(&"n1".parse().unwrap(), &[], validity).unwrap();
    fs::write(certs.join("n1.crt"), issued.certificate).unwrap();
    fs::write(certs.join("n1.key"), issued.key).unwrap();
}

#[test]
fn check_looks_at_the_dates() {
    let home = home();
    configure(home.path(), TLS);
    let now = SystemTime::now();
    issue(home.path(), Validity { from: now - DAY, until: now + DAY * 13 });
    let lines = done(home.path(), &["check"]);
    let note = "./litepilot.yml:11:11: note: cluster.tls.cert: ";
    assert!(lines.contains(note) && lines.contains("expires on"), "{lines}");

    issue(home.path(), Validity { from: now - DAY, until: now - DAY / 24 });
    let lines = failed(home.path(), &["check"], 78);
    assert!(lines.contains("11:11: cluster.tls.cert: ") && lines.contains("expired on"), "{lines}");

    issue(home.path(), Validity { from: now + DAY, until: now + DAY * 100 });
    assert!(failed(home.path(), &["check"], 78).contains("clock"));
}

#[test]
fn check_notes_what_is_open_to_others() {
    let home = home();
    let key = home.path().join("certs/n1.key");
    fs::set_permissions(key, PermissionsExt::from_mode(0o644)).unwrap();
    configure(home.path(), TLS);
    assert!(done(home.path(), &["check"]).contains("12:10: note: cluster.tls.key: "));

    configure(home.path(), "  insecure: true\n");
    let lines = done(home.path(), &["check"]);
    assert!(lines.contains("note: cluster.insecure: nodes speak plain TCP"), "{lines}");

    configure(home.path(), &format!("{TLS}  insecure: true\n"));
    assert!(done(home.path(), &["check"]).contains("it has no effect beside tls"));

    configure(home.path(), "");
    assert!(failed(home.path(), &["check"], 78).contains("cluster.tls: missing, but required"));
}
