//! Crowds at every port, and floods of what is refused. How many, says `LITEPILOT_CROWD` and
//! `LITEPILOT_FLOOD`: what a run in CI has time for is less than what holds.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::files::Files;
use super::port::reserve_port;
use super::program::{Program, Setup};

/// Between two bytes of one that is slow.
const PACE: Duration = Duration::from_millis(200);
/// Far beyond what an answer takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |number| number.parse().unwrap())
}

/// As many files as this process may have.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, most).unwrap();
}

/// Those who connect to a port and say nothing, or what they say byte by byte. They leave when this is
/// dropped.
struct Crowd {
    _idle: Vec<TcpStream>,
    _slow: JoinSet<()>,
}

impl Crowd {
    async fn at(port: SocketAddr, slowly: &'static [u8]) -> Self {
        let idle = number("LITEPILOT_CROWD", 500);
        let mut crowd = Self { _idle: Vec::new(), _slow: JoinSet::new() };
        for i in 0..idle + idle / 5 {
            let mut stream = TcpStream::connect(port).await.unwrap();
            if i < idle {
                crowd._idle.push(stream);
                continue;
            }
            crowd._slow.spawn(async move {
                for byte in slowly.iter().cycle() {
                    if stream.write_all(&[*byte]).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(PACE).await;
                }
            });
        }
        crowd
    }
}

/// The primary of two nodes and a replica.
async fn pair() -> [Program; 2] {
    let setup =
        || Setup::with_app().key(&format!("admin: {{listen: 127.0.0.1:{}}}", reserve_port()));
    let members = super::program::members([setup(), setup()], "election: static, primary: n1");
    let [primary, replica] = members;
    [primary.start().await, replica.start().await]
}

/// Where a program's configuration says that its peer port is.
fn peer_port(program: &Program) -> SocketAddr {
    let yaml = std::fs::read_to_string(program.file("litepilot.yml")).unwrap();
    let (_, after) = yaml.split_once("primary: n1, listen: '").unwrap();
    after.split('\'').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_idle_and_the_slow_keep_nobody_from_proxy_admin_and_peer_port() {
    raise_file_limit();
    let [primary, replica] = pair().await;
    let mut kept = primary.client().await;
    assert_eq!(kept.post("/", &[], "").await.status(), 200);
    let crowd = Crowd::at(primary.proxy_address(), b"GET / HTTP/1.1\r\nX-Slow: ").await;
    assert_eq!(primary.client().await.ask("GET /", &[]).await.status(), 200);
    assert_eq!(kept.ask("GET /", &[]).await.status(), 200);
    drop(crowd);

    let crowd = Crowd::at(primary.admin_address(), b"GET /status HTTP/1.1\r\nX: ").await;
    assert_eq!(primary.admin("/health/ready").await.status(), 200);
    drop(crowd);

    let crowd = Crowd::at(peer_port(&primary), b"LITEPILOT/1 litepilot-http/1 n2 ").await;
    // Each over connections of its own, as the replica has none before.
    for _ in 0..3 {
        let answer = replica.client().await.post("/", &[], "").await;
        assert_eq!((answer.status(), answer.field("litepilot-route")), (200, Some("primary")));
    }
    assert!(replica.log().contains("a peer is heard"));
    drop(crowd);
}

#[tokio::test]
async fn they_keep_nobody_from_tls() {
    raise_file_limit();
    let files = Files::of_shop();
    let program = Setup::with_app().proxy(&files.tls(&["shop"])).start().await;
    let address = program.secure_address();
    // A handshake that has begun.
    let crowd = Crowd::at(address, &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).await;
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--fail", "--max-time", "30", "--http2", "--noproxy", "*", "--cacert"])
        .arg(files.path("shop.crt"))
        .args(["--connect-to", &format!("shop.test:443:{address}"), "https://shop.test/"]);
    let served = tokio::task::spawn_blocking(move || curl.status().unwrap()).await.unwrap();
    assert!(served.success(), "{served}");
    drop(crowd);
}

/// Sends that over a connection of its own, and waits for the end of whatever comes.
async fn send(port: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(port).await.unwrap();
    // It may be closed before it has taken all.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let _ = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.expect("an end");
}

#[tokio::test]
async fn what_is_repeated_is_counted_and_not_written() {
    // Nobody answers there, after an application that is none.
    let setup = || Setup::with_admin_port().target("127.0.0.1:1").proxy("write_hold: 0s");
    let members = super::program::members([setup(), setup()], "election: static, primary: n1");
    let [primary, _never_started] = members;
    let mut program = primary.start().await;
    let (proxy, admin) = (program.proxy_address(), program.admin_address());
    let peer = peer_port(&program);
    let host = "Host: localhost\r\nConnection: close\r\n";
    let requests = [
        (proxy, "\0\r\n\r\n".to_owned()),
        (proxy, format!("GET /%00 HTTP/1.1\r\n{host}\r\n")),
        (proxy, format!("GET / HTTP/1.1\r\n{host}X-Forwarded-For: 6.6.6.6\r\n\r\n")),
        (proxy, format!("POST / HTTP/1.1\r\n{host}Content-Length: 3\r\n\r\na")),
        (proxy, format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\nx")),
        (proxy, format!("GET / HTTP/1.1\r\n{host}X: {}\r\n\r\n", "x".repeat(70_000))),
        (admin, "\0\r\n\r\n".to_owned()),
        (admin, format!("POST /promote HTTP/1.1\r\n{host}Authorization: Bearer x\r\n\r\n")),
        (admin, format!("GET /nothing HTTP/1.1\r\n{host}\r\n")),
        (peer, "GET / HTTP/1.1\r\n\r\n".to_owned()),
        (peer, "LITEPILOT/1 litepilot-http/1 stranger n1\n".to_owned()),
        (peer, "LITEPILOT/1 litepilot-http/1 n1 n1\n".to_owned()),
        (peer, "LITEPILOT/1 no-such/1 n1 n2\n".to_owned()),
        (peer, "\u{16}\u{3}\u{1}".to_owned()),
    ];
    let before = program.log().lines().count();
    for (port, request) in &requests {
        for _ in 0..number("LITEPILOT_FLOOD", 200) {
            send(*port, request.as_bytes()).await;
        }
    }
    program.says("refused on the peer port").await;
    let log = program.log();
    let lines = log.lines().count() - before;
    // A few of each kind in each minute.
    assert!(lines < 4 * requests.len(), "{lines} lines:\n{log}");
}
