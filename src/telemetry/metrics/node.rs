//! What is counted once per node, and the gauges that follow from its status.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use prometheus::proto::MetricFamily;

use super::family::{counter, counters, gauge, gauges as gauge_family, histograms};
use super::histogram::{Histogram, Total};
use crate::cluster::{Epoch, Role};
use crate::status::{Status, VERSION, Warning};
use crate::telemetry::log;

/// A number that only grows.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

/// What certificates are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CertificateUse {
    /// `cluster.tls`, between nodes.
    Peers,
    /// `proxy.tls`, towards clients.
    Clients,
}

/// Rare events of the whole node; shared by all threads.
#[derive(Default)]
pub(crate) struct NodeMetrics {
    /// Contact with a majority of the voters was lost.
    pub(crate) quorum_losses: Counter,
    /// A primary was chosen.
    pub(crate) elections: Counter,
    /// Two nodes claimed to be primary at the same time.
    pub(crate) split_brain: Counter,
    /// A client was told that a write it had made was lost in a failover.
    pub(crate) lost_writes: Counter,
    /// The acknowledgements asked for did not come in time.
    pub(crate) ack_timeouts: Counter,
    failover_seconds: Histogram,
    ack_seconds: Histogram,
    /// In seconds since 1970; 0 while there is no certificate. One for each use.
    certificate_expiry: [AtomicU64; 2],
}

impl Counter {
    pub(crate) fn inc(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// The count so far.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl NodeMetrics {
    /// Writes were possible again after `took` without a primary.
    pub(crate) fn failover(&self, took: Duration) {
        self.failover_seconds.observe(took);
    }

    /// A write was acknowledged by as many nodes as asked for, after `took`.
    pub(crate) fn ack(&self, took: Duration) {
        self.ack_seconds.observe(took);
    }

    /// The first of the certificates for that use to expire does so `at` that time.
    pub(crate) fn certificate_expiry(&self, of: CertificateUse, at: SystemTime) {
        self.certificate_expiry[of as usize].store(since_1970(at).max(1), Relaxed);
    }

    pub(super) fn families(&self) -> Vec<MetricFamily> {
        let seconds = |name, help, histogram| {
            histograms(name, help, vec![Total::of(std::iter::once(histogram)).to_metric(&[])])
        };
        let counts = self.counts();
        let counts =
            counts.into_iter().map(|(name, help, n)| counters(name, help, vec![counter(&[], n)]));
        counts
            .chain([
                seconds(
                    "litepilot_failover_seconds",
                    "How long there was no primary to take writes.",
                    &self.failover_seconds,
                ),
                seconds(
                    "litepilot_ack_seconds",
                    "How long writes waited for their acknowledgements.",
                    &self.ack_seconds,
                ),
            ])
            .chain(self.certificate())
            .collect()
    }

    /// Name, description and number of each counter.
    fn counts(&self) -> [(&'static str, &'static str, u64); 6] {
        [
            (
                "litepilot_quorum_losses_total",
                "How often contact with a majority of the voters was lost.",
                self.quorum_losses.get(),
            ),
            ("litepilot_elections_total", "How often a primary was chosen.", self.elections.get()),
            (
                "litepilot_split_brain_total",
                "Conflicting claims to be primary seen. Anything but 0 is an alarm.",
                self.split_brain.get(),
            ),
            (
                "litepilot_lost_writes_total",
                "Clients told that a write of theirs was lost in a failover.",
                self.lost_writes.get(),
            ),
            (
                "litepilot_ack_timeouts_total",
                "Writes whose acknowledgements did not come in time.",
                self.ack_timeouts.get(),
            ),
            (
                "litepilot_log_lines_dropped_total",
                "Log lines dropped because whoever reads them did not keep up.",
                log::dropped_lines(),
            ),
        ]
    }

    fn certificate(&self) -> Option<MetricFamily> {
        let expiries = self.certificate_expiry.iter().map(|at| at.load(Relaxed));
        let expiry = expiries.filter(|at| *at > 0).min()?;
        let left = expiry as f64 - since_1970(SystemTime::now()) as f64;
        Some(gauge_family(
            "litepilot_certificate_expiry_seconds",
            "Until the first of this node's certificates expires; negative once it has.",
            vec![gauge(&[], left)],
        ))
    }
}

/// In seconds; 0 for what was before.
fn since_1970(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// How far the backup is behind; nothing where there is none, or this is not the primary.
fn backup(status: &Status) -> Vec<MetricFamily> {
    let Some(backup) = &status.backup else { return Vec::new() };
    let one = |name, help, value: f64| gauge_family(name, help, vec![gauge(&[], value)]);
    let seconds = backup.lag_ms.map(|ms| ms as f64 / 1000.0);
    let transactions = backup.lag_transactions.map(|n| n as f64);
    let age = "How old the oldest transaction is that the backup lacks; on the primary only.";
    let number = "How many transactions the backup lacks; on the primary only.";
    [
        seconds.map(|value| one("litepilot_backup_lag_seconds", age, value)),
        transactions.map(|value| one("litepilot_backup_lag_transactions", number, value)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The gauges that follow from a status.
pub(super) fn gauges(status: &Status) -> Vec<MetricFamily> {
    let one = |name, help, value| gauge_family(name, help, vec![gauge(&[], value)]);
    let flag = |name, help, on: bool| one(name, help, f64::from(u8::from(on)));
    let epoch = status.primary.as_ref().map_or(Epoch(0), |primary| primary.epoch);
    let mut families = vec![
        flag(
            "litefs_is_primary",
            "1 if this node is the primary, 0 if not.",
            status.role == Role::Primary,
        ),
        flag(
            "litefs_process_running",
            "1 if the engine that keeps the database works, 0 if not.",
            status.engine_works(),
        ),
        one(
            "litepilot_txid",
            "The last transaction that this node's copy holds.",
            status.position.txid.0 as f64,
        ),
        flag(
            "litepilot_quorum",
            "1 if a majority of the voters is in contact, 0 if not.",
            status.quorum,
        ),
        one("litepilot_epoch", "The epoch of the present primary, 0 if none.", epoch.0 as f64),
        gauge_family(
            "litepilot_build_info",
            "Always 1; the label is the version.",
            vec![gauge(&[("version", VERSION)], 1.0)],
        ),
    ];
    let warning = |warning: &Warning| gauge(&[("kind", warning.kind.as_str())], 1.0);
    families.push(gauge_family(
        "litepilot_warning",
        "1 for each kind of thing that is wrong with this node now.",
        status.warnings.iter().map(warning).collect(),
    ));
    let lag = "How far this copy is behind the primary's; absent while that cannot be known.";
    let seconds = status.lag().map(|lag| lag.as_secs_f64());
    families.extend(seconds.map(|seconds| one("litefs_replica_lag_seconds", lag, seconds)));
    families.extend(backup(status));
    families
}
