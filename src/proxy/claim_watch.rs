//! Waiting for the end of an epoch, whoever notices it first: the view, or the clock, by which a claim
//! lapses although nobody says so.

use std::future::pending;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::claim::{BootTime, Claim};
use crate::cluster::{ClusterView, Epoch};

/// Answers given at the end of an epoch may be overtaken by the news of the next one.
const LATE_ANSWERS: Duration = Duration::from_secs(1);

/// Returns once this node takes no more writes in `epoch`. Also if nobody publishes views any more.
pub(crate) async fn closed(mut views: watch::Receiver<ClusterView>, epoch: Epoch) {
    loop {
        let claim = {
            let view = views.borrow_and_update();
            if !view.takes_writes() || view.epoch() != epoch {
                return;
            }
            view.claim.clone()
        };
        tokio::select! {
            changed = views.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = lapse(&claim) => return,
        }
    }
}

/// Returns once this node may not acknowledge any more what it took under that view
/// ([`ClusterView::still_acknowledges`]). Also if nobody publishes views any more.
pub(crate) async fn over(mut views: watch::Receiver<ClusterView>, taken_under: &ClusterView) {
    tokio::select! {
        () = lapse(&taken_under.claim) => {}
        _ = views.wait_for(|now| !taken_under.still_acknowledges(now)) => {}
    }
}

/// Returns once this node has known of an epoch later than `epoch` for [`LATE_ANSWERS`]: what the
/// former primary had answered must have come.
pub(crate) async fn superseded(mut views: watch::Receiver<ClusterView>, epoch: Epoch) {
    if views.wait_for(|view| view.newest_epoch() > epoch).await.is_err() {
        pending().await
    }
    sleep(LATE_ANSWERS).await;
}

/// Whether a claim gets renewed from now on, or ends.
pub(crate) async fn renewed(claim: &Claim) -> bool {
    let now = BootTime::now();
    loop {
        // Before the look, so that a change between the look and the wait is noticed.
        let changed = claim.changed();
        if claim.is_renewed_since(now) {
            return true;
        }
        if !claim.is_valid() {
            return false;
        }
        tokio::select! {
            () = changed => {}
            () = lapse(claim) => {}
        }
    }
}

/// Returns once a claim has lapsed. It may be renewed meanwhile.
async fn lapse(claim: &Claim) {
    while claim.is_valid() {
        match claim.deadline() {
            Some(end) => sleep(end.since(BootTime::now())).await,
            None => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    const EPOCH: Epoch = Epoch(3);

    fn primary(claim: &Claim) -> ClusterView {
        let view = ClusterView::single("me".parse().unwrap(), EPOCH);
        ClusterView { claim: claim.clone(), ..view }
    }

    fn in_millis(millis: u64) -> BootTime {
        BootTime::now().after(Duration::from_millis(millis))
    }

    async fn soon(what: impl Future<Output = ()>) {
        timeout(Duration::from_secs(20), what).await.unwrap();
    }

    #[tokio::test]
    async fn a_claim_that_lapses_ends_it_without_another_view() {
        let view = primary(&Claim::until(in_millis(50)));
        let (_sender, views) = watch::channel(view.clone());
        soon(closed(views.clone(), EPOCH)).await;
        assert!(!view.claim.is_valid());
        soon(over(views, &view)).await;
    }

    #[tokio::test]
    async fn a_claim_that_is_renewed_does_not() {
        let first = in_millis(200);
        let view = primary(&Claim::until(first));
        let (sender, views) = watch::channel(view.clone());
        let claim = view.claim.clone();
        let close = tokio::spawn(closed(views.clone(), EPOCH));
        let end = tokio::spawn(async move { over(views, &view).await });
        assert!(claim.extend(in_millis(3_600_000), BootTime::now()));
        while BootTime::now() <= first {
            sleep(Duration::from_millis(20)).await;
        }
        assert!(!close.is_finished() && !end.is_finished());
        sender.send_replace(ClusterView::single("other".parse().unwrap(), Epoch(4)));
        soon(async { close.await.unwrap() }).await;
        soon(async { end.await.unwrap() }).await;
    }

    #[tokio::test]
    async fn a_renewal_is_waited_for_until_the_claim_ends() {
        let claim = Claim::until(in_millis(3_600_000));
        let (waiting, again) = (claim.clone(), claim.clone());
        let waiting = tokio::spawn(async move { renewed(&waiting).await });
        tokio::task::yield_now().await;
        claim.renewed(BootTime::now());
        assert!(waiting.await.unwrap());
        let waiting = tokio::spawn(async move { renewed(&again).await });
        tokio::task::yield_now().await;
        claim.end();
        assert!(!waiting.await.unwrap());
        assert!(renewed(&Claim::unlimited()).await);
    }

    #[tokio::test]
    async fn holding_writes_closes_it_and_does_not_end_it() {
        let view = primary(&Claim::unlimited());
        let (sender, views) = watch::channel(view.clone());
        let close = tokio::spawn(closed(views.clone(), EPOCH));
        let end = tokio::spawn(async move { over(views, &view).await });
        sender.send_modify(|view| {
            view.writable = false;
            view.primary = None;
        });
        soon(async { close.await.unwrap() }).await;
        assert!(!end.is_finished());
        sender.send_replace(ClusterView::single("me".parse().unwrap(), Epoch(4)));
        soon(async { end.await.unwrap() }).await;
    }
}
