//! A limit for each piece of a body: a slow body may take as long as it likes, a silent one may not.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::lazy_timer::LazyTimer;

/// Gives each wait for the next piece of a body a limit of its own.
pub(super) struct PieceTimer {
    limit: Duration,
    timer: LazyTimer,
    waiting_since: Option<Instant>,
}

impl PieceTimer {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, timer: LazyTimer::default(), waiting_since: None }
    }

    pub(super) fn arrived(&mut self) {
        self.waiting_since = None;
    }

    /// Ready once the present wait has lasted too long.
    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        self.timer.poll_passed(since + self.limit, cx)
    }
}
