//! Logs, metrics and events.

pub mod events;
pub mod log;
pub mod metrics;
