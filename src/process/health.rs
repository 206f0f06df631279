//! Whether the application answers: checked once for all requests, so that a thousand held requests
//! do not dial a thousand times.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::probe::Probe;
use crate::config::Target;

/// Between checks while the application is up.
const WHILE_UP: Duration = Duration::from_secs(1);

/// After the first check that found it down; doubled with each further one, up to the longest.
const WHILE_DOWN: Duration = Duration::from_millis(50);
const WHILE_DOWN_LONGEST: Duration = Duration::from_millis(250);

/// Doubts come from clients: however many there are, they cost no more checks than this allows.
const AT_LEAST: Duration = Duration::from_millis(20);

/// What the last check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The application answered.
    pub up: bool,
    /// The number of the check, counted when it *began*.
    pub check: u64,
    /// Since when no check has found it up; `None` while it is up.
    pub down_since: Option<Instant>,
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
    let unknown = Report { up: false, check: 0, down_since: Some(Instant::now()) };
    let (sender, reports) = watch::channel(unknown);
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

    /// The number of the last check that has begun.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    /// Changes of the report, for those who publish it.
    pub fn watch(&self) -> watch::Receiver<Report> {
        self.reports.clone()
    }

    /// The application just refused a connection: asks for a check now and returns once one that
    /// began after this call found it up. Never returns while it is down: bound it with a deadline.
    pub async fn recovered(&self) {
        let doubted_at = self.begun();
        self.doubt.notify_one();
        let mut reports = self.reports.clone();
        let gone = reports.wait_for(|r| r.up && r.check > doubted_at).await.is_err();
        if gone {
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
        self.reports.send_modify(|last| {
            let down_since = (!up).then(|| last.down_since.unwrap_or_else(Instant::now));
            *last = Report { up, check, down_since };
        });
    }

    /// Returns when somebody doubts the last report.
    pub async fn doubted(&self) {
        self.doubt.notified().await;
    }
}

/// Checks the application for as long as it is polled: each second while it is up, more often while
/// it is down, and at once when doubted. `path` is `app.health`.
pub async fn run(checker: Checker, target: Target, path: Option<String>) {
    let probe = Probe::new(target, path);
    let app = probe.place();
    let mut was_up = None;
    let mut pause = WHILE_DOWN;
    loop {
        let check = checker.begin();
        let found = probe.look().await;
        let up = found.is_ok();
        checker.report(check, up);
        if was_up.replace(up) != Some(up) {
            pause = WHILE_DOWN;
            match found {
                Ok(()) => tracing::info!("the app at {app} is up"),
                Err(why) => tracing::warn!("the app at {app} does not answer: {why}"),
            }
        }
        sleep(AT_LEAST).await;
        tokio::select! {
            () = checker.doubted() => {}
            () = sleep(if up { WHILE_UP } else { pause }) => {
                pause = (pause * 2).min(WHILE_DOWN_LONGEST);
            }
        }
    }
}
