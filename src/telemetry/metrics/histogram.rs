//! A histogram of durations with fixed buckets.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus::proto::Metric;

use super::family;

/// The upper bounds of the buckets, in microseconds: 0.1 ms to 10 s.
const BOUNDS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// Counts of durations per bucket, and their sum.
#[derive(Default)]
pub(crate) struct Histogram {
    /// One count per bound, not cumulative, and one for what lies beyond.
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum_nanos: AtomicU64,
}

/// The sum of some histograms.
#[derive(Clone, Default)]
pub(crate) struct Total {
    counts: [u64; BOUNDS.len() + 1],
    sum_nanos: u64,
}

impl Histogram {
    pub(crate) fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| bound * 1_000 < nanos);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum_nanos.fetch_add(nanos, Relaxed);
    }
}

impl Total {
    /// The sum of these.
    pub(crate) fn of<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> Self {
        let mut total = Self::default();
        for histogram in histograms {
            for (sum, count) in total.counts.iter_mut().zip(&histogram.counts) {
                *sum += count.load(Relaxed);
            }
            total.sum_nanos = total.sum_nanos.wrapping_add(histogram.sum_nanos.load(Relaxed));
        }
        total
    }

    /// Adds what other histograms counted.
    pub(crate) fn add(mut self, other: &Self) -> Self {
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum += count;
        }
        self.sum_nanos = self.sum_nanos.wrapping_add(other.sum_nanos);
        self
    }

    /// How many durations were counted.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What was counted since an earlier total of the same histograms.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let mut difference = self.clone();
        for (count, earlier) in difference.counts.iter_mut().zip(&before.counts) {
            *count = count.saturating_sub(*earlier);
        }
        difference.sum_nanos = self.sum_nanos.saturating_sub(before.sum_nanos);
        difference
    }

    /// The duration that this part of all stays below, in milliseconds; `None` if nothing was
    /// counted. Within a bucket all durations count as spread evenly, as Prometheus does it.
    pub(crate) fn quantile_ms(&self, part: f64) -> Option<f64> {
        let rank = part * self.count() as f64;
        let mut below = 0;
        for (i, &count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            if (below + count) as f64 >= rank {
                let low = if i == 0 { 0 } else { BOUNDS[i - 1] } as f64;
                // What lies beyond the last bound counts as that.
                let high = BOUNDS.get(i).map_or(low, |bound| *bound as f64);
                let within = (rank - below as f64) / count as f64;
                return Some((low + (high - low) * within) / 1e3);
            }
            below += count;
        }
        None
    }

    /// As Prometheus wants it: cumulative, in seconds.
    pub(crate) fn to_metric(&self, labels: family::Labels<'_>) -> Metric {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn total(micros: &[u64]) -> Total {
        let histogram = Histogram::default();
        micros.iter().for_each(|micros| histogram.observe(Duration::from_micros(*micros)));
        Total::of(std::iter::once(&histogram))
    }

    #[test]
    fn quantiles_lie_in_the_bucket_of_what_was_counted() {
        assert_eq!(total(&[]).quantile_ms(0.5), None);
        let within = |total: &Total, part, low: f64, high: f64| {
            let found = total.quantile_ms(part).unwrap();
            assert!((low..=high).contains(&found), "{part}: {found}");
        };
        let mostly_quick = total(&[&[200; 98][..], &[40_000; 2]].concat());
        within(&mostly_quick, 0.5, 0.1, 0.25);
        within(&mostly_quick, 0.99, 25.0, 50.0);
        within(&total(&[1]), 0.99, 0.0, 0.1);
        within(&total(&[60_000_000]), 0.5, 10_000.0, 10_000.0);
        let later = total(&[&[200; 98][..], &[40_000; 2], &[7_000; 3]].concat());
        let between = later.since(&mostly_quick);
        assert_eq!(between.count(), 3);
        within(&between, 0.5, 5.0, 10.0);
    }
}
