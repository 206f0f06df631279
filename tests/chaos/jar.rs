//! A browser: it keeps cookies, and asks for several things at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;

use rand::RngExt;
use serde_json::json;

use crate::harness::Answer;
use crate::http::{Reply, ask};
use crate::oracle::{Client, Somewhere};
use crate::told::{Asked, Told};

/// Cookies, as a browser keeps them.
#[derive(Default)]
pub struct Jar(BTreeMap<String, String>);

impl Jar {
    fn header(&self) -> String {
        let pairs: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if pairs.is_empty() { String::new() } else { format!("Cookie: {}\r\n", pairs.join("; ")) }
    }

    /// What an answer sets and takes away.
    fn take(&mut self, head: &str) {
        for cookie in head.lines().filter_map(|line| line.strip_prefix("set-cookie: ")) {
            let (pair, attributes) = cookie.split_once(';').unwrap_or((cookie, ""));
            let (name, value) = pair.split_once('=').unwrap();
            if attributes.contains("Max-Age=0") {
                self.0.remove(name);
            } else {
                self.0.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    /// The highest epoch, and the highest transaction of it, that a cookie names.
    fn newest(&self) -> (u64, u64) {
        let marked = self.0.iter().filter(|(name, _)| name.starts_with("__txid_at_"));
        let tokens = marked.map(|(_, token)| {
            let (epoch, txid) = token.split_once('.').unwrap();
            (epoch.parse().unwrap(), u64::from_str_radix(txid, 16).unwrap())
        });
        tokens.max().unwrap_or_default()
    }
}

/// Writes two entries at once, or reads while it writes, and then reads what it has written.
pub struct Browser {
    name: String,
    at: Somewhere,
    turns: u64,
    jar: Jar,
    /// The highest token of an answer that said that all is well.
    sure: (u64, u64),
    told: Told,
}

impl Browser {
    pub fn new(number: u64, at: Somewhere) -> Self {
        let (jar, sure, told) = Default::default();
        Self { name: format!("b{number}"), at, turns: 0, jar, sure, told }
    }

    /// With these headers of its cookies.
    fn asked<'a>(&self, headers: &'a str) -> Asked<'a> {
        let newest = self.jar.newest();
        Asked { headers, epoch: newest.0, doubtful: newest > self.sure }
    }

    fn path(&self) -> String {
        format!("/api/entries?writer={}", self.name)
    }

    fn text(&mut self) -> String {
        self.turns += 1;
        format!("{}-{}", self.name, self.turns)
    }

    /// Two requests with the same cookies; what they set is taken in the order in which it comes.
    fn two_at_once(&mut self) {
        let second = self.at.chance.random_bool(0.5).then(|| self.text());
        let asked = [Some(self.text()), second].map(|text| (self.at.node(), text));
        let written = self.told.by_majority.clone();
        let (header, path) = (self.jar.header(), self.path());
        let asked_with = self.asked(&header);
        let (sender, answers) = mpsc::channel();
        thread::scope(|scope| {
            for (at, text) in &asked {
                let (sender, header, path) = (sender.clone(), &header, &path);
                scope.spawn(move || {
                    sender.send((text, request(*at, path, header, text.as_deref())))
                });
            }
            drop(sender);
            for (text, reply) in answers {
                self.take(&reply);
                let answer = reply.success();
                match (text, answer) {
                    (Some(text), answer) => self.told.written(text.clone(), answer.as_ref()),
                    (None, Some(answer)) => self.told.read(&asked_with, &written, &answer),
                    (None, None) => {}
                }
            }
        });
    }

    fn read(&mut self) {
        let header = self.jar.header();
        let asked = self.asked(&header);
        let reply = request(self.at.node(), &self.path(), &header, None);
        self.take(&reply);
        if let Some(answer) = reply.success() {
            self.told.read(&asked, &self.told.by_majority.clone(), &answer);
        }
    }

    /// The cookies of an answer, which never take the browser back.
    fn take(&mut self, reply: &Reply) {
        let Reply::Whole(answer @ Answer { head, .. }) = reply else { return };
        if answer.code < 300 {
            self.sure = self.sure.max(token_of(answer).unwrap_or_default());
        }
        let before = self.jar.newest();
        self.jar.take(head);
        let after = self.jar.newest();
        if after < before {
            self.told.wrong.push(format!("the cookies went from {before:?} to {after:?}: {head}"));
        }
    }
}

/// The token that an answer gives, as epoch and transaction.
fn token_of(answer: &Answer) -> Option<(u64, u64)> {
    let epoch = answer.header("litepilot-epoch")?.parse().ok()?;
    Some((epoch, u64::from_str_radix(answer.header("litepilot-txid")?, 16).ok()?))
}

/// A read, or the write of an entry.
fn request(at: SocketAddr, path: &str, header: &str, text: Option<&str>) -> Reply {
    match text {
        None => ask(at, path, header, None),
        Some(text) => ask(at, "/api/entries", header, Some(&json!({ "text": text }).to_string())),
    }
}

impl Client for Browser {
    fn turn(&mut self) {
        self.two_at_once();
        self.read();
    }

    fn told(self: Box<Self>) -> Told {
        self.told
    }
}

#[test]
fn cookies_are_kept_and_go_as_a_browser_has_them() {
    let mut jar = Jar::default();
    jar.take("HTTP/1.1 200 OK\nset-cookie: __txid_at_00aa=2.000000000000000a; Path=/; Max-Age=300");
    assert_eq!(jar.newest(), (2, 10));
    jar.take(
        "set-cookie: __txid_at_00bb=3.0000000000000001; Max-Age=300\n\
         set-cookie: __txid_at_00aa=; Max-Age=0",
    );
    assert_eq!(jar.newest(), (3, 1));
    assert_eq!(jar.header(), "Cookie: __txid_at_00bb=3.0000000000000001\r\n");
}
