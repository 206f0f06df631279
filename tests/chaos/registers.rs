//! Clients of registers, each of which is read, written, and compared and set by all of them at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::RngExt;
use serde_json::{Value, json};

use crate::harness::Answer;
use crate::history::{Entry, History, PER_REGISTER};
use crate::http::{Reply, ask};
use crate::linear::{Action, NEVER, Operation};
use crate::oracle::{Client, Somewhere};
use crate::told::Told;

/// So many are in use at once.
const AT_ONCE: u64 = 2;
const STRONG: &str = "Litepilot-Consistency: strong\r\n";

/// How many operations there were, of all clients; each is a value that nobody else writes.
static OPERATIONS: AtomicU64 = AtomicU64::new(1);

pub struct Registrar {
    client: u64,
    at: Somewhere,
    history: Arc<History>,
    /// The register that it last used, and what that was.
    known: (u64, u64),
}

impl Registrar {
    pub fn new(client: u64, at: Somewhere, history: Arc<History>) -> Self {
        Self { client, at, history, known: (0, 0) }
    }

    /// What is to be done next with a register.
    fn choose(&mut self, register: u64, to: u64) -> Action {
        let from = if self.known.0 == register { self.known.1 } else { 0 };
        match self.at.chance.random_range(0..10) {
            0..4 => Action::Read(0),
            4..7 => Action::Write(to),
            _ => Action::Swap { from, to, before: None },
        }
    }
}

impl Client for Registrar {
    fn turn(&mut self) {
        let number = OPERATIONS.fetch_add(1, Ordering::Relaxed);
        let register = number / (PER_REGISTER as u64 * AT_ONCE) * AT_ONCE + number % AT_ONCE;
        let (action, node) = (self.choose(register, number), self.at.node());
        let entry = operate(&self.history, self.client, node, register, action);
        if let Some(entry) = entry {
            self.known = match entry.operation.action {
                Action::Read(value) | Action::Write(value) => (register, value),
                Action::Swap { to, before: None, .. } => (register, to),
                Action::Swap { before: Some(before), .. } => (register, before),
            };
            self.history.add(entry);
        }
    }

    fn told(self: Box<Self>) -> Told {
        Told::default()
    }
}

/// Reads every register once more, through each of `nodes`.
pub fn read_all(history: &History, nodes: &[SocketAddr]) {
    for register in history.registers() {
        for node in nodes {
            let entry = operate(history, 0, *node, register, Action::Read(0));
            history.add(entry.expect("nothing happens any more: it is answered"));
        }
    }
}

/// Does it; `None`: it was not done, or it is a read that nobody answered.
fn operate(
    history: &History,
    client: u64,
    at: SocketAddr,
    register: u64,
    action: Action,
) -> Option<Entry> {
    let body = match action {
        Action::Read(_) => None,
        Action::Write(to) => Some(json!({ "to": to })),
        Action::Swap { from, to, .. } => Some(json!({ "from": from, "to": to })),
    };
    let body = body.as_ref().map(Value::to_string);
    let called = history.now();
    let reply = ask(at, &format!("/registers/{register}"), STRONG, body.as_deref());
    let returned = history.now();
    if matches!(reply, Reply::Refused) {
        return None;
    }
    let answer = reply.success().filter(|answer| body.is_none() || is_held(answer));
    let value = answer.as_ref().map(|answer| answer.json()["value"].as_u64().unwrap());
    let action = match (action, value) {
        (Action::Read(_), value) => Action::Read(value?),
        (Action::Swap { from, to, .. }, before) => Action::Swap { from, to, before },
        (write, _) => write,
    };
    let returned = if value.is_some() { returned } else { NEVER };
    let operation = Operation { called, returned, action };
    Some(Entry { register, client, node: at.to_string(), operation })
}

fn is_held(answer: &Answer) -> bool {
    answer.header("litepilot-ack") == Some("majority")
}
