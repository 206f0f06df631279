//! Requests that the rules call reads and that seem to have written: on the primary the database
//! advanced while such a request was at the application and no write was. On a replica it would have
//! failed, so an operator is told of it, with the rule that would fix it.
//!
//! It is a suspicion. A cron job that commits meanwhile looks the same, and of several reads at once
//! the first to end after the commit is blamed. To know costs a look at the database: each worker
//! allows itself a number of them, and no answer waits for one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use http::{Method, Uri};
use parking_lot::{Mutex, MutexGuard};

use super::worker::Worker;
use crate::rules::{RuleSet, path, target};
use crate::status::SuspectedWrite;
use crate::telemetry::clock::rfc3339;
use crate::telemetry::events::Events;
use crate::txid::EpochTxid;

/// Requests told apart; applications have few that do so, and clients think of many paths.
const MOST: usize = 32;
/// Looks that a worker allows itself until its budget is renewed, four times a second.
pub(crate) const LOOKS: u32 = 32;
/// A segment of a path of at least this many bytes that holds a digit names one thing only.
const LONG: usize = 16;
/// What glob patterns take for more than itself.
const SPECIAL: &[char] = &['*', '?', '[', ']', '{', '}', '\\', '!', ','];
/// Who called a request a read that a peer passed on.
const ELSEWHERE: &str = "another node's rules";

/// What was suspected so far, on all workers.
pub struct MisclassifiedReads {
    events: Arc<Events>,
    seen: Mutex<Suspicions>,
}

#[derive(Default)]
struct Suspicions {
    /// The advance for which a request was blamed last.
    blamed: EpochTxid,
    /// By request, as the rule that would fix it has it.
    requests: BTreeMap<(String, String), Suspect>,
}

struct Suspect {
    rule: String,
    count: u64,
    last: SystemTime,
}

/// A read at the application, and what was there before it.
pub(crate) struct Watch {
    before: EpochTxid,
    /// Writes begun until then; none was under way.
    begun: u64,
    method: Method,
    target: Uri,
    rules: Arc<RuleSet>,
    /// `None`: a peer decided.
    rule: Option<usize>,
}

impl Watch {
    /// Watches a read that is about to go to the application of the primary, if that can tell anything.
    pub(crate) fn begin(
        worker: &Worker,
        method: &Method,
        target: &Uri,
        rule: Option<usize>,
    ) -> Option<Self> {
        let looks = worker.looks.get();
        let begun = worker.shared.writes.quiet()?;
        worker.looks.set(looks.checked_sub(1)?);
        Some(Self {
            before: worker.shared.engine.position().get(),
            begun,
            method: method.clone(),
            target: target.clone(),
            rules: worker.rules(),
            rule,
        })
    }

    /// The application has answered. Looks whether the database has advanced, beside the answer.
    pub(crate) fn end(self, worker: &Rc<Worker>) {
        let worker = worker.clone();
        tokio::task::spawn_local(async move {
            let shared = &worker.shared;
            let Ok(after) = shared.engine.read_position().await else { return };
            let alone = shared.writes.quiet() == Some(self.begun);
            let advanced = after.epoch == self.before.epoch && after.txid > self.before.txid;
            if !alone || !advanced {
                return;
            }
            let place = self.rule.map_or(ELSEWHERE, |rule| self.rules.place(rule));
            let path = target::shown(self.target.path());
            if shared.suspects.blame(after, &self.method, &path, place) {
                worker.metrics.suspected_write(place);
            }
        });
    }
}

impl MisclassifiedReads {
    /// Nobody yet. The first of each request is an event.
    pub fn new(events: Arc<Events>) -> Self {
        Self { events, seen: Mutex::default() }
    }

    /// Blames a request for the advance to that position, unless another one was.
    fn blame(&self, after: EpochTxid, method: &Method, path: &str, rule: &str) -> bool {
        let mut seen = self.seen();
        if seen.blamed >= after {
            return false;
        }
        seen.blamed = after;
        // Rules for GET hold for HEAD.
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        let request = (method.as_str().to_owned(), pattern(path));
        if let Some(known) = seen.requests.get_mut(&request) {
            known.count += 1;
            known.last = SystemTime::now();
            known.rule = rule.to_owned();
        } else if seen.requests.len() < MOST {
            let (method, path) = &request;
            self.events.warn("suspected-write", format!(
                "{method} {path} is a read by {rule}, and the database changed during it while no write was \
                 under way; if it writes, this rule, before that one, sends it to the primary: {}",
                fix(method, path)
            ));
            let suspect = Suspect { rule: rule.to_owned(), count: 1, last: SystemTime::now() };
            seen.requests.insert(request, suspect);
        }
        true
    }

    /// For `/status`: the most frequent first.
    pub fn list(&self) -> Vec<SuspectedWrite> {
        let suspected = |((method, path), suspect): (&(String, String), &Suspect)| SuspectedWrite {
            request: format!("{method} {path}"),
            rule: suspect.rule.clone(),
            count: suspect.count,
            last: rfc3339(suspect.last),
            mend: fix(method, path),
        };
        let mut list: Vec<_> = self.seen().requests.iter().map(suspected).collect();
        list.sort_by_key(|suspected| std::cmp::Reverse(suspected.count));
        list
    }

    fn seen(&self) -> MutexGuard<'_, Suspicions> {
        self.seen.lock()
    }
}

/// A rule that calls such requests writes, as an item of `rules:`.
fn fix(method: &str, path: &str) -> String {
    // JSON's text is YAML's, and its quotes are needed where the path has signs of YAML's.
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/_.-*~+@".contains(&b);
    let path = match path.bytes().all(plain) {
        true => path.to_owned(),
        false => serde_json::Value::from(path.replace("${", "$${")).to_string(),
    };
    format!("- {{match: {{method: {method}, path: {path}}}, as: write}}")
}

/// The path as a rule has it, in which names of single things (numbers, long keys, which may be
/// secrets too) are any.
fn pattern(path: &str) -> String {
    let mut pattern = String::new();
    for (i, segment) in path.split('/').enumerate() {
        if i > 0 {
            pattern.push('/');
        }
        let decoded = String::from_utf8(path::decode(segment.as_bytes()));
        match decoded {
            Ok(text) if !is_single(&text) => {
                for c in text.chars() {
                    // Writing to a String cannot fail.
                    let _ = match SPECIAL.contains(&c) {
                        true => write!(pattern, "\\{c}"),
                        false => write!(pattern, "{c}"),
                    };
                }
            }
            _ => pattern.push('*'),
        }
    }
    pattern
}

fn is_single(segment: &str) -> bool {
    let digits = segment.bytes().filter(u8::is_ascii_digit).count();
    let number = digits > 0 && digits == segment.len();
    number
        || digits > 0 && segment.len() >= LONG
        || segment.chars().any(char::is_control)
        || segment.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Epoch;
    use crate::rules::Class;
    use crate::txid::Txid;
    use http::HeaderMap;

    fn at(txid: u64) -> EpochTxid {
        EpochTxid { epoch: Epoch(1), txid: Txid(txid) }
    }

    #[test]
    fn the_rule_that_is_proposed_makes_it_a_write() {
        for target in [
            "/",
            "/cart/clear",
            "/item/17/like",
            "/item/%7B17%7D,a",
            "/a*b/[c]?q=1",
            "/reset/4f1c8a0b7d6e5f4a3b2c",
            "/caf%C3%A9/%22quoted%22/$%7BHOME%7D",
            "/x%FF/y",
            "/a:b/#",
        ] {
            let uri: Uri = target.parse().unwrap();
            let rules = format!("rules:\n  {}\n", fix("GET", &pattern(uri.path())));
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("fix.yml");
            std::fs::write(&file, &rules).unwrap();
            let rules = RuleSet::load(&[file.display().to_string()]);
            let rules = rules.unwrap_or_else(|why| panic!("{target}: {why:?}"));
            for method in [Method::GET, Method::HEAD] {
                let verdict = rules.classify(&method, &uri, &HeaderMap::new()).unwrap();
                assert_eq!(verdict.class, Class::Write, "{target}");
            }
        }
    }

    #[test]
    fn what_names_one_thing_is_any() {
        for (path, expected) in [
            ("/item/17/like", "/item/*/like"),
            ("/v2/page", "/v2/page"),
            ("/reset/4f1c8a0b7d6e5f4a3b2c/", "/reset/*/"),
            ("/unsubscribe-from-newsletter", "/unsubscribe-from-newsletter"),
            ("*", "\\*"),
        ] {
            assert_eq!(pattern(path), expected);
        }
    }

    #[test]
    fn one_request_is_blamed_for_one_advance() {
        let events = Arc::new(Events::default());
        let suspects = MisclassifiedReads::new(events.clone());
        assert!(suspects.blame(at(6), &Method::GET, "/clear", "default.yml:26"));
        assert!(!suspects.blame(at(6), &Method::GET, "/slow", "default.yml:26"));
        assert!(suspects.blame(at(8), &Method::HEAD, "/clear", "own.yml:3"));
        let [only] = &suspects.list()[..] else { panic!("{:?}", suspects.list()) };
        assert_eq!(
            (only.request.as_str(), only.rule.as_str(), only.count),
            ("GET /clear", "own.yml:3", 2)
        );
        assert_eq!(only.mend, "- {match: {method: GET, path: /clear}, as: write}");
        let told = events.latest();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].text.contains(&only.mend), "{told:?}");
    }

    #[test]
    fn clients_cannot_make_it_grow() {
        let suspects = MisclassifiedReads::new(Arc::default());
        for i in 1..1000 {
            assert!(suspects.blame(at(i), &Method::GET, &format!("/x{i}"), "default.yml:26"));
        }
        assert_eq!(suspects.list().len(), MOST);
    }
}
