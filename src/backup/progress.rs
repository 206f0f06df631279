//! How the backup goes, for status, metrics and warnings.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::lag::Lag;
use super::refusal::Refusal;
use crate::status::BackupStatus;
use crate::telemetry::clock::rfc3339;
use crate::telemetry::warnings::Warnings;
use crate::txid::Txid;

const KIND: &str = "backup";
/// What a store that is away for a moment is worth no warning.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Progress {
    place: String,
    warnings: Arc<Warnings>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// This node is the primary.
    active: bool,
    lag: Lag,
    last: Option<SystemTime>,
    failing: Option<Failing>,
    /// What is damaged or old in the store itself.
    upkeep: Option<String>,
}

struct Failing {
    since: Instant,
    why: String,
    /// It is worth saying before it has lasted.
    at_once: bool,
}

impl Progress {
    pub(crate) fn new(place: String, warnings: Arc<Warnings>) -> Self {
        Self { place, warnings, state: Mutex::default() }
    }

    /// This node is the primary of an epoch, or no more.
    pub(crate) fn begin(&self, active: bool) {
        *self.state.lock() = State { active, ..State::default() };
        self.warnings.clear(KIND, "this node does not back up any more");
    }

    pub(crate) fn has(&self, seq: Txid) {
        self.state.lock().lag.has(seq, Instant::now());
    }

    /// So many transactions are kept; `written`: something was just now.
    pub(crate) fn keeps(&self, seq: Txid, written: bool) {
        let mut state = self.state.lock();
        state.lag.keeps(seq);
        state.failing = None;
        if written {
            state.last = Some(SystemTime::now());
        }
        drop(state);
        self.say();
    }

    pub(crate) fn failed(&self, why: &Refusal) {
        if why.is_usual() {
            return;
        }
        let mut state = self.state.lock();
        let since = state.failing.as_ref().map_or_else(Instant::now, |failing| failing.since);
        let at_once = why.needs_somebody();
        state.failing = Some(Failing { since, why: why.to_string(), at_once });
        drop(state);
        self.say();
    }

    /// How the last upkeep went.
    pub(crate) fn kept_up(&self, trouble: Option<String>) {
        self.state.lock().upkeep = trouble;
        self.say();
    }

    fn say(&self) {
        let state = self.state.lock();
        let lasts = |f: &&Failing| f.at_once || f.since.elapsed() >= PATIENCE;
        let failing = state.failing.as_ref().filter(lasts).map(|failing| &failing.why);
        let why = failing.or(state.upkeep.as_ref());
        let text = why.map(|why| format!("backup to {}: {why}", self.place));
        drop(state);
        match text {
            Some(text) => self.warnings.raise(KIND, text),
            None => self.warnings.clear(KIND, "the backup works again"),
        }
    }

    /// `seq`: how many transactions this node has now.
    pub(crate) fn status(&self, seq: Txid) -> BackupStatus {
        let mut state = self.state.lock();
        let now = Instant::now();
        let behind = state.active.then(|| {
            state.lag.has(seq, now);
            state.lag.behind(now)
        });
        BackupStatus {
            place: self.place.clone(),
            lag_ms: behind.map(|b| u64::try_from(b.time.as_millis()).unwrap_or(u64::MAX)),
            lag_transactions: behind.and_then(|behind| behind.transactions),
            last: state.last.map(rfc3339),
            error: state.failing.as_ref().map(|failing| failing.why.clone()),
        }
    }
}
