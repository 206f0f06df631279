//! A cluster of real processes that elects its primary, each node with a guestbook of its own.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{DemoNode, exchange, free_ports, litepilot, lives, run, send, text, until};

/// What a cluster is like.
pub struct Plan {
    pub nodes: usize,
    /// The last of them holds no data.
    pub witness: bool,
    /// Lines for every node's `cluster:`.
    pub cluster: &'static str,
    /// Lines for every node's `app:`.
    pub app: &'static str,
    /// The lease's ttl.
    pub ttl: &'static str,
}

/// Long enough for a machine that has much else to do.
const TTL: &str = "3s";

impl Default for Plan {
    fn default() -> Self {
        Self { nodes: 3, witness: false, cluster: "", app: "", ttl: TTL }
    }
}

impl Plan {
    /// Its nodes, none of them started.
    pub fn prepare(self) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let (first, peer) = (free_ports(), free_ports());
        let name = |i: usize| format!("n{}", i + 1);
        let address = |i: usize| format!("{}: \"127.0.0.1:{}\"", name(i), peer + i as u16);
        let peers: Vec<_> = (0..self.nodes).map(address).collect();
        let witnesses = if self.witness { name(self.nodes - 1) } else { String::new() };
        let nodes = (0..self.nodes).map(|i| {
            let node = Node {
                it: DemoNode {
                    name: name(i),
                    url: ([127, 0, 0, 1], first + i as u16).into(),
                    admin: format!("http://127.0.0.1:{}", first + 1000 + i as u16),
                    token: String::new(),
                    pid: 0,
                    data_dir: dir.path().join(name(i)),
                },
                witness: witnesses == name(i),
                process: None,
            };
            fs::create_dir_all(node.database().parent().unwrap()).unwrap();
            let (data, socket) = (node.it.data_dir.display(), node.socket());
            let app = format!(
                "proxy: {{listen: \"{}\", target: \"unix:{socket}\", db: book.sqlite3}}\n\
                 app:\n  command: [{}, demo-app, --socket, {socket}, --db, {}]\n  \
                 health: /health\n{}",
                node.it.url,
                env!("CARGO_BIN_EXE_litepilot"),
                node.database().display(),
                self.app,
            );
            let yaml = format!(
                "node: {}\ndata_dir: {data}\nadmin: {{listen: \"{}\"}}\n\
                 cluster:\n  listen: \"127.0.0.1:{}\"\n  peers: {{{}}}\n  \
                 witnesses: [{witnesses}]\n  lease: {{ttl: {}}}\n{}\
                 litefs: {{engine: embedded, mount: {data}/db}}\n{}",
                node.it.name,
                node.it.admin.trim_start_matches("http://"),
                peer + i as u16,
                peers.join(", "),
                self.ttl,
                self.cluster,
                if node.witness { "" } else { &app },
            );
            fs::write(node.it.config(), yaml).unwrap();
            node
        });
        Cluster { nodes: nodes.collect(), _dir: dir }
    }

    /// Its nodes, with a primary.
    pub fn start(self) -> Cluster {
        let mut cluster = self.prepare();
        for node in &mut cluster.nodes {
            node.start();
        }
        cluster.primary();
        cluster
    }
}

/// The nodes. Dropping them kills them.
pub struct Cluster {
    pub nodes: Vec<Node>,
    _dir: TempDir,
}

pub struct Node {
    pub it: DemoNode,
    pub witness: bool,
    process: Option<Child>,
}

impl Cluster {
    /// The index of whoever takes writes.
    pub fn primary(&self) -> usize {
        let mut found = None;
        until("a node takes writes", || {
            found = self
                .nodes
                .iter()
                .position(|node| node.status().is_some_and(|status| status["writable"] == true));
            found.is_some()
        });
        found.unwrap()
    }

    /// The indices of the others that serve.
    pub fn others(&self, than: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|i| *i != than && !self.nodes[*i].witness).collect()
    }

    /// The epoch that a node knows.
    pub fn epoch(&self, node: usize) -> u64 {
        self.nodes[node].status().and_then(|s| s["primary"]["epoch"].as_u64()).unwrap_or(0)
    }

    /// Waits until a node follows and has caught up.
    pub fn until_level(&self, node: usize) {
        until("it follows and is level", || {
            self.nodes[node].status().is_some_and(|status| {
                status["role"] == "replica"
                    && status["primary"].is_object()
                    && status["lag_ms"].as_u64().is_some_and(|lag| lag < 1000)
                    && status["app"]["state"] == "up"
            })
        });
    }
}

impl Node {
    pub fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = litepilot(&["run", "-c", self.it.config().to_str().unwrap()]);
        let process = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.it.pid = process.id();
        self.process = Some(process);
    }

    pub fn signal(&self, signal: Signal) {
        send(signal, self.it.pid);
    }

    /// `kill -9`, until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            process.wait().unwrap();
        }
    }

    /// SIGTERM; says whether it ended well.
    pub fn stop(&mut self) -> bool {
        let Some(mut process) = self.process.take() else { return false };
        send(Signal::TERM, process.id());
        process.wait().unwrap().success()
    }

    pub fn runs(&self) -> bool {
        self.process.as_ref().is_some_and(|process| lives(process.id()))
    }

    /// What it says of itself, if it answers.
    pub fn status(&self) -> Option<Value> {
        if !self.runs() {
            return None;
        }
        let address = self.it.admin.trim_start_matches("http://").parse().unwrap();
        std::net::TcpStream::connect(address).ok()?;
        let answer = exchange(address, "GET", "/status", "", b"");
        (answer.code == 200).then(|| answer.json())
    }

    /// Runs a command of the program against it.
    pub fn command(&self, args: &[&str]) -> (Option<i32>, String) {
        let config = self.it.config();
        let output = run(&[args, &["-c", config.to_str().unwrap()]].concat());
        (output.status.code(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
    }

    pub fn database(&self) -> PathBuf {
        self.it.data_dir.join("db/book.sqlite3")
    }

    pub fn log(&self) -> PathBuf {
        self.it.data_dir.join("log")
    }

    pub fn said(&self, words: &str) -> bool {
        fs::read_to_string(self.log()).is_ok_and(|log| log.contains(words))
    }

    fn socket(&self) -> String {
        self.it.data_dir.join("s").display().to_string()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.runs() {
            // One that was stopped would not die of anything else.
            self.kill();
        }
    }
}
