//! Whole nodes over LiteFS, in one process: proxy, election, application and all.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use litepilot::config::Config;
use litepilot::demo::reserve::{self, Reserved};
use litepilot::node::{Node, Tuning};
use litepilot::shutdown::Urgency;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::harness::{Answer, exchange, run};
use super::support::{LONG, log, prefix, program};

/// A token for the admin ports.
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Long enough for a machine with other work: no primary is replaced but by what a test does.
const TTL: &str = "6s";

/// What a cluster is like.
pub struct Plan {
    pub nodes: usize,
    /// Lines of `cluster:`.
    pub cluster: &'static str,
    /// Keys of `proxy:`, each after a comma.
    pub proxy: &'static str,
    /// Done with each node's directory before it starts.
    pub prepare: fn(&Path),
    /// `litefs.engine`
    pub engine: &'static str,
    /// Lines of `app:`, for a node with this directory, which listens at `s` there and has its database
    /// in `mount`.
    pub app: fn(&Path) -> String,
    /// `litefs.binary`, for a node with this directory.
    pub litefs: fn(&Path) -> PathBuf,
    /// It is backed up into `store`, beside the nodes' directories.
    pub backup: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            nodes: 3,
            cluster: "",
            proxy: "",
            prepare: |_| {},
            engine: "litefs",
            app: guestbook,
            litefs: |_| program().0,
            backup: false,
        }
    }
}

fn guestbook(place: &Path) -> String {
    let (litepilot, place) = (env!("CARGO_BIN_EXE_litepilot"), place.display());
    let prefix = prefix().join(", ");
    format!(
        "  command: [{prefix}, {litepilot}, demo-app, --socket, {place}/s, --db, {place}/mount/book.sqlite3]
  health: /health
"
    )
}

pub struct Cluster {
    pub nodes: Vec<Option<Node>>,
    pub configs: Vec<Config>,
    pub dir: TempDir,
    _ports: Vec<Ports>,
}

/// What a node's configuration has to name before the node is there. Nobody else gets them meanwhile.
struct Ports {
    peer: SocketAddr,
    http: SocketAddr,
    lease: SocketAddr,
    backup: SocketAddr,
    _reserved: [Reserved; 4],
}

impl Ports {
    fn reserve() -> Self {
        let [(a, peer), (b, http), (c, lease), (d, backup)] =
            [0; 4].map(|any| reserve::port(any).unwrap());
        Self { peer, http, lease, backup, _reserved: [a, b, c, d] }
    }
}

/// Returns once something is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LONG, "not within {LONG:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The directory of a node.
pub fn place(dir: &TempDir, i: usize) -> PathBuf {
    dir.path().join(format!("n{i}"))
}

fn config(dir: &TempDir, i: usize, peers: &str, plan: &Plan, ports: &Ports) -> Config {
    let place = place(dir, i);
    std::fs::create_dir_all(place.join("mount")).unwrap();
    (plan.prepare)(&place);
    let backup = match plan.backup {
        true => format!(
            "backup: {{url: 'file://{}/store', listen: '{}'}}\n",
            dir.path().display(),
            ports.backup
        ),
        false => String::new(),
    };
    let text = format!(
        "node: n{i}
data_dir: {place}/state
shutdown_timeout: 10s
proxy: {{listen: 127.0.0.1:0, target: 'unix:{place}/s', db: book.sqlite3, write_hold: 60s{proxy}}}
cluster:
  listen: {peer}
  lease: {{ttl: {TTL}}}
{peers}{cluster}
litefs:
  engine: {engine}
  binary: {litefs}
  mount: {place}/mount
  data: {place}/litefs
  http: {http}
  lease_listen: {lease}
app:
{app}  grace: 3s
admin: {{listen: 127.0.0.1:0, token: {TOKEN}}}
{backup}",
        place = place.display(),
        litefs = (plan.litefs)(&place).display(),
        cluster = plan.cluster,
        proxy = plan.proxy,
        engine = plan.engine,
        app = (plan.app)(&place),
        peer = ports.peer,
        http = ports.http,
        lease = ports.lease,
    );
    std::fs::write(place.join("litepilot.yml"), &text).unwrap();
    Config::from_yaml("litepilot.yml", text.as_bytes(), &|_| None)
        .unwrap_or_else(|problems| panic!("{text}\n{problems:?}"))
}

/// What a node has told so far; its stream does not end.
fn events(admin: SocketAddr) -> String {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    write!(stream, "GET /events HTTP/1.1\r\nHost: {admin}\r\n\r\n").unwrap();
    let (mut said, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = stream.read(&mut piece) {
        said.extend_from_slice(&piece[..length]);
    }
    String::from_utf8_lossy(&said).into_owned()
}

pub fn start(config: &Config) -> Node {
    let guard = Some(env!("CARGO_BIN_EXE_litepilot").into());
    let tuning = Tuning { guard, without_fuse: !program().1, ..Tuning::default() };
    Node::start_with(config.clone(), tuning)
        .unwrap_or_else(|why| panic!("{} does not start: {why}", config.node))
}

impl Plan {
    pub fn start(self) -> Cluster {
        log();
        let dir = tempfile::tempdir().unwrap();
        let ports: Vec<_> = (0..self.nodes).map(|_| Ports::reserve()).collect();
        let address = |(i, ports): (usize, &Ports)| format!("n{i}: \"{}\"", ports.peer);
        let peers: Vec<_> = ports.iter().enumerate().map(address).collect();
        let peers = match self.nodes {
            1 => String::new(),
            _ => format!("  peers: {{{}}}\n", peers.join(", ")),
        };
        let configs: Vec<_> =
            (0..self.nodes).map(|i| config(&dir, i, &peers, &self, &ports[i])).collect();
        let nodes = configs.iter().map(|config| Some(start(config))).collect();
        Cluster { nodes, configs, dir, _ports: ports }
    }
}

impl Cluster {
    pub fn start(nodes: usize, cluster: &'static str) -> Self {
        Plan { nodes, cluster, ..Plan::default() }.start()
    }

    pub fn node(&self, i: usize) -> &Node {
        self.nodes[i].as_ref().expect("it runs")
    }

    pub fn admin(&self, i: usize, method: &str, path: &str) -> Answer {
        let headers = format!("Authorization: Bearer {TOKEN}\r\n");
        exchange(self.node(i).admin_address(), method, path, &headers, b"")
    }

    pub fn status(&self, i: usize) -> Value {
        self.admin(i, "GET", "/status").json()
    }

    /// Whether one of the nodes that run has told so, as an event.
    pub fn said(&self, words: &str) -> bool {
        self.nodes.iter().flatten().any(|node| events(node.admin_address()).contains(words))
    }

    /// What a node did may be seen before its event is.
    pub fn says(&self, words: &str) {
        until(words, || self.said(words));
    }

    /// Runs a command of the program against a node, as its operator.
    pub fn command(&self, i: usize, args: &[&str], more: &[&str]) -> Output {
        let admin = format!("http://{}", self.node(i).admin_address());
        let token = self.dir.path().join(format!("token-{i}"));
        let mut private = OpenOptions::new();
        private.mode(0o600).write(true).create(true).truncate(true);
        private.open(&token).unwrap().write_all(TOKEN.as_bytes()).unwrap();
        let node = ["--admin", &admin, "--token-file", token.to_str().unwrap()];
        run(&[args, &node, more].concat())
    }

    /// Whoever takes writes.
    pub fn primary(&self) -> usize {
        let mut found = None;
        until("a node takes writes", || {
            let running = (0..self.nodes.len()).filter(|i| self.nodes[*i].is_some());
            found = running.into_iter().find(|i| self.status(*i)["writable"] == true);
            found.is_some()
        });
        found.unwrap()
    }

    pub fn proxy(&self, i: usize) -> SocketAddr {
        self.node(i).proxy_address()
    }

    pub fn post(&self, i: usize, text: &str, headers: &str) -> Answer {
        let body = json!({ "text": text }).to_string();
        exchange(self.proxy(i), "POST", "/api/entries", headers, body.as_bytes())
    }

    pub fn entries(&self, i: usize, headers: &str) -> Vec<String> {
        let answer = exchange(self.proxy(i), "GET", "/api/entries", headers, b"");
        assert_eq!(answer.code, 200, "{answer:?}");
        let entries = answer.json();
        let text = |entry: &Value| entry["text"].as_str().unwrap().to_owned();
        entries.as_array().unwrap().iter().map(text).collect()
    }

    pub fn until_level(&self, i: usize) {
        until("it follows and is level", || {
            let status = self.status(i);
            status["primary"].is_object()
                && status["lag_ms"].as_u64().is_some_and(|lag| lag < 2000)
                && status["app"]["state"] == "up"
        });
    }

    /// All nodes, in good order; they can be started again.
    pub fn halt(&mut self) {
        for node in self.nodes.iter().flatten() {
            node.stop(Urgency::Graceful);
        }
        self.nodes.iter_mut().filter_map(Option::take).for_each(Node::wait);
    }

    pub fn run(&mut self, i: usize) {
        self.nodes[i] = Some(start(&self.configs[i]));
    }

    pub fn stop(mut self) {
        self.halt();
        for config in &self.configs {
            let mount = &config.litefs.mount;
            assert!(!litepilot::litefs::mount::is_mounted(mount).unwrap(), "{}", mount.display());
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in self.nodes.iter().flatten() {
                let address = node.admin_address();
                let status = exchange(address, "GET", "/status", "", b"").body;
                println!("\n{address} told:\n{}\nand says:\n{status}", events(address));
            }
        }
    }
}
