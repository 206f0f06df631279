//! How many system calls a request costs: time cannot be asserted, and these are most of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::need;
use super::program::Setup;

const REQUESTS: usize = 4000;
/// The request comes and goes on, the answer comes and goes on, and before each of the two that come
/// there is a wait.
const EACH: usize = 6;

/// For strace to sum up.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the last line of its table ends with.
const TOTAL: &str = "total";
const PAUSE: Duration = Duration::from_millis(10);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_request_takes_six_system_calls() {
    if !need::need("strace", "strace") {
        return;
    }
    let (application, held) = application();
    let setup = Setup::new().target(&application.to_string());
    let counts = setup.file("counts").to_str().unwrap().to_owned();
    // With -D the process is the program's, not strace's.
    let strace = ["strace", "-D", "-f", "-qq", "-c", "-o", &counts];
    let mut program = setup.wrapped_in(&strace).start().await;
    let address = program.proxy_address();
    tokio::task::spawn_blocking(move || ask(address, &held)).await.unwrap();
    program.signal(Signal::TERM);
    let counted = Path::new(&counts);
    program.ended().await;
    let written = async {
        loop {
            match whole_table(counted) {
                Some(table) => break table,
                None => tokio::time::sleep(PAUSE).await,
            }
        }
    };
    let table = tokio::time::timeout(PATIENCE, written).await.unwrap();
    let each: usize = table.lines().filter_map(calls).map(per_request).sum();
    assert!(each <= EACH, "{each} for each of {REQUESTS} requests:\n{table}");
}

/// One request after the other, on one connection. One that is alone at the application may be looked
/// at, which is bounded by the second and not by the request: another keeps it company.
fn ask(address: SocketAddr, held: &Receiver<TcpStream>) {
    let mut other = TcpStream::connect(address).unwrap();
    other.write_all(b"GET /held HTTP/1.1\r\nHost: shop\r\n\r\n").unwrap();
    let mut company = held.recv_timeout(PATIENCE).unwrap();
    let mut stream = BufReader::new(TcpStream::connect(address).unwrap());
    for _ in 0..REQUESTS {
        stream.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n").unwrap();
        read_head(&mut stream).unwrap();
        stream.read_exact(&mut [0; 2]).unwrap();
    }
    company.write_all(ANSWER).unwrap();
}

/// Answers every request, on connections that stay, except one that is to be held: its connection is the test's.
fn application() -> (SocketAddr, Receiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (holds, held) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, holds) = (stream.unwrap(), holds.clone());
            thread::spawn(move || answer(BufReader::new(stream), &holds));
        }
    });
    (address, held)
}

fn answer(mut stream: BufReader<TcpStream>, holds: &Sender<TcpStream>) {
    while let Some(line) = read_head(&mut stream) {
        if line.starts_with("GET /held") {
            return holds.send(stream.into_inner()).unwrap();
        }
        stream.get_mut().write_all(ANSWER).unwrap();
    }
}

/// The first line of one, if there is one.
fn read_head(stream: &mut impl BufRead) -> Option<String> {
    let mut lines = stream.lines().map_while(Result::ok);
    let first = lines.next()?;
    lines.find(String::is_empty).map(|_| first)
}

/// What strace has written, once it is all there.
fn whole_table(file: &Path) -> Option<String> {
    let table = std::fs::read_to_string(file).ok()?;
    table.lines().last().is_some_and(|line| line.ends_with(TOTAL)).then_some(table)
}

/// How often a line of that table says that its system call was made.
fn calls(line: &str) -> Option<usize> {
    let calls = line.split_whitespace().nth(3)?.parse().ok()?;
    (!line.ends_with(TOTAL)).then_some(calls)
}

/// What the node does besides takes some of each, and more of them the longer it runs.
fn per_request(calls: usize) -> usize {
    (calls + REQUESTS / 2) / REQUESTS
}
