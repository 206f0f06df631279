//! Becoming primary, ceasing to be, and the fence between.

use std::io;
use std::time::Duration;

use super::engine::{Duty, Litefs, READING};
use super::fence::Fence;
use crate::engine::Grant;
use crate::txid::Position;

/// How long LiteFS may take to become primary. An open read transaction holds it up: 8 s were seen.
const TAKING_OVER: Duration = Duration::from_secs(10);
/// How long a handoff from LiteFS to LiteFS may take; after that this one asks for the lease itself.
const HANDED_OVER: Duration = Duration::from_millis(500);
/// How long a fenced primary waits to be asked for that handoff.
const HANDING_OVER: Duration = Duration::from_millis(500);
/// How long a fenced LiteFS keeps its lease although the claim is over (`Handoff` in docs/election.md).
const YIELDING: Duration = Duration::from_secs(1);
/// LiteFS sleeps so long before it gives up a lease whose server it does not reach.
const UNREACHED: Duration = Duration::from_millis(1500);

impl Litefs {
    pub(super) async fn take_lease(&self, granted: Grant) -> io::Result<Position> {
        let Grant { epoch, claim } = granted;
        let _turn = self.turn.lock().await;
        let content = self.content().await?;
        if self.duty() == Duty::Primary(epoch) && self.lease_state.epoch() == Some(epoch) {
            return self.remember(move |store| store.begin(epoch, &content)).await;
        }
        if self.elects && *self.lease_state.given_back().borrow() >= epoch {
            let why = format!("LiteFS has ended epoch {epoch}: it does not get that lease again");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        self.step_down().await?;
        // Of a LiteFS that still follows its primary, nothing is lost: that one hands over.
        let from = self.watch.seen().borrow().follows().map(str::to_owned);
        if from.is_none() {
            self.follow_nobody();
        }
        let begun = content.clone();
        let held = self.remember(move |store| store.begin(epoch, &begun)).await?;
        self.lease_state.grant(epoch, claim, from.is_some());
        let offer = LeaseOffer(Some(self));
        if from.is_some() {
            self.take_over_from_litefs().await;
            self.lease_state.not_handed();
            self.follow_nobody();
        }
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "LiteFS did not become primary");
        self.until(TAKING_OVER, |seen| seen.is_primary() || !seen.live).await.map_err(late)?;
        if !self.watch.seen().borrow().is_primary() {
            let why = "LiteFS has ended while it was to become primary";
            return Err(io::Error::new(io::ErrorKind::NotConnected, why));
        }
        offer.taken();
        self.set_duty(Duty::Primary(epoch));
        // An event of before may have come late: from here on nothing goes back.
        let content = self.note_content(&content);
        self.publish_anew(self.label(&content), &content).await;
        Ok(held)
    }

    /// Asks for the lease in LiteFS' own way, which spares it the way over the old one's next renewal.
    async fn take_over_from_litefs(&self) {
        let asked = async {
            if let Err(why) = self.api.promote(HANDED_OVER).await {
                tracing::info!(%why, "LiteFS asks for the lease instead of having it handed over");
                return;
            }
            // It comes through the stream, which must not be cut before.
            let _ = self.until(HANDED_OVER, |seen| seen.is_primary()).await;
        };
        let _ = tokio::time::timeout(HANDED_OVER, asked).await;
    }

    /// Ceases to be primary, behind a fence if there can be one; the caller has the turn. When this
    /// returns LiteFS is not primary.
    pub(super) async fn step_down(&self) -> io::Result<()> {
        let Duty::Primary(_) = self.duty() else {
            // A grant that was never taken, or a LiteFS that took it too late.
            self.lease_state.revoke();
            return self.until_not_primary().await;
        };
        let raised = self.fence.lock().await.take();
        let fence = match raised {
            Some(fence) => {
                // To whoever asks for it. If nobody does, the lease ends as any other.
                let _ = self.until(HANDING_OVER, |seen| !seen.is_primary()).await;
                Some(fence)
            }
            None => self.last_fence().await,
        };
        self.lease_state.revoke();
        self.until_not_primary().await?;
        if let Some(fence) = fence {
            // If it hangs, that was LiteFS' end.
            let _ = fence.lift().await;
        }
        self.set_duty(Duty::Replica);
        // Without LiteFS there is nothing to read; it will be when it is back.
        if let Ok(content) = self.content().await {
            let left = content.clone();
            self.remember(move |store| store.close(&left)).await?;
            self.publish_anew(self.label(&content), &content).await;
        }
        Ok(())
    }

    /// Before a demotion that nobody has prepared. The claim is over, and LiteFS learns that with its
    /// next renewal, fence or not.
    async fn last_fence(&self) -> Option<Fence> {
        if !self.watch.seen().borrow().is_primary() {
            return None;
        }
        match self.new_fence(self.renewal()).await {
            Ok(fence) => Some(fence),
            Err(why) => {
                tracing::warn!(%why, "a commit under way may be lost: LiteFS is demoted without a fence");
                None
            }
        }
    }

    async fn new_fence(&self, limit: Duration) -> io::Result<Fence> {
        Fence::raise(&self.program, &self.mount, limit).await
    }

    /// LiteFS learns from its next renewal; one that does not is killed.
    async fn until_not_primary(&self) -> io::Result<()> {
        let gone = |seen: &super::watch::Seen| !seen.is_primary();
        if self.until(self.renewal() * 2 + UNREACHED, gone).await.is_ok() {
            return Ok(());
        }
        self.kill("it hangs: it does not cease to be primary");
        let late =
            |_| io::Error::new(io::ErrorKind::TimedOut, "LiteFS does not cease to be primary");
        self.until(READING, gone).await.map_err(late)
    }

    /// Between two renewals of LiteFS.
    fn renewal(&self) -> Duration {
        self.ttl / 10
    }

    pub(super) async fn raise_fence(&self, limit: Duration) -> io::Result<Position> {
        let mut held = self.fence.lock().await;
        if held.is_none() {
            *held = Some(self.new_fence(limit).await?);
        }
        let content = match self.content().await {
            Ok(content) => content,
            Err(error) => {
                *held = None;
                return Err(error);
            }
        };
        self.lease_state.yielding(YIELDING);
        Ok(Position { at: self.label(&content), checksum: content.checksum() })
    }
}

/// LiteFS may have the lease. Unless it is taken, it may not any more: whoever asked for it has given up.
struct LeaseOffer<'a>(Option<&'a Litefs>);

impl LeaseOffer<'_> {
    fn taken(mut self) {
        self.0 = None;
    }
}

impl Drop for LeaseOffer<'_> {
    fn drop(&mut self) {
        if let Some(litefs) = self.0 {
            litefs.lease_state.revoke();
        }
    }
}
