//! What clients that write entries were told.

use std::collections::BTreeSet;

use crate::harness::{Answer, texts};

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

impl Told {
    pub fn add(&mut self, other: Self) {
        self.by_majority.extend(other.by_majority);
        self.otherwise.extend(other.otherwise);
        self.wrong.extend(other.wrong);
        self.refused += other.refused;
        self.reads += other.reads;
    }

    /// What became of a write.
    pub fn written(&mut self, text: String, answer: Option<&Answer>) {
        match answer.map(|answer| answer.header("litepilot-ack")) {
            Some(Some("majority")) => self.by_majority.push(text),
            Some(_) => self.otherwise.push(text),
            None => self.refused += 1,
        }
    }

    /// A client has read its newest entries, and must have seen all of `written` among them.
    pub fn read(&mut self, written: &[String], answer: &Answer) {
        self.reads += 1;
        let seen: BTreeSet<_> = texts(answer).iter().map(|text| number(text)).collect();
        let oldest = if seen.len() < NEWEST { 0 } else { *seen.first().unwrap() };
        let must = written.iter().map(|text| number(text)).filter(|it| *it >= oldest);
        let missing: Vec<_> = must.filter(|it| !seen.contains(it)).collect();
        let lost = answer.header("litepilot-lost-write").is_some();
        if lost || !missing.is_empty() {
            self.wrong.push(format!("{missing:?} are missing: {}", answer.head));
        }
    }
}

/// So many the application shows of one writer's.
const NEWEST: usize = 100;

/// An entry is its writer's name and a number.
fn number(text: &str) -> u64 {
    text.rsplit('-').next().unwrap().parse().unwrap()
}
