//! A timer for deadlines that nearly always move on before they pass.
//!
//! Setting and cancelling a timer for each request costs more than all other timekeeping. So a timer
//! stays where it was set, and only when it fires is the deadline compared.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// Fires at a deadline that may be another one at each poll.
#[derive(Default)]
pub(crate) struct LazyTimer(Option<Pin<Box<Sleep>>>);

impl LazyTimer {
    /// Ready once `deadline` has passed.
    pub(crate) fn poll_passed(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn fires_at_the_latest_deadline_asked_for() {
        let mut timer = LazyTimer::default();
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        for deadline in [at(5), at(9), at(7), at(8)] {
            let polled = poll_fn(|cx| Poll::Ready(timer.poll_passed(deadline, cx))).await;
            assert!(polled.is_pending());
        }
        poll_fn(|cx| timer.poll_passed(at(8), cx)).await;
        assert_eq!(Instant::now(), at(8));
        poll_fn(|cx| timer.poll_passed(at(20), cx)).await;
        assert_eq!(Instant::now(), at(20));
    }
}
