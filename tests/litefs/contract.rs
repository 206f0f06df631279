//! The LiteFS of these tests beside the recordings of a real one: it asks for its lease in the same
//! words and order, and tells of itself in the same form. So a stand-in is known to be a fair one.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use litepilot::litefs::{mount, render};
use litepilot::secret::Secret;
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::harness::{exchange, until};
use super::support::{DB, LONG, application, config, free_port, program};

/// Consul, as the one that was recorded with: one lease, whose end the test decides.
#[derive(Default)]
struct Consul {
    keys: HashMap<String, String>,
    session: Option<String>,
    sessions: u32,
    expired: bool,
    asked: Vec<String>,
}

impl Consul {
    fn answer(&mut self, line: &str, body: &str) -> (u16, String) {
        self.asked.push(normal(line, body));
        let (method, target) = line.split_once(' ').unwrap();
        let path = target.strip_prefix("/v1/").unwrap();
        let is_held = |session: &str| !self.expired && self.session.as_deref() == Some(session);
        if let Some(session) = path.strip_prefix("session/renew/") {
            return match is_held(session) {
                true => (200, json!([{"ID": session, "LockDelay": 1, "TTL": "1s"}]).to_string()),
                false => (404, String::new()),
            };
        }
        if path == "session/create" {
            self.sessions += 1;
            return (200, json!({"ID": format!("session-{}", self.sessions)}).to_string());
        }
        if let Some((_, session)) = path.split_once("?acquire=") {
            let free = !self.expired && self.session.get_or_insert(session.to_owned()) == session;
            return (200, free.to_string());
        }
        if let Some((_, session)) = path.split_once("?release=") {
            return (200, is_held(session).to_string());
        }
        match (method, self.keys.get(path)) {
            ("GET", Some(value)) => {
                (200, json!([{"Key": path, "Value": base64(value)}]).to_string())
            }
            ("GET", None) => (404, String::new()),
            _ => {
                self.keys.insert(path.to_owned(), body.to_owned());
                (200, "true".to_owned())
            }
        }
    }
}

/// A request without what differs from run to run: `PUT /v1/session/renew/SESSION`.
fn normal(line: &str, body: &str) -> String {
    let mut line = line.to_owned();
    for before in ["?acquire=", "?release=", "/renew/", "/destroy/"] {
        if let Some((head, _)) = line.clone().split_once(before) {
            line = format!("{head}{before}SESSION");
        }
    }
    // As a newer client of Consul has it.
    let body = body.replace("NodeChecks", "Checks");
    let keys = serde_json::from_str::<Value>(&body).ok();
    let keys = keys.and_then(|body| Some(shape(body.as_object()?)));
    format!(
        "{line} {}",
        keys.unwrap_or_else(|| String::from(if body.is_empty() { "" } else { "TEXT" }))
    )
}

/// An object's keys, those of objects in it included.
fn shape(object: &serde_json::Map<String, Value>) -> String {
    let key = |(key, value): (&String, &Value)| match value.as_object() {
        Some(inner) => format!("{key}{{{}}}", shape(inner)),
        None => key.clone(),
    };
    object.iter().map(key).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ")
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |three: &[u8]| {
        let bits = three.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        let digit = |i: usize| match i <= three.len() {
            true => char::from(DIGITS[(bits >> (18 - 6 * i) & 63) as usize]),
            false => '=',
        };
        (0..4).map(digit).collect::<String>()
    };
    text.as_bytes().chunks(3).map(group).collect()
}

fn serve(consul: &Arc<Mutex<Consul>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, consul) = (listener.local_addr().unwrap(), consul.clone());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let consul = consul.clone();
            thread::spawn(move || talk(stream, &consul));
        }
    });
    address
}

/// One connection, which is kept open; `None` at its end.
fn talk(stream: TcpStream, consul: &Mutex<Consul>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let (mut head, mut length) = (Vec::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            match line.trim() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let line = head[0].strip_suffix(" HTTP/1.1").unwrap();
        let body = String::from_utf8(body).unwrap();
        let (status, answer) = consul.lock().unwrap().answer(line, &body);
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", answer.len());
        writer.write_all((head + &answer).as_bytes()).ok()?;
    }
}

/// What was recorded, in the same form as [`Consul::asked`].
fn recorded(text: &str) -> Vec<String> {
    let exchange = |piece: &str| {
        let sent: Vec<_> =
            piece.lines().filter_map(|line| line.strip_prefix('>')).map(str::trim).collect();
        let blank = sent.iter().position(|line| line.is_empty()).unwrap_or(sent.len());
        normal(sent[0].strip_suffix(" HTTP/1.1").unwrap(), &sent[blank..].concat())
    };
    text.split("\n\n").filter(|piece| !piece.trim().is_empty()).map(exchange).collect()
}

/// Each kind of request once, in the order in which they came first: two nodes were recorded.
fn order(asked: &[String]) -> Vec<&str> {
    let mut order = Vec::new();
    for request in asked {
        if !order.contains(&&**request) {
            order.push(&**request);
        }
    }
    order
}

/// A LiteFS, without anything of ours around it. Dropping it kills it.
struct Bare {
    process: Child,
    consul: Arc<Mutex<Consul>>,
    http: SocketAddr,
    mount: PathBuf,
    _dir: tempfile::TempDir,
}

impl Bare {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let consul = Arc::<Mutex<Consul>>::default();
        let http = free_port();
        let config = config("node1", dir.path(), http, serve(&consul));
        fs::create_dir(&config.litefs.mount).unwrap();
        fs::create_dir(&config.data_dir).unwrap();
        let secret: Secret = "0123456789abcdef-secret".parse().unwrap();
        let file = render::write(&config, &secret).unwrap();
        let mut litefs = Command::new(program().0);
        litefs.args(["mount", "-config"]).arg(file).stdin(Stdio::null());
        let process = litefs.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { process, consul, http, mount: config.litefs.mount, _dir: dir }
    }

    fn asked(&self) -> Vec<String> {
        self.consul.lock().unwrap().asked.clone()
    }

    fn until_asked(&self, words: &str) {
        until(words, || self.asked().iter().any(|line| line.contains(words)));
    }

    /// From now on only what follows is remembered.
    fn forget(&self) {
        self.consul.lock().unwrap().asked.clear();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
        // Its threads stop one after the other.
        while signal == Signal::STOP && !self.has_stopped() {
            thread::yield_now();
        }
    }

    fn has_stopped(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        threads.flatten().all(|thread| {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|state| state.starts_with('T'))
        })
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = mount::clear_dead(&self.mount);
    }
}

fn contract(file: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/litefs-contract");
    fs::read_to_string(dir.join(file)).unwrap()
}

#[test]
fn it_asks_for_its_lease_as_was_recorded() {
    let mut litefs = Bare::start();
    litefs.until_asked("/renew/");
    let start = recorded(&contract("lease-start.http"));
    let first = start.iter().position(|line| line.contains("/renew/")).unwrap();
    assert_eq!(litefs.asked()[..=first], start[..=first]);

    litefs.forget();
    litefs.consul.lock().unwrap().expired = true;
    until("it has been refused", || {
        litefs.asked().iter().filter(|line| line.contains("/destroy/")).count() == 2
    });
    let refused = recorded(&contract("lease-renew-404.http"));
    let asked = litefs.asked();
    // Some renewals may have been in time.
    let begin = asked.iter().position(|line| line.contains("?release=")).unwrap() - 1;
    assert_eq!(asked[begin..begin + 3], refused[..3]);
    let wanted = order(&refused[3..]);
    assert_eq!(order(&asked[begin + 3..])[..6], wanted[..6]);

    {
        let mut consul = litefs.consul.lock().unwrap();
        (consul.expired, consul.session) = (false, None);
    }
    litefs.forget();
    litefs.until_asked("/renew/");
    litefs.forget();
    litefs.signal(Signal::TERM);
    assert!(litefs.process.wait().unwrap().success());
    let end = recorded(&contract("lease-sigterm.http"));
    let asked = litefs.asked();
    assert_eq!(asked[asked.len() - 2..], end[..2]);
}

#[test]
fn it_tells_of_itself_as_was_recorded() {
    let litefs = Bare::start();
    litefs.until_asked("/renew/");
    let stream = TcpStream::connect(litefs.http).unwrap();
    (&stream).write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    // Chunks: sizes and blank lines between.
    let mut event = |kind: &str| {
        let events = lines.by_ref().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        let mut events = events.filter(|event| event.is_object());
        let event = events.find(|event| event["type"] == kind).unwrap();
        shape(event.as_object().unwrap())
    };
    let recorded = contract("events-node1.ndjson");
    let recorded = |kind: &str| {
        let mut events = recorded.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        shape(events.find(|event| event["type"] == kind).unwrap().as_object().unwrap())
    };
    assert_eq!(event("init"), recorded("init"));
    Connection::open(litefs.mount.join(DB)).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    assert_eq!(event("tx"), recorded("tx"));
    let position = || fs::read_to_string(litefs.mount.join(format!("{DB}-pos"))).unwrap();
    assert_eq!(normal_digits(&position()), normal_digits(&contract("pos.txt")));

    let info = exchange(litefs.http, "GET", "/info", "", b"").json();
    let like: Value = serde_json::from_str(&contract("info-primary.json")).unwrap();
    assert_eq!(shape(info.as_object().unwrap()), shape(like.as_object().unwrap()));
    litefs.consul.lock().unwrap().expired = true;
    assert_eq!(event("primaryChange"), recorded("primaryChange"));
}

/// Reads when a line comes in, and says how many tables there are.
const READER: &str = "
import sqlite3, sys
for line in sys.stdin:
    connection = sqlite3.connect(sys.argv[1], timeout=10)
    print(connection.execute('SELECT count(*) FROM sqlite_schema').fetchone()[0], flush=True)
    connection.close()
";

#[test]
fn whoever_touches_it_while_it_hangs_waits() {
    let litefs = Bare::start();
    litefs.until_asked("/renew/");
    Connection::open(litefs.mount.join(DB)).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let mut app = application();
    app.args(["python3", "-c", READER]).arg(litefs.mount.join(DB));
    let mut app = app.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut ask, said) = (app.stdin.take().unwrap(), app.stdout.take().unwrap());
    let (send, answers) = std::sync::mpsc::channel();
    let lines = BufReader::new(said).lines().map_while(Result::ok);
    let reading = thread::spawn(move || lines.for_each(|line| drop(send.send(line))));
    ask.write_all(b"\n").unwrap();
    assert_eq!(answers.recv_timeout(LONG).as_deref(), Ok("1"));
    litefs.signal(Signal::STOP);
    ask.write_all(b"\n").unwrap();
    assert!(answers.recv_timeout(Duration::from_millis(300)).is_err(), "it cannot be answered");
    litefs.signal(Signal::CONT);
    assert_eq!(answers.recv_timeout(LONG).as_deref(), Ok("1"));
    drop(ask);
    assert!(app.wait().unwrap().success());
    reading.join().unwrap();
}

/// Hex digits alike.
fn normal_digits(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_hexdigit() { '0' } else { c }).collect()
}
