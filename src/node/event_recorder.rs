//! Tells as events what other parts only count or publish: whether the application answers, the
//! engine's starts, replays, and writes that were lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::context::NodeContext;
use crate::engine::Engine;
use crate::process::health::{AppHealth, Report};
use crate::telemetry::events::Events;
use crate::telemetry::metrics::Metrics;

/// Between two looks at what is counted.
const LOOK: Duration = Duration::from_secs(1);
/// What happens again and again is told once in so long, with how often: it must not drive all else
/// out of the latest events.
const SELDOM: Duration = Duration::from_secs(60);

struct EventRecorder {
    /// Where it is told.
    events: Arc<Events>,
    metrics: Arc<Metrics>,
    /// Whether the application answers.
    health: AppHealth,
    engine: Arc<dyn Engine>,
}

/// Has them told.
pub(crate) fn start(context: &NodeContext, tasks: &mut JoinSet<()>) {
    let NodeContext { events, metrics, health, engine, .. } = context.clone();
    tasks.spawn(EventRecorder { events, metrics, health, engine }.run());
}

impl EventRecorder {
    async fn run(self) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut health = self.health.watch();
        let mut up = health.borrow_and_update().up;
        let (mut replays, mut losses, mut restarts) =
            (Tally::default(), Tally::default(), Tally::default());
        loop {
            tokio::select! {
                report = next(&mut health) => {
                    if report.up != up {
                        up = report.up;
                        let text = match up {
                            true => "the application answers",
                            false => "the application does not answer",
                        };
                        self.events.keep("app", text);
                    }
                }
                _ = look.tick() => {
                    let now = Instant::now();
                    if let Some(n) = replays.due(self.metrics.replays(), now) {
                        let text = format!("sent again to the primary, as the application asked or had failed: {n}");
                        self.events.record("replay", text);
                    }
                    if let Some(n) = losses.due(self.metrics.node().lost_writes.get(), now) {
                        let text = format!("answers that told of a write that a failover has lost: {n}");
                        self.events.warn("lost-write", text);
                    }
                    let engine = self.engine.state();
                    if let Some(n) = restarts.due(engine.restarts, now) {
                        self.events.record("restart", format!("{} was started again: {n}", engine.engine));
                    }
                }
            }
        }
    }
}

async fn next(health: &mut watch::Receiver<Report>) -> Report {
    if health.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    *health.borrow_and_update()
}

/// How much of a count has been told, and when.
#[derive(Default)]
struct Tally {
    told: u64,
    at: Option<Instant>,
}

impl Tally {
    /// How much there is to be told now.
    fn due(&mut self, total: u64, now: Instant) -> Option<u64> {
        let soon = self.at.is_some_and(|at| now.saturating_duration_since(at) < SELDOM);
        if total <= self.told || soon {
            return None;
        }
        self.at = Some(now);
        Some(total - std::mem::replace(&mut self.told, total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_often_is_told_seldom_and_completely() {
        let mut tally = Tally::default();
        let start = Instant::now();
        assert_eq!(tally.due(0, start), None);
        assert_eq!(tally.due(2, start), Some(2));
        assert_eq!(tally.due(2, start + SELDOM), None);
        assert_eq!(tally.due(5, start + SELDOM), Some(3));
        assert_eq!(tally.due(9, start + SELDOM + SELDOM / 2), None);
        assert_eq!(tally.due(12, start + 2 * SELDOM), Some(7));
    }
}
