//! A new release of the application that changes the schema at its start, one node after the other, while
//! clients go on.

use std::fs;
use std::net::TcpStream;

use super::clients::Clients;
use super::cluster::{Cluster, Node, Plan};
use super::entries;
use super::harness::{exchange_over, until};

/// The release that is installed on a node.
fn install(node: &Node, release: u8) {
    fs::write(node.it.data_dir.join("release"), release.to_string()).unwrap();
}

/// The release that serves a node's reads, if that node's own application does.
fn serves(node: &Node) -> Option<String> {
    let stream = TcpStream::connect(node.it.url).ok()?;
    let answer = exchange_over(stream, "GET", "/api/entries", "", b"");
    let own = answer.header("litepilot-node") == Some(node.it.name.as_str());
    own.then(|| answer.header("release").map(str::to_owned))?
}

/// Restarts it with the second release; there need not be an application that can start.
fn upgrade(cluster: &mut Cluster, node: usize) {
    assert!(cluster.nodes[node].stop(), "it ends well");
    install(&cluster.nodes[node], 2);
    cluster.nodes[node].start();
    until("it is level, or the primary", || {
        cluster.nodes[node].status().is_some_and(|status| {
            let level = status["lag_ms"].as_u64().is_some_and(|lag| lag < 1000);
            status["primary"].is_object() && (level || status["role"] == "primary")
        })
    });
}

fn a_release_that_migrates_at_its_start_is_rolled_out(journal: &'static str) {
    // Nobody is replaced, however slow the machine is.
    let plan =
        Plan { script: "election/release.py", habit: Some(journal), ttl: "20s", ..Plan::default() };
    let mut cluster = plan.prepare();
    cluster.nodes.iter().for_each(|node| install(node, 1));
    cluster.nodes.iter_mut().for_each(Node::start);
    for node in 0..3 {
        until("the first release serves", || serves(&cluster.nodes[node]).as_deref() == Some("1"));
    }
    let addresses: Vec<_> = cluster.nodes.iter().map(|node| node.it.url).collect();
    let clients = Clients::start(4, &addresses);
    until("they write", || clients.written() > 20);

    let primary = cluster.primary();
    for node in cluster.others(primary).into_iter().chain([primary]) {
        upgrade(&mut cluster, node);
    }
    for node in 0..3 {
        until("the second release serves", || serves(&cluster.nodes[node]).as_deref() == Some("2"));
    }
    let before = clients.written();
    until("they still write", || clients.written() > before + 20);
    let written = clients.texts();
    let (done, failed) = clients.stop();
    assert!(failed.is_empty(), "{} of {done}: {:?}", failed.len(), failed.first());
    let sorted = |mut texts: Vec<String>| {
        texts.sort();
        texts
    };
    let written = sorted(written.lock().unwrap().clone());
    for node in 0..3 {
        until("it has all that was written, once", || sorted(entries(&cluster, node)) == written);
    }
}

#[test]
fn a_release_that_migrates_at_its_start_is_rolled_out_over_a_rollback_journal() {
    a_release_that_migrates_at_its_start_is_rolled_out("delete");
}

#[test]
fn a_release_that_migrates_at_its_start_is_rolled_out_over_a_wal() {
    a_release_that_migrates_at_its_start_is_rolled_out("wal");
}
