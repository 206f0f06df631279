//! Nodes that come and go while the others serve, and nodes that are not who they say they are.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::cluster::{Cluster, Node, Plan};
use super::entries;
use super::harness::{exchange, free_ports, until};

/// Runs a change of the members at a node, again while the cluster is not ready for it.
fn change(cluster: &Cluster, at: usize, words: &[&str]) {
    until("the members have changed", || {
        let (code, said) = cluster.nodes[at].command(&[&["members"], words].concat());
        println!("{words:?}: {code:?} {said}");
        code == Some(0)
    });
}

/// The address that a node is reached at by the others.
fn peer_address(cluster: &Cluster, node: usize) -> String {
    let config = fs::read_to_string(cluster.nodes[node].it.config()).unwrap();
    let line = config.lines().find_map(|line| line.strip_prefix("  listen: \"")).unwrap();
    line.trim_end_matches('"').to_owned()
}

/// Waits until a node knows that another one is no member any more.
fn until_unlisted(cluster: &Cluster, at: usize, name: &str) {
    until("it is listed nowhere", || {
        let status = cluster.nodes[at].status().unwrap();
        status["nodes"].as_array().unwrap().iter().all(|node| node["node"] != name)
    });
}

/// What its disk held is gone.
fn lose_disk(cluster: &Cluster, node: usize) {
    let node = &cluster.nodes[node];
    let config = fs::read(node.it.config()).unwrap();
    node.unmount();
    fs::remove_dir_all(&node.it.data_dir).unwrap();
    fs::create_dir_all(node.database().parent().unwrap()).unwrap();
    fs::write(node.it.config(), config).unwrap();
}

#[test]
fn nodes_are_added_replaced_and_removed_while_the_others_serve() {
    let mut cluster = Plan { nodes: 4, later: 1, ..Plan::default() }.start();
    let primary = cluster.primary();
    let [lost, kept] = cluster.others(primary)[..2] else { panic!() };
    assert_eq!(cluster.nodes[primary].it.post("from three").code, 201);

    cluster.nodes[3].start();
    cluster.nodes[3].says("litepilot members add n4=");
    change(&cluster, kept, &["add", &format!("n4={}", peer_address(&cluster, 3))]);
    cluster.until_level(3);
    assert_eq!(entries(&cluster, 3), ["from three"]);
    assert_eq!(cluster.nodes[3].it.post("through the fourth").code, 201);

    cluster.nodes[lost].kill();
    lose_disk(&cluster, lost);
    cluster.nodes[lost].start();
    let name = cluster.nodes[lost].it.name.clone();
    let remedy = format!("litepilot members replace {name}");
    cluster.nodes[lost].says(&remedy);
    change(&cluster, primary, &["replace", &name]);
    cluster.until_level(lost);
    cluster.until_it_votes(lost);
    assert_eq!(entries(&cluster, lost), ["through the fourth", "from three"]);

    cluster.nodes[3].kill();
    change(&cluster, kept, &["remove", "n4"]);
    until_unlisted(&cluster, lost, "n4");
    // Two of these three are a majority again.
    cluster.nodes[primary].kill();
    until("writes are taken", || cluster.nodes[kept].it.post("of three again").code == 201);
}

#[test]
fn a_node_with_the_disk_of_another_cluster_is_not_let_in() {
    let mut cluster = Plan::default().start();
    let mut other = Plan::default().start();
    let primary = cluster.primary();
    let stranger = cluster.others(primary)[0];
    cluster.nodes[stranger].kill();
    other.nodes[stranger].kill();
    let raft = |cluster: &Cluster| cluster.nodes[stranger].it.data_dir.join("raft");
    fs::remove_dir_all(raft(&cluster)).unwrap();
    fs::rename(raft(&other), raft(&cluster)).unwrap();
    drop(other);
    cluster.nodes[stranger].start();
    until("it says so", || {
        cluster.nodes[stranger].said("knows another disk under this node's name")
    });
    assert_eq!(cluster.nodes[primary].it.post("without it").code, 201);
    assert_eq!(cluster.primary(), primary);
}

#[test]
fn of_two_nodes_with_one_name_the_second_is_not_let_in() {
    let mut cluster = Plan { nodes: 4, later: 1, ..Plan::default() }.start();
    let primary = cluster.primary();
    let twin = cluster.others(primary)[0];
    let name = cluster.nodes[twin].it.name.clone();
    let config = cluster.nodes[3].it.config();
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replacen("node: n4", &format!("node: {name}"), 1)).unwrap();
    cluster.nodes[3].start();
    cluster.nodes[3].says("if two nodes have this name, give each its own");
    for node in [primary, twin] {
        let at = cluster.nodes[node].it.url;
        assert_eq!(exchange(at, "POST", "/api/entries", "", b"{\"text\":\"x\"}").code, 201);
    }
    assert_eq!(cluster.primary(), primary);
}

/// Before the node runs: the command waits for it, and says so.
#[test]
fn a_node_is_added_before_it_is_started() {
    let mut cluster = Plan { nodes: 4, later: 1, ..Plan::default() }.start();
    let primary = cluster.primary();
    assert_eq!(cluster.nodes[primary].it.post("from three").code, 201);
    let config = cluster.nodes[primary].it.config();
    let mut adding = Command::new(env!("CARGO_BIN_EXE_litepilot"))
        .args(["members", "add", &format!("n4={}", peer_address(&cluster, 3)), "-c"])
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(adding.stderr.take().unwrap()).lines();
    while !said.next().unwrap().unwrap().contains("n4 is not reachable yet: start it") {}
    cluster.nodes[3].start();
    assert!(adding.wait().unwrap().success());
    cluster.until_level(3);
    assert_eq!(entries(&cluster, 3), ["from three"]);
}

#[test]
fn a_primary_that_is_removed_hands_over_first_and_says_what_it_is_then() {
    let cluster = Plan::default().start();
    let first = cluster.primary();
    let [one, _] = cluster.others(first)[..] else { panic!() };
    let name = cluster.nodes[first].it.name.clone();
    change(&cluster, one, &["remove", &name]);
    assert_ne!(cluster.primary(), first);
    assert_eq!(cluster.nodes[one].it.post("without it").code, 201);
    until("it knows", || {
        cluster.nodes[first].status().is_some_and(|status| status["raft"]["removed"] == true)
    });
    cluster.nodes[first].says("was removed from the cluster");
    let (_, table) = cluster.nodes[first].command(&["status"]);
    assert!(table.contains("NO: this node was removed"), "{table}");
    let (code, listed) = cluster.nodes[first].command(&["members"]);
    assert!(code != Some(0) && listed.contains("ask another one"), "{listed}");
}

/// Two of three disks are gone. What the last one holds goes on, and the others come back as new nodes.
#[test]
fn a_cluster_that_lost_most_of_its_disks_is_recovered_from_the_last() {
    let mut cluster = Plan::default().start();
    let primary = cluster.primary();
    assert_eq!(cluster.nodes[primary].it.post("before").code, 201);
    (0..3).for_each(|node| until("it is there", || entries(&cluster, node) == ["before"]));
    let [lost, last] = cluster.others(primary)[..] else { panic!() };
    let epoch = cluster.epoch(last);
    let refused = |cluster: &Cluster, node: usize, words: &str| {
        let (code, said) = cluster.nodes[node].command(&["recover", "--yes"]);
        assert!(code == Some(1) && said.contains(words), "{code:?} {said}");
    };
    refused(&cluster, last, "Stop this node first");
    cluster.nodes[last].kill();
    refused(&cluster, last, "answers at its peer port");
    for node in [primary, lost] {
        cluster.nodes[node].kill();
        lose_disk(&cluster, node);
    }
    let (code, said) = cluster.nodes[last].command(&["recover"]);
    assert!(code == Some(1) && said.contains("confirm it with --yes"), "{said}");
    let (code, said) = cluster.nodes[last].command(&["recover", "--yes"]);
    assert!(code == Some(0) && said.contains("is lost"), "{said}");

    cluster.nodes[last].start();
    assert_eq!(cluster.primary(), last);
    assert_eq!(cluster.nodes[last].it.post("alone").code, 201);
    assert!(cluster.epoch(last) > epoch);
    let name = cluster.nodes[lost].it.name.clone();
    let member = format!("{name}={}", peer_address(&cluster, lost));
    cluster.nodes[lost].start();
    change(&cluster, last, &["add", &member]);
    cluster.until_level(lost);
    assert_eq!(entries(&cluster, lost), ["alone", "before"]);
}

/// As in a move to another network: nobody can agree upon anything meanwhile.
#[test]
fn all_addresses_change_at_once() {
    let mut cluster = Plan::default().start();
    let primary = cluster.primary();
    assert_eq!(cluster.nodes[primary].it.post("before").code, 201);
    (0..3).for_each(|node| until("it is there", || entries(&cluster, node) == ["before"]));
    cluster.nodes.iter_mut().for_each(Node::kill);
    let (from, to) = (port_of(&peer_address(&cluster, 0)), free_ports());
    for node in &cluster.nodes {
        let mut text = fs::read_to_string(node.it.config()).unwrap();
        for i in 0..3 {
            text =
                text.replace(&format!("127.0.0.1:{}", from + i), &format!("127.0.0.1:{}", to + i));
        }
        fs::write(node.it.config(), text).unwrap();
    }
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.primary();
    until("they write", || cluster.nodes[0].it.post("after").code == 201);
}

/// The others' files name the old one: what the node says of itself is believed once nobody is there.
#[test]
fn one_address_changes_in_that_nodes_own_file_only() {
    let mut cluster = Plan::default().start();
    let primary = cluster.primary();
    let [moved, _] = cluster.others(primary)[..] else { panic!() };
    assert_eq!(cluster.nodes[primary].it.post("before").code, 201);
    cluster.until_level(moved);
    let (old, new) = (peer_address(&cluster, moved), format!("127.0.0.1:{}", free_ports()));
    assert!(cluster.nodes[moved].stop());
    rewrite(&cluster, moved, |text| text.replace(&old, &new));
    cluster.nodes[moved].start();
    cluster.until_level(moved);

    let name = cluster.nodes[moved].it.name.clone();
    until("it takes over", || {
        let (code, said) = cluster.nodes[primary].command(&["promote", &name]);
        println!("{code:?} {said}");
        code == Some(0)
    });
    assert_eq!(cluster.nodes[primary].it.post("after").code, 201);
    assert_eq!(entries(&cluster, moved), ["after", "before"]);
    let advice = format!("{name} is not at {old} any more but at {new}");
    cluster.nodes[primary].says(&advice);
}

fn rewrite(cluster: &Cluster, node: usize, change: impl Fn(&str) -> String) {
    let config = cluster.nodes[node].it.config();
    let text = fs::read_to_string(&config).unwrap();
    fs::write(config, change(&text)).unwrap();
}

#[test]
fn from_three_nodes_to_one_and_back() {
    let mut cluster = Plan::default().start();
    let last = cluster.primary();
    assert_eq!(cluster.nodes[last].it.post("of three").code, 201);
    let others = cluster.others(last);
    let name_of = |cluster: &Cluster, node: usize| cluster.nodes[node].it.name.clone();
    for node in others.clone() {
        change(&cluster, last, &["remove", &name_of(&cluster, node)]);
        cluster.nodes[node].kill();
        lose_disk(&cluster, node);
    }
    until("it goes on alone", || cluster.nodes[last].it.post("alone").code == 201);
    assert!(cluster.nodes[last].stop());
    cluster.nodes[last].start();
    assert_eq!(cluster.primary(), last);
    for node in others {
        cluster.nodes[node].start();
        let member = format!("{}={}", name_of(&cluster, node), peer_address(&cluster, node));
        change(&cluster, last, &["add", &member]);
        cluster.until_level(node);
        assert!(entries(&cluster, node).ends_with(&["of three".to_owned()]));
    }
    cluster.nodes[last].kill();
    assert_ne!(cluster.primary(), last);
}

/// With `election: single` nobody else would know of what it writes: it says what to do, and that works.
#[test]
fn a_node_leaves_its_cluster_for_good_and_others_join_it_later() {
    let mut cluster = Plan::default().start();
    let last = cluster.primary();
    assert_eq!(cluster.nodes[last].it.post("of three").code, 201);
    let others = cluster.others(last);
    others.iter().for_each(|node| assert!(cluster.nodes[*node].stop()));
    cluster.nodes[last].kill();
    cluster.nodes[last].unmount();
    let elected = fs::read(cluster.nodes[last].it.config()).unwrap();
    rewrite(&cluster, last, |text| {
        let (start, end) = (text.find("cluster:").unwrap(), text.find("litefs:").unwrap());
        format!("{}cluster: {{election: single}}\n{}", &text[..start], &text[end..])
    });
    cluster.nodes[last].start();
    until("it says what to do", || {
        cluster.nodes[last].said("delete raft, litefs.* and embedded.*")
    });
    until("it has ended", || !cluster.nodes[last].runs());
    for entry in fs::read_dir(&cluster.nodes[last].it.data_dir).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with("litefs.") || name.starts_with("embedded.") {
            fs::remove_file(entry.path()).unwrap();
        } else if name == "raft" {
            fs::remove_dir_all(entry.path()).unwrap();
        }
    }
    cluster.nodes[last].start();
    assert_eq!(cluster.primary(), last);
    until("it goes on alone", || cluster.nodes[last].it.post("alone").code == 201);

    assert!(cluster.nodes[last].stop());
    fs::write(cluster.nodes[last].it.config(), elected).unwrap();
    others.iter().for_each(|node| lose_disk(&cluster, *node));
    cluster.nodes.iter_mut().for_each(Node::start);
    assert_eq!(cluster.primary(), last, "it has the data");
    for node in others {
        cluster.until_level(node);
        until("it is there", || entries(&cluster, node) == ["alone", "of three"]);
    }
}

fn port_of(address: &str) -> u16 {
    address.rsplit_once(':').unwrap().1.parse().unwrap()
}

#[test]
fn the_leader_of_raft_is_removed_by_one_command() {
    let cluster = Plan::default().start();
    let primary = cluster.primary();
    let others = cluster.others(primary);
    // A primary passes the leadership on.
    let name_of = |node: usize| cluster.nodes[node].it.name.clone();
    let leads =
        |node: usize| cluster.nodes[primary].status().unwrap()["raft"]["leader"] == name_of(node);
    until("another node leads Raft", || others.iter().any(|node| leads(*node)));
    let leader = others.into_iter().find(|node| leads(*node)).unwrap();
    let (code, said) = cluster.nodes[primary].command(&["members", "remove", &name_of(leader)]);
    assert_eq!(code, Some(0), "{said}");
    until_unlisted(&cluster, primary, &name_of(leader));
}
