//! Tells as events how a program ends and starts. The log has it already.

use std::sync::Arc;

use tokio::sync::watch;

use crate::process::child::{ChildState, Phase};
use crate::telemetry::events::Events;

/// The application's.
pub(crate) async fn tell_app(child: watch::Receiver<ChildState>, events: Arc<Events>) {
    tell("app", "the application", child, events).await;
}

/// Those of the service of that name.
pub(crate) async fn tell_service(
    name: String,
    child: watch::Receiver<ChildState>,
    events: Arc<Events>,
) {
    tell("service", &format!("the service {name}"), child, events).await;
}

/// Returns when the program is gone for good.
async fn tell(
    kind: &'static str,
    who: &str,
    mut child: watch::Receiver<ChildState>,
    events: Arc<Events>,
) {
    while child.changed().await.is_ok() {
        let child = *child.borrow_and_update();
        match (child.state, child.pid) {
            (Phase::Running, Some(pid)) if child.restarts > 0 => {
                events.keep("restart", format!("{who} was started again, pid {pid}"));
            }
            (Phase::Backoff, _) => events.keep(kind, format!("{who}'s process has ended")),
            (Phase::Failed, _) => events.keep(kind, format!("{who} cannot be started")),
            _ => {}
        }
    }
}
