//! Whole nodes over LiteFS, in one process: proxy, election, application and all.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use litepilot::config::Config;
use litepilot::node::{Node, Tuning};
use litepilot::shutdown::Urgency;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::harness::{Answer, exchange, free_ports};
use super::support::{LONG, log, program};

/// A token for the admin ports.
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

struct Cluster {
    nodes: Vec<Option<Node>>,
    configs: Vec<Config>,
    _dir: TempDir,
}

/// Returns once something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LONG, "not within {LONG:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn config(dir: &Path, i: usize, peers: &str, cluster: &str, ports: (u16, u16)) -> Config {
    let place = dir.join(format!("n{i}"));
    std::fs::create_dir_all(place.join("mount")).unwrap();
    let text = format!(
        "node: n{i}
data_dir: {place}/state
shutdown_timeout: 10s
proxy: {{listen: 127.0.0.1:0, target: 'unix:{place}/s', db: book.sqlite3, write_hold: 60s}}
cluster:
  listen: 127.0.0.1:{peer}
{peers}{cluster}
litefs:
  binary: {litefs}
  mount: {place}/mount
  data: {place}/litefs
  http: 127.0.0.1:{http}
  lease_listen: 127.0.0.1:{lease}
app:
  command: [{litepilot}, demo-app, --socket, {place}/s, --db, {place}/mount/book.sqlite3]
  health: /health
  grace: 3s
admin: {{listen: 127.0.0.1:0, token: {TOKEN}}}
",
        place = place.display(),
        litefs = program().0.display(),
        litepilot = env!("CARGO_BIN_EXE_litepilot"),
        peer = ports.0 + i as u16,
        http = ports.1 + i as u16,
        lease = ports.1 + 1000 + i as u16,
    );
    Config::from_yaml("litepilot.yml", text.as_bytes(), &|_| None)
        .unwrap_or_else(|problems| panic!("{text}\n{problems:?}"))
}

fn start(config: &Config) -> Node {
    let guard = Some(env!("CARGO_BIN_EXE_litepilot").into());
    Node::start_with(
        config.clone(),
        Tuning { guard, without_fuse: !program().1, ..Tuning::default() },
    )
    .unwrap()
}

impl Cluster {
    fn start(nodes: usize, cluster: &str) -> Self {
        log();
        let dir = tempfile::tempdir().unwrap();
        let ports = (free_ports(), free_ports());
        let address = |i: usize| format!("n{i}: \"127.0.0.1:{}\"", ports.0 + i as u16);
        let peers: Vec<_> = (0..nodes).map(address).collect();
        let peers = match nodes {
            1 => String::new(),
            _ => format!("  peers: {{{}}}\n", peers.join(", ")),
        };
        let configs: Vec<_> =
            (0..nodes).map(|i| config(dir.path(), i, &peers, cluster, ports)).collect();
        let nodes = configs.iter().map(|config| Some(start(config))).collect();
        Self { nodes, configs, _dir: dir }
    }

    fn node(&self, i: usize) -> &Node {
        self.nodes[i].as_ref().expect("it runs")
    }

    fn admin(&self, i: usize, method: &str, path: &str) -> Answer {
        let headers = format!("Authorization: Bearer {TOKEN}\r\n");
        exchange(self.node(i).admin_address(), method, path, &headers, b"")
    }

    fn status(&self, i: usize) -> Value {
        self.admin(i, "GET", "/status").json()
    }

    /// Whoever takes writes.
    fn primary(&self) -> usize {
        let mut found = None;
        until("a node takes writes", || {
            let running = (0..self.nodes.len()).filter(|i| self.nodes[*i].is_some());
            found = running.into_iter().find(|i| self.status(*i)["writable"] == true);
            found.is_some()
        });
        found.unwrap()
    }

    fn proxy(&self, i: usize) -> SocketAddr {
        self.node(i).proxy_address()
    }

    fn post(&self, i: usize, text: &str, headers: &str) -> Answer {
        let body = json!({ "text": text }).to_string();
        exchange(self.proxy(i), "POST", "/api/entries", headers, body.as_bytes())
    }

    fn entries(&self, i: usize, headers: &str) -> Vec<String> {
        let answer = exchange(self.proxy(i), "GET", "/api/entries", headers, b"");
        assert_eq!(answer.code, 200, "{answer:?}");
        let entries = answer.json();
        let text = |entry: &Value| entry["text"].as_str().unwrap().to_owned();
        entries.as_array().unwrap().iter().map(text).collect()
    }

    fn until_level(&self, i: usize) {
        until("it follows and is level", || {
            let status = self.status(i);
            status["primary"].is_object()
                && status["lag_ms"].as_u64().is_some_and(|lag| lag < 2000)
                && status["app"]["state"] == "up"
        });
    }

    fn stop(mut self) {
        for node in self.nodes.iter().flatten() {
            node.stop(Urgency::Graceful);
        }
        self.nodes.drain(..).flatten().for_each(Node::wait);
        for config in &self.configs {
            let mount = &config.litefs.mount;
            assert!(!litepilot::litefs::mount::is_mounted(mount).unwrap(), "{}", mount.display());
        }
    }
}

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
    cluster.nodes[second] = Some(start(&cluster.configs[second]));
    until("it is back", || cluster.entries(second, "").len() == 5);
    cluster.until_level(second);
    let primary_file = cluster.configs[second].data_dir.join(".primary");
    assert_eq!(std::fs::read_to_string(primary_file).unwrap(), format!("n{third}\n"));
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
fn a_litefs_that_dies_ends_its_reign_and_the_application_gets_a_new_mount() {
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
    cluster.nodes[0] = Some(start(&cluster.configs[0]));
    assert_eq!(cluster.primary(), 0);
    until("writes are taken", || cluster.post(1, "two", "").code == 201);
    until("it is replicated", || cluster.entries(1, "").len() == 2);
    cluster.until_level(1);
    cluster.stop();
}
