//! Nodes whose LiteFS has lost all it had.

use std::fs;

use super::harness::{exchange, text};
use super::whole::{Cluster, until};

/// Its disk was replaced; what Litepilot itself keeps was on another.
fn wipe(cluster: &Cluster, i: usize) {
    let litefs = &cluster.configs[i].litefs;
    // A stand-in keeps the database in the mount.
    for dir in [&litefs.data, &litefs.mount] {
        fs::remove_dir_all(dir).unwrap();
        fs::create_dir(dir).unwrap();
    }
}

/// Whether it is told why there is no primary. That there was data the election knows from the second
/// epoch on; LiteFS, by its cluster ID, from the first.
fn waits_for_data(cluster: &Cluster) -> bool {
    cluster.said("start the one that has it") || cluster.said("it has never met a primary")
}

#[test]
fn empty_nodes_wait_for_the_one_with_the_data_and_get_it() {
    let mut cluster = Cluster::start(3, "");
    let first = cluster.primary();
    assert_eq!(cluster.post(first, "precious", "").code, 201);
    (0..3).for_each(|i| until("it is replicated", || cluster.entries(i, "").len() == 1));
    cluster.halt();
    // A majority, but without data.
    for i in [0, 1] {
        wipe(&cluster, i);
        cluster.run(i);
    }
    until("it is said what is missing", || waits_for_data(&cluster));
    assert!(cluster.status(0)["primary"].is_null());
    cluster.run(2);
    assert_eq!(cluster.primary(), 2);
    for i in [0, 1] {
        until("it is replicated", || cluster.entries(i, "") == ["precious"]);
        cluster.until_level(i);
    }
    assert_eq!(cluster.post(0, "more", "").code, 201);
    cluster.stop();
}

#[test]
fn with_all_data_gone_an_operator_lets_them_begin_anew() {
    let mut cluster = Cluster::start(3, "");
    let first = cluster.primary();
    assert_eq!(cluster.post(first, "gone", "").code, 201);
    (0..3).for_each(|i| until("it is replicated", || cluster.entries(i, "").len() == 1));
    cluster.halt();
    for i in 0..3 {
        wipe(&cluster, i);
        cluster.run(i);
    }
    until("it is said what is missing", || waits_for_data(&cluster));
    let forced = ["promote", "n0", "--force"];
    assert!(!cluster.command(0, &forced, &[]).status.success());
    cluster.says("reset-litefs-id");
    let reset = ["members", "reset-litefs-id"];
    let warned = cluster.command(0, &reset, &[]);
    assert!(!warned.status.success());
    assert!(text(&warned.stderr).contains("--yes"), "{warned:?}");
    let done = cluster.command(0, &reset, &["--yes"]);
    assert!(done.status.success(), "{done:?}");
    // A moment passes until n0 has heard that the ID is gone; and the wish that could not be fulfilled
    // before may have been by now.
    until("they begin anew", || {
        let done = cluster.command(0, &forced, &[]);
        done.status.success() || text(&done.stderr).contains("n0 in epoch")
    });
    assert_eq!(cluster.primary(), 0);
    assert_eq!(cluster.post(0, "new", "").code, 201);
    for i in 0..3 {
        until("it is replicated", || {
            let answer = exchange(cluster.proxy(i), "GET", "/api/entries", "", b"");
            // Until then the primary may answer for a node.
            let local = answer.header("litepilot-route") == Some("local");
            answer.code == 200 && local && answer.body.contains("new")
        });
        assert_eq!(cluster.entries(i, ""), ["new"]);
    }
    cluster.stop();
}
