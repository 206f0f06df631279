//! A cluster of real processes that elects its primary, each node with a guestbook of its own.

use std::fs::{self, File};
use std::net::{IpAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use litepilot::litefs::mount;

use crate::harness::{DemoNode, ask_over, free_ports, lives, run, send, text, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_litepilot");
const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");

/// What a cluster is like.
pub struct Plan {
    pub nodes: usize,
    /// The last of them holds no data.
    pub witness: bool,
    /// So many of them, the last ones, are no members yet, and not known to the others.
    pub later: usize,
    /// The lease's. All of the election's times follow from it, so it says how slow a machine may be.
    pub ttl: &'static str,
    /// Lines for every node's `cluster:`.
    pub cluster: &'static str,
    /// Lines for every node's `app:`.
    pub app: &'static str,
    /// The application of `script` with that habit, in place of the guestbook.
    pub habit: Option<&'static str>,
    /// A file of `tests/` that Python runs for that: it is told its socket, its database and its habit.
    pub script: &'static str,
    /// Lines for every node's configuration.
    pub top: &'static str,
    /// More keys of every node's `admin:`.
    pub admin: &'static str,
    /// With certificates; in namespaces they always have them.
    pub tls: bool,
    /// Network namespaces to run the nodes in, each with the address it has there; none: all of them
    /// run in this one, at loopback.
    pub hosts: Vec<(String, IpAddr)>,
    /// What else stands in a node's environment, by its `data_dir`.
    pub environment: fn(&Path) -> Vec<(&'static str, PathBuf)>,
}

/// With `LITEFS_BIN` naming a LiteFS the nodes run over that, else over the embedded engine.
pub fn litefs() -> Option<String> {
    std::env::var("LITEFS_BIN").ok()
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            nodes: 3,
            witness: false,
            later: 0,
            ttl: "3s",
            cluster: "",
            app: "",
            habit: None,
            script: "election/app.py",
            top: "",
            admin: "",
            tls: false,
            hosts: Vec::new(),
            environment: |_| Vec::new(),
        }
    }
}

impl Plan {
    /// Its nodes, none of them started.
    pub fn prepare(self) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let (first, peer, own) = (free_ports(), free_ports(), free_ports());
        let name = |i: usize| format!("n{}", i + 1);
        let host = |i: usize| self.hosts.get(i).map_or([127, 0, 0, 1].into(), |(_, ip)| *ip);
        let address = |i: usize| format!("{}: \"{}:{}\"", name(i), host(i), peer + i as u16);
        let peers: Vec<_> = (0..self.nodes).map(address).collect();
        let founders = self.nodes - self.later;
        let witnesses = if self.witness { name(self.nodes - 1) } else { String::new() };
        let tls =
            if self.hosts.is_empty() && !self.tls { None } else { Some(dir.path().join("ca")) };
        if let Some(ca) = &tls {
            authority(ca, (0..self.nodes).map(name));
        }
        let nodes = (0..self.nodes).map(|i| {
            let node = Node {
                it: DemoNode {
                    name: name(i),
                    url: (host(i), first + i as u16).into(),
                    admin: format!("http://{}:{}", host(i), first + 1000 + i as u16),
                    token: String::new(),
                    pid: 0,
                    data_dir: dir.path().join(name(i)),
                },
                witness: witnesses == name(i),
                host: self.hosts.get(i).map(|(namespace, _)| namespace.clone()),
                environment: (self.environment)(&dir.path().join(name(i))),
                process: None,
            };
            fs::create_dir_all(node.database().parent().unwrap()).unwrap();
            let (data, socket) = (node.it.data_dir.display(), node.socket());
            let database = node.database().display().to_string();
            let command = match self.habit {
                Some(habit) => {
                    format!("[python3, {TESTS}/{}, {socket}, {database}, {habit}]", self.script)
                }
                None => format!("[{PROGRAM}, demo-app, --socket, {socket}, --db, {database}]"),
            };
            let app = format!(
                "proxy: {{listen: \"{}\", target: \"unix:{socket}\", db: book.sqlite3, \
                 write_hold: 30s}}\napp:\n  command: {command}\n  health: /health\n{}{}",
                node.it.url, self.app, self.top,
            );
            let tls = tls.as_ref().map(|ca| tls_lines(ca, &node.it.name)).unwrap_or_default();
            let yaml = format!(
                "node: {}\ndata_dir: {data}\nadmin: {{listen: \"{}\"{}}}\n\
                 cluster:\n  listen: \"{}:{}\"\n  peers: {{{}}}\n  \
                 witnesses: [{witnesses}]\n  lease: {{ttl: {}}}\n{}{tls}\
                 litefs: {{mount: {data}/db, {}}}\n{}",
                node.it.name,
                node.it.admin.trim_start_matches("http://"),
                self.admin,
                host(i),
                peer + i as u16,
                peers[..if i < founders { founders } else { self.nodes }].join(", "),
                self.ttl,
                self.cluster,
                engine(&data.to_string(), own + i as u16),
                if node.witness { "" } else { &app },
            );
            fs::write(node.it.config(), yaml).unwrap();
            node
        });
        Cluster { nodes: nodes.collect(), _dir: dir }
    }

    /// Its nodes, all of which vote and have an application that answers, with a primary.
    pub fn start(self) -> Cluster {
        let founders = self.nodes - self.later;
        let mut cluster = self.prepare();
        cluster.nodes[..founders].iter_mut().for_each(Node::start);
        cluster.primary();
        (0..founders).for_each(|node| {
            cluster.until_it_votes(node);
            cluster.until_its_app_answers(node);
        });
        cluster
    }
}

/// The rest of `litefs:`.
fn engine(data: &str, port: u16) -> String {
    match litefs() {
        Some(binary) => format!(
            "engine: litefs, binary: {binary}, data: {data}/litefs, http: \"127.0.0.1:{port}\", \
             lease_listen: \"127.0.0.1:{}\"",
            port + 1000
        ),
        None => "engine: embedded".to_owned(),
    }
}

/// An authority in `dir`, and a certificate of it for each of `nodes`.
fn authority(dir: &Path, nodes: impl Iterator<Item = String>) {
    let dir = dir.to_str().unwrap();
    assert!(run(&["certs", "init", dir]).status.success());
    for node in nodes {
        assert!(run(&["certs", "issue", dir, &node]).status.success());
    }
}

fn tls_lines(ca: &Path, node: &str) -> String {
    let ca = ca.display();
    format!("  tls: {{ca: {ca}/ca.crt, cert: {ca}/{node}.crt, key: {ca}/{node}.key}}\n")
}

/// The nodes. Dropping them kills them.
pub struct Cluster {
    pub nodes: Vec<Node>,
    _dir: TempDir,
}

pub struct Node {
    pub it: DemoNode,
    pub witness: bool,
    /// The network namespace it runs in, if not in this one.
    host: Option<String>,
    environment: Vec<(&'static str, PathBuf)>,
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

    /// Asks a node that another one be the primary; returns once it is.
    pub fn promote(&self, asked: usize, next: usize) {
        let (code, said) = self.nodes[asked].command(&["promote", &self.nodes[next].it.name]);
        assert_eq!(code, Some(0), "{said}");
    }

    /// The epoch that a node knows.
    pub fn epoch(&self, node: usize) -> u64 {
        self.nodes[node].status().and_then(|s| s["primary"]["epoch"].as_u64()).unwrap_or(0)
    }

    /// Waits until a node takes part in the election. With an empty disk it needs the other nodes for
    /// that: none may have forgotten whom it voted for.
    pub fn until_it_votes(&self, node: usize) {
        until("it votes", || {
            self.nodes[node].status().is_some_and(|status| status["raft"]["leader"].is_string())
        });
    }

    /// On empty disks applications start one after the other.
    fn until_its_app_answers(&self, node: usize) {
        until("its application answers", || {
            self.nodes[node].status().is_some_and(|status| {
                status["role"] == "witness" || status["app"]["state"] != "down"
            })
        });
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

impl Drop for Cluster {
    /// What the nodes said explains a failure.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                println!("\n{} said:\n{}", node.it.name, node.last_words(60));
            }
        }
    }
}

impl Node {
    pub fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let program = env!("CARGO_BIN_EXE_litepilot");
        let mut command = Command::new(program);
        if let Some(namespace) = &self.host {
            // It becomes the program: the process is the same. What it mounts is seen here, too.
            command = Command::new("nsenter");
            command.arg(format!("--net=/run/netns/{namespace}")).arg(program);
        }
        command.args(["run", "-c"]).arg(self.it.config()).stdin(Stdio::null());
        command.envs(self.environment.iter().cloned());
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
        // It may end meanwhile.
        let stream = TcpStream::connect(self.it.admin.trim_start_matches("http://")).ok()?;
        let answer = ask_over(stream, "GET", "/status", "", b"").ok()?;
        (answer.code == 200).then(|| serde_json::from_str(&answer.body).ok())?
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

    /// A node that was killed leaves LiteFS' file system behind, and nobody could remove its directory.
    pub fn unmount(&self) {
        if litefs().is_some() {
            until("it is not mounted", || mount::clear_dead(&self.it.data_dir.join("db")).is_ok());
        }
    }

    pub fn log(&self) -> PathBuf {
        self.it.data_dir.join("log")
    }

    pub fn said(&self, words: &str) -> bool {
        fs::read_to_string(self.log()).is_ok_and(|log| log.contains(words))
    }

    /// What it did may be seen before it is read in its log.
    pub fn says(&self, words: &str) {
        until(words, || self.said(words));
    }

    /// The end of its log.
    pub fn last_words(&self, lines: usize) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let all: Vec<_> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n  ")
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
        self.unmount();
    }
}
