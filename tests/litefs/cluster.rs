//! Clusters of whole nodes over LiteFS: who is primary, and what everybody holds.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use litepilot::shutdown::Urgency;

use super::harness::exchange;
use super::support::program;
use super::whole::{Cluster, Plan, until};

#[test]
fn three_nodes_elect_replicate_hand_over_and_fail_over() {
    let mut cluster = Cluster::start(3, "");
    let first = cluster.primary();
    for i in 0..3 {
        let written = cluster.post(i, &format!("through {i}"), "");
        assert_eq!(written.code, 201, "{written:?}");
    }
    for i in 0..3 {
        until("it is replicated", || cluster.entries(i, "").len() == 3);
        cluster.until_level(i);
    }
    let second = (first + 1) % 3;
    let promoted = cluster.admin(first, "POST", &format!("/promote?node=n{second}"));
    assert_eq!(promoted.code, 200, "{promoted:?}");
    assert_eq!(cluster.primary(), second);
    assert_eq!(cluster.post(first, "after the handoff", "").code, 201);
    for i in 0..3 {
        until("it is replicated", || cluster.entries(i, "").len() == 4);
        assert_eq!(cluster.status(i)["litefs"]["restarts"], 0, "the mounts stayed");
        cluster.until_level(i);
    }
    // It ends without a word to anybody.
    let gone = cluster.nodes[second].take().unwrap();
    gone.stop(Urgency::AtOnce);
    gone.wait();
    assert_eq!(cluster.post(first, "after the failover", "").code, 201);
    let third = cluster.primary();
    assert_ne!(third, second);
    cluster.run(second);
    until("it is back", || cluster.entries(second, "").len() == 5);
    cluster.until_level(second);
    let primary_file = cluster.configs[second].data_dir.join(".primary");
    assert_eq!(fs::read_to_string(primary_file).unwrap(), format!("n{third}\n"));
    cluster.stop();
}

#[test]
fn why_there_is_no_primary_names_a_litefs_that_does_not_start() {
    let cluster = Plan { litefs: |_| "/no/such/litefs".into(), ..Plan::default() }.start();
    for i in 0..3 {
        until("each node says why of all", || {
            let status = cluster.status(i);
            let why = status["no_primary"].as_str().unwrap_or_default();
            (0..3).all(|i| why.contains(&format!("n{i}: "))) && why.contains("litefs.binary")
        });
    }
    cluster.stop();
}

#[test]
fn whoever_has_written_reads_it_everywhere() {
    if !program().1 {
        eprintln!("skipped: a stand-in sees a write a little after it was made");
        return;
    }
    let cluster = Cluster::start(3, "  ack: majority\n");
    cluster.primary();
    for i in 0..30 {
        let written = cluster.post(i % 3, &i.to_string(), "");
        assert_eq!(written.code, 201, "{written:?}");
        assert_eq!(written.header("litepilot-ack"), Some("majority"));
        let token = format!(
            "Litepilot-Txid: {}\r\nLitepilot-Epoch: {}\r\n",
            written.header("litepilot-txid").unwrap(),
            written.header("litepilot-epoch").unwrap(),
        );
        for reader in 0..3 {
            assert_eq!(cluster.entries(reader, &token)[0], i.to_string());
        }
    }
    cluster.stop();
}

#[test]
fn a_litefs_that_dies_ends_its_epoch_and_the_application_gets_a_new_mount() {
    let cluster = Cluster::start(3, "");
    let first = cluster.primary();
    assert_eq!(cluster.post(first, "before", "").code, 201);
    for i in 0..3 {
        until("it is replicated", || cluster.entries(i, "").len() == 1);
        cluster.until_level(i);
    }
    let pid = cluster.status(first)["litefs"]["pid"].as_u64().unwrap();
    super::harness::send(rustix::process::Signal::KILL, pid as u32);
    let other = (first + 1) % 3;
    // One that was under way at that moment is answered with an error: nobody can vouch for it.
    until("writes are taken", || cluster.post(other, "after", "").code == 201);
    until("LiteFS runs again", || cluster.status(first)["litefs"]["restarts"] == 1);
    until("it follows", || {
        let answer = exchange(cluster.proxy(first), "GET", "/api/entries", "", b"");
        answer.code == 200 && answer.body.contains("after")
    });
    cluster.stop();
}

/// As with large databases, whose pages LiteFS adds up before it answers.
#[test]
fn a_litefs_that_starts_slowly_is_waited_for() {
    let litefs = |place: &Path| {
        let (wrapper, program) = (place.join("slow-litefs"), program().0);
        let lines =
            format!("#!/bin/sh\n[ $1 = mount ] && sleep 5\nexec {} \"$@\"\n", program.display());
        fs::write(&wrapper, lines).unwrap();
        fs::set_permissions(&wrapper, Permissions::from_mode(0o755)).unwrap();
        wrapper
    };
    let cluster = Plan { litefs, ..Plan::default() }.start();
    cluster.primary();
    for i in 0..3 {
        cluster.until_level(i);
        assert_eq!(cluster.status(i)["litefs"]["restarts"], 0);
    }
    cluster.stop();
}

#[test]
fn a_node_on_its_own_takes_writes_and_survives_its_litefs() {
    let cluster = Cluster::start(1, "");
    assert_eq!(cluster.primary(), 0);
    assert_eq!(cluster.post(0, "before", "").code, 201);
    let pid = cluster.status(0)["litefs"]["pid"].as_u64().unwrap();
    super::harness::send(rustix::process::Signal::KILL, pid as u32);
    until("LiteFS runs again", || cluster.status(0)["litefs"]["restarts"] == 1);
    until("writes are taken", || cluster.post(0, "after", "").code == 201);
    assert!(cluster.entries(0, "").contains(&"before".to_owned()));
    cluster.stop();
}

#[test]
fn a_fixed_primary_replicates_and_comes_back() {
    let mut cluster = Cluster::start(2, "  election: static\n  primary: n0\n");
    assert_eq!(cluster.primary(), 0);
    assert_eq!(cluster.post(1, "one", "").code, 201);
    until("it is replicated", || cluster.entries(1, "") == ["one"]);
    cluster.until_level(1);
    let gone = cluster.nodes[0].take().unwrap();
    gone.stop(Urgency::Graceful);
    gone.wait();
    assert_eq!(cluster.entries(1, ""), ["one"], "reads go on");
    cluster.run(0);
    assert_eq!(cluster.primary(), 0);
    until("writes are taken", || cluster.post(1, "two", "").code == 201);
    until("it is replicated", || cluster.entries(1, "").len() == 2);
    cluster.until_level(1);
    cluster.stop();
}
