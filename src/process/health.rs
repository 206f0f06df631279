//! Whether the application answers: checked once for all requests, so that a thousand held requests
//! do not dial a thousand times.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, watch};

/// What the last check found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The application answered.
    pub up: bool,
    /// The number of the check, counted when it *began*.
    pub check: u64,
}

/// A handle for those who talk to the application: its health, and a way to doubt it.
#[derive(Clone)]
pub struct AppHealth {
    reports: watch::Receiver<Report>,
    begun: Arc<AtomicU64>,
    doubt: Arc<Notify>,
}

/// The checker's end of an [`AppHealth`].
pub struct Checker {
    reports: watch::Sender<Report>,
    begun: Arc<AtomicU64>,
    doubt: Arc<Notify>,
}

/// A connected pair. Health is unknown, hence down, until the first report.
pub fn channel() -> (Checker, AppHealth) {
    let (sender, reports) = watch::channel(Report::default());
    let begun = Arc::new(AtomicU64::new(0));
    let doubt = Arc::new(Notify::new());
    let checker = Checker { reports: sender, begun: begun.clone(), doubt: doubt.clone() };
    (checker, AppHealth { reports, begun, doubt })
}

impl AppHealth {
    /// Whether the last check found the application up.
    pub fn is_up(&self) -> bool {
        self.reports.borrow().up
    }

    /// Changes of the report, for those who publish it.
    pub fn watch(&self) -> watch::Receiver<Report> {
        self.reports.clone()
    }

    /// The application just refused a connection: asks for a check now and returns once one that
    /// began after this call found it up. Never returns while it is down: bound it with a deadline.
    pub async fn recovered(&self) {
        let doubted_at = self.begun.load(Ordering::Acquire);
        self.doubt.notify_one();
        let mut reports = self.reports.clone();
        let back = reports.wait_for(|r| r.up && r.check > doubted_at).await;
        if back.is_err() {
            // The checker is gone: we are stopping, and the caller's deadline decides.
            std::future::pending::<()>().await;
        }
    }
}

impl Checker {
    /// To be called when a check begins; its number goes into the report.
    pub fn begin(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Publishes what the check with that number found.
    pub fn report(&self, check: u64, up: bool) {
        self.reports.send_replace(Report { up, check });
    }

    /// Returns when somebody doubts the last report.
    pub async fn doubted(&self) {
        self.doubt.notified().await;
    }
}
