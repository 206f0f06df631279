//! Keeps a claim: renews the lease for as long as that succeeds.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::context::ElectionContext;
use super::rpc::{CallError, Request, Response};
use super::table::Holder;
use crate::claim::{BootTime, Claim};

/// Renewals that may be on their way at once.
const ATTEMPTS: usize = 8;
/// After a renewal that failed, before the next response is looked at.
const AFTER_A_FAILURE: Duration = Duration::from_millis(5);

/// Why a claim is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClaimOver {
    /// The lease is somebody else's, or vacant.
    LeaseLost,
    /// No renewal succeeded in time.
    Lapsed,
}

pub(crate) struct KeepAlive {
    context: Arc<ElectionContext>,
    holder: Holder,
    claim: Claim,
    /// Each gives the time at which it was sent.
    attempts: JoinSet<(BootTime, Result<Response, CallError>)>,
    last_sent: Option<BootTime>,
    /// Of those that have succeeded, the one sent last.
    renewed: Option<BootTime>,
}

impl KeepAlive {
    /// For a lease that was just granted. There is no claim before the first renewal has succeeded.
    pub(crate) fn new(context: Arc<ElectionContext>, holder: Holder) -> Self {
        let (claim, attempts) = (Claim::none(), JoinSet::new());
        Self { context, holder, claim, attempts, last_sent: None, renewed: None }
    }

    /// Waits for the first renewal.
    ///
    /// # Errors
    ///
    /// When there will be none.
    pub(crate) async fn begin(&mut self) -> Result<Claim, ClaimOver> {
        // Whoever grants gives a full ttl from then on.
        let give_up = self.context.clock.now().after(self.context.times.ttl);
        while self.renewed.is_none() {
            if let Some(over) = self.step(give_up).await {
                return Err(over);
            }
        }
        Ok(self.claim.clone())
    }

    /// Renews until the claim is over. May be dropped and called again.
    pub(crate) async fn keep(&mut self) -> ClaimOver {
        loop {
            let end = self.claim.deadline().unwrap_or(BootTime(u64::MAX));
            if let Some(over) = self.step(end).await {
                self.claim.end();
                return over;
            }
        }
    }

    /// Sends a renewal when it is time, or takes one response. Says whether the claim is over, which it
    /// is at `end`.
    async fn step(&mut self, end: BootTime) -> Option<ClaimOver> {
        let context = self.context.clone();
        let now = context.clock.now();
        if now >= end {
            return Some(ClaimOver::Lapsed);
        }
        let due = self.due();
        if now >= due && self.attempts.len() < ATTEMPTS {
            self.send(now);
        }
        let next = if now >= due { now.after(context.times.renew / 2) } else { due };
        tokio::select! {
            biased;
            Some(Ok((sent, response))) = self.attempts.join_next() => {
                self.take(sent, response).await
            }
            () = context.clock.sleep(next.min(end).since(now)) => None,
        }
    }

    /// A fifth of the ttl after the last one that succeeded; sooner while none does: it may have been
    /// sent to a leader that is no more, which nobody tells us.
    fn due(&self) -> BootTime {
        let renew = self.context.times.renew;
        match (self.renewed, self.last_sent) {
            (Some(renewed), Some(sent)) if sent <= renewed => renewed.after(renew),
            (_, Some(sent)) => sent.after(renew / 4),
            (_, None) => BootTime(0),
        }
    }

    fn send(&mut self, now: BootTime) {
        self.last_sent = Some(now);
        let context = self.context.clone();
        let (epoch, session) = (self.holder.epoch, self.holder.session.clone());
        self.attempts.spawn(async move {
            let request = Request::Renew { epoch, session };
            (now, context.ask_leader(request, context.times.claim).await)
        });
    }

    async fn take(
        &mut self,
        sent: BootTime,
        response: Result<Response, CallError>,
    ) -> Option<ClaimOver> {
        match response {
            Ok(Response::Renewed) => self.extend(sent),
            Ok(Response::LeaseLost) => Some(ClaimOver::LeaseLost),
            // Nobody leads, or the one that did is gone.
            Ok(_) | Err(_) => {
                self.context.clock.sleep(AFTER_A_FAILURE).await;
                None
            }
        }
    }

    /// The renewal that was sent then has succeeded.
    fn extend(&mut self, sent: BootTime) -> Option<ClaimOver> {
        let context = &self.context;
        let (end, now) = (sent.after(context.times.claim), context.clock.now());
        let first = self.renewed.is_none();
        let renewed = self.renewed.map_or(sent, |latest| latest.max(sent));
        // Past T − m whatever still runs is killed.
        let guarded = context.callbacks.deadline(Some(renewed.after(context.times.fence)));
        if first {
            self.claim = Claim::until(end);
        }
        if (first && !guarded) || !self.claim.extend(end, now) {
            return Some(ClaimOver::Lapsed);
        }
        self.claim.renewed(sent);
        self.renewed = Some(renewed);
        let epoch = self.holder.epoch.0;
        tracing::debug!(epoch, at = now.0, until = end.0, "the claim is valid");
        None
    }
}
