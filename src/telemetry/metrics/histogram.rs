//! A histogram of durations with fixed buckets.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus::proto::Metric;

use super::family;

/// The upper bounds of the buckets, in microseconds: 0.5 ms to 10 s.
const BOUNDS: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// Counts of durations per bucket, and their sum.
#[derive(Default)]
pub struct Histogram {
    /// One count per bound, not cumulative, and one for what lies beyond.
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum_nanos: AtomicU64,
}

/// The sum of some histograms.
#[derive(Default)]
pub struct Total {
    counts: [u64; BOUNDS.len() + 1],
    sum_nanos: u64,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| bound * 1_000 < nanos);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum_nanos.fetch_add(nanos, Relaxed);
    }
}

impl Total {
    /// The sum of these.
    pub fn of<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> Self {
        let mut total = Self::default();
        for histogram in histograms {
            for (sum, count) in total.counts.iter_mut().zip(&histogram.counts) {
                *sum += count.load(Relaxed);
            }
            total.sum_nanos = total.sum_nanos.wrapping_add(histogram.sum_nanos.load(Relaxed));
        }
        total
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// As Prometheus wants it: cumulative, in seconds.
    pub fn to_metric(&self, labels: family::Labels<'_>) -> Metric {
        let mut cumulative = 0;
        let buckets: Vec<_> = BOUNDS
            .iter()
            .zip(&self.counts)
            .map(|(&bound, count)| {
                cumulative += count;
                (bound as f64 / 1e6, cumulative)
            })
            .collect();
        family::histogram(labels, &buckets, self.count(), self.sum_nanos as f64 / 1e9)
    }
}
