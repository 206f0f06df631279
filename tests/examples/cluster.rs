//! An application on three nodes, each with a copy of its own and with its own `litepilot.yml`, in which
//! only ports are changed and the cluster is added; and the engine, if `LITEFS_BIN` names a LiteFS.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use litepilot::litefs::mount;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Answer, exchange, until};
use crate::port::reserve_port;

/// Long enough for a machine that has much else to do: no test here waits for a lease to end.
const TTL: &str = "10s";

/// Held by the cluster that runs: each has a dozen processes.
static TURN: Mutex<()> = Mutex::new(());

/// Three nodes. Dropping them kills them.
pub struct Cluster {
    pub nodes: Vec<Node>,
    _dir: TempDir,
    _turn: MutexGuard<'static, ()>,
}

pub struct Node {
    pub name: String,
    pub address: SocketAddr,
    admin: SocketAddr,
    /// The node's copy of the example.
    pub dir: PathBuf,
    process: Child,
}

impl Cluster {
    /// Starts what is in that directory, and waits until it answers everywhere.
    pub fn start(application: &Path) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let peers = [1, 2, 3].map(|i| (format!("n{i}"), reserve_port()));
        let list: Vec<_> =
            peers.iter().map(|(name, port)| format!("{name}: \"127.0.0.1:{port}\"")).collect();
        let begin = |(node, peer): &(String, u16)| {
            let cluster = format!(
                "cluster:\n  listen: 127.0.0.1:{peer}\n  peers: {{{}}}\n  lease: {{ttl: {TTL}}}\n",
                list.join(", ")
            );
            Node::start(node, application, dir.path().join(node), &cluster)
        };
        let cluster = Self { nodes: peers.iter().map(begin).collect(), _dir: dir, _turn: turn };
        cluster.primary();
        for node in &cluster.nodes {
            until("its application answers", || {
                node.status().is_some_and(|status| status["app"]["state"] == "up")
            });
        }
        cluster
    }

    /// The index of whoever takes writes.
    pub fn primary(&self) -> usize {
        let mut found = None;
        let writable = |node: &Node| node.status().is_some_and(|s| s["writable"] == true);
        until("a node takes writes", || {
            found = self.nodes.iter().position(writable);
            found.is_some()
        });
        found.unwrap()
    }

    /// Those that were not killed.
    pub fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.status().is_some())
    }

    /// The indices of the others.
    pub fn replicas(&self) -> [usize; 2] {
        let primary = self.primary();
        [(primary + 1) % 3, (primary + 2) % 3]
    }

    /// Hands over to another node.
    pub fn hand_over(&self) {
        let [next, _] = self.replicas();
        // It may have to catch up first.
        until("it can be promoted", || {
            self.nodes[next].litepilot(&["promote"], &[]).status.success()
        });
        assert_eq!(self.primary(), next);
    }

    /// Kills the primary's program, and what it runs with it; says who is primary then.
    pub fn kill_primary(&mut self) -> usize {
        let killed = self.primary();
        self.nodes[killed].kill();
        self.primary()
    }

    /// What all nodes have said, their applications too.
    pub fn log(&self) -> String {
        let said = |node: &Node| fs::read_to_string(node.dir.join("log")).unwrap();
        self.nodes.iter().map(said).collect()
    }
}

impl Node {
    fn start(name: &str, example: &Path, dir: PathBuf, cluster: &str) -> Self {
        let ports = [(); 4].map(|()| SocketAddr::from(([127, 0, 0, 1], reserve_port())));
        let [listen, target, behind, admin] = ports;
        let shipped = [
            ("0.0.0.0:8080", listen.to_string()),
            ("8000", target.port().to_string()),
            ("9000", behind.port().to_string()),
        ];
        copy(example, &dir, &|text| replace_each(text, &shipped));
        let file = dir.join("litepilot.yml");
        if !file.exists() {
            generate(name, &dir);
        }
        let shipped = fs::read_to_string(&file).unwrap();
        let shipped = shipped.replace("\"embedded\"", "embedded");
        let shipped = shipped.replace("  engine: embedded", &engine(&dir));
        fs::write(&file, format!("{shipped}\nadmin: {{listen: \"{admin}\"}}\n{cluster}")).unwrap();
        fs::create_dir_all(dir.join("data/db")).unwrap();
        let log = File::create(dir.join("log")).unwrap();
        let process = litepilot(name, &dir)
            .arg("run")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { name: name.to_owned(), address: listen, admin, dir, process }
    }

    fn kill(&mut self) {
        // The guards end LiteFS and the application.
        let _ = self.process.kill();
        let _ = self.process.wait();
        until("it is not mounted", || mount::clear_dead(&self.dir.join("data/db")).is_ok());
    }

    /// What it says of itself, if it answers.
    pub fn status(&self) -> Option<Value> {
        std::net::TcpStream::connect(self.admin).ok()?;
        let answer = exchange(self.admin, "GET", "/status", "", b"");
        (answer.code == 200).then(|| answer.json())
    }

    /// Runs a command of the program in the node's directory, as its operator would.
    pub fn litepilot(&self, args: &[&str], env: &[(&str, &str)]) -> Output {
        let mut command = litepilot(&self.name, &self.dir);
        command.args(args).envs(env.iter().copied()).output().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The last node to be stopped would wait for a majority.
        self.kill();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            eprintln!("---- {}\n{log}", self.name);
        }
    }
}

/// A client behind a load balancer: any node, the same cookies.
#[derive(Default)]
pub struct Visitor {
    pub cookies: BTreeMap<String, String>,
}

impl Visitor {
    pub fn get(&mut self, node: &Node, path: &str) -> Answer {
        self.ask(node, "GET", path, "", "")
    }

    pub fn post(&mut self, node: &Node, path: &str, kind: &str, body: &str) -> Answer {
        let head = format!("Content-Type: {kind}\r\nReferer: http://{}/\r\n", node.address);
        self.ask(node, "POST", path, &head, body)
    }

    pub fn put(&mut self, node: &Node, path: &str, kind: &str, body: &str) -> Answer {
        self.ask(node, "PUT", path, &format!("Content-Type: {kind}\r\n"), body)
    }

    fn ask(&mut self, node: &Node, method: &str, path: &str, head: &str, body: &str) -> Answer {
        let pairs: Vec<_> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let head = format!("{head}Cookie: {}\r\n", pairs.join("; "));
        let mut answer = exchange(node.address, method, path, &head, body.as_bytes());
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = without_chunks(&answer.body);
        }
        let lines = answer.head.lines().filter_map(|line| line.split_once(": "));
        for (_, set) in lines.filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie")) {
            let (name, rest) = set.split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        answer
    }
}

/// What some servers send in pieces, each with its length before it.
fn without_chunks(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let (piece, rest) = rest.split_at(usize::from_str_radix(length, 16).unwrap());
        whole.push_str(piece);
        body = rest.strip_prefix("\r\n").unwrap();
    }
    whole
}

/// `examples/NAME`
pub fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

/// A project of Django's has its configuration in its settings.
fn generate(node: &str, dir: &Path) {
    let mut python = Command::new(venv().join("bin/python"));
    python.args(["manage.py", "litepilot", "config", "-o", "litepilot.yml"]);
    let output = python.current_dir(dir).env("LITEPILOT_NODE", node).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Replaces each, but nothing in what was put in: a port may hold another's digits.
fn replace_each(text: &str, pairs: &[(&str, String)]) -> String {
    let [(from, to), rest @ ..] = pairs else { return text.to_owned() };
    text.split(from).map(|piece| replace_each(piece, rest)).collect::<Vec<_>>().join(to)
}

/// The lines that say which engine.
fn engine(dir: &Path) -> String {
    let Some(litefs) = env::var_os("LITEFS_BIN") else { return "  engine: embedded".to_owned() };
    let (litefs, data) = (Path::new(&litefs).display(), dir.join("litefs"));
    let [http, lease] = [reserve_port(), reserve_port()];
    format!(
        "  binary: {litefs}\n  data: {}\n  http: 127.0.0.1:{http}\n  lease_listen: 127.0.0.1:{lease}\n ",
        data.display()
    )
}

/// The program, as somebody starts it who has activated the environment and read the README.
fn litepilot(node: &str, dir: &Path) -> Command {
    let litepilot = Path::new(env!("CARGO_BIN_EXE_litepilot"));
    let mut path = vec![venv().join("bin"), litepilot.parent().unwrap().to_owned()];
    path.extend(env::split_paths(&env::var_os("PATH").unwrap()));
    let mut command = Command::new(litepilot);
    command
        .current_dir(dir)
        .stdin(Stdio::null())
        .env("PATH", env::join_paths(path).unwrap())
        .env("LITEPILOT_NODE", node)
        .env("DATABASE", dir.join("data/db/notes.sqlite3"))
        .env("LITEFS_DIR", dir.join("data/db"))
        .env("DATABASE_FILENAME", "notes.sqlite3");
    command
}

/// The environment of the applications in `tests/apps`, made at the first call.
fn venv() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps/venv.sh");
    let output = Command::new("sh").arg(script).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success());
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// Copies a directory's text files, each through `change`; what was installed or built there is linked.
fn copy(from: &Path, to: &Path, change: &dyn Fn(&str) -> String) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        match name.to_str().unwrap() {
            "node_modules" | "build" | "target" => {
                std::os::unix::fs::symlink(&path, to.join(name)).unwrap();
            }
            ".venv" | "data" | "__pycache__" => {}
            _ if path.is_dir() => copy(&path, &to.join(name), change),
            _ => {
                let text = fs::read_to_string(&path).unwrap();
                fs::write(to.join(name), change(&text)).unwrap();
            }
        }
    }
}
