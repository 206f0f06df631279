//! Requests that the rules call reads and that seem to have written: on the primary the database
//! advanced while such a request was alone at the application, or on a replica the application refused
//! to do it. An operator is told, with the rule that would fix it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::at_app::Alone;
use super::look::Subject;
use super::other_writers::OtherWriters;
use crate::rules::WriteRoute;
use crate::status::SuspectedWrite;
use crate::telemetry::clock::rfc3339;
use crate::telemetry::events::Events;
use crate::txid::EpochTxid;

/// Requests told apart; applications have few that do so, and clients think of many paths.
const MOST: usize = 32;

/// What was suspected so far, on all workers.
pub struct MisclassifiedReads {
    events: Arc<Events>,
    seen: Mutex<Suspicions>,
}

#[derive(Default)]
struct Suspicions {
    /// The advance for which a request was blamed last.
    blamed: EpochTxid,
    others: OtherWriters,
    requests: BTreeMap<WriteRoute, Suspect>,
}

struct Suspect {
    rule: String,
    count: u64,
    refused: u64,
    last: SystemTime,
}

/// How a request was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    /// The database changed during it.
    Advance,
    /// A replica could not do it.
    Refusal,
}

impl MisclassifiedReads {
    /// Nobody yet. The first of each request is an event.
    pub fn new(events: Arc<Events>) -> Self {
        Self { events, seen: Mutex::default() }
    }

    /// A request was alone at the application, and the database held that before and after it. `None`: what it
    /// held before is not known.
    pub(super) fn was_alone(&self, alone: Alone, before: Option<EpochTxid>, after: EpochTxid) {
        self.seen().others.note(alone, before, after, Instant::now());
    }

    /// Whether an advance during a request that has failed on a replica was its own.
    pub(super) fn others_leave_certain(&self) -> bool {
        self.seen().others.leave_certain(Instant::now())
    }

    /// Blames a request for the advance to that position, unless another one was, or it may have been
    /// somebody else's. Says how often its like were blamed.
    pub(super) fn blame(&self, after: EpochTxid, request: &Subject) -> Option<u64> {
        let mut seen = self.seen();
        if seen.blamed >= after || !seen.others.leave_probable(Instant::now()) {
            return None;
        }
        seen.blamed = after;
        Some(self.note(&mut seen, request, Sign::Advance))
    }

    /// A read on a replica was refused there because it writes.
    pub(super) fn refused(&self, request: &Subject) {
        self.note(&mut self.seen(), request, Sign::Refusal);
    }

    fn note(&self, seen: &mut Suspicions, request: &Subject, sign: Sign) -> u64 {
        let Some(route) = WriteRoute::of(&request.method, b"", &request.path) else { return 1 };
        let refused = u64::from(sign == Sign::Refusal);
        if let Some(known) = seen.requests.get_mut(&route) {
            known.count += 1;
            known.refused += refused;
            known.last = SystemTime::now();
            known.rule = request.place().to_owned();
            return known.count;
        }
        if seen.requests.len() < MOST {
            self.events.warn("suspected-write", told(&route, request.place(), sign));
            let rule = request.place().to_owned();
            let suspect = Suspect { rule, count: 1, refused, last: SystemTime::now() };
            seen.requests.insert(route, suspect);
        }
        1
    }

    /// For `/status`: the most frequent first.
    pub fn list(&self) -> Vec<SuspectedWrite> {
        let suspected = |(route, suspect): (&WriteRoute, &Suspect)| SuspectedWrite {
            request: route.request(),
            rule: suspect.rule.clone(),
            count: suspect.count,
            refused: suspect.refused,
            last: rfc3339(suspect.last),
            mend: route.rule(),
        };
        let mut list: Vec<_> = self.seen().requests.iter().map(suspected).collect();
        list.sort_by_key(|suspected| std::cmp::Reverse(suspected.count));
        list
    }

    fn seen(&self) -> MutexGuard<'_, Suspicions> {
        self.seen.lock()
    }
}

fn told(route: &WriteRoute, place: &str, sign: Sign) -> String {
    let (request, rule) = (route.request(), route.rule());
    let sign = match sign {
        Sign::Advance => {
            "the database changed during it while no write was under way; if it writes, "
        }
        Sign::Refusal => "it was refused here, since it writes, and sent to the primary; ",
    };
    format!(
        "{request} is a read by {place}, and {sign}this rule, before that one, sends it to the primary: {rule}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Epoch;
    use crate::txid::Txid;
    use http::Method;

    fn at(txid: u64) -> EpochTxid {
        EpochTxid { epoch: Epoch(1), txid: Txid(txid) }
    }

    fn request(method: Method, path: &str) -> Subject {
        Subject::of(method, path)
    }

    #[test]
    fn one_request_is_blamed_for_one_advance() {
        let events = Arc::new(Events::default());
        let suspects = MisclassifiedReads::new(events.clone());
        assert_eq!(suspects.blame(at(6), &request(Method::GET, "/clear")), Some(1));
        assert_eq!(suspects.blame(at(6), &request(Method::GET, "/slow")), None);
        assert_eq!(suspects.blame(at(8), &request(Method::HEAD, "/clear")), Some(2));
        let [only] = &suspects.list()[..] else { panic!("{:?}", suspects.list()) };
        assert_eq!((only.request.as_str(), only.count, only.refused), ("GET /clear", 2, 0));
        assert_eq!(only.mend, "- {match: {method: GET, path: /clear}, as: write}");
        let told = events.latest();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].text.contains(&only.mend), "{told:?}");
    }

    #[test]
    fn what_a_replica_refused_is_counted_and_named() {
        let events = Arc::new(Events::default());
        let suspects = MisclassifiedReads::new(events.clone());
        suspects.refused(&request(Method::GET, "/visits"));
        suspects.refused(&request(Method::GET, "/visits"));
        let [only] = &suspects.list()[..] else { panic!("{:?}", suspects.list()) };
        assert_eq!((only.request.as_str(), only.count, only.refused), ("GET /visits", 2, 2));
        assert!(events.latest()[0].text.contains("refused"), "{:?}", events.latest());
    }

    #[test]
    fn clients_cannot_make_it_grow() {
        let suspects = MisclassifiedReads::new(Arc::default());
        for i in 1..1000 {
            let request = request(Method::GET, &format!("/x{i}y"));
            assert!(suspects.blame(at(i), &request).is_some());
        }
        assert_eq!(suspects.list().len(), MOST);
    }
}
