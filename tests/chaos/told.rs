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
    /// Losses that were told where nothing is missing, with the epoch of the token that was asked with.
    pub alarms: Vec<(u64, String)>,
}

/// What a read asks with.
pub struct Asked<'a> {
    pub headers: &'a str,
    /// Of the newest token in them.
    pub epoch: u64,
    /// The token is of a write that was not acknowledged, and may have been lost.
    pub doubtful: bool,
}

impl Told {
    pub fn add(&mut self, other: Self) {
        self.by_majority.extend(other.by_majority);
        self.otherwise.extend(other.otherwise);
        self.wrong.extend(other.wrong);
        self.alarms.extend(other.alarms);
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
    pub fn read(&mut self, asked: &Asked<'_>, written: &[String], answer: &Answer) {
        self.reads += 1;
        let seen: BTreeSet<_> = texts(answer).iter().map(|text| number(text)).collect();
        let oldest = if seen.len() < NEWEST { 0 } else { *seen.first().unwrap() };
        let must = written.iter().map(|text| number(text)).filter(|it| *it >= oldest);
        let missing: Vec<_> = must.filter(|it| !seen.contains(it)).collect();
        let told = format!("{:?}: {missing:?} are missing: {}", asked.headers, answer.head);
        if !missing.is_empty() {
            self.wrong.push(told);
        } else if answer.header("litepilot-lost-write").is_some() && !asked.doubtful {
            self.alarms.push((asked.epoch, told));
        }
    }
}

/// So many the application shows of one writer's.
const NEWEST: usize = 100;

/// An entry is its writer's name and a number.
fn number(text: &str) -> u64 {
    text.rsplit('-').next().unwrap().parse().unwrap()
}

#[test]
fn what_a_client_should_have_seen_is_missed() {
    let answer = |texts: &[&str], more: &str| {
        let entries: Vec<_> =
            texts.iter().map(|text| serde_json::json!({ "text": text })).collect();
        let body = serde_json::to_string(&entries).unwrap();
        Answer { code: 200, head: format!("HTTP/1.1 200 OK\n{more}"), body }
    };
    let wrong_if = |doubtful, written: &[&str], answer: &Answer| {
        let mut told = Told::default();
        let written: Vec<_> = written.iter().map(|text| (*text).to_owned()).collect();
        told.read(&Asked { headers: "", epoch: 1, doubtful }, &written, answer);
        !told.wrong.is_empty() || !told.alarms.is_empty()
    };
    let wrong = |written: &[&str], answer: &Answer| wrong_if(false, written, answer);
    assert!(!wrong(&["w0-1", "w0-3"], &answer(&["w0-3", "w0-2", "w0-1"], "")));
    assert!(wrong(&["w0-1", "w0-3"], &answer(&["w0-2", "w0-1"], "")));
    let lost = answer(&[], "Litepilot-Lost-Write: true");
    assert!(wrong(&[], &lost) && !wrong_if(true, &[], &lost) && wrong_if(true, &["w0-1"], &lost));
    let newest: Vec<_> = (2..102).map(|number| format!("w0-{number}")).collect();
    let newest: Vec<_> = newest.iter().map(String::as_str).collect();
    assert!(!wrong(&["w0-1", "w0-50"], &answer(&newest, "")), "older ones are not shown");
}
