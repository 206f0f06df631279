//! The application as our child.

use std::time::Duration;

use super::backoff::Backoff;
use super::child::Spec;
use super::guard::Guard;
use super::spawn::Launch;
use crate::config;

/// Quick at first, since held requests wait for a few seconds only; then slow enough that a broken
/// application does not fill log and machine.
const BACKOFF: Backoff =
    Backoff::new(Duration::from_millis(100), Duration::from_secs(10), Duration::from_secs(10));

/// The application as configured, with `env` added to our environment, under a guard if there is
/// one; `None` if somebody else starts it.
pub fn spec(app: &config::App, env: Vec<(String, String)>, guard: Option<Guard>) -> Option<Spec> {
    if app.command.is_empty() {
        return None;
    }
    let launch = Launch {
        name: "app",
        key: "app.command",
        command: app.command.clone(),
        user: app.user.clone(),
        env,
        log: log.into(),
        guard,
    };
    Some(Spec { launch, grace: app.grace, backoff: BACKOFF, needs: None })
}

/// An application's line in our log: its target is `app`, whatever child or hook of it wrote it.
pub(crate) fn log(name: &str, stream: &str, line: &str) {
    tracing::info!(target: "app", name, stream, "{line}");
}
