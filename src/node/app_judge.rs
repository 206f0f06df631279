//! What is to be said of the application, from what its checks and its process show.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::context::NodeContext;
use super::programs::Promotion;
use crate::cluster::{ClusterView, Role};
use crate::config::RunOn;
use crate::process::child::ChildState;
use crate::process::health::Report;
use crate::publish;
use crate::telemetry::events::Events;

/// An application that a promotion has started may take so long until it answers.
const FIRST_ANSWER: Duration = Duration::from_secs(60);
/// So long if it runs on the primary only: any other node would begin anew with what takes so long, and
/// hand over in its turn.
const ONLY_ANSWER: Duration = Duration::from_secs(600);
/// Runs in a row without an answer, after which it is called one that cannot start here.
const VAIN_RUNS: u32 = 2;

/// What is said of an application that ends on a replica again and again.
const WRITES_AT_START: &str = "exits on this replica as if it wrote at its start: have app.on_promote \
     do what writes, or set app.run_on: primary";

/// Whether the primary's application has failed it: not while it rests, nor while it starts after a
/// promotion. Made of the checks, for those who hand over. Ends with them.
pub(crate) async fn excuse(
    run_on: RunOn,
    mut health: watch::Receiver<Report>,
    mut promotions: watch::Receiver<Option<Promotion>>,
    to: watch::Sender<Report>,
) {
    let mut answered = None;
    loop {
        let (report, promotion) = (*health.borrow_and_update(), *promotions.borrow_and_update());
        if promotion.is_some_and(|promotion| report.up && report.check > promotion.check) {
            answered = promotion;
        }
        let until = excused_until(run_on, promotion, answered);
        let excused = until.is_none_or(|until| Instant::now() < until);
        let up = report.up || excused;
        let down_since = report.down_since.filter(|_| !up);
        publish::if_changed(&to, Report { up, down_since, ..report });
        tokio::select! {
            Ok(()) = health.changed() => {}
            Ok(()) = promotions.changed() => {}
            () = over(until), if excused => {}
            else => return,
        }
    }
}

/// Until when an application need not answer; `None`: it does not run here for now.
fn excused_until(
    run_on: RunOn,
    promotion: Option<Promotion>,
    answered: Option<Promotion>,
) -> Option<Instant> {
    match promotion {
        None if run_on == RunOn::Primary => None,
        Some(promotion) if answered != Some(promotion) => Some(promotion.at + patience(run_on)),
        _ => Some(Instant::now()),
    }
}

fn patience(run_on: RunOn) -> Duration {
    match run_on {
        RunOn::EveryNode => FIRST_ANSWER,
        RunOn::Primary => ONLY_ANSWER,
    }
}

async fn over(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Has it said when the application, if it is ours, cannot start on this replica.
pub(crate) fn start(
    context: &NodeContext,
    tasks: &mut JoinSet<()>,
) -> watch::Receiver<Option<String>> {
    let (note, failing) = watch::channel(None);
    if let Some(app) = context.programs.app() {
        tasks.spawn(watch_starts(app, context.view.clone(), context.events.clone(), note));
    }
    failing
}

/// Says when the application cannot start on this replica. Ends with its process.
async fn watch_starts(
    mut app: watch::Receiver<ChildState>,
    mut view: watch::Receiver<ClusterView>,
    events: Arc<Events>,
    note: watch::Sender<Option<String>>,
) {
    loop {
        let fails = fails_as_a_replica(*app.borrow_and_update(), &view.borrow_and_update());
        let text = fails.then(|| WRITES_AT_START.to_owned());
        if publish::if_changed(&note, text) && fails {
            events.warn("app", format!("the application {WRITES_AT_START}"));
        }
        tokio::select! {
            Ok(()) = app.changed() => {}
            Ok(()) = view.changed() => {}
            else => return,
        }
    }
}

fn fails_as_a_replica(app: ChildState, view: &ClusterView) -> bool {
    app.unanswered >= VAIN_RUNS && view.role == Role::Replica && view.primary.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Epoch;
    use crate::process::child::Phase;

    #[test]
    fn an_application_that_ends_before_it_answers_is_named_on_replicas_only() {
        let primary = ClusterView::single("p".parse().unwrap(), Epoch(1));
        let replica = ClusterView {
            node: "r".parse().unwrap(),
            role: Role::Replica,
            writable: false,
            ..primary.clone()
        };
        let app =
            |unanswered| ChildState { state: Phase::Backoff, pid: None, restarts: 1, unanswered };
        assert!(fails_as_a_replica(app(2), &replica));
        assert!(!fails_as_a_replica(app(1), &replica), "it may have been bad luck");
        assert!(!fails_as_a_replica(app(2), &primary), "there it may write");
        let alone = ClusterView { primary: None, ..replica };
        assert!(!fails_as_a_replica(app(2), &alone), "nobody could write");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_promotion_has_started_gets_time_for_its_first_answer() {
        let down = Report { up: false, check: 7, down_since: Some(std::time::Instant::now()) };
        let (checks, health) = watch::channel(down);
        let (promote, promotions) = watch::channel(None);
        let (to, mut seen) = watch::channel(down);
        let task = tokio::spawn(excuse(RunOn::Primary, health, promotions, to));
        seen.wait_for(|report| report.up).await.expect("at rest it is excused");
        promote.send_replace(Some(Promotion { at: Instant::now(), check: 7 }));
        let begun = Instant::now();
        seen.wait_for(|report| !report.up).await.expect("not for ever");
        assert!(begun.elapsed() >= ONLY_ANSWER);

        promote.send_replace(Some(Promotion { at: Instant::now(), check: 7 }));
        seen.wait_for(|report| report.up).await.unwrap();
        checks.send_replace(Report { up: true, check: 8, down_since: None });
        seen.wait_for(|report| report.check == 8).await.unwrap();
        checks.send_replace(Report { up: false, check: 9, down_since: down.down_since });
        seen.wait_for(|report| !report.up).await.expect("it had answered");
        task.abort();
    }
}
