//! Tells as events how a program ends and starts. The log has it already.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::context::NodeContext;
use crate::process::child::{ChildState, Phase};
use crate::telemetry::events::Events;

/// Has those of the application and of each service told.
pub(crate) fn start(context: &NodeContext, tasks: &mut JoinSet<()>) {
    let NodeContext { programs, events, .. } = context;
    if let Some(app) = programs.app() {
        tasks.spawn(tell("app", "the application".to_owned(), app, events.clone()));
    }
    for (name, service) in programs.services() {
        tasks.spawn(tell("service", format!("the service {name}"), service, events.clone()));
    }
}

/// Returns when the program is gone for good.
async fn tell(
    kind: &'static str,
    who: String,
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
