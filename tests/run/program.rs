//! The program, its files, and what it says.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::port::reserve_port;
use super::raw::Client;
use super::wire::Message;

/// Far beyond what anything here takes: reached only by a failure.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

/// A directory with a configuration, and how the program is started with it.
pub struct Setup {
    dir: TempDir,
    target: String,
    top: String,
    proxy: String,
    wrapper: Vec<String>,
    arguments: Vec<String>,
}

/// The program, running. Dropping it ends it at once, and its application with it.
pub struct Program {
    process: Child,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    dir: TempDir,
}

impl Setup {
    /// In front of a Unix socket that belongs to this setup.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("db")).unwrap();
        let target = format!("unix:{}", dir.path().join("app.sock").display());
        let [top, proxy] = Default::default();
        let [wrapper, arguments] = Default::default();
        Self { dir, target, top, proxy, wrapper, arguments }
    }

    /// With an admin port that its configuration tells.
    pub fn with_admin_port() -> Self {
        Self::new().on_admin_port()
    }

    /// Likewise, of another setup.
    pub fn on_admin_port(self) -> Self {
        self.key(&format!("admin: {{listen: 127.0.0.1:{}}}", reserve_port()))
    }

    /// With the application of `app.py` as its child.
    pub fn with_app() -> Self {
        // However slow the machine is, requests wait until it is up.
        Self::with_app_and("").proxy("write_hold: 25s")
    }

    /// Likewise, with more keys of `app:`, as YAML.
    pub fn with_app_and(keys: &str) -> Self {
        let setup = Self::new();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/run/app.py");
        let socket = setup.file("app.sock");
        let app = format!("command: [python3, {script}, {}]", socket.display());
        setup.key(&format!("app: {{{app}, {keys}}}"))
    }

    /// In front of something else.
    pub fn target(mut self, target: &str) -> Self {
        self.target = target.to_owned();
        self
    }

    /// Sets a key, as YAML.
    pub fn key(mut self, line: &str) -> Self {
        self.top += &format!("{line}\n");
        self
    }

    /// Sets a key of `proxy:`, as YAML.
    pub fn proxy(mut self, line: &str) -> Self {
        self.proxy += &format!("  {line}\n");
        self
    }

    /// Has another program start it.
    pub fn wrapped_in(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|part| (*part).to_owned()).collect();
        self
    }

    /// Gives it more arguments.
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(|part| (*part).to_owned()).collect();
        self
    }

    /// A file of its directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes its configuration.
    pub fn configure(&self) {
        let defaults = [
            ("node:", "node: here"),
            ("data_dir:", "data_dir: data"),
            ("admin:", "admin: {listen: 127.0.0.1:0}"),
            ("litefs:", "litefs: {engine: embedded, mount: db}"),
        ];
        let given = |key| self.top.lines().any(|line| line.starts_with(key));
        let mut yaml = self.top.clone();
        for (_, line) in defaults.iter().filter(|(key, _)| !given(key)) {
            yaml += &format!("{line}\n");
        }
        yaml += &format!("proxy:\n  target: {}\n  db: db.sqlite3\n{}", self.target, self.proxy);
        if !self.proxy.contains("listen:") {
            yaml += "  listen: 127.0.0.1:0\n";
        }
        std::fs::write(self.file("litepilot.yml"), yaml).unwrap();
    }

    /// Starts it; it may end by itself.
    pub fn begin(self) -> Program {
        self.configure();
        let mut parts = self.wrapper.clone();
        parts.push(env!("CARGO_BIN_EXE_litepilot").to_owned());
        let mut process = Command::new(&parts[0])
            .args(&parts[1..])
            .args(["run", "-c", "litepilot.yml"])
            .args(&self.arguments)
            .current_dir(self.dir.path())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, written) =
            (BufReader::new(process.stderr.take().unwrap()).lines(), log.clone());
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                written.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Program { process, log, reader: Some(reader), dir: self.dir }
    }

    /// Starts it and returns once it listens.
    pub async fn start(self) -> Program {
        let mut program = self.begin();
        program.says("listens at").await;
        program
    }
}

/// Two nodes, `n1` and `n2`, of which the first is always the primary. Their admin ports are told.
pub fn pair() -> [Setup; 2] {
    let cluster = "election: static, primary: n1";
    members([Setup::with_admin_port(), Setup::with_admin_port()], cluster)
}

/// Makes nodes `n1`, `n2`, … the members of one cluster; with more keys of `cluster:`, as YAML.
pub fn members<const N: usize>(setups: [Setup; N], keys: &str) -> [Setup; N] {
    let addresses = [(); N].map(|()| format!("'127.0.0.1:{}'", reserve_port()));
    let peer = |(i, address)| format!("n{}: {address}", i + 1);
    let peers: Vec<_> = addresses.iter().enumerate().map(peer).collect();
    let peers = peers.join(", ");
    let mut i = 0;
    setups.map(|setup| {
        i += 1;
        let listen = &addresses[i - 1];
        setup
            .key(&format!("node: n{i}"))
            .key(&format!("cluster: {{{keys}, listen: {listen}, peers: {{{peers}}}}}"))
    })
}

impl Program {
    /// Of what was started: the wrapper's, if there is one.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A file of its directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// All that it has said.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Returns once it says so; the line.
    pub async fn says(&mut self, words: &str) -> String {
        let mut line = None;
        self.until(&format!("it says {words:?}"), |program| {
            line = program.log().lines().find(|line| line.contains(words)).map(str::to_owned);
            line.is_some()
        })
        .await;
        line.unwrap()
    }

    /// Returns once it holds.
    pub async fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "in vain waited until {what}");
            // What it said last may have been what was waited for.
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none() || holds(self), "it ended ({ended:?}) before {what}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A new connection to its port.
    pub async fn client(&self) -> Client {
        Client::connect(self.proxy_address()).await
    }

    /// The port that clients connect to.
    pub fn proxy_address(&self) -> SocketAddr {
        self.address("listens at http://")
    }

    /// Likewise, where they speak TLS.
    pub fn secure_address(&self) -> SocketAddr {
        self.address("listens at https://")
    }

    /// An answer of its admin port.
    pub async fn admin(&self, path: &str) -> Message {
        self.ask_admin(path).await.response().await
    }

    /// Asks its admin port.
    pub async fn ask_admin(&self, path: &str) -> Client {
        let mut admin = Client::connect(self.admin_address()).await;
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        admin.send(head).await;
        admin
    }

    /// The admin port.
    pub fn admin_address(&self) -> SocketAddr {
        self.address("admin port at ")
    }

    /// Returns once nobody can connect any more.
    pub async fn refuses_connections(&self) {
        let (address, deadline) = (self.proxy_address(), Instant::now() + PATIENCE);
        while TcpStream::connect(address).await.is_ok() {
            assert!(Instant::now() < deadline, "it still takes connections");
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn address(&self, before: &str) -> SocketAddr {
        let log = self.log();
        let (_, after) = log.split_once(before).unwrap();
        let end = after.find([',', '\n', '"']).unwrap();
        after[..end].parse().unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        send(signal, self.pid());
    }

    /// Returns once it has ended; how.
    pub async fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end; it said:\n{}", self.log());
            tokio::time::sleep(PAUSE).await;
        };
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        status
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the program said:\n{}", self.log());
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A process counts as gone when it is a zombie, too: then only its parent has to notice.
pub fn lives(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"))
}

pub fn send(signal: Signal, pid: u32) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

/// The process id that the application answers with.
pub fn app_pid(answer: &Message) -> u32 {
    assert_eq!(answer.status(), 200, "{answer:?}");
    answer.text().parse().unwrap()
}
