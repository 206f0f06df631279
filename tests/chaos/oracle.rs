//! Clients that write and read all the time; what they were told must hold forever.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::harness::{Answer, texts};

/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(60);
/// Longer than any node holds a request, or is stopped.
const PATIENCE: Duration = Duration::from_secs(30);

/// What clients were told.
#[derive(Debug, Default)]
pub struct Told {
    /// Writes that were acknowledged, and that a majority holds.
    pub by_majority: Vec<String>,
    /// Writes that were acknowledged otherwise.
    pub otherwise: Vec<String>,
    /// How many writes were not acknowledged, done or not.
    pub refused: usize,
    /// Reads with a token that were answered.
    pub reads: usize,
    /// What must not be.
    pub wrong: Vec<String>,
}

/// Clients at work until they are told to stop.
pub struct Oracle {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Told>>,
}

impl Oracle {
    /// So many clients. Each writes through one node and reads through another, all by chance.
    pub fn start(clients: u64, nodes: &[SocketAddr], seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let work = |number| {
            let (stop, nodes) = (Arc::clone(&stop), nodes.to_vec());
            thread::spawn(move || {
                let chance = SmallRng::seed_from_u64(seed ^ ((number + 1) << 32));
                let mut client =
                    Client { number, nodes, chance, token: None, told: Told::default() };
                let mut turn = 0;
                while !stop.load(Ordering::Relaxed) {
                    client.write(turn);
                    thread::sleep(PAUSE);
                    client.read();
                    thread::sleep(PAUSE);
                    turn += 1;
                }
                client.told
            })
        };
        Self { threads: (0..clients).map(work).collect(), stop }
    }

    /// Stops them; says what all of them were told.
    pub fn stop(self) -> Told {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Told::default();
        for told in self.threads.into_iter().map(|thread| thread.join().unwrap()) {
            all.by_majority.extend(told.by_majority);
            all.otherwise.extend(told.otherwise);
            all.wrong.extend(told.wrong);
            all.refused += told.refused;
            all.reads += told.reads;
        }
        all
    }
}

struct Client {
    number: u64,
    nodes: Vec<SocketAddr>,
    chance: SmallRng,
    /// The headers of the last write that was acknowledged.
    token: Option<String>,
    told: Told,
}

impl Client {
    fn node(&mut self) -> SocketAddr {
        self.nodes[self.chance.random_range(0..self.nodes.len())]
    }

    /// Each text is written at most once: nothing is tried again.
    fn write(&mut self, turn: usize) {
        let text = format!("{}-{turn}", self.number);
        let body = json!({ "text": text }).to_string();
        match ask(self.node(), "POST", "", &body) {
            Some(answer) if answer.code < 300 => {
                let value = |name| answer.header(name).unwrap_or_else(|| panic!("{answer:?}"));
                let (txid, epoch) = (value("litepilot-txid"), value("litepilot-epoch"));
                self.token =
                    Some(format!("Litepilot-Txid: {txid}\r\nLitepilot-Epoch: {epoch}\r\n"));
                match answer.header("litepilot-ack") {
                    Some("majority") => self.told.by_majority.push(text),
                    _ => self.told.otherwise.push(text),
                }
            }
            _ => self.told.refused += 1,
        }
    }

    /// With the token of the last write everything is there that this client was told it wrote.
    fn read(&mut self) {
        let Some(token) = self.token.clone() else { return };
        let node = self.node();
        let Some(answer) = ask(node, "GET", &token, "").filter(|answer| answer.code == 200) else {
            return;
        };
        self.told.reads += 1;
        let seen: HashSet<_> = texts(&answer).into_iter().collect();
        let lost = answer.header("litepilot-lost-write").is_some();
        let missing = self.told.by_majority.iter().find(|text| !seen.contains(*text));
        if lost || missing.is_some() {
            let head = &answer.head;
            self.told.wrong.push(format!("{node}: {token:?}: misses {missing:?}: {head:?}"));
        }
    }
}

/// The whole answer, if there is one.
fn ask(at: SocketAddr, method: &str, headers: &str, body: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(at).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let length = body.len();
    let request = format!(
        "{method} /api/entries HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let code = head.split(' ').nth(1)?.parse().ok()?;
    let answer = Answer { code, head: head.to_owned(), body: body.to_owned() };
    let whole = answer.header("content-length").is_some_and(|it| it.parse() == Ok(body.len()));
    whole.then_some(answer)
}
