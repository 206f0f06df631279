//! Counters of the data plane, one set per worker so that nothing is shared on a request's path,
//! and the Prometheus text made of their sums.
