//! Tells of open transactions that keep this node's copy from being brought up to date, and after a while
//! ends those of the application.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::context::NodeContext;
use crate::engine::Stalled;
use crate::process::openers::{self, Opener};
use crate::telemetry::warnings::Warnings;

const KIND: &str = "open-transaction";
/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

struct OpenTransactions {
    stalled: watch::Receiver<Option<Stalled>>,
    warnings: Arc<Warnings>,
    /// `app.stuck_after`; `None`: never.
    stuck_after: Option<Duration>,
}

/// Has that done, if the engine can say what keeps it.
pub(crate) fn start(context: &NodeContext, stuck_after: Option<Duration>, tasks: &mut JoinSet<()>) {
    if let Some(stalled) = context.engine.stalled() {
        let warnings = context.warnings.clone();
        tasks.spawn(OpenTransactions { stalled, warnings, stuck_after }.run());
    }
}

impl OpenTransactions {
    /// While one lasts the engine looks again and again who has the database open.
    async fn run(mut self) {
        let mut asked = None;
        loop {
            let now = Instant::now();
            let found = self.stalled.borrow_and_update().clone();
            match &found {
                None => {
                    asked = None;
                    self.warnings.clear(
                        KIND,
                        "the open transaction is over: this replica is brought up to date",
                    );
                }
                Some(stalled) => {
                    self.warnings.raise(KIND, text(stalled, now));
                    let stuck = self.stuck_after.is_some_and(|limit| now - stalled.since >= limit);
                    match asked {
                        None if stuck => {
                            end(&stalled.openers, Signal::TERM);
                            asked = Some(now);
                        }
                        Some(at) if now - at >= GRACE => end(&stalled.openers, Signal::KILL),
                        _ => {}
                    }
                }
            }
            if self.stalled.changed().await.is_err() {
                return;
            }
        }
    }
}

fn end(openers: &[Opener], signal: Signal) {
    for opener in openers.iter().filter(|opener| opener.ours) {
        let Opener { pid, command, .. } = opener;
        tracing::warn!(
            "app.stuck_after: {signal:?} to pid {pid} ({command}), which has the database open"
        );
        if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
            // One that is gone is what was wanted.
            let _ = kill_process(pid, signal);
        }
    }
}

fn text(stalled: &Stalled, now: Instant) -> String {
    let seconds = (now - stalled.since).as_secs();
    let who = match &stalled.openers[..] {
        [] => {
            "no process is seen that has the database open: it is in another container, or another \
               user's"
                .to_owned()
        }
        [one] => format!(
            "{} has the database open: end it",
            openers::describe(std::slice::from_ref(one))
        ),
        more => format!("one of these, which have the database open: {}", openers::describe(more)),
    };
    format!(
        "for {seconds} s an open transaction has kept this replica from what the primary writes: {who}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_does_it_is_named() {
        let since = Instant::now();
        let opener = |pid, command: &str| Opener { pid, command: command.to_owned(), ours: false };
        let told = |openers| text(&Stalled { since, openers }, since + Duration::from_secs(4));
        assert_eq!(
            told(vec![opener(17, "python3 report.py")]),
            "for 4 s an open transaction has kept this replica from what the primary writes: \
             pid 17 (python3 report.py) has the database open: end it"
        );
        let several = told(vec![opener(17, "a"), opener(18, "b")]);
        assert!(
            several.ends_with("which have the database open: pid 17 (a), pid 18 (b)"),
            "{several}"
        );
        assert!(told(Vec::new()).contains("in another container"));
    }
}
