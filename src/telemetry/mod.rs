//! Logs, metrics and events.

pub mod clock;
pub mod events;
pub mod log;
pub mod metrics;
