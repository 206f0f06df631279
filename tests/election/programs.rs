//! What runs on which node, and when: applications that write at their start, that run on the primary
//! only, that keep in memory what they have read; and services.

use std::fs;

use rustix::process::Signal;

use super::cluster::{Cluster, Node, Plan};
use super::harness::{exchange, lives, run, text, until};
use super::{entries, kill_app_for_good};

const WORKER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/election/worker.py");

fn plan(habit: &'static str) -> Plan {
    Plan { habit: Some(habit), ..Plan::default() }
}

fn app(cluster: &Cluster, node: usize) -> serde_json::Value {
    cluster.nodes[node].status().map(|status| status["app"].clone()).unwrap_or_default()
}

fn everywhere(cluster: &Cluster, nodes: &[usize], what: &[&str]) {
    for node in nodes {
        until("every node has it", || entries(cluster, *node) == what);
    }
}

#[test]
fn an_application_that_makes_its_tables_at_its_start_starts_on_empty_nodes() {
    let cluster = plan("tables").start();
    for node in 0..3 {
        until("its application answers", || app(&cluster, node)["state"] == "up");
        assert_eq!(app(&cluster, node)["restarts"], 0, "it never started in vain");
        let text = format!("through {node}");
        assert_eq!(cluster.nodes[node].it.post(&text).code, 201);
    }
    everywhere(&cluster, &[0, 1, 2], &["through 0", "through 1", "through 2"]);
    let replica = cluster.others(cluster.primary())[0];
    cluster.nodes[replica].says("waits until the primary's application is up");
}

#[test]
fn a_replica_with_data_starts_its_application_without_a_primary() {
    let mut cluster = plan("tables").start();
    assert_eq!(cluster.nodes[0].it.post("before").code, 201);
    everywhere(&cluster, &[0, 1, 2], &["before"]);
    cluster.nodes.iter_mut().for_each(|node| assert!(node.stop()));
    cluster.nodes[1].start();
    until("its application is started", || app(&cluster, 1)["pid"].is_u64());
    assert!(cluster.nodes[1].status().unwrap()["primary"].is_null());
}

#[test]
fn an_application_that_cannot_start_on_a_replica_is_named() {
    let mut cluster = plan("write").prepare();
    cluster.nodes.iter_mut().for_each(Node::start);
    let first = cluster.primary();
    let [one, two] = cluster.others(first)[..] else { panic!() };
    until("it answers on the primary", || app(&cluster, first)["state"] == "up");
    for node in [one, two] {
        until("its trouble is named", || {
            let note = app(&cluster, node)["note"].clone();
            note.as_str().is_some_and(|note| note.contains("as if it wrote at its start"))
        });
        cluster.nodes[node].says("or set app.run_on: primary");
        let (_, table) = cluster.nodes[node].command(&["status"]);
        assert!(table.contains("the application exits on this replica"), "{table}");
        assert_eq!(cluster.nodes[node].it.post("through it").code, 201);
    }
    // Whoever is next starts it at once, whatever the pause was.
    cluster.nodes[first].kill();
    let second = cluster.primary();
    until("it answers there", || app(&cluster, second)["state"] == "up");
    assert!(app(&cluster, second)["note"].is_null());
    assert_eq!(cluster.nodes[second].it.post("after").code, 201);
}

#[test]
fn an_application_for_the_primary_only_serves_through_every_node() {
    let mut cluster = Plan { app: "  run_on: primary\n", ttl: "8s", ..plan("write") }.start();
    let mut kept = 0;
    for round in ["started", "handed over", "killed"] {
        let first = cluster.primary();
        until("it answers", || app(&cluster, first)["state"] == "up");
        for node in 0..3 {
            kept += 1;
            assert_eq!(cluster.nodes[node].it.post(&format!("{round} {node}")).code, 201);
            let own: Vec<_> = entries(&cluster, node);
            assert_eq!(own.iter().filter(|text| *text != "started").count(), kept);
        }
        for node in cluster.others(first) {
            let app = app(&cluster, node);
            assert!(app["state"] == "standby" && app["pid"].is_null(), "{app}");
            let admin = cluster.nodes[node].it.admin.trim_start_matches("http://").parse().unwrap();
            // One that was just started again has its engine to wait for.
            until("it is ready: its requests go to the primary", || {
                exchange(admin, "GET", "/health/ready", "", b"").code == 200
            });
        }
        let next = cluster.others(first)[0];
        if round == "started" {
            let old = app(&cluster, first)["pid"].clone();
            cluster.promote(first, next);
            until("the former one rests", || app(&cluster, first)["pid"].is_null());
            assert!(!lives(old.as_u64().unwrap() as u32));
        } else if round == "handed over" {
            cluster.nodes[first].kill();
            assert_eq!(cluster.nodes[next].it.get("/api/entries").code, 200, "held, then served");
            cluster.nodes[first].unmount();
            cluster.nodes[first].start();
            cluster.until_it_votes(first);
        }
    }
}

#[test]
fn a_service_runs_on_the_primary_and_never_twice() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("said");
    let service =
        format!("services: [{{name: worker, command: [python3, {WORKER}, {}]}}]\n", file.display());
    let mut cluster = Plan { top: service.leak(), ttl: "8s", ..Plan::default() }.start();
    let said = || fs::read_to_string(&file).unwrap_or_default();
    let last = |cluster: &Cluster, node: usize| {
        let line = format!("start {}\n", cluster.nodes[node].it.name);
        until("it runs on the primary", || said().ends_with(&line));
    };
    let first = cluster.primary();
    last(&cluster, first);
    let services =
        |cluster: &Cluster, node: usize| cluster.nodes[node].status().unwrap()["services"].clone();
    assert_eq!(services(&cluster, first)[0]["state"], "running");
    let [one, two] = cluster.others(first)[..] else { panic!() };
    assert_eq!(services(&cluster, one)[0]["state"], "resting");
    assert_eq!(cluster.nodes[one].it.post("before").code, 201);
    everywhere(&cluster, &[first, one, two], &["before"]);
    cluster.promote(two, one);
    last(&cluster, one);
    let end = format!("end {}\n", cluster.nodes[first].it.name);
    assert!(said().contains(&end), "it was asked to end: {}", said());
    [first, two].into_iter().for_each(|node| cluster.until_level(node));

    cluster.nodes[one].kill();
    let third = cluster.primary();
    last(&cluster, third);
    // A node that stands still cannot stop it: its guard does.
    cluster.nodes[one].unmount();
    cluster.nodes[one].start();
    cluster.until_level(one);
    let worker = services(&cluster, third)[0]["pid"].as_u64().unwrap() as u32;
    cluster.nodes[third].signal(Signal::STOP);
    until("another one is primary", || cluster.nodes[one].it.post("after").code == 201);
    assert!(!lives(worker));
    last(&cluster, cluster.primary());
    cluster.nodes[third].signal(Signal::CONT);
    cluster.until_level(third);
    assert!(!said().contains("twice"), "{}", said());
}

#[test]
fn a_handoff_that_is_refused_ends_no_service() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("said");
    let service =
        format!("services: [{{name: worker, command: [python3, {WORKER}, {}]}}]\n", file.display());
    let cluster = Plan { top: service.leak(), ..Plan::default() }.start();
    let first = cluster.primary();
    let [one, _] = cluster.others(first)[..] else { panic!() };
    let started = format!("start {}\n", cluster.nodes[first].it.name);
    let said = || fs::read_to_string(&file).unwrap_or_default();
    until("it runs", || said() == started);
    kill_app_for_good(&cluster, one);
    until("its application is down", || app(&cluster, one)["state"] == "down");
    let (code, text) = cluster.nodes[first].command(&["promote", &cluster.nodes[one].it.name]);
    assert!(code == Some(1) && text.contains("its application does not answer"), "{text}");
    assert_eq!(said(), started);
}

#[test]
fn an_application_that_answers_from_memory_is_started_anew_where_it_is_promoted() {
    let cluster = Plan { app: "  on_promote: restart\n", ..plan("memory") }.start();
    let first = cluster.primary();
    let next = cluster.others(first)[0];
    until("its application answers", || app(&cluster, next)["state"] == "up");
    assert_eq!(cluster.nodes[first].it.post("new").code, 201);
    cluster.until_level(next);
    cluster.promote(first, next);
    assert_eq!(entries(&cluster, next), ["new"], "it did not know of it before");
}

#[test]
fn whoever_promotes_a_node_is_told_that_its_on_promote_failed() {
    let fails_once = "  on_promote: [sh, -c, 'test $LITEPILOT_EPOCH != 2']\n";
    let cluster = Plan { app: fails_once, ..Plan::default() }.start();
    let first = cluster.primary();
    let next = cluster.others(first)[0];
    assert_eq!(cluster.nodes[first].it.post("before").code, 201);
    cluster.until_level(next);
    let name = cluster.nodes[next].it.name.clone();
    let (code, said) = cluster.nodes[first].command(&["promote", &name]);
    let told = format!("{name} cannot become primary now: it had the lease in epoch 2");
    assert!(code == Some(1) && said.contains(&told), "{code:?} {said}");
    assert_eq!(cluster.nodes[first].it.post("writes go on").code, 201);
}

/// Runs `litepilot on-primary` on that node; its exit code, and all that it says.
fn on_primary(cluster: &Cluster, node: usize, args: &[&str]) -> (Option<i32>, String) {
    let config = cluster.nodes[node].it.config();
    let output = run(&[&["on-primary", "-c", config.to_str().unwrap()], args].concat());
    (output.status.code(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
}

#[test]
fn a_command_given_on_another_node_runs_on_the_primary_if_that_allows_it() {
    let allowing = ", allow_forwarded_commands: true";
    let cluster = Plan { admin: allowing, ttl: "8s", ..Plan::default() }.start();
    let first = cluster.primary();
    let other = cluster.others(first)[0];
    let (code, said) = on_primary(&cluster, other, &["--", "true"]);
    assert!(code == Some(0) && said.contains("or with --forward"), "{said}");
    let where_it_runs = ["--forward", "--", "sh", "-c", "echo here: $LITEPILOT_NODE; exit 7"];
    let (code, said) = on_primary(&cluster, other, &where_it_runs);
    let here = format!("here: {}\n", cluster.nodes[first].it.name);
    assert!(code == Some(7) && said.contains(&here), "{code:?} {said}");
    let once = ["--forward", "--once", "v1", "--", "echo", "did it"];
    let (code, said) = on_primary(&cluster, other, &once);
    assert!(code == Some(0) && said.contains("did it"), "{said}");
    let (code, said) = on_primary(&cluster, first, &once);
    assert!(code == Some(0) && said.contains("done before"), "the same key everywhere: {said}");
}

#[test]
fn a_command_given_on_another_node_is_refused_where_that_is_not_allowed() {
    let cluster = Plan::default().start();
    let other = cluster.others(cluster.primary())[0];
    let (code, said) = on_primary(&cluster, other, &["--forward", "--", "echo", "ran"]);
    let refused = code == Some(1) && said.contains("set admin.allow_forwarded_commands: true");
    assert!(refused && !said.contains("ran\n"), "{said}");
}
