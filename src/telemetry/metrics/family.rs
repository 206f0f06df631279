//! Short ways to make the families of samples that Prometheus' encoder takes.

use prometheus::proto;
use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

/// Label names and values of one sample.
pub(crate) type Labels<'a> = &'a [(&'static str, &'a str)];

/// A family of counters.
pub(crate) fn counters(name: &str, help: &str, samples: Vec<Metric>) -> MetricFamily {
    family(name, help, MetricType::COUNTER, samples)
}

/// A family of gauges.
pub(crate) fn gauges(name: &str, help: &str, samples: Vec<Metric>) -> MetricFamily {
    family(name, help, MetricType::GAUGE, samples)
}

/// A family of histograms.
pub(crate) fn histograms(name: &str, help: &str, samples: Vec<Metric>) -> MetricFamily {
    family(name, help, MetricType::HISTOGRAM, samples)
}

pub(crate) fn counter(labels: Labels<'_>, value: u64) -> Metric {
    let mut counter = proto::Counter::default();
    counter.set_value(value as f64);
    let mut metric = Metric::from_label(pairs(labels));
    metric.set_counter(counter);
    metric
}

pub(crate) fn gauge(labels: Labels<'_>, value: f64) -> Metric {
    let mut gauge = proto::Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(pairs(labels));
    metric.set_gauge(gauge);
    metric
}

/// One histogram; `buckets` holds upper bounds in seconds and cumulative counts.
pub(crate) fn histogram(
    labels: Labels<'_>,
    buckets: &[(f64, u64)],
    count: u64,
    sum: f64,
) -> Metric {
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets.iter().map(|&bucket| to_bucket(bucket)).collect());
    histogram.set_sample_count(count);
    histogram.set_sample_sum(sum);
    let mut metric = Metric::from_label(pairs(labels));
    metric.set_histogram(histogram);
    metric
}

fn to_bucket((bound, cumulative): (f64, u64)) -> proto::Bucket {
    let mut bucket = proto::Bucket::default();
    bucket.set_upper_bound(bound);
    bucket.set_cumulative_count(cumulative);
    bucket
}

fn family(name: &str, help: &str, kind: MetricType, samples: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(samples);
    family
}

fn pairs(labels: Labels<'_>) -> Vec<LabelPair> {
    labels.iter().map(|&(name, value)| pair(name, value)).collect()
}

fn pair(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}
