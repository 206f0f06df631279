//! Who is primary, as users meet it: nodes that are killed, stopped, told to hand over and started
//! again, while clients go on.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use clients::Clients;
use cluster::{Cluster, Plan};
use harness::{exchange, texts, until};

mod clients;
mod cluster;
#[path = "../demo/harness.rs"]
#[expect(dead_code, reason = "the demo's tests use the rest")]
mod harness;
mod lagging;
mod members;
mod programs;
mod releases;

/// The entries that a node serves, the newest first.
fn entries(cluster: &Cluster, node: usize) -> Vec<String> {
    texts(&cluster.nodes[node].it.get("/api/entries"))
}

#[test]
fn a_killed_primary_is_replaced_and_comes_back_as_a_replica() {
    let mut cluster = Plan::default().start();
    let first = cluster.primary();
    let [one, two] = cluster.others(first)[..] else { panic!() };
    assert_eq!(cluster.nodes[one].it.post("before").code, 201);
    for node in [one, two] {
        until("it has been replicated", || entries(&cluster, node) == ["before"]);
    }
    cluster.nodes[first].kill();
    assert_eq!(entries(&cluster, two), ["before"], "reads go on");
    for node in [one, two] {
        let held = cluster.nodes[node].it.post(&format!("through {node}"));
        assert_eq!(held.code, 201, "held, and then done: {held:?}");
    }
    let second = cluster.primary();
    assert!(second != first && cluster.epoch(one) > 1);
    let primary_file =
        |node: usize| fs::read_to_string(cluster.nodes[node].it.data_dir.join(".primary"));
    let replica = if second == one { two } else { one };
    let name = format!("{}\n", cluster.nodes[second].it.name);
    until("the others name it", || primary_file(replica).is_ok_and(|text| text == name));
    assert!(primary_file(second).is_err(), "on the primary itself there is none");

    cluster.nodes[first].start();
    cluster.until_level(first);
    until("it has what it missed", || entries(&cluster, first).len() == 3);
    assert_eq!(cluster.nodes[first].it.post("through the former one").code, 201);
    assert_eq!(cluster.primary(), second);
}

#[test]
fn a_cluster_that_nobody_has_written_to_goes_on_as_any_other() {
    let mut cluster = Plan::default().start();
    let first = cluster.primary();
    let next = cluster.others(first)[0];
    cluster.promote(first, next);
    cluster.nodes[next].kill();
    assert_eq!(cluster.nodes[first].it.post("the first write").code, 201);
}

/// Its guard says so, as the node whose certificate it has: nobody waits until the lease expires.
#[test]
fn who_is_killed_is_replaced_before_its_lease_expires() {
    let mut cluster = Plan { tls: true, ..Plan::default() }.start();
    for _ in 0..2 {
        let first = cluster.primary();
        let [one, two] = cluster.others(first)[..] else { panic!() };
        cluster.nodes[first].kill();
        assert_eq!(cluster.nodes[one].it.post("after").code, 201, "held, and then done");
        let name = cluster.nodes[first].it.name.clone();
        let said = |words: &str| {
            let words = words.replace("NODE", &name);
            [one, two].iter().any(|node| cluster.nodes[*node].said(&words))
        };
        until("it is said why", || said("the process of NODE"));
        assert!(!said("has not renewed its lease"));
        cluster.nodes[first].start();
        cluster.until_level(first);
    }
}

/// LiteFS' renewal has no time limit: without the guard it would take writes for as long as this lasts.
#[test]
fn over_litefs_the_guard_ends_a_stopped_primarys_litefs_before_another_takes_writes() {
    if cluster::litefs().is_none() {
        eprintln!("skipped: this is about a real LiteFS");
        return;
    }
    let cluster = Plan::default().start();
    let first = cluster.primary();
    let [one, two] = cluster.others(first)[..] else { panic!() };
    assert_eq!(cluster.nodes[one].it.post("before").code, 201);
    (0..3).for_each(|node| until("it is there", || entries(&cluster, node) == ["before"]));
    let litefs = cluster.nodes[first].status().unwrap()["litefs"]["pid"].as_u64().unwrap() as u32;
    let mut alone = bypass(&cluster.nodes[first].database());
    let mut lines = BufReader::new(alone.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    cluster.nodes[first].signal(Signal::STOP);
    until("another one takes writes", || cluster.nodes[one].it.post("after").code == 201);
    assert!(!harness::lives(litefs), "two LiteFS take writes");
    // It ends with the file system that it wrote to.
    let committed: Vec<_> = lines.map(Result::unwrap).collect();
    alone.wait().unwrap();
    assert!(!committed.is_empty());

    cluster.nodes[first].signal(Signal::CONT);
    cluster.until_level(first);
    assert_eq!(entries(&cluster, first), entries(&cluster, two));
    assert_eq!(cluster.nodes[first].it.post("through it").code, 201);
}

/// A process that writes past the proxy, and prints what was committed, until it cannot any more.
fn bypass(database: &Path) -> Child {
    let script = "
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)
while True:
    db.execute(\"INSERT INTO entries (text, node, at) VALUES ('alone', 'x', 'y')\")
    print('committed', flush=True)
    time.sleep(0.005)
";
    let mut python = Command::new("python3");
    python.args(["-c", script]).arg(database).stdin(Stdio::null());
    python.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_stopped_primary_commits_nothing_more_and_what_only_it_had_is_kept() {
    if cluster::litefs().is_some() {
        eprintln!("skipped: this writes the embedded engine's database");
        return;
    }
    let cluster = Plan::default().start();
    let first = cluster.primary();
    let [one, _] = cluster.others(first)[..] else { panic!() };
    assert_eq!(cluster.nodes[one].it.post("before").code, 201);
    let app = cluster.nodes[first].status().unwrap()["app"]["pid"].as_u64().unwrap() as u32;
    cluster.nodes[first].signal(Signal::STOP);
    // Its application lives on for a while, and writes by itself.
    let alone = rusqlite::Connection::open(cluster.nodes[first].database()).unwrap();
    alone.execute("INSERT INTO entries (text, node, at) VALUES ('alone', 'x', 'y')", ()).unwrap();
    drop(alone);
    until("the guard has killed its application", || !harness::lives(app));
    until("another one takes writes", || cluster.nodes[one].it.post("after").code == 201);
    let second = cluster.primary();
    assert_ne!(second, first);

    cluster.nodes[first].signal(Signal::CONT);
    cluster.until_level(first);
    until("it has the new history", || entries(&cluster, first)[0] == "after");
    assert!(!entries(&cluster, first).contains(&"alone".to_owned()));
    let kept = fs::read_dir(cluster.nodes[first].it.data_dir.join("diverged")).unwrap();
    let kept: Vec<_> = kept.map(|entry| entry.unwrap().path()).collect();
    let copy = rusqlite::Connection::open(&kept[0]).unwrap();
    let alone = "SELECT count(*) FROM entries WHERE text = 'alone'";
    assert_eq!(copy.query_row(alone, (), |row| row.get::<_, i64>(0)), Ok(1));
}

/// It cannot be started again either: its socket, which this returns, is a directory.
fn kill_app_for_good(cluster: &Cluster, node: usize) -> PathBuf {
    let app = cluster.nodes[node].status().unwrap()["app"]["pid"].as_u64().unwrap() as u32;
    let socket = cluster.nodes[node].it.data_dir.join("s");
    harness::send(Signal::STOP, app);
    fs::remove_file(&socket).unwrap();
    fs::create_dir(&socket).unwrap();
    harness::send(Signal::KILL, app);
    socket
}

#[test]
fn a_primary_whose_application_stays_down_hands_over() {
    let plan = Plan { app: "  down_after: 500ms\n", ..Plan::default() };
    let mut cluster = plan.start();
    let first = cluster.primary();
    let [one, _] = cluster.others(first)[..] else { panic!() };
    assert_eq!(cluster.nodes[one].it.post("before").code, 201);
    let socket = kill_app_for_good(&cluster, first);
    until("another one is primary", || cluster.primary() != first);
    assert_eq!(cluster.nodes[one].it.post("after").code, 201);
    assert!(cluster.nodes[first].runs());
    // Through it, too: its own application is not needed for that.
    assert_eq!(cluster.nodes[first].it.post("through it").code, 201);
    fs::remove_dir(&socket).unwrap();
    assert!(cluster.nodes[first].stop());
}

/// As with applications that write when they start: none answers before there is a primary.
#[test]
fn a_primary_is_chosen_and_hands_over_while_no_application_answers() {
    let mut cluster = Plan::default().prepare();
    let sockets: Vec<_> = cluster.nodes.iter().map(|node| node.it.data_dir.join("s")).collect();
    sockets.iter().for_each(|socket| fs::create_dir(socket).unwrap());
    cluster.nodes.iter_mut().for_each(cluster::Node::start);
    let first = cluster.primary();
    let [one, two] = cluster.others(first)[..] else { panic!() };
    let name = cluster.nodes[one].it.name.clone();
    let (code, said) = cluster.nodes[two].command(&["promote", &name]);
    assert!(code == Some(1) && said.contains("its application does not answer; --force"), "{said}");
    // Not before its LiteFS has met the primary's.
    until("it can be promoted by force", || {
        cluster.nodes[two].command(&["promote", &name, "--force"]).0 == Some(0)
    });
    assert_eq!(cluster.primary(), one);
    assert!(cluster.nodes[one].stop());
    assert_ne!(cluster.primary(), one);
    sockets.iter().for_each(|socket| fs::remove_dir(socket).unwrap());
    assert_eq!(cluster.nodes[two].it.post("after").code, 201);
}

/// Not after `down_after`, which is there for one that hangs.
#[test]
fn a_primary_whose_application_dies_hands_over_while_that_starts_again() {
    let cluster = Plan::default().start();
    let first = cluster.primary();
    let [one, _] = cluster.others(first)[..] else { panic!() };
    assert_eq!(cluster.nodes[one].it.post("before").code, 201);
    let socket = kill_app_for_good(&cluster, first);
    assert_eq!(cluster.nodes[one].it.post("after").code, 201, "held, and then done");
    until("another one is primary", || cluster.primary() != first);
    cluster.nodes[first].says("has ended: another node has taken over");
    fs::remove_dir(&socket).unwrap();
}

#[test]
fn nobody_notices_a_handoff_or_a_rolling_restart() {
    let mut cluster = Plan::default().start();
    let addresses: Vec<_> = cluster.nodes.iter().map(|node| node.it.url).collect();
    let first = cluster.primary();
    assert_eq!(cluster.nodes[first].it.post("a table").code, 201);
    for node in cluster.others(first) {
        cluster.until_level(node);
    }
    let clients = Clients::start(4, &addresses);
    let target = cluster.others(first)[0];
    cluster.promote(first, target);
    assert_eq!(cluster.primary(), target);
    for node in 0..3 {
        assert!(cluster.nodes[node].stop(), "it ends well");
        cluster.nodes[node].start();
        until("it serves again", || {
            cluster.nodes[node].status().is_some_and(|status| {
                status["app"]["state"] == "up" && status["primary"].is_object()
            })
        });
        until("it is level, or the primary", || {
            let status = cluster.nodes[node].status().unwrap_or(Value::Null);
            status["role"] == "primary" || status["lag_ms"].as_u64().is_some_and(|lag| lag < 1000)
        });
    }
    let (done, failed) = clients.stop();
    assert!(done > 50 && failed.is_empty(), "{} of {done}: {:?}", failed.len(), failed.first());
}

#[test]
fn a_change_of_raft_leader_is_not_noticed() {
    // It takes a second or two, and a claim lasts 16 s: at 8 s a machine at seventeen times its load let
    // claims lapse by itself.
    let mut cluster = Plan { ttl: "20s", ..Plan::default() }.start();
    let primary = cluster.primary();
    assert_eq!(cluster.nodes[primary].it.post("a table").code, 201);
    let epoch = cluster.epoch(primary);
    let [one, two] = cluster.others(primary)[..] else { panic!() };
    let clients = Clients::start(4, &[cluster.nodes[primary].it.url]);
    let leader = |cluster: &Cluster| {
        let status = cluster.nodes[primary].status().unwrap_or(Value::Null);
        let named = status["raft"]["leader"].as_str().map(str::to_owned);
        named.and_then(|name| cluster.nodes.iter().position(|node| node.it.name == name))
    };
    for round in 1..=5 {
        // The primary passes Raft's leadership on, if it has it.
        let mut leads = primary;
        until("another node leads Raft", || {
            leads = leader(&cluster).unwrap_or(primary);
            leads == one || leads == two
        });
        cluster.nodes[leads].kill();
        until("it is led again", || leader(&cluster).is_some_and(|now| now != leads));
        cluster.nodes[leads].start();
        cluster.until_level(leads);
        // A thousand in all, however slow the machine: each round has its own time for its part.
        until("200 writes more are done", || clients.written() >= round * 200);
    }
    let (done, failed) = clients.stop();
    assert!(failed.is_empty(), "{} of {done}: {:?}", failed.len(), failed.first());
    assert_eq!((cluster.primary(), cluster.epoch(primary)), (primary, epoch));
}

#[test]
fn without_a_quorum_there_are_reads_and_clear_refusals_until_there_is_one() {
    let app = "  on_quorum_lost: [/bin/true]\n";
    let plan = Plan { witness: true, ttl: "8s", app, ..Plan::default() };
    let mut cluster = plan.start();
    let first = cluster.primary();
    let other = cluster.others(first)[0];
    assert_eq!(cluster.nodes[other].it.post("two of data, one that votes").code, 201);
    cluster.until_level(other);
    // With the witness alone there still is one.
    cluster.nodes[first].kill();
    until("the other one takes writes", || cluster.nodes[other].it.post("after").code == 201);
    cluster.nodes[2].kill();
    until("it notices", || cluster.nodes[other].status().is_some_and(|s| s["quorum"] == false));
    until("it takes no writes", || {
        cluster.nodes[other].status().is_some_and(|status| status["writable"] == false)
    });
    let refused = cluster.nodes[other].it.post("refused");
    assert_eq!(refused.code, 503);
    assert_eq!(refused.json()["type"], "urn:litepilot:problem:no-quorum");
    assert_eq!(entries(&cluster, other)[0], "after", "reads go on");
    cluster.nodes[other].says("on-quorum-lost");
    cluster.nodes[2].start();
    until("writes are taken again", || cluster.nodes[other].it.post("again").code == 201);
}

#[test]
fn the_first_primary_is_chosen_among_all_and_the_one_with_the_data_wins() {
    if cluster::litefs().is_some() {
        eprintln!("skipped: this writes the embedded engine's database");
        return;
    }
    let mut cluster = Plan::default().prepare();
    let data = rusqlite::Connection::open(cluster.nodes[1].database()).unwrap();
    let table = "CREATE TABLE entries (id INTEGER PRIMARY KEY, text TEXT NOT NULL, \
                 node TEXT NOT NULL, at TEXT NOT NULL); \
                 INSERT INTO entries (text, node, at) VALUES ('from before', 'x', 'y')";
    data.execute_batch(table).unwrap();
    drop(data);
    for node in [0, 2] {
        cluster.nodes[node].start();
    }
    until("it is said what is waited for", || {
        [0, 2].iter().any(|i| cluster.nodes[*i].said("the first primary is chosen among all"))
    });
    assert!(cluster.nodes[0].status().unwrap()["primary"].is_null());
    let why = "what is on n2 is not known yet";
    for node in [0, 2] {
        until("every node's status says it", || {
            let status = cluster.nodes[node].status().unwrap();
            status["no_primary"].as_str().is_some_and(|said| said.contains(why))
        });
        let (_, said) = cluster.nodes[node].command(&["promote", "n2", "--force"]);
        assert!(said.contains(why), "{said}");
    }
    cluster.nodes[1].start();
    assert_eq!(cluster.primary(), 1);
    for node in [0, 2] {
        until("it has been replicated", || entries(&cluster, node) == ["from before"]);
    }
}

#[test]
fn an_operator_can_force_the_first_primary() {
    let mut cluster = Plan::default().prepare();
    for node in [0, 2] {
        cluster.nodes[node].start();
    }
    until("it is forced", || {
        let (code, said) = cluster.nodes[0].command(&["promote", "n3", "--force"]);
        code == Some(0) || {
            thread::sleep(Duration::from_millis(50));
            said.is_empty()
        }
    });
    assert_eq!(cluster.primary(), 2);
    let written =
        exchange(cluster.nodes[0].it.url, "POST", "/api/entries", "", b"{\"text\":\"x\"}");
    assert_eq!(written.code, 201);
}
