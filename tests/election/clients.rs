//! Clients that write and read all the time, and remember what became of it.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::json;

use crate::harness::{Answer, exchange_over};

/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(10);

/// Clients at work until they are told to stop.
pub struct Clients {
    stop: Arc<AtomicBool>,
    failed: Arc<Mutex<Vec<String>>>,
    written: Arc<Mutex<Vec<String>>>,
    threads: Vec<JoinHandle<usize>>,
}

impl Clients {
    /// So many of them. Each asks the nodes in turn, every third time it writes, and goes to the next
    /// one only if its connection is refused.
    pub fn start(count: usize, nodes: &[SocketAddr]) -> Self {
        let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let written: Arc<Mutex<Vec<String>>> = Arc::default();
        let work = |client| {
            let (stop, nodes) = (Arc::clone(&stop), nodes.to_vec());
            let written = Arc::clone(&written);
            let failed: Arc<Mutex<Vec<String>>> = Arc::clone(&failed);
            thread::spawn(move || {
                let mut done = 0;
                while !stop.load(Ordering::Relaxed) {
                    let write = done % 3 == 0;
                    let words = format!("{client}-{done}");
                    match ask(&nodes, client + done, write, &words) {
                        Ok(answer) if answer.code < 300 => {
                            written.lock().unwrap().extend(write.then_some(words));
                        }
                        Ok(answer) => failed.lock().unwrap().push(format!("{answer:?}")),
                        Err(why) => failed.lock().unwrap().push(why),
                    }
                    done += 1;
                    thread::sleep(PAUSE);
                }
                done
            })
        };
        let threads = (0..count).map(work).collect();
        Self { stop, failed, written, threads }
    }

    /// How many writes were done.
    pub fn written(&self) -> usize {
        self.written.lock().unwrap().len()
    }

    /// What was written, now and later.
    pub fn texts(&self) -> Arc<Mutex<Vec<String>>> {
        Arc::clone(&self.written)
    }

    /// Stops them; says how many requests there were, and which failed.
    pub fn stop(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let done = self.threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        (done, self.failed.lock().unwrap().clone())
    }
}

fn ask(nodes: &[SocketAddr], turn: usize, write: bool, words: &str) -> Result<Answer, String> {
    for offset in 0..nodes.len() {
        let node = nodes[(turn + offset) % nodes.len()];
        match TcpStream::connect(node) {
            Err(why) if why.kind() == ErrorKind::ConnectionRefused => continue,
            Err(why) => return Err(format!("{node}: {why}")),
            Ok(stream) if write => {
                let body = json!({ "text": words }).to_string();
                return Ok(exchange_over(stream, "POST", "/api/entries", "", body.as_bytes()));
            }
            Ok(stream) => return Ok(exchange_over(stream, "GET", "/api/entries", "", b"")),
        }
    }
    Err("every node refused the connection".to_owned())
}
