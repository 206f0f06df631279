//! Clients that write and read all the time; what they were told must hold forever.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::history::History;
use crate::http::ask;
use crate::jar::Browser;
use crate::registers::Registrar;
use crate::told::{Asked, Told};

/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(60);

/// Of each kind of client.
const CLIENTS: u64 = 3;
const BROWSERS: u64 = 1;
const REGISTRARS: u64 = 3;

/// Clients at work until they are told to stop.
pub struct Oracle {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Told>>,
}

/// The nodes, one of which is asked by chance.
pub struct Somewhere {
    nodes: Vec<SocketAddr>,
    pub chance: SmallRng,
}

impl Somewhere {
    pub fn node(&mut self) -> SocketAddr {
        self.nodes[self.chance.random_range(0..self.nodes.len())]
    }
}

/// What a client does again and again.
pub trait Client: Send + 'static {
    fn turn(&mut self);

    fn told(self: Box<Self>) -> Told;
}

impl Oracle {
    /// All clients. What they do and where they do it follows from the seed.
    pub fn start(nodes: &[SocketAddr], seed: u64, history: &Arc<History>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let all = CLIENTS + BROWSERS + REGISTRARS;
        let work = |number| {
            let chance = SmallRng::seed_from_u64(seed ^ ((number + 1) << 32));
            let at = Somewhere { nodes: nodes.to_vec(), chance };
            let mut client: Box<dyn Client> = match number {
                0..CLIENTS => Box::new(Writer::new(number, at)),
                number if number < all - REGISTRARS => Box::new(Browser::new(number, at)),
                _ => Box::new(Registrar::new(number, at, history.clone())),
            };
            let stop = stop.clone();
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    client.turn();
                    thread::sleep(PAUSE);
                }
                client.told()
            })
        };
        let threads = (0..all).map(work).collect();
        Self { threads, stop }
    }

    /// Stops them; says what all of them were told.
    pub fn stop(self) -> Told {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Told::default();
        for thread in self.threads {
            all.add(thread.join().unwrap());
        }
        all
    }
}

/// Writes through one node and reads through another, with the token of its last write.
struct Writer {
    name: String,
    at: Somewhere,
    turns: u64,
    /// Epoch and headers of the last write that was acknowledged.
    token: Option<(u64, String)>,
    told: Told,
}

impl Writer {
    fn new(number: u64, at: Somewhere) -> Self {
        Self { name: format!("w{number}"), at, turns: 0, token: None, told: Told::default() }
    }

    /// Each text is written at most once: nothing is tried again.
    fn write(&mut self) {
        self.turns += 1;
        let text = format!("{}-{}", self.name, self.turns);
        let body = json!({ "text": text }).to_string();
        let answer = ask(self.at.node(), "/api/entries", "", Some(&body)).success();
        if let Some(answer) = &answer {
            let value = |name| answer.header(name).unwrap_or_else(|| panic!("{answer:?}"));
            let (txid, epoch) = (value("litepilot-txid"), value("litepilot-epoch"));
            let headers = format!("Litepilot-Txid: {txid}\r\nLitepilot-Epoch: {epoch}\r\n");
            self.token = Some((epoch.parse().unwrap(), headers));
        }
        self.told.written(text, answer.as_ref());
    }

    /// With the token of the last write everything is there that this client was told it wrote.
    fn read(&mut self) {
        let Some((epoch, headers)) = &self.token else { return };
        let path = format!("/api/entries?writer={}", self.name);
        if let Some(answer) = ask(self.at.node(), &path, headers, None).success() {
            let asked = Asked { headers, epoch: *epoch, doubtful: false };
            self.told.read(&asked, &self.told.by_majority.clone(), &answer);
        }
    }
}

impl Client for Writer {
    fn turn(&mut self) {
        self.write();
        thread::sleep(PAUSE);
        self.read();
    }

    fn told(self: Box<Self>) -> Told {
        self.told
    }
}
