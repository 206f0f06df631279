//! Phases of stopping, in order, with one deadline for all of them.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// How a node is to stop. Only ever grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    None,
    /// Hand off, drain, then end.
    Graceful,
    AtOnce,
}

/// The time that all phases have together.
pub(crate) struct Deadline {
    at: Instant,
    urgency: watch::Receiver<Urgency>,
}

impl Deadline {
    pub(crate) fn new(limit: Duration, urgency: watch::Receiver<Urgency>) -> Self {
        Self { at: Instant::now() + limit, urgency }
    }

    /// Runs one phase; returns whether it was completed. It is cut short by the deadline, or when
    /// stopping becomes urgent.
    pub(crate) async fn phase(&self, name: &str, work: impl Future<Output = ()>) -> bool {
        tracing::info!("stopping: {name}");
        let mut urgency = self.urgency.clone();
        tokio::select! {
            biased;
            Ok(_) = urgency.wait_for(|u| *u == Urgency::AtOnce) => false,
            done = timeout_at(self.at, work) => {
                if done.is_err() {
                    tracing::warn!("stopping: {name} did not end within shutdown_timeout");
                }
                done.is_ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_phase_is_cut_by_the_deadline_and_by_urgency() {
        let (urgency, receiver) = watch::channel(Urgency::Graceful);
        let deadline = Deadline::new(Duration::from_secs(45), receiver);
        assert!(deadline.phase("short", std::future::ready(())).await);
        assert!(!deadline.phase("endless", std::future::pending()).await);
        urgency.send_replace(Urgency::AtOnce);
        assert!(!deadline.phase("urgent", std::future::ready(())).await);
    }
}
