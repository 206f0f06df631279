//! The application as our child.

use std::time::Duration;

use super::backoff::Backoff;
use super::child::Spec;
use super::guard::Guard;
use super::health::AppHealth;
use super::hints;
use super::spawn::Launch;
use super::traceback;
use crate::config;

/// Quick at first, since held requests wait for a few seconds only; then slow enough that a broken
/// application does not fill log and machine.
pub(super) const BACKOFF: Backoff =
    Backoff::new(Duration::from_millis(100), Duration::from_secs(10), Duration::from_secs(10));

/// The application as configured, with `env` added to our environment, under a guard if there is
/// one; `None` if somebody else starts it. `health` says whether it answers.
pub fn spec(
    app: &config::App,
    env: Vec<(String, String)>,
    guard: Option<Guard>,
    health: Option<AppHealth>,
) -> Option<Spec> {
    if app.command.is_empty() {
        return None;
    }
    let launch = Launch {
        name: "app".into(),
        key: "app.command",
        command: app.command.clone(),
        user: app.user.clone(),
        env,
        log: log.into(),
        guard,
    };
    let stop_signal = app.stop_signal;
    Some(Spec { stop_signal, health, ..Spec::new(launch, app.grace, BACKOFF) })
}

/// An application's line in our log: its target is `app`, whatever child, hook or service of it wrote it.
pub(crate) fn log(name: &str, stream: &str, line: &str) {
    match traceback::is_one(line) {
        true => tracing::error!(target: "app", name, stream, "{line}"),
        false => tracing::info!(target: "app", name, stream, "{line}"),
    }
    hints::look(name, line);
}
