//! Bodies far larger than the program's memory.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use super::program::{Program, Setup};

/// KiB. Half of it is what it takes whatever the bodies' size: the program itself, threads, buffers.
const MOST_MEMORY: u64 = 96 * 1024;
/// Bytes sent or read at once.
const READ: usize = 128 * 1024;

/// A body: its framing, and its size in bytes, a multiple of [`READ`].
#[derive(Clone, Copy)]
struct Body {
    chunked: bool,
    size: u64,
}

#[tokio::test]
async fn it_does_not_grow_with_what_passes_through() {
    let program = Setup::new().target(&application().to_string()).start().await;
    let address = program.proxy_address();
    let transfers = move || {
        for (chunked, mib) in [(false, 2048), (true, 256)] {
            let body = Body { chunked, size: mib * 1024 * 1024 };
            upload(address, body);
            download(address, body);
        }
    };
    tokio::task::spawn_blocking(transfers).await.unwrap();
    let peak = peak_memory(&program);
    assert!(peak < MOST_MEMORY, "{peak} KiB");
}

fn peak_memory(program: &Program) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.pid())).unwrap();
    let (_, after) = status.split_once("VmHWM:").unwrap();
    after.split_whitespace().next().unwrap().parse().unwrap()
}

/// Takes and sends bodies as the path says.
fn application() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || serve(stream.unwrap()));
        }
    });
    address
}

fn serve(stream: TcpStream) {
    let mut stream = BufReader::with_capacity(READ, stream);
    // Who connects and says nothing only looks whether we are there.
    let Some(head) = head(&mut stream) else { return };
    let mut parts = head.split(['/', ' ']).skip(2);
    let chunked = parts.next() == Some("chunked");
    let body = Body { chunked, size: parts.next().unwrap().parse().unwrap() };
    if head.starts_with("GET ") {
        send(stream.get_mut(), "HTTP/1.1 200 OK\r\nConnection: close", body);
    } else {
        take_body(&mut stream, body);
        let answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
        stream.get_mut().write_all(answer).unwrap();
    }
}

fn upload(to: SocketAddr, body: Body) {
    let mut stream = BufReader::new(TcpStream::connect(to).unwrap());
    let start = format!("POST {} HTTP/1.1\r\nHost: shop", path(body));
    send(stream.get_mut(), &start, body);
    let answer = head(&mut stream).unwrap();
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
}

fn download(from: SocketAddr, body: Body) {
    let mut stream = BufReader::with_capacity(READ, TcpStream::connect(from).unwrap());
    let request = format!("GET {} HTTP/1.1\r\nHost: shop\r\n\r\n", path(body));
    stream.get_mut().write_all(request.as_bytes()).unwrap();
    let answer = head(&mut stream).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    take_body(&mut stream, body);
}

fn path(body: Body) -> String {
    format!("/{}/{}", if body.chunked { "chunked" } else { "whole" }, body.size)
}

/// A message with that body.
fn send(stream: &mut TcpStream, start: &str, Body { chunked, size }: Body) {
    let framing = match chunked {
        true => "Transfer-Encoding: chunked".to_owned(),
        false => format!("Content-Length: {size}"),
    };
    stream.write_all(format!("{start}\r\n{framing}\r\n\r\n").as_bytes()).unwrap();
    let piece = [b'x'; READ];
    let mut part = Vec::new();
    if chunked {
        part.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
    }
    part.extend_from_slice(&piece);
    if chunked {
        part.extend_from_slice(b"\r\n");
    }
    for _ in 0..size / piece.len() as u64 {
        stream.write_all(&part).unwrap();
    }
    if chunked {
        stream.write_all(b"0\r\n\r\n").unwrap();
    }
}

/// Up to the empty line; `None` if the connection ends before it.
fn head(stream: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

fn take_body(stream: &mut impl BufRead, Body { chunked, size }: Body) {
    let mut taken = 0;
    loop {
        let length = if chunked { chunk_size(stream) } else { size };
        taken += io::copy(&mut stream.take(length), &mut io::sink()).unwrap();
        if chunked {
            assert_eq!(line(stream), "", "after a chunk");
        }
        if !chunked || length == 0 {
            return assert_eq!(taken, size);
        }
    }
}

fn chunk_size(stream: &mut impl BufRead) -> u64 {
    u64::from_str_radix(&line(stream), 16).unwrap()
}

fn line(stream: &mut impl BufRead) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}
