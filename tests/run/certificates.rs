//! Certificates that are replaced while it runs.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use litepilot::config::{HostPort, PeerTls};
use litepilot::peer::{Credentials, DialError, Dialer, HTTP, Times};
use litepilot::tls::authority::Authority;
use litepilot::tls::{Identity, Validity};
use rustix::process::Signal;

use super::port::reserve_port;
use super::program::{Program, Setup};
use super::wire::Wire;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// From a minute ago, for as many days.
fn valid(days: u32) -> Validity {
    let from = SystemTime::now() - Duration::from_secs(60);
    Validity { from, until: from + DAY * days }
}

fn authority() -> Authority {
    Authority::create(valid(100)).unwrap()
}

/// Since half a minute ago no more.
fn expired() -> Validity {
    Validity { until: SystemTime::now() - Duration::from_secs(30), ..valid(0) }
}

/// Writes the files of a node, whatever was there.
fn issue(to: impl Fn(&str) -> PathBuf, authority: &Authority, node: &str, validity: Validity) {
    let issued = authority.issue(&node.parse().unwrap(), &[], validity).unwrap();
    std::fs::write(to("ca.crt"), authority.certificate()).unwrap();
    std::fs::write(to("own.crt"), issued.certificate).unwrap();
    std::fs::write(to("own.key"), issued.key).unwrap();
}

/// The node `there`, played by the test: it dials `here`.
struct There(Dialer);

impl There {
    fn new(authority: &Authority, here: SocketAddr) -> Self {
        let dir = tempfile::tempdir().unwrap();
        issue(|name| dir.path().join(name), authority, "there", valid(1));
        let [ca, cert, key] = ["ca.crt", "own.crt", "own.key"].map(|name| dir.path().join(name));
        let own = "there".parse().unwrap();
        let identity = Identity::read(&PeerTls { ca, cert, key }, &own).unwrap();
        let at = HostPort { host: here.ip().to_string(), port: here.port() };
        let peers = [("here".parse().unwrap(), at)];
        let mut dialer = Dialer::new(own.clone(), &peers, Times::default());
        dialer.secure(Arc::new(Credentials::new(own, &identity).unwrap()));
        Self(dialer)
    }

    async fn dial(&self) -> Result<Wire, DialError> {
        self.0.dial_now(&"here".parse().unwrap(), HTTP).await.map(Wire::new)
    }

    async fn is_let_in(&self) {
        is_open(&mut self.dial().await.unwrap()).await;
    }
}

/// A request of an epoch that never was is refused, and the connection kept.
async fn is_open(connection: &mut Wire) {
    let forwarded = r#"{"epoch":999,"class":"write","consistency":"eventual","token":null}"#;
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nLitepilot-Forwarded: {forwarded}\r\n\r\n");
    connection.send(head).await;
    let answer = connection.response().await;
    assert_eq!((answer.status(), answer.field("connection")), (421, None), "{answer:?}");
}

/// The node `here`, and where others connect.
async fn start(authority: &Authority, validity: Validity) -> (Program, SocketAddr) {
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, reserve_port()));
    let setup = Setup::new().key(&format!(
        "cluster: {{election: static, primary: here, listen: '{here}', \
         peers: {{here: '{here}', there: '127.0.0.1:{}'}}, \
         tls: {{ca: ca.crt, cert: own.crt, key: own.key}}}}",
        reserve_port()
    ));
    issue(|name| setup.file(name), authority, "here", validity);
    let mut program = setup.start().await;
    // Its other ports are open first.
    program.until("its peer port is open", |_| TcpStream::connect(here).is_ok()).await;
    (program, here)
}

async fn reload(program: &mut Program, words: &str) {
    program.signal(Signal::HUP);
    program.says(words).await;
}

#[tokio::test]
async fn sighup_replaces_certificates_for_new_connections_and_old_ones_live_on() {
    let (old, new) = (authority(), authority());
    let (mut program, here) = start(&old, valid(30)).await;
    let before = There::new(&old, here);
    let mut open = before.dial().await.unwrap();
    is_open(&mut open).await;

    issue(|name| program.file(name), &new, "here", valid(30));
    reload(&mut program, "certificates reloaded").await;
    let error = before.dial().await.err().unwrap();
    assert!(matches!(error, DialError::Untrusted(_)), "{error:?}");
    There::new(&new, here).is_let_in().await;
    // Of what was said before the signal some may still have been on its way.
    for _ in 0..10 {
        is_open(&mut open).await;
    }
    assert!(!program.log().contains("expires on"), "{}", program.log());
}

#[tokio::test]
async fn bad_certificates_are_refused_and_the_old_ones_stay() {
    let authority = authority();
    let (mut program, here) = start(&authority, valid(30)).await;
    let there = There::new(&authority, here);
    there.is_let_in().await;

    std::fs::write(program.file("own.crt"), "no certificate").unwrap();
    reload(&mut program, "certificates not reloaded: the old ones stay in force").await;
    assert!(program.says("own.crt:1:1: ").await.contains("cluster.tls.cert: it holds no PEM"));
    there.is_let_in().await;

    issue(|name| program.file(name), &authority, "there", valid(30));
    reload(&mut program, "it was issued to there, but this node is here").await;
    there.is_let_in().await;

    issue(|name| program.file(name), &authority, "here", expired());
    reload(&mut program, "it expired on").await;
    there.is_let_in().await;
}

/// What the metric says.
async fn seconds_left(program: &Program) -> f64 {
    let metrics = program.admin("/metrics").await;
    let line = |line: &str| {
        line.strip_prefix("litepilot_certificate_expiry_seconds ").map(|n| n.parse().unwrap())
    };
    metrics.text().lines().find_map(line).unwrap()
}

#[tokio::test]
async fn somebody_is_told_before_a_certificate_expires() {
    let (mut program, _) = start(&authority(), valid(13)).await;
    let line = program.says("expires on").await;
    assert!(line.contains("WARN") && line.contains("in 12 days"), "{line}");
    let left = seconds_left(&program).await;
    assert!(left > 12.0 * DAY.as_secs_f64() && left < 13.0 * DAY.as_secs_f64(), "{left}");
    let mut events = program.ask_admin("/events").await;
    let event = events.until("expires on").await;
    assert!(event.contains("certificate"), "{event}");
}

#[tokio::test]
async fn with_an_expired_certificate_it_starts_and_says_so() {
    // The clock of a machine that boots may be wrong: that must not keep it down for good.
    let (mut program, _) = start(&authority(), expired()).await;
    program.says("it expired on").await;
    assert!(seconds_left(&program).await < 0.0);
}
