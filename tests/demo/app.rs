//! A small application that runs by itself, and a place for its database.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

/// A small application that says its name to a GET and counts what is posted.
pub struct App {
    pub address: SocketAddr,
    pub posts: Arc<Mutex<Vec<String>>>,
    pub mount: TempDir,
}

impl App {
    pub fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let posts = Arc::new(Mutex::new(Vec::new()));
        let posted = posts.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let posted = posted.clone();
                std::thread::spawn(move || serve(stream.unwrap(), name, &posted));
            }
        });
        Self { address, posts, mount: tempfile::tempdir().unwrap() }
    }

    pub fn mount(&self) -> &str {
        self.mount.path().to_str().unwrap()
    }
}

/// One request, then the end. What only connects is a look at whether anybody is there.
fn serve(stream: TcpStream, name: &str, posts: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    if head.starts_with("POST") {
        let head = head.to_ascii_lowercase();
        let length = head.split_once("content-length: ").unwrap().1;
        let length = length.split_once("\r\n").unwrap().0.parse().unwrap();
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        posts.lock().unwrap().push(String::from_utf8(body).unwrap());
    }
    let length = name.len();
    let answer =
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{name}");
    let _ = reader.get_mut().write_all(answer.as_bytes());
}
