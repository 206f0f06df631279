//! Plain applications that write on GET, without a middleware and without a rule: through any node each
//! succeeds, and from the second time on it goes to the primary at once.

use std::path::Path;
use std::time::Duration;

use super::harness::{Answer, exchange};
use super::support::{prefix, program};
use super::whole::{Cluster, Plan, until};

const PAGES: [&str; 3] = ["/write", "/write-at-commit", "/write-immediate"];

fn app(place: &Path) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps/get_writes.py");
    let (script, place, prefix) = (script.display(), place.display(), prefix().join(", "));
    format!("  command: [{prefix}, python3, {script}, {place}/s, {place}/mount/book.sqlite3]\n")
}

fn get(cluster: &Cluster, i: usize, path: &str) -> Answer {
    exchange(cluster.proxy(i), "GET", path, "", b"")
}

fn ready(engine: &'static str, mode: &str) -> Cluster {
    let cluster = Plan { engine, app, ..Plan::default() }.start();
    let primary = cluster.primary();
    until("the application is up", || cluster.status(primary)["app"]["state"] == "up");
    let init = exchange(cluster.proxy(primary), "POST", &format!("/init?{mode}"), "", b"");
    assert_eq!(init.code, 200, "{init:?}");
    for i in 0..3 {
        cluster.until_level(i);
        // What is written must not be there for want of a table.
        until("the table is there", || {
            let count = get(&cluster, i, "/count");
            count.code == 200 && count.header("litepilot-route") == Some("local")
        });
    }
    cluster
}

fn is_learned(cluster: &Cluster, i: usize, path: &str) -> bool {
    let status = cluster.status(i);
    let request = format!("GET {path}");
    status["learned_writes"].as_array().unwrap().iter().any(|l| l["request"] == request.as_str())
}

/// Asks until such requests go to the primary at once: most often the second does, but on a busy machine it may
/// take more until nobody else can have done what the primary saw. Says how many were asked.
fn until_learned(cluster: &Cluster, i: usize, path: &str) -> i32 {
    let mut asked = 0;
    until("it is learned", || {
        // Slowly, so that what is replayed stays within its budget.
        std::thread::sleep(Duration::from_millis(100));
        let answer = get(cluster, i, path);
        assert_eq!(answer.code, 200, "{path}: {answer:?}");
        asked += 1;
        answer.header("litepilot-route") == Some("primary")
    });
    asked
}

fn every_page_writes(engine: &'static str, mode: &str) {
    let cluster = ready(engine, mode);
    let primary = cluster.primary();
    let (replica, other) = ((primary + 1) % 3, (primary + 2) % 3);
    let mut written = 0;
    let through = |i: usize, path: &str, route: &str| {
        let answer = get(&cluster, i, path);
        assert_eq!(answer.code, 200, "{path} in mode {mode}: {answer:?}");
        assert_eq!(answer.header("litepilot-route"), Some(route), "{path}: {answer:?}");
        assert_eq!(answer.header("litepilot-node"), Some(format!("n{primary}").as_str()));
        1
    };
    for path in PAGES {
        written += through(replica, path, "replayed");
    }
    if engine == "litefs" && !program().1 {
        // A stand-in shows a commit a little later: too late to be put down to a request.
        assert_eq!(get(&cluster, primary, "/count").body, written.to_string());
        return cluster.stop();
    }
    for path in PAGES {
        written += until_learned(&cluster, replica, path);
        until("the other replica is told", || is_learned(&cluster, other, path));
        written += through(other, path, "primary") + through(primary, path, "local");
    }
    let count = get(&cluster, primary, "/count");
    assert_eq!(count.body, written.to_string(), "each was done once");
    assert!(!is_learned(&cluster, primary, "/count"));
    assert_eq!(get(&cluster, replica, "/count").header("litepilot-route"), Some("local"));
    // Who is primary next goes on from that.
    let promoted = cluster.admin(primary, "POST", &format!("/promote?node=n{other}"));
    assert_eq!(promoted.code, 200, "{promoted:?}");
    assert!(PAGES.iter().all(|path| is_learned(&cluster, other, path)));
    cluster.stop();
}

#[test]
fn over_litefs_with_a_rollback_journal() {
    every_page_writes("litefs", "delete");
}

#[test]
fn over_litefs_with_a_wal() {
    every_page_writes("litefs", "wal");
}

#[test]
fn over_the_embedded_engine_with_a_rollback_journal() {
    every_page_writes("embedded", "delete");
}

#[test]
fn over_the_embedded_engine_with_a_wal() {
    every_page_writes("embedded", "wal");
}

#[test]
fn what_was_learned_is_printed_as_a_rule_file() {
    let cluster = ready("embedded", "wal");
    let primary = cluster.primary();
    let replica = (primary + 1) % 3;
    assert_eq!(get(&cluster, replica, "/write").code, 200);
    let printed = cluster.command(replica, &["rules", "--learned"], &[]);
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.contains("path: /write}, as: write}"), "{printed}");
    assert!(printed.contains("\nrules:\n"), "{printed}");
    cluster.stop();
}
