//! The same application in other languages: a list of notes, as JSON, one of whose GETs writes. What takes long to
//! build or to install is built by `cargo test --test examples -- --ignored` only.

use std::process::Command;

use super::JSON;
use super::cluster::{Cluster, Node, Visitor, example};
use super::harness::until;
use super::need::{need, permitted};

#[test]
fn php_with_pdo() {
    let pdo = ["php", "-r", "new PDO('sqlite::memory:');"];
    if need("php", "php-cli") && permitted("PDO has no SQLite (apt install php-sqlite3)", &pdo) {
        keeps_its_notes("php");
    }
}

#[test]
#[ignore = "needs php-laravel-framework, php-fpm and nginx"]
fn laravel_under_php_fpm() {
    let cluster = keeps_its_notes("laravel");
    for node in cluster.running() {
        until("the queue's worker has done its work on each note", || {
            let notes = Visitor::default().get(node, "/notes").json();
            notes.as_array().is_some_and(|notes| notes.iter().all(|note| note["words"].is_u64()))
        });
    }
}

#[test]
#[ignore = "compiles SQLite, a minute"]
fn node_with_better_sqlite3() {
    build("node", "npm", &["install", "--no-audit", "--no-fund", "--no-package-lock"]);
    keeps_its_notes("node");
}

#[test]
#[ignore = "compiles SQLite's translation into Go, some minutes"]
fn go_with_modernc() {
    build("go", "go", &["build", "-o", "build/notes", "."]);
    keeps_its_notes("go");
}

#[test]
#[ignore = "downloads Spring Boot"]
fn spring_boot_with_xerial() {
    build("spring", "mvn", &["--batch-mode", "--quiet", "package"]);
    keeps_its_notes("spring");
}

#[test]
#[ignore = "needs ruby-rails, puma and, for its second database, LITEFS_BIN"]
fn rails_with_two_databases() {
    let cluster = keeps_its_notes("rails");
    let notes =
        |node: &Node| Visitor::default().get(node, "/notes").json().as_array().unwrap().len();
    for node in cluster.running() {
        until("its second database has an entry for each note", || {
            let entries = Visitor::default().get(node, "/audit").json();
            entries.as_array().is_some_and(|entries| entries.len() == notes(node))
        });
    }
}

/// Runs what its README says is run once.
fn build(name: &str, program: &str, args: &[&str]) {
    let built = Command::new(program).args(args).current_dir(example(name)).output().unwrap();
    assert!(built.status.success(), "{built:?}");
}

/// Notes are taken and read through every node, before and after a handoff and the death of the primary.
fn keeps_its_notes(name: &str) -> Cluster {
    let mut cluster = Cluster::start(&example(name));
    let mut visitor = Visitor::default();
    let [one, two] = cluster.replicas();
    add(&mut visitor, &cluster.nodes[one], "first");
    assert_eq!(visitor.get(&cluster.nodes[two], "/notes").json()[0]["text"], "first");
    for (views, node) in [one, two].into_iter().enumerate() {
        let viewed = visitor.get(&cluster.nodes[node], "/notes/1");
        assert_eq!(viewed.code, 200, "a GET that writes, through a replica: {viewed:?}");
        assert_eq!(viewed.json()["views"], views + 1, "it has written once");
    }

    cluster.hand_over();
    for node in &cluster.nodes {
        add(&mut visitor, node, "handed over");
    }
    for node in &cluster.nodes {
        // Nobody asked for acknowledgements: what the primary alone holds is lost with it.
        until("it has all that are written", || count(node) == Some(4));
    }

    let primary = cluster.kill_primary();
    add(&mut visitor, &cluster.nodes[primary], "killed");
    for node in cluster.running() {
        add(&mut visitor, node, "killed");
    }
    for node in cluster.running() {
        until("it has all of them", || count(node) == Some(7));
    }
    cluster
}

fn add(visitor: &mut Visitor, node: &Node, text: &str) {
    let added = visitor.post(node, "/notes", JSON, &format!(r#"{{"text": "{text}"}}"#));
    assert_eq!(added.code, 201, "{text}: {added:?}");
}

/// How many a node's own application shows to a client without a token.
fn count(node: &Node) -> Option<usize> {
    let answer = Visitor::default().get(node, "/notes");
    (answer.code == 200).then(|| answer.json().as_array().unwrap().len())
}
