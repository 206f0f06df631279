//! The counters of one data-plane worker.
//!
//! Only its own worker writes them, so no cache line travels between cores on a request's path;
//! they are summed when somebody scrapes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use prometheus::proto::MetricFamily;

use super::family::{counter, counters, gauge, gauges, histograms};
use super::histogram::{Histogram, Total};
use super::labels::{ReadWait, Replay, Route};
use crate::rules::Class;

/// Every class, in the order of its discriminant.
const CLASSES: [Class; 3] = [Class::Passthrough, Class::Read, Class::Write];
/// Status codes counted one by one; what an application may invent beyond is `other`.
const STATUSES: std::ops::Range<u16> = 100..600;
const STATUS_SLOTS: usize = (STATUSES.end - STATUSES.start) as usize + 1;
const KINDS: usize = CLASSES.len() * Route::ALL.len();
/// Rules named one by one; reloads could otherwise name ever more.
const MAX_RULES: usize = 256;
const OTHER: &str = "other";

/// One worker's counters. The alignment keeps neighbours off its cache lines (128: processors
/// fetch lines in pairs).
#[repr(align(128))]
pub struct WorkerMetrics {
    requests: [[AtomicU64; STATUS_SLOTS]; KINDS],
    seconds: [Histogram; KINDS],
    held: [AtomicI64; CLASSES.len()],
    held_seconds: Histogram,
    read_waits: [AtomicU64; ReadWait::ALL.len()],
    replays: [AtomicU64; Replay::ALL.len()],
    replays_refused: AtomicU64,
    connections: AtomicI64,
    /// By rule; behind a lock since such requests are rare, and scrapes rarer.
    suspected_writes: Mutex<BTreeMap<String, u64>>,
    refused_writes: Mutex<BTreeMap<String, u64>>,
}

/// Counts a request as held until it is dropped.
pub(crate) struct Held {
    metrics: Arc<WorkerMetrics>,
    class: Class,
}

impl WorkerMetrics {
    pub(super) fn new() -> Self {
        Self {
            requests: [const { [const { AtomicU64::new(0) }; STATUS_SLOTS] }; KINDS],
            seconds: Default::default(),
            held: Default::default(),
            held_seconds: Histogram::default(),
            read_waits: Default::default(),
            replays: Default::default(),
            replays_refused: AtomicU64::new(0),
            connections: AtomicI64::new(0),
            suspected_writes: Mutex::default(),
            refused_writes: Mutex::default(),
        }
    }

    /// A request was answered, `took` after its head had come.
    pub fn request(&self, class: Class, route: Route, status: StatusCode, took: Duration) {
        let kind = kind(class, route);
        self.requests[kind][status_slot(status)].fetch_add(1, Relaxed);
        self.seconds[kind].observe(took);
    }

    /// A request begins to wait; it does so until the answer is dropped.
    pub(crate) fn held(self: &Arc<Self>, class: Class) -> Held {
        self.held[class as usize].fetch_add(1, Relaxed);
        Held { metrics: self.clone(), class }
    }

    /// A request that had to wait was answered, `took` after its head had come.
    pub(crate) fn held_request(&self, took: Duration) {
        self.held_seconds.observe(took);
    }

    /// A read that had to wait for its token does so no more.
    pub(crate) fn read_wait(&self, outcome: ReadWait) {
        self.read_waits[outcome as usize].fetch_add(1, Relaxed);
    }

    /// A request is sent again to the primary.
    pub(crate) fn replay(&self, reason: Replay) {
        self.replays[reason as usize].fetch_add(1, Relaxed);
    }

    /// A read has failed here, and is not sent to the primary since too many were.
    pub(crate) fn replay_refused(&self) {
        self.replays_refused.fetch_add(1, Relaxed);
    }

    pub(crate) fn connection_opened(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    /// A client's connection ended.
    pub(crate) fn connection_closed(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    /// A request that the rule at this place calls no write seems to have written.
    pub(crate) fn suspected_write(&self, rule: &str) {
        count_rule(&mut self.suspected_writes.lock(), rule);
    }

    /// A request that the rule at this place calls no write was refused here, on a replica, as one.
    pub(crate) fn refused_write(&self, rule: &str) {
        count_rule(&mut self.refused_writes.lock(), rule);
    }
}

fn count_rule(counts: &mut BTreeMap<String, u64>, rule: &str) {
    if let Some(count) = counts.get_mut(rule) {
        *count += 1;
        return;
    }
    let rule = if counts.len() < MAX_RULES { rule } else { OTHER };
    *counts.entry(rule.to_owned()).or_default() += 1;
}

impl Drop for Held {
    fn drop(&mut self) {
        self.metrics.held[self.class as usize].fetch_sub(1, Relaxed);
    }
}

fn kind(class: Class, route: Route) -> usize {
    class as usize * Route::ALL.len() + route.index()
}

fn status_slot(status: StatusCode) -> usize {
    let code = status.as_u16();
    let slot = if STATUSES.contains(&code) { code } else { STATUSES.end };
    usize::from(slot - STATUSES.start)
}

/// The sums over all workers.
pub(super) fn families(workers: &[Arc<WorkerMetrics>]) -> Vec<MetricFamily> {
    let sum = |pick: &dyn Fn(&WorkerMetrics) -> u64| workers.iter().map(|w| pick(w)).sum::<u64>();
    let net =
        |pick: &dyn Fn(&WorkerMetrics) -> i64| workers.iter().map(|w| pick(w)).sum::<i64>() as f64;
    let held = CLASSES.map(|class| {
        let value = net(&|w| w.held[class as usize].load(Relaxed));
        gauge(&[("class", class.as_str())], value)
    });
    let read_waits = ReadWait::ALL.map(|outcome| {
        let value = sum(&|w| w.read_waits[outcome as usize].load(Relaxed));
        counter(&[("outcome", outcome.as_str())], value)
    });
    let replays = Replay::ALL.map(|reason| {
        let value = sum(&|w| w.replays[reason as usize].load(Relaxed));
        counter(&[("reason", reason.as_str())], value)
    });
    vec![
        requests(workers),
        seconds(workers),
        gauges("litepilot_requests_held", "Requests that wait now.", held.into()),
        histograms(
            "litepilot_held_request_seconds",
            "From the head of a request that had to wait to the end of its answer.",
            vec![held_seconds(workers).to_metric(&[])],
        ),
        counters("litepilot_read_waits_total", "How waits of reads ended.", read_waits.into()),
        counters(
            "litepilot_replays_total",
            "Requests sent again to the primary: the application asked for it, or the read failed here.",
            replays.into(),
        ),
        counters(
            "litepilot_replays_refused_total",
            "Reads that failed here and were not sent to the primary, since too many were.",
            vec![counter(&[], sum(&|w| w.replays_refused.load(Relaxed)))],
        ),
        gauges(
            "litepilot_connections",
            "Client connections.",
            vec![gauge(&[], net(&|w| w.connections.load(Relaxed)))],
        ),
        by_rule(
            workers,
            |worker| &worker.suspected_writes,
            "litepilot_suspected_writes_total",
            "Requests that no rule calls a write and that seem to have written, by rule.",
        ),
        by_rule(
            workers,
            |worker| &worker.refused_writes,
            "litepilot_refused_writes_total",
            "Requests that no rule calls a write and that this replica's application could not do, by rule.",
        ),
    ]
}

/// How long requests of that class took that went that way.
pub(super) fn took(workers: &[Arc<WorkerMetrics>], class: Class, route: Route) -> Total {
    Total::of(workers.iter().map(|w| &w.seconds[kind(class, route)]))
}

/// How long requests took that had to wait.
pub(super) fn held_seconds(workers: &[Arc<WorkerMetrics>]) -> Total {
    Total::of(workers.iter().map(|w| &w.held_seconds))
}

/// How many requests wait now.
pub(super) fn waiting(workers: &[Arc<WorkerMetrics>]) -> u64 {
    let held = workers.iter().flat_map(|w| &w.held).map(|held| held.load(Relaxed)).sum::<i64>();
    // A request may be counted by one worker's number before another's is read.
    u64::try_from(held).unwrap_or(0)
}

/// How many requests were sent again to the primary.
pub(super) fn replays(workers: &[Arc<WorkerMetrics>]) -> u64 {
    workers.iter().flat_map(|w| &w.replays).map(|replays| replays.load(Relaxed)).sum()
}

/// Every class and route, in the order of [`kind`].
fn kinds() -> impl Iterator<Item = (Class, Route)> {
    CLASSES.into_iter().flat_map(|class| Route::ALL.map(|route| (class, route)))
}

fn requests(workers: &[Arc<WorkerMetrics>]) -> MetricFamily {
    let mut samples = Vec::new();
    for (class, route) in kinds() {
        for slot in 0..STATUS_SLOTS {
            let requests = workers.iter().map(|w| &w.requests[kind(class, route)][slot]);
            let count = requests.map(|requests| requests.load(Relaxed)).sum();
            if count == 0 {
                continue;
            }
            let code = STATUSES.start + slot as u16;
            let status = if code < STATUSES.end { code.to_string() } else { OTHER.to_owned() };
            samples.push(counter(
                &[("class", class.as_str()), ("route", route.as_str()), ("status", &status)],
                count,
            ));
        }
    }
    counters("litepilot_requests_total", "Requests answered.", samples)
}

fn seconds(workers: &[Arc<WorkerMetrics>]) -> MetricFamily {
    let samples = kinds()
        .map(|(class, route)| (class, route, took(workers, class, route)))
        .filter(|(_, _, total)| total.count() > 0)
        .map(|(class, route, total)| {
            total.to_metric(&[("class", class.as_str()), ("route", route.as_str())])
        })
        .collect();
    histograms(
        "litepilot_request_seconds",
        "From a request's head to the end of its answer.",
        samples,
    )
}

fn by_rule(
    workers: &[Arc<WorkerMetrics>],
    counts: impl Fn(&WorkerMetrics) -> &Mutex<BTreeMap<String, u64>>,
    name: &str,
    help: &str,
) -> MetricFamily {
    let mut totals = BTreeMap::<String, u64>::new();
    for worker in workers {
        for (rule, count) in counts(worker).lock().iter() {
            *totals.entry(rule.clone()).or_default() += count;
        }
    }
    let samples = totals.iter().map(|(rule, &count)| counter(&[("rule", rule)], count)).collect();
    counters(name, help, samples)
}
