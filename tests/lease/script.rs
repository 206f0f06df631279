//! Recorded exchanges, and a source that answers as was recorded.

use std::collections::VecDeque;
use std::sync::Mutex;

use litepilot::engine::BoxFuture;
use litepilot::lease::{LeaseSource, PrimaryInfo, Session};

/// One request and its answer.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// `PUT /v1/…`
    pub line: String,
    pub body: String,
    pub status: u16,
    pub answer: String,
}

/// Reads a recording: `>` is what LiteFS sent, `<` what it was answered.
pub fn read(text: &str) -> Vec<Exchange> {
    text.split("\n\n").filter(|piece| !piece.trim().is_empty()).map(exchange).collect()
}

fn exchange(piece: &str) -> Exchange {
    let with = |sign: &str| {
        let lines = piece.lines().filter(|line| line.starts_with(sign));
        lines.map(|line| line[1..].trim().to_owned()).collect::<Vec<_>>()
    };
    let (sent, answered) = (with(">"), with("<"));
    let line = sent[0].strip_suffix(" HTTP/1.1").unwrap().to_owned();
    let blank = sent.iter().position(String::is_empty).unwrap_or(sent.len());
    Exchange {
        line,
        body: sent[blank..].concat(),
        status: answered[0].strip_prefix("HTTP/1.1 ").unwrap().parse().unwrap(),
        answer: answered[1..].concat(),
    }
}

/// What was asked of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Primary,
    ClusterId,
    SetClusterId(String),
    Create,
    Acquire(String),
    Renew(String),
    Release(String),
}

/// Answers from a list of exchanges, and notes what it was asked.
pub struct Script {
    answers: Mutex<VecDeque<Exchange>>,
    pub asked: Mutex<Vec<Asked>>,
}

impl Script {
    pub fn new(exchanges: &[Exchange]) -> Self {
        Self { answers: Mutex::new(exchanges.iter().cloned().collect()), asked: Mutex::default() }
    }

    fn next(&self, asked: Asked) -> Exchange {
        self.asked.lock().unwrap().push(asked);
        self.answers.lock().unwrap().pop_front().expect("one answer for each request")
    }

    fn truth(&self, asked: Asked) -> bool {
        self.next(asked).answer == "true"
    }
}

/// The value in a recorded answer.
fn value(exchange: &Exchange) -> Option<String> {
    if exchange.status == 404 {
        return None;
    }
    let json: serde_json::Value = serde_json::from_str(&exchange.answer).unwrap();
    let value = decode(json[0]["Value"].as_str().unwrap());
    Some(value).filter(|value| !value.is_empty())
}

/// The reverse of base64.
pub fn decode(text: &str) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.bytes().filter(|b| *b != b'=');
    let (mut bits, mut held, mut out) = (0u32, 0, Vec::new());
    for digit in digits {
        bits = bits << 6 | DIGITS.iter().position(|d| *d == digit).unwrap() as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    String::from_utf8(out).unwrap()
}

impl LeaseSource for Script {
    fn cluster_id(&self) -> Option<String> {
        value(&self.next(Asked::ClusterId))
    }

    fn set_cluster_id(&self, id: String) -> BoxFuture<'_, Result<(), String>> {
        let done = self.truth(Asked::SetClusterId(id));
        Box::pin(async move { if done { Ok(()) } else { Err("recorded so".to_owned()) } })
    }

    fn primary(&self) -> Option<PrimaryInfo> {
        let value = value(&self.next(Asked::Primary))?;
        Some(serde_json::from_str(&value).unwrap())
    }

    fn create(&self) -> Session {
        let json: serde_json::Value =
            serde_json::from_str(&self.next(Asked::Create).answer).unwrap();
        Session(json["ID"].as_str().unwrap().to_owned())
    }

    fn acquire(&self, session: &Session) -> bool {
        self.truth(Asked::Acquire(session.0.clone()))
    }

    fn renew(&self, session: &Session) -> bool {
        self.next(Asked::Renew(session.0.clone())).status == 200
    }

    fn release(&self, session: &Session) -> bool {
        self.truth(Asked::Release(session.0.clone()))
    }
}
