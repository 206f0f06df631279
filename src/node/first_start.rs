//! The very first start of an application on a replica: once the primary's has been up, and what it had
//! written by then is here. An application that finds no tables would make them, which it cannot here.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::context::NodeContext;
use super::replication::PAUSE;
use crate::cluster::{ClusterView, NodeId, Role};
use crate::engine::Engine;
use crate::peer::gossip::Peers;
use crate::position::PositionCell;
use crate::txid::EpochTxid;

/// Without anything new from the primary's application. While that makes its tables, for minutes maybe, an
/// application here would try the same, fail, and hold up what comes.
const WAIT: Duration = Duration::from_secs(60);
/// An application that writes and is never up keeps nobody waiting for longer.
const LONGEST: Duration = Duration::from_secs(600);
/// For there to be a primary at all. With an application that answers here there may be one sooner.
const NO_PRIMARY: Duration = Duration::from_secs(10);

/// What it waits for, for people.
const WAITING: &str = "waits until the primary's application is up and what it wrote is here: this \
     copy is empty";

/// What a replica with an empty copy has to do about its application.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Start,
    /// For a primary.
    NobodyYet,
    /// For the primary's application.
    NotUpYet,
    /// For this.
    Missing(EpochTxid),
}

/// Has the programs run when they are to. The answer says what the application waits for.
pub(crate) fn start(
    context: &NodeContext,
    heard: Option<watch::Receiver<Peers>>,
    tasks: &mut JoinSet<()>,
) -> watch::Receiver<Option<String>> {
    let (note, waiting) = watch::channel(None);
    tasks.spawn(begin(context.clone(), heard, note));
    tasks.spawn(announce(context.clone()));
    tasks.spawn(context.programs.clone().follow(context.view.clone(), context.writes.clone()));
    waiting
}

/// Starts what runs on every node when it is time. Meanwhile `note` says what it waits for.
async fn begin(
    context: NodeContext,
    heard: Option<watch::Receiver<Peers>>,
    note: watch::Sender<Option<String>>,
) {
    if let Some(heard) = heard
        && context.programs.any_on_every_node()
        && context.view.borrow().role == Role::Replica
        && timeout(WAIT, is_empty(&*context.engine)).await == Ok(true)
    {
        note.send_replace(Some(WAITING.to_owned()));
        context.events.record("app", format!("the application {WAITING}"));
        let text = match in_time(context.engine.position(), its_time(&context, heard)).await {
            true => "the application is started",
            false => "the application is started all the same: nothing has come for too long",
        };
        note.send_replace(None);
        context.events.record("app", text);
    }
    context.programs.begin();
}

/// Whether nothing was ever written to this copy; once that can be said.
async fn is_empty(engine: &dyn Engine) -> bool {
    if let Some(mut mounted) = engine.mounted() {
        let _ = mounted.wait_for(|mounted| *mounted).await;
    }
    loop {
        match engine.held().await {
            Ok(held) => return held.empty,
            Err(why) => tracing::debug!(%why, "cannot see yet whether this copy is empty"),
        }
        sleep(PAUSE).await;
    }
}

/// Whether that comes before nothing has come here for [`WAIT`].
async fn in_time(position: &PositionCell, its_time: impl Future<Output = ()>) -> bool {
    let mut its_time = pin!(its_time);
    let end = Instant::now() + LONGEST;
    loop {
        let before = position.get();
        if timeout_at(end.min(Instant::now() + WAIT), &mut its_time).await.is_ok() {
            return true;
        }
        if position.get() == before || Instant::now() >= end {
            return false;
        }
    }
}

async fn its_time(context: &NodeContext, mut heard: watch::Receiver<Peers>) {
    let mut view = context.view.clone();
    let position = context.engine.position();
    let patience = Instant::now() + NO_PRIMARY;
    loop {
        let now = verdict(&view.borrow_and_update(), &heard.borrow_and_update(), position.get());
        let news = async {
            tokio::select! {
                Ok(()) = view.changed() => {}
                Ok(()) = heard.changed() => {}
                else => std::future::pending().await,
            }
        };
        match now {
            Verdict::Start => return,
            Verdict::NobodyYet => {
                if timeout_at(patience, news).await.is_err() {
                    return;
                }
            }
            Verdict::NotUpYet => news.await,
            Verdict::Missing(target) => tokio::select! {
                () = news => {}
                () = position.wait(target) => {}
            },
        }
    }
}

fn verdict(view: &ClusterView, heard: &Peers, here: EpochTxid) -> Verdict {
    let Some(primary) = &view.primary else { return Verdict::NobodyYet };
    if primary.node == view.node {
        return Verdict::Start;
    }
    match written(heard, &primary.node) {
        None => Verdict::NotUpYet,
        Some(target) if target <= here => Verdict::Start,
        Some(target) => Verdict::Missing(target),
    }
}

fn written(heard: &Peers, primary: &NodeId) -> Option<EpochTxid> {
    heard.get(primary).and_then(|heard| heard.report.app_wrote)
}

/// As the primary: publishes how far the database was when its application was first found up. `None`
/// while it was not, or this node is not the primary.
async fn announce(context: NodeContext) {
    let wrote = &context.app_wrote;
    let (mut view, mut health) = (context.view.clone(), context.health.watch());
    loop {
        let up = async {
            view.wait_for(|view| view.writable).await.is_ok()
                && health.wait_for(|report| report.up).await.is_ok()
        };
        if !up.await {
            return;
        }
        match context.engine.read_position().await {
            Ok(position) => drop(wrote.send_replace(Some(position))),
            Err(why) => {
                tracing::debug!(%why, "cannot read how far the application has come");
                sleep(PAUSE).await;
                continue;
            }
        }
        if view.wait_for(|view| !view.writable).await.is_err() {
            return;
        }
        wrote.send_replace(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Epoch;
    use crate::peer::gossip::{Heard, Report};
    use crate::txid::Txid;

    fn at(txid: u64) -> EpochTxid {
        EpochTxid { epoch: Epoch(1), txid: Txid(txid) }
    }

    fn heard(wrote: Option<EpochTxid>) -> Peers {
        let primary: NodeId = "p".parse().unwrap();
        let mut report = Report::new(primary.clone(), Role::Primary);
        report.app_wrote = wrote;
        [(primary, Heard::new(report, std::time::Instant::now()))].into()
    }

    fn replica() -> ClusterView {
        let primary = ClusterView::single("p".parse().unwrap(), Epoch(1));
        ClusterView { node: "r".parse().unwrap(), role: Role::Replica, writable: false, ..primary }
    }

    #[test]
    fn a_replica_waits_for_the_primary_its_application_and_what_that_wrote() {
        let nobody = ClusterView { primary: None, ..replica() };
        assert_eq!(verdict(&nobody, &heard(Some(at(1))), at(9)), Verdict::NobodyYet);
        assert_eq!(verdict(&replica(), &Peers::new(), at(9)), Verdict::NotUpYet);
        assert_eq!(verdict(&replica(), &heard(None), at(9)), Verdict::NotUpYet);
        assert_eq!(verdict(&replica(), &heard(Some(at(2))), at(1)), Verdict::Missing(at(2)));
        assert_eq!(verdict(&replica(), &heard(Some(at(2))), at(2)), Verdict::Start);
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_start_that_migrates_for_minutes_is_waited_for() {
        let position = PositionCell::default();
        let migrates = async {
            for txid in 1..10 {
                sleep(WAIT / 2).await;
                position.advance(at(txid));
            }
        };
        assert!(in_time(&position, migrates).await, "as long as something comes");
        assert!(!in_time(&position, std::future::pending()).await, "not for one that hangs");
    }

    #[tokio::test(start_paused = true)]
    async fn an_application_that_writes_and_is_never_up_does_not_keep_the_others_waiting() {
        let position = PositionCell::default();
        let writes = async {
            for txid in 1.. {
                sleep(WAIT / 2).await;
                position.advance(at(txid));
            }
        };
        assert!(!in_time(&position, writes).await);
    }

    #[test]
    fn a_node_that_has_become_primary_waits_for_nobody() {
        let own = ClusterView::single("r".parse().unwrap(), Epoch(1));
        assert_eq!(verdict(&own, &Peers::new(), at(0)), Verdict::Start);
    }
}
