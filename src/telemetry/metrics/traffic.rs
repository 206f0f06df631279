//! Rates and latencies of each of the last seconds: for charts, where there is no Prometheus.

use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use super::histogram::Total;
use super::{Metrics, Route, worker};
use crate::rules::Class;
use crate::telemetry::clock::rfc3339;
use crate::telemetry::ring::Ring;

pub(crate) const EVERY: Duration = Duration::from_secs(1);
/// Samples kept: four minutes.
const KEPT: usize = 240;

/// What requests met in a second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Sample {
    /// Its end (RFC 3339, UTC).
    pub(crate) at: String,
    /// Reads that were answered here.
    pub(crate) read: Met,
    /// Writes that were done here.
    pub(crate) write: Met,
    /// Requests that the primary answered in our stead.
    pub(crate) forwarded: Met,
    /// Those of all these that had to wait: for a primary, for the application, for a token.
    pub(crate) held: Met,
    /// How many wait at its end.
    pub(crate) waiting: u64,
}

/// How many requests there were and how long they took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Met {
    pub(crate) rate: f64,
    /// The median, in milliseconds, as exactly as the histogram's buckets tell; `None` without
    /// requests.
    pub(crate) p50_ms: Option<f64>,
    /// What 99 of 100 requests stayed below, likewise.
    pub(crate) p99_ms: Option<f64>,
}

pub(crate) type Traffic = Ring<Sample>;

pub(crate) fn traffic() -> Traffic {
    Ring::new(KEPT)
}

/// Takes a sample each second, forever.
pub(crate) async fn observe(metrics: &Metrics, traffic: &Traffic) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick.tick().await;
    let (mut before, mut since) = (Totals::of(metrics), Instant::now());
    loop {
        tick.tick().await;
        let (totals, now) = (Totals::of(metrics), Instant::now());
        traffic.push(totals.sample(&before, now - since));
        (before, since) = (totals, now);
    }
}

/// What was counted until now.
struct Totals {
    read: Total,
    write: Total,
    forwarded: Total,
    held: Total,
    waiting: u64,
}

impl Totals {
    fn of(metrics: &Metrics) -> Self {
        let workers = &metrics.workers;
        let took = |class, route| worker::took(workers, class, route);
        Self {
            read: took(Class::Read, Route::Local),
            write: took(Class::Write, Route::Local),
            forwarded: took(Class::Read, Route::Primary)
                .add(&took(Class::Write, Route::Primary))
                .add(&took(Class::Write, Route::Replayed)),
            held: worker::held_seconds(workers),
            waiting: worker::waiting(workers),
        }
    }

    fn sample(&self, before: &Self, elapsed: Duration) -> Sample {
        let met = |now: &Total, before: &Total| {
            let met = now.since(before);
            Met {
                rate: met.count() as f64 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE),
                p50_ms: met.quantile_ms(0.5),
                p99_ms: met.quantile_ms(0.99),
            }
        };
        Sample {
            at: rfc3339(SystemTime::now()),
            read: met(&self.read, &before.read),
            write: met(&self.write, &before.write),
            forwarded: met(&self.forwarded, &before.forwarded),
            held: met(&self.held, &before.held),
            waiting: self.waiting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    #[test]
    fn a_sample_tells_what_came_since_the_last_one() {
        let metrics = Metrics::new(2);
        let count = |class, route, millis| {
            let took = Duration::from_millis(millis);
            metrics.worker(0).request(class, route, StatusCode::OK, took);
        };
        count(Class::Read, Route::Local, 2000);
        let before = Totals::of(&metrics);
        for _ in 0..4 {
            count(Class::Read, Route::Local, 2);
        }
        count(Class::Write, Route::Local, 20);
        count(Class::Write, Route::Primary, 20);
        count(Class::Read, Route::Primary, 20);
        count(Class::Write, Route::Replayed, 20);
        count(Class::Passthrough, Route::Passthrough, 1);
        count(Class::Read, Route::None, 1);
        metrics.worker(1).held_request(Duration::from_millis(300));
        let _waits = metrics.worker(1).held(Class::Write);
        let sample = Totals::of(&metrics).sample(&before, Duration::from_secs(2));
        let rates = [sample.read, sample.write, sample.forwarded, sample.held].map(|met| met.rate);
        assert_eq!(rates, [2.0, 0.5, 1.5, 0.5]);
        assert_eq!(sample.waiting, 1);
        let p99 = sample.read.p99_ms.unwrap();
        assert!((1.0..=2.5).contains(&p99), "{p99}");
        let quiet = Totals::of(&metrics);
        let quiet = quiet.sample(&Totals::of(&metrics), Duration::from_secs(1));
        assert_eq!(quiet.read, Met { rate: 0.0, p50_ms: None, p99_ms: None });
    }
}
