//! Keeps a claim: renews the lease for as long as that succeeds.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::common::Common;
use super::lessor::Lessor;
use super::rpc::{Answer, CallError, Request};
use super::table::Holder;
use crate::claim::{BootTime, Claim};

/// Renewals that may be on their way at once.
const ATTEMPTS: usize = 8;

/// Why a claim is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// The lease is somebody else's, or vacant.
    Gone,
    /// No renewal succeeded in time.
    Lapsed,
}

pub(crate) struct KeepAlive {
    common: Arc<Common>,
    lessor: Arc<Lessor>,
    holder: Holder,
    claim: Claim,
    /// Each gives the time at which it was sent.
    attempts: JoinSet<(BootTime, Result<Answer, CallError>)>,
    last_sent: Option<BootTime>,
    /// Of those that have succeeded, the one sent last.
    renewed: Option<BootTime>,
}

impl KeepAlive {
    /// For a lease that was just granted. There is no claim before the first renewal has succeeded.
    pub(crate) fn new(common: Arc<Common>, lessor: Arc<Lessor>, holder: Holder) -> Self {
        let (claim, attempts) = (Claim::none(), JoinSet::new());
        Self { common, lessor, holder, claim, attempts, last_sent: None, renewed: None }
    }

    /// Waits for the first renewal.
    ///
    /// # Errors
    ///
    /// When there will be none.
    pub(crate) async fn begin(&mut self) -> Result<Claim, Over> {
        // Whoever grants gives a full ttl from then on.
        let give_up = self.common.clock.now().after(self.common.times.ttl);
        while self.renewed.is_none() {
            if let Some(over) = self.step(give_up).await {
                return Err(over);
            }
        }
        Ok(self.claim.clone())
    }

    /// Renews until the claim is over. May be dropped and called again.
    pub(crate) async fn keep(&mut self) -> Over {
        loop {
            let end = self.claim.deadline().unwrap_or(BootTime(u64::MAX));
            if let Some(over) = self.step(end).await {
                self.claim.end();
                return over;
            }
        }
    }

    /// Sends a renewal when it is time, takes one answer; says if it is over. It is at `end`.
    async fn step(&mut self, end: BootTime) -> Option<Over> {
        let common = self.common.clone();
        let now = common.clock.now();
        if now >= end {
            return Some(Over::Lapsed);
        }
        let due = self.due();
        if now >= due && self.attempts.len() < ATTEMPTS {
            self.send(now);
        }
        let next = if now >= due { now.after(common.times.renew / 2) } else { due };
        tokio::select! {
            biased;
            Some(Ok((sent, answer))) = self.attempts.join_next() => self.take(sent, answer).await,
            () = common.clock.sleep(next.min(end).since(now)) => None,
        }
    }

    /// A fifth of the ttl after the last one that succeeded; sooner while none does: it may have been
    /// sent to a leader that is no more, which nobody tells us.
    fn due(&self) -> BootTime {
        let renew = self.common.times.renew;
        match (self.renewed, self.last_sent) {
            (Some(renewed), Some(sent)) if sent <= renewed => renewed.after(renew),
            (_, Some(sent)) => sent.after(renew / 4),
            (_, None) => BootTime(0),
        }
    }

    fn send(&mut self, now: BootTime) {
        self.last_sent = Some(now);
        let (common, lessor) = (self.common.clone(), self.lessor.clone());
        let (epoch, session) = (self.holder.epoch, self.holder.session.clone());
        self.attempts.spawn(async move {
            let request = Request::Renew { epoch, session };
            (now, common.ask_leader(&lessor, request, common.times.claim).await)
        });
    }

    async fn take(&mut self, sent: BootTime, answer: Result<Answer, CallError>) -> Option<Over> {
        let common = &self.common;
        match answer {
            Ok(Answer::Renewed) => {
                let (end, now) = (sent.after(common.times.claim), common.clock.now());
                let first = self.renewed.is_none();
                // Past T − m whatever still runs is killed.
                let renewed = self.renewed.max(Some(sent));
                let guarded =
                    common.ground.deadline(renewed.map(|at| at.after(common.times.fence)));
                if first {
                    self.claim = Claim::until(end);
                }
                if (first && !guarded) || !self.claim.extend(end, now) {
                    return Some(Over::Lapsed);
                }
                self.claim.renewed(sent);
                self.renewed = renewed;
                let epoch = self.holder.epoch.0;
                tracing::debug!(epoch, at = now.0, until = end.0, "the claim is valid");
                None
            }
            Ok(Answer::LeaseLost) => Some(Over::Gone),
            // Nobody leads, or the one that did is gone.
            Ok(_) | Err(_) => {
                common.clock.sleep(Duration::from_millis(5)).await;
                None
            }
        }
    }
}
