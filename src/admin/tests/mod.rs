//! A real admin port on a port of the system's choice, asked in raw HTTP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::cluster::{Epoch, Role};
use crate::status::{AppState, Status, example};
use fake::FakeControl;

mod changes;
mod fake;
mod turns;

const TOKEN: &str = "0123456789abcdef";
/// Far longer than anything here takes: only a hang gets there.
const HANG: Duration = Duration::from_secs(30);

struct Port {
    address: SocketAddr,
    status: Arc<Mutex<Status>>,
    view: watch::Sender<ClusterView>,
    control: Arc<FakeControl>,
    events: Arc<Events>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Port {
    async fn new() -> Self {
        Self::with(AdminLimits::default()).await
    }

    async fn with(limits: AdminLimits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let status = Arc::new(Mutex::new(example()));
        let events = Arc::new(Events::default());
        let shown = status.clone();
        let (view, viewed) = watch::channel(ClusterView::single(example().node, Epoch(3)));
        let control = Arc::new(FakeControl::default());
        let admin = Admin {
            status: Arc::new(move || shown.lock().unwrap().clone()),
            view: viewed,
            control: control.clone(),
            metrics: Metrics::new(2),
            events: events.clone(),
            token: TOKEN.parse().unwrap(),
            hosts: Hosts::new(&["localhost".to_owned()]),
            max_lag: Duration::from_secs(10),
            stopping: watch::channel(Urgency::None).1,
        };
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(serve(listener, admin, limits, async {
            let _ = stopped.await;
        }));
        Self { address, status, view, control, events, stop, served }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends these bytes on a connection of their own and reads until the end.
    async fn raw(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut stream = self.connect().await;
        stream.write_all(request.as_ref()).await.unwrap();
        read_all(stream).await
    }

    async fn ask(&self, method: &str, target: &str, headers: &str) -> Answer {
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"
        );
        self.raw(request).await
    }

    async fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, "").await
    }

    fn set(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock().unwrap());
    }
}

struct Answer {
    code: u16,
    head: String,
    body: String,
}

impl Answer {
    /// Asserts that this is an error in the form that all of ours have.
    fn problem(self, code: u16, name: &str) -> serde_json::Value {
        assert_eq!(self.code, code, "{}\n{}", self.head, self.body);
        assert!(self.has("content-type: application/problem+json"), "{}", self.head);
        let problem: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(problem["type"], format!("urn:litepilot:problem:{name}"));
        assert_eq!(problem["status"], code);
        problem
    }

    fn has(&self, header: &str) -> bool {
        self.head.lines().any(|line| line.eq_ignore_ascii_case(header))
    }
}

async fn read_all(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A reset after the answer is as good an end as any.
    let _ = timeout(HANG, stream.read_to_end(&mut bytes)).await.expect("an answer, or an end");
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let code = head.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0);
    Answer { code, head: head.to_owned(), body: body.to_owned() }
}

/// Reads until this text has come.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut piece = [0; 1024];
    while !text.contains(end) {
        let read = timeout(HANG, stream.read(&mut piece)).await.expect("more to come").unwrap();
        assert_ne!(read, 0, "it ended: {text}");
        text.push_str(&String::from_utf8_lossy(&piece[..read]));
    }
    text
}

const FOLLOW: &str = "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test]
async fn every_path_answers() {
    let port = Port::new().await;
    for path in ["/health/live", "/health/ready", "/primary", "/read-only"] {
        let answer = port.get(path).await;
        assert_eq!((answer.code, answer.body.as_str()), (200, "OK\n"), "{path}");
        assert!(answer.has("cache-control: no-store"), "{}", answer.head);
    }
    port.get("/replica").await.problem(503, "check-failed");

    let answer = port.get("/status").await;
    assert!(answer.has("content-type: application/json"), "{}", answer.head);
    assert_eq!(serde_json::from_str::<Status>(&answer.body).unwrap(), example());

    let answer = port.get("/metrics").await;
    assert!(answer.has("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    assert!(answer.body.contains("\nlitefs_is_primary 1\n"), "{}", answer.body);

    let answer = port.get("/").await;
    assert!(answer.has("content-type: text/html; charset=utf-8"), "{}", answer.head);
    assert!(answer.has("x-content-type-options: nosniff"), "{}", answer.head);
    assert!(answer.head.contains("content-security-policy: default-src 'none'"), "{}", answer.head);
    let nonce = answer.head.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert_eq!(answer.body.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
    assert!(!port.get("/").await.body.contains(nonce), "another one each time");
    assert!(!answer.body.contains(TOKEN));

    for path in ["/nothing", "/status/", "//status", "/STATUS", "/primary/x", "/%73tatus"] {
        port.get(path).await.problem(404, "not-found");
    }
}

#[tokio::test]
async fn checks_follow_the_node() {
    let port = Port::new().await;
    port.set(|status| status.writable = false);
    port.get("/primary").await.problem(503, "check-failed");
    assert_eq!(port.get("/read-only").await.code, 200);

    port.set(|status| (status.role, status.lag_ms) = (Role::Replica, Some(3_000)));
    port.get("/primary").await.problem(503, "check-failed");
    for (target, code) in
        [("/replica", 200), ("/replica?lag=3s", 200), ("/replica?lag=2s", 503), ("/read-only", 200)]
    {
        assert_eq!(port.get(target).await.code, code, "{target}");
    }
    let problem = port.get("/replica?lag=soon").await.problem(400, "bad-request");
    assert!(problem["detail"].as_str().unwrap().contains("250ms"), "{problem}");

    port.set(|status| status.app.state = AppState::Down);
    for path in ["/replica", "/read-only", "/health/ready"] {
        let problem = port.get(path).await.problem(503, "check-failed");
        assert_eq!(problem["detail"], "the application does not answer");
    }
    assert_eq!(port.get("/health/live").await.code, 200);
}

#[tokio::test]
async fn each_path_has_its_methods() {
    let port = Port::new().await;
    for path in ["/health/live", "/health/ready", "/primary", "/read-only"] {
        for method in ["HEAD", "OPTIONS"] {
            assert_eq!(port.ask(method, path, "").await.code, 200, "{method} {path}");
        }
        let answer = port.ask("POST", path, "Content-Length: 0\r\n").await;
        assert!(answer.has("allow: GET, HEAD, OPTIONS"), "{}", answer.head);
        answer.problem(405, "method-not-allowed");
    }
    for path in ["/status", "/metrics", "/", "/events"] {
        let answer = port.ask("HEAD", path, "").await;
        assert_eq!((answer.code, answer.body.as_str()), (200, ""), "{path}");
        for method in ["POST", "OPTIONS", "DELETE", "BREW"] {
            let answer = port.ask(method, path, "").await;
            assert!(answer.has("allow: GET, HEAD"), "{}", answer.head);
            answer.problem(405, "method-not-allowed");
        }
    }
    for path in ["/promote", "/on-primary"] {
        let answer = port.get(path).await;
        assert!(answer.has("allow: POST"), "{}", answer.head);
        answer.problem(405, "method-not-allowed");
    }
    let answer = port.ask("DELETE", "/members", "").await;
    assert!(answer.has("allow: GET, HEAD, POST"), "{}", answer.head);
    answer.problem(405, "method-not-allowed");
}

#[tokio::test]
async fn only_the_token_may_change_anything() {
    let port = Port::new().await;
    for target in ["/promote", "/promote?node=node-2", "/members", "/on-primary?once=v1"] {
        for headers in
            ["", "Authorization: Bearer 0123456789abcdeX\r\n", "Authorization: Bearer\r\n"]
        {
            let answer = port.ask("POST", target, headers).await;
            assert!(answer.has("www-authenticate: Bearer"), "{}", answer.head);
            let problem = answer.problem(401, "unauthorized");
            assert!(!problem.to_string().contains(TOKEN));
        }
    }
    assert_eq!(port.control.asked(), [""; 0]);
}

#[tokio::test]
async fn a_rebound_name_reads_and_changes_nothing() {
    let port = Port::new().await;
    for path in ["/", "/status", "/metrics", "/events", "/health/live", "/primary"] {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: evil.example:9180\r\nConnection: close\r\n\r\n");
        port.raw(request).await.problem(421, "misdirected-request");
    }
    let request = format!(
        "POST /promote HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    );
    port.raw(request).await.problem(421, "misdirected-request");
    let absolute =
        "GET http://evil.example/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    port.raw(absolute).await.problem(421, "misdirected-request");
    port.raw("GET /status HTTP/1.1\r\nConnection: close\r\n\r\n").await.problem(400, "bad-request");
    let twice =
        "GET /status HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    port.raw(twice).await.problem(400, "bad-request");

    let own =
        format!("GET /status HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", port.address);
    assert_eq!(port.raw(own).await.code, 200);
    assert_eq!(port.raw("OPTIONS /primary HTTP/1.0\r\n\r\n").await.code, 200, "HAProxy's way");
}

#[tokio::test]
async fn garbage_and_oversize_end_only_themselves() {
    let port = Port::new().await;
    let many = format!("GET /status HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "A: b\r\n".repeat(65));
    let long =
        format!("GET /status HTTP/1.1\r\nHost: localhost\r\nA: {}\r\n\r\n", "b".repeat(65536));
    let line = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(65536));
    for bad in [many, long, line, "\0\r\n\r\n".into(), "GET / HTTP/9.9\r\n\r\n".into()] {
        let answer = port.raw(&bad).await;
        assert!((400..500).contains(&answer.code) || answer.code == 0, "{}", answer.head);
    }
    assert_eq!(port.get("/status").await.code, 200);
}

#[tokio::test]
async fn a_flood_of_idle_connections_passes() {
    let limits = AdminLimits {
        connections: 4,
        header_timeout: Duration::from_secs(600),
        ..AdminLimits::default()
    };
    let port = Port::with(limits).await;
    let mut follower = port.connect().await;
    follower.write_all(FOLLOW.as_bytes()).await.unwrap();
    read_until(&mut follower, "text/event-stream").await;
    let mut idle = Vec::new();
    for _ in 0..20 {
        let mut stream = port.connect().await;
        stream.write_all(b"GET /status HTTP/1.1\r\nHo").await.unwrap();
        idle.push(stream);
    }
    assert_eq!(port.get("/status").await.code, 200, "somebody idle gives way");
    assert_ne!(read_all(idle.remove(0)).await.code, 200);
    port.events.record("app", "whoever is served stays");
    read_until(&mut follower, "whoever is served stays").await;
}

#[tokio::test]
async fn events_come_as_they_happen_to_a_limited_number() {
    let port = Port::with(AdminLimits { streams: 2, ..AdminLimits::default() }).await;
    port.events.record("app", "it began");
    let mut followers = Vec::new();
    for _ in 0..2 {
        let mut stream = port.connect().await;
        stream.write_all(FOLLOW.as_bytes()).await.unwrap();
        let text = read_until(&mut stream, "it began").await;
        assert!(text.contains("content-type: text/event-stream"), "{text}");
        followers.push(stream);
    }
    let answer = port.get("/events").await;
    assert!(answer.has("retry-after: 5"), "{}", answer.head);
    answer.problem(503, "too-many-streams");

    port.events.record("primary", "node-1 is\nprimary");
    for stream in &mut followers {
        let text = read_until(stream, "\n\n").await;
        assert!(text.contains(r#""kind":"primary","text":"node-1 is\nprimary"}"#), "{text}");
    }
    // One leaves, and its place is free as soon as the server sees that.
    drop(followers.pop());
    let newcomer = async {
        loop {
            let mut stream = port.connect().await;
            stream.write_all(FOLLOW.as_bytes()).await.unwrap();
            if read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 200") {
                break;
            }
        }
    };
    timeout(HANG, newcomer).await.expect("a free place");
}

#[tokio::test]
async fn a_page_is_told_all_it_shows_and_at_once_when_the_primary_changes() {
    let port = Port::new().await;
    port.events.record("app", "it began");
    let mut page = port.connect().await;
    page.write_all(b"GET /events?live HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let first = read_until(&mut page, "event: traffic\ndata: ").await;
    assert!(first.contains("event: status\ndata: {\"node\":\"node-1\""), "{first}");
    assert!(first.contains(r#""kind":"app","text":"it began"}"#), "{first}");
    port.set(|status| status.writable = false);
    port.view.send_modify(|view| view.writable = false);
    read_until(&mut page, r#""writable":false"#).await;
    // A sample of each second, with the status.
    let next = read_until(&mut page, r#""waiting":0}"#).await;
    assert!(next.contains(r#""read":{"rate":0.0,"p50_ms":null"#), "{next}");
    port.get("/events?lvie").await.problem(400, "bad-request");
}

#[tokio::test]
async fn a_page_of_another_site_takes_no_place() {
    let port = Port::with(AdminLimits { streams: 1, ..AdminLimits::default() }).await;
    let answer = port.ask("GET", "/events", "Sec-Fetch-Site: cross-site\r\n").await;
    answer.problem(403, "cross-site");
    let mut own = port.connect().await;
    let request = FOLLOW.replace("\r\n\r\n", "\r\nSec-Fetch-Site: same-origin\r\n\r\n");
    own.write_all(request.as_bytes()).await.unwrap();
    read_until(&mut own, ": events").await;
}

#[tokio::test]
async fn ten_thousand_followers_are_limited_and_checks_go_on() {
    let port = Port::new().await;
    let allowed = AdminLimits::default().streams;
    let mut followed = Vec::new();
    for wave in 0..100 {
        let mut coming = Vec::new();
        for _ in 0..100 {
            let mut stream = port.connect().await;
            stream.write_all(FOLLOW.as_bytes()).await.unwrap();
            coming.push(stream);
        }
        for mut stream in coming {
            let head = read_until(&mut stream, "\r\n\r\n").await;
            if head.starts_with("HTTP/1.1 200") {
                followed.push(stream);
            } else {
                assert!(head.starts_with("HTTP/1.1 503"), "{head}");
                // It keeps no place that a check might need.
                assert!(head.contains("connection: close"), "{head}");
            }
        }
        assert_eq!(port.get("/health/live").await.code, 200, "in wave {wave}");
    }
    assert_eq!(followed.len(), allowed);
    port.events.record("app", "all who may hear this");
    for stream in &mut followed {
        read_until(stream, "all who may hear this").await;
    }
}

#[tokio::test]
async fn a_follower_that_takes_nothing_is_dropped() {
    let limits = AdminLimits {
        streams: 1,
        write_timeout: Duration::from_millis(300),
        ..AdminLimits::default()
    };
    let port = Port::with(limits).await;
    let mut slow = port.connect().await;
    slow.write_all(FOLLOW.as_bytes()).await.unwrap();
    // It reads nothing more. Events go on until the socket, the queue and its patience are full.
    let events = port.events.clone();
    let noise = tokio::spawn(async move {
        loop {
            events.record("app", "x".repeat(1000));
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    });
    let newcomer = async { while !free(&port).await {} };
    timeout(HANG, newcomer).await.expect("its place is free");
    noise.abort();
}

/// Whether there is a place for a follower.
async fn free(port: &Port) -> bool {
    let mut stream = port.connect().await;
    stream.write_all(FOLLOW.as_bytes()).await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 200")
}

#[tokio::test]
async fn a_follower_that_does_not_keep_up_is_told_so() {
    let port = Port::new().await;
    let mut follower = port.connect().await;
    follower.write_all(FOLLOW.as_bytes()).await.unwrap();
    read_until(&mut follower, ": events").await;
    // Nothing else runs on this thread meanwhile, so the feed overflows by 44.
    for _ in 0..300 {
        port.events.record("app", "again");
    }
    read_until(&mut follower, "event: missed\ndata: {\"missed\":44}\n\n").await;
}

#[tokio::test]
async fn stopping_ends_streams_and_idle_connections() {
    let port = Port::new().await;
    let mut follower = port.connect().await;
    follower.write_all(FOLLOW.as_bytes()).await.unwrap();
    read_until(&mut follower, ": events").await;
    let mut kept = port.connect().await;
    kept.write_all(b"GET /primary HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    read_until(&mut kept, "OK\n").await;

    port.stop.send(()).unwrap();
    timeout(HANG, port.served).await.expect("it stops").unwrap();
    let rest = read_all(follower).await;
    assert!(rest.head.ends_with("0"), "the stream ends as a whole: {:?}", rest.head);
    read_all(kept).await;
}
