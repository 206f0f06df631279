use super::*;
use crate::rules::Class;
use crate::status::{BackupStatus, example};
use http::StatusCode;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The samples by name and labels, after a look at the form of every line.
fn parse(text: &str) -> (BTreeMap<String, f64>, BTreeMap<String, String>) {
    let (mut samples, mut types) = (BTreeMap::new(), BTreeMap::new());
    let mut helped = String::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped = help.split_once(' ').unwrap().0.to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, helped, "HELP comes just before TYPE");
            let known = types.insert(name.to_owned(), kind.to_owned());
            assert_eq!(known, None, "{name} is described twice");
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let bare = name.split('{').next().unwrap();
            assert!(bare.starts_with(&helped), "{line} belongs to {helped}");
            let twice = samples.insert(name.to_owned(), value.parse().unwrap());
            assert_eq!(twice, None, "{name} is there twice");
        }
    }
    (samples, types)
}

/// The metrics in the expressions of the alerts and of the dashboard that are shipped.
fn named_in_what_is_shipped() -> Vec<String> {
    let shipped = ["prometheus/alerts.yml", "grafana/litepilot.json"];
    let names = shipped.iter().flat_map(|file| {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker").join(file);
        let text = fs::read_to_string(file).unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let metric = |word: &&str| word.starts_with("litepilot_") || word.starts_with("litefs_");
        let family = |name: &str| name.trim_end_matches("_bucket").to_owned();
        let names: Vec<_> = words.filter(metric).map(family).collect();
        assert!(names.len() > 10, "{names:?}");
        names
    });
    names.collect()
}

/// What is promised in the documentation: the family, its kind, a sample of it, and what that is below.
const PROMISED: [(&str, &str, &str, f64); 23] = [
    ("litefs_is_primary", "gauge", "litefs_is_primary", 1.0),
    ("litefs_replica_lag_seconds", "gauge", "litefs_replica_lag_seconds", 0.0),
    ("litefs_process_running", "gauge", "litefs_process_running", 1.0),
    (
        "litepilot_requests_total",
        "counter",
        r#"litepilot_requests_total{class="read",route="local",status="200"}"#,
        2.0,
    ),
    (
        "litepilot_request_seconds",
        "histogram",
        r#"litepilot_request_seconds_bucket{class="read",route="local",le="0.005"}"#,
        2.0,
    ),
    ("litepilot_requests_held", "gauge", r#"litepilot_requests_held{class="write"}"#, 1.0),
    (
        "litepilot_read_waits_total",
        "counter",
        r#"litepilot_read_waits_total{outcome="reached"}"#,
        2.0,
    ),
    ("litepilot_replays_total", "counter", r#"litepilot_replays_total{reason="litepilot"}"#, 2.0),
    ("litepilot_txid", "gauge", "litepilot_txid", 42.0),
    ("litepilot_backup_lag_seconds", "gauge", "litepilot_backup_lag_seconds", 1.5),
    ("litepilot_backup_lag_transactions", "gauge", "litepilot_backup_lag_transactions", 3.0),
    ("litepilot_quorum", "gauge", "litepilot_quorum", 1.0),
    ("litepilot_quorum_losses_total", "counter", "litepilot_quorum_losses_total", 0.0),
    ("litepilot_epoch", "gauge", "litepilot_epoch", 3.0),
    ("litepilot_elections_total", "counter", "litepilot_elections_total", 1.0),
    ("litepilot_failover_seconds", "histogram", "litepilot_failover_seconds_sum", 2.1),
    ("litepilot_split_brain_total", "counter", "litepilot_split_brain_total", 0.0),
    ("litepilot_lost_writes_total", "counter", "litepilot_lost_writes_total", 0.0),
    ("litepilot_connections", "gauge", "litepilot_connections", 1.0),
    ("litepilot_ack_seconds", "histogram", "litepilot_ack_seconds_count", 1.0),
    ("litepilot_ack_timeouts_total", "counter", "litepilot_ack_timeouts_total", 0.0),
    ("litepilot_warning", "gauge", r#"litepilot_warning{kind="disk-full"}"#, 1.0),
    (
        "litepilot_suspected_writes_total",
        "counter",
        r#"litepilot_suspected_writes_total{rule="django.yml:3"}"#,
        2.0,
    ),
];

#[test]
fn workers_are_summed_and_every_promised_name_is_there() {
    let metrics = Metrics::new(2);
    for i in 0..2 {
        let worker = metrics.worker(i);
        let took = Duration::from_millis(3);
        worker.request(Class::Read, Route::Local, StatusCode::OK, took);
        worker.read_wait(ReadWait::Reached);
        worker.replay(Replay::Litepilot);
        worker.connection_opened();
        worker.suspected_write("django.yml:3");
    }
    metrics.worker(1).connection_closed();
    let held = metrics.worker(0).held(Class::Write);
    metrics.node().elections.inc();
    metrics.node().failover(Duration::from_millis(2100));
    metrics.node().ack(Duration::from_millis(1));
    metrics
        .node()
        .certificate_expiry(CertificateUse::Clients, SystemTime::now() + Duration::from_secs(7200));

    let warnings = vec![("disk-full", "3 MiB are left".to_owned()).into()];
    let backup = BackupStatus {
        place: "file:///b".to_owned(),
        lag_ms: Some(1500),
        lag_transactions: Some(3),
        last: None,
        error: None,
    };
    let status = Status { warnings, backup: Some(backup), ..example() };
    let (samples, types) = parse(&metrics.render(&status));
    for (family, kind, sample, value) in PROMISED {
        assert_eq!(types.get(family).map(String::as_str), Some(kind), "{family}");
        assert_eq!(samples.get(sample), Some(&value), "{sample}");
    }
    for name in named_in_what_is_shipped() {
        assert!(types.contains_key(&name), "{name}, in docker/prometheus/ or docker/grafana/");
    }
    let expiry = "litepilot_certificate_expiry_seconds";
    assert_eq!(types.get(expiry).map(String::as_str), Some("gauge"));
    assert!((3600.0..=7200.0).contains(&samples[expiry]), "{}", samples[expiry]);
    drop(held);
    let (samples, _) = parse(&metrics.render(&example()));
    assert_eq!(samples[r#"litepilot_requests_held{class="write"}"#], 0.0);
}

#[test]
fn buckets_are_cumulative_and_end_with_everything() {
    let metrics = Metrics::new(1);
    let worker = metrics.worker(0);
    for millis in [0, 1, 7, 60_000] {
        let took = Duration::from_millis(millis);
        worker.request(Class::Write, Route::Primary, StatusCode::CREATED, took);
    }
    let (samples, _) = parse(&metrics.render(&example()));
    let bucket = |le: &str| {
        samples[&format!(
            r#"litepilot_request_seconds_bucket{{class="write",route="primary",le="{le}"}}"#
        )]
    };
    assert_eq!(bucket("0.0005"), 1.0);
    assert_eq!(bucket("0.001"), 2.0, "a bound belongs to its bucket");
    assert_eq!(bucket("0.01"), 3.0);
    assert_eq!(bucket("10"), 3.0);
    assert_eq!(bucket("+Inf"), 4.0);
}

#[test]
fn label_values_are_bounded_and_cannot_break_the_format() {
    let metrics = Metrics::new(1);
    let worker = metrics.worker(0);
    for code in 100..=999 {
        let status = StatusCode::from_u16(code).unwrap();
        worker.request(Class::Passthrough, Route::None, status, Duration::ZERO);
    }
    worker.suspected_write("a\"b\\c\nd");
    for i in 0..10_000 {
        worker.suspected_write(&format!("rule {i}"));
    }
    let (samples, _) = parse(&metrics.render(&example()));
    let count = |name: &str| samples.keys().filter(|key| key.starts_with(name)).count();
    assert_eq!(count("litepilot_requests_total"), 501);
    assert_eq!(
        samples[r#"litepilot_requests_total{class="passthrough",route="none",status="other"}"#],
        400.0
    );
    assert!(count("litepilot_suspected_writes_total") <= 257);
    assert!(samples.contains_key(r#"litepilot_suspected_writes_total{rule="a\"b\\c\nd"}"#));
}
