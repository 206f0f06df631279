//! What requests and connections cost of memory: a program of its own, as it counts all allocations.

// clippy.toml allows these in tests, but does not take a test binary's helpers for such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use litepilot::config::Config;
use litepilot::node::Node;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const REQUESTS: usize = 4000;
/// Allocations of one request: with more, something costs now that was free before.
const EACH: f64 = 14.5;
const CONNECTIONS: usize = 300;
/// Bytes of a connection on which nothing happens.
const IDLE: usize = 4096;
/// For them to become idle: what has not happened by then never will.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

const REQUEST: &[u8] =
    b"GET /entries HTTP/1.1\r\nHost: shop\r\nCookie: sessionid=8f1u0k3v5x7y9z2a\r\n\r\n";
const HELD: &[u8] = b"GET /held HTTP/1.1\r\nHost: shop\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

// One test, so that nothing else allocates meanwhile.
#[test]
fn reads_and_idle_connections_take_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (application, held) = application();
    let yaml = format!(
        "node: here\ndata_dir: {0}/data\nadmin: {{listen: 127.0.0.1:0}}\n\
         litefs: {{engine: embedded, mount: {0}}}\nlog: {{access: off}}\n\
         proxy: {{listen: 127.0.0.1:0, target: {1}, db: db.sqlite3, rules: [django, static]}}\n",
        dir.path().display(),
        application,
    );
    let config = Config::from_yaml("litepilot.yml", yaml.as_bytes(), &|_| None).unwrap();
    let node = Node::start(config).unwrap();
    a_read_takes_few_allocations(node.proxy_address(), &held);
    an_idle_connection_gives_its_buffers_back(node.proxy_address());
}

/// One that is alone at the application may be looked at, which is bounded by the second and not by the
/// request: another keeps it company.
fn a_read_takes_few_allocations(address: SocketAddr, held: &Receiver<TcpStream>) {
    let mut other = TcpStream::connect(address).unwrap();
    other.write_all(HELD).unwrap();
    let mut company = held.recv_timeout(PATIENCE).unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    ask(&mut client);
    let region = Region::new(ALLOCATOR);
    (0..REQUESTS).for_each(|_| ask(&mut client));
    let counted = region.change();
    company.write_all(ANSWER).unwrap();
    let each = (counted.allocations + counted.reallocations) as f64 / REQUESTS as f64;
    assert!(each <= EACH, "{each:.1} allocations for each read");
}

fn an_idle_connection_gives_its_buffers_back(address: SocketAddr) {
    let mut clients = Vec::with_capacity(CONNECTIONS);
    let region = Region::new(ALLOCATOR);
    for _ in 0..CONNECTIONS {
        let mut client = TcpStream::connect(address).unwrap();
        ask(&mut client);
        clients.push(client);
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let counted = region.change();
        let each = counted.bytes_allocated.saturating_sub(counted.bytes_deallocated) / CONNECTIONS;
        if each <= IDLE {
            break;
        }
        assert!(Instant::now() < deadline, "{each} bytes for each idle connection");
        thread::sleep(PAUSE);
    }
    // They are as good as before.
    clients.iter_mut().for_each(ask);
}

/// Asks once, without an allocation.
fn ask(client: &mut TcpStream) {
    client.write_all(REQUEST).unwrap();
    let (mut answer, mut length) = ([0; 2048], 0);
    while !answer[..length].ends_with(b"ok") {
        length += client.read(&mut answer[length..]).unwrap();
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
}

/// Answers every request, on connections that stay, without an allocation; but for one that is to be held, whose
/// connection is the test's.
fn application() -> (SocketAddr, Receiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (holds, held) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, holds) = (stream.unwrap(), holds.clone());
            thread::spawn(move || {
                let (mut request, mut length) = ([0; 4096], 0);
                while let Ok(read @ 1..) = stream.read(&mut request[length..]) {
                    length += read;
                    if !request[..length].ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    if request.starts_with(b"GET /held") {
                        return holds.send(stream).unwrap();
                    }
                    stream.write_all(ANSWER).unwrap();
                    length = 0;
                }
            });
        }
    });
    (address, held)
}
