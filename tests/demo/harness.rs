//! A demo on ports that are free, and what its user does with it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Far beyond what anything here takes: reached only by a failure.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn litepilot(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_litepilot"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub fn run(args: &[&str]) -> Output {
    litepilot(args).output().unwrap()
}

pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain waited until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process counts as gone when it is a zombie, too: then only its parent has to notice.
pub fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"))
}

pub fn send(signal: Signal, pid: u32) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

/// A port below those that the system gives to others, where nobody listens at it and the next few,
/// nor 1000 above them. Somebody may be faster, so whoever uses it has to be ready for that.
pub fn free_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let offset = (std::process::id() as u16).wrapping_mul(37).wrapping_add(step * 20) % 9_000;
        let first = 20_000 + offset;
        let mut ports = (first..first + 5).flat_map(|port| [port, port + 1000]);
        if ports.all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return first;
        }
    }
}

/// A running demo. Dropping it stops it.
pub struct Demo {
    pub process: Child,
    pub stdout: Receiver<String>,
    pub stderr: Arc<Mutex<String>>,
    pub nodes: Vec<DemoNode>,
    pub tmp: TempDir,
}

#[derive(Clone, Debug)]
pub struct DemoNode {
    pub name: String,
    pub url: SocketAddr,
    pub admin: String,
    pub token: String,
    pub pid: u32,
    pub data_dir: PathBuf,
}

impl Demo {
    /// Whoever takes writes.
    pub fn primary(&self) -> &DemoNode {
        let mut found = None;
        until("a node takes writes", || {
            found = self.nodes.iter().find(|node| node.status()["writable"] == true);
            found.is_some()
        });
        found.unwrap()
    }

    /// The others.
    pub fn replicas(&self) -> Vec<&DemoNode> {
        let primary = &self.primary().name;
        self.nodes.iter().filter(|node| node.name != *primary).collect()
    }

    /// With `--json`, ready.
    pub fn start(args: &[&str]) -> Self {
        let mut demo = Self::begin(&[&["--json"], args].concat());
        let line: Value = serde_json::from_str(&demo.first_line()).unwrap();
        demo.nodes = line["nodes"].as_array().unwrap().iter().map(DemoNode::read).collect();
        demo.await_ready();
        demo
    }

    /// On ports that are free; the first line is on its way.
    pub fn begin(args: &[&str]) -> Self {
        loop {
            let tmp = tempfile::tempdir().unwrap();
            let port = free_ports().to_string();
            let mut process = litepilot(&[&["demo", "--port", &port], args].concat())
                .env("TMPDIR", tmp.path())
                .spawn()
                .unwrap();
            let (sender, stdout) = channel();
            let lines = BufReader::new(process.stdout.take().unwrap()).lines();
            std::thread::spawn(move || {
                lines.map_while(Result::ok).try_for_each(|l| sender.send(l))
            });
            let stderr = Arc::new(Mutex::new(String::new()));
            let (lines, log) =
                (BufReader::new(process.stderr.take().unwrap()).lines(), stderr.clone());
            std::thread::spawn(move || {
                for line in lines.map_while(Result::ok) {
                    log.lock().unwrap().push_str(&(line + "\n"));
                }
            });
            let demo = Self { process, stdout, stderr, nodes: Vec::new(), tmp };
            if demo.lost_its_ports() {
                continue;
            }
            return demo;
        }
    }

    /// Somebody else took a port between our look and its start.
    pub fn lost_its_ports(&self) -> bool {
        // Whatever happens, its first words on standard error tell.
        until("it says something", || !self.errors().is_empty());
        self.said("in use")
    }

    pub fn first_line(&self) -> String {
        self.stdout.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no line; {}", self.errors()))
    }

    pub fn await_ready(&self) {
        assert_eq!(self.first_line(), "ready", "{}", self.errors());
    }

    pub fn errors(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    pub fn said(&self, words: &str) -> bool {
        self.stderr.lock().unwrap().contains(words)
    }

    /// What it did may be seen before its words are.
    pub fn says(&self, words: &str) {
        until(words, || self.said(words));
    }

    /// The processes of the nodes and of their applications.
    pub fn pids(&self) -> Vec<u32> {
        let app = |node: &DemoNode| node.status()["app"]["pid"].as_u64().unwrap() as u32;
        self.nodes.iter().flat_map(|node| [node.pid, app(node)]).collect()
    }

    pub fn stop(&mut self, signal: Signal) -> ExitStatus {
        send(signal, self.process.id());
        let mut status = None;
        until("the demo ends", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    pub fn left_behind(&self) -> Vec<PathBuf> {
        fs::read_dir(self.tmp.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|status| status.is_none()) {
            send(Signal::TERM, self.process.id());
            let _ = self.process.wait();
        }
    }
}

impl DemoNode {
    pub fn read(value: &Value) -> Self {
        let word = |key: &str| value[key].as_str().unwrap().to_owned();
        Self {
            name: word("node"),
            url: word("url").strip_prefix("http://").unwrap().parse().unwrap(),
            admin: word("admin"),
            token: word("token"),
            pid: value["pid"].as_u64().unwrap().try_into().unwrap(),
            data_dir: word("data_dir").into(),
        }
    }

    pub fn get(&self, path: &str) -> Answer {
        exchange(self.url, "GET", path, "", b"")
    }

    pub fn post(&self, text: &str) -> Answer {
        let body = json!({ "text": text }).to_string();
        exchange(
            self.url,
            "POST",
            "/api/entries",
            "Content-Type: application/json\r\n",
            body.as_bytes(),
        )
    }

    pub fn status(&self) -> Value {
        let found = run(&["status", "--json", "--admin", &self.admin]);
        assert!(found.status.success(), "{}", text(&found.stderr));
        serde_json::from_slice(&found.stdout).unwrap()
    }

    pub fn config(&self) -> PathBuf {
        self.data_dir.join("litepilot.yml")
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// What a browser would send back.
    pub fn cookies(&self) -> String {
        let set = self.head.lines().filter_map(|line| line.strip_prefix("set-cookie: "));
        let kept = set.filter(|cookie| !cookie.contains("Max-Age=0"));
        let pairs: Vec<_> = kept.filter_map(|cookie| cookie.split(';').next()).collect();
        assert_eq!(pairs.len(), 3, "{}", self.head);
        format!("Cookie: {}\r\n", pairs.join("; "))
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }
}

pub fn exchange(at: SocketAddr, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    exchange_over(TcpStream::connect(at).unwrap(), method, path, headers, body)
}

pub fn exchange_over(
    stream: TcpStream,
    method: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> Answer {
    let answer = ask_over(stream, method, path, headers, body);
    answer.unwrap_or_else(|cut| panic!("{cut:?}"))
}

/// An error is what came instead of an answer.
pub fn ask_over(
    mut stream: TcpStream,
    method: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> Result<Answer, String> {
    let at = stream.peer_addr().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    // A body that is refused early may not be read to its end.
    let _ = stream.write_all(&[head.as_bytes(), body].concat());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return Err(answer) };
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    Ok(Answer { code, head: head.to_owned(), body: body.to_owned() })
}

pub fn texts(answer: &Answer) -> Vec<String> {
    let entries = answer.json();
    entries.as_array().unwrap().iter().map(|e| e["text"].as_str().unwrap().to_owned()).collect()
}

/// As the demo says. Returns once it serves.
pub fn start_again(node: &DemoNode) -> Child {
    let mut command = litepilot(&["run", "-c", node.config().to_str().unwrap()]);
    let again = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("it serves again", || {
        TcpStream::connect(node.url).is_ok() && node.get("/api/entries").code == 200
    });
    again
}
