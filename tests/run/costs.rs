//! How many system calls a request costs: time cannot be asserted, and these are most of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::need;
use super::program::Setup;

const REQUESTS: usize = 4000;
/// The request comes and goes on, the answer comes and goes on, and before each of the two that come
/// there is a wait.
const EACH: usize = 6;
/// Whatever the node does besides, until it has stopped.
const BESIDES: usize = 6000;

/// For strace to sum up.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(10);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_request_takes_six_system_calls() {
    if !need::need("strace", "strace") {
        return;
    }
    let setup = Setup::new().target(&application().to_string());
    let counts = setup.file("counts").to_str().unwrap().to_owned();
    // With -D the process is the program's, not strace's.
    let strace = ["strace", "-D", "-f", "-qq", "-c", "-o", &counts];
    let mut program = setup.wrapped_in(&strace).start().await;
    let address = program.proxy_address();
    tokio::task::spawn_blocking(move || ask(address)).await.unwrap();
    program.signal(Signal::TERM);
    let counted = Path::new(&counts);
    program.ended().await;
    let written = async {
        loop {
            match total(counted) {
                Some(total) => break total,
                None => tokio::time::sleep(PAUSE).await,
            }
        }
    };
    let total = tokio::time::timeout(PATIENCE, written).await.unwrap();
    let table = std::fs::read_to_string(counted).unwrap();
    assert!(total <= REQUESTS * EACH + BESIDES, "{total} of {REQUESTS} requests:\n{table}");
}

/// One request after the other, on one connection.
fn ask(address: SocketAddr) {
    let mut stream = BufReader::new(TcpStream::connect(address).unwrap());
    for _ in 0..REQUESTS {
        stream.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n").unwrap();
        read_head(&mut stream);
        stream.read_exact(&mut [0; 2]).unwrap();
    }
}

/// Answers every request, on connections that stay.
fn application() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            thread::spawn(move || {
                while read_head(&mut stream) {
                    stream.get_mut().write_all(ANSWER).unwrap();
                }
            });
        }
    });
    address
}

/// Says whether there was one.
fn read_head(stream: &mut impl BufRead) -> bool {
    let mut line = String::new();
    while stream.read_line(&mut line).is_ok_and(|read| read > 0) {
        if line == "\r\n" {
            return true;
        }
        line.clear();
    }
    false
}

/// The last line of strace's table, once it is there: the number before the names.
fn total(table: &Path) -> Option<usize> {
    let table = std::fs::read_to_string(table).ok()?;
    let last = table.lines().last().filter(|line| line.ends_with("total"))?;
    last.split_whitespace().filter_map(|n| n.parse().ok()).nth(1)
}
