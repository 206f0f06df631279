//! What a client connection is doing, and until when it may: one small clock per connection, read by
//! its watchdog, written by its socket and by the requests on it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::observed_io::Clock;
use super::request_line::Announced;

const UNKNOWN: u64 = u64::MAX;
/// In the place of a body's length.
const CHUNKED: u64 = u64::MAX - 1;
/// A client that has ended its side may have gone. One that is there takes a stream for as long as the
/// stream is not quiet for longer than this.
const QUIET_WITHOUT_CLIENT: Duration = Duration::from_secs(5);
/// A client that comes back sooner finds its connection's buffers as it left them. Short: what a wave of new
/// clients has taken by then, the allocator keeps.
const REST_AFTER: Duration = Duration::from_millis(250);

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    Idle,
    /// A request's head is coming in.
    Head,
    /// A request is being served.
    Busy,
}

/// The limits that apply to a client connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionLimits {
    /// For a request's head.
    pub(crate) head: Duration,
    pub(crate) idle: Duration,
    /// For a client to take a piece of a response.
    pub(crate) piece: Duration,
}

/// Shared between a connection's socket, its watchdog and its requests, all on one thread; atomic
/// only because hyper wants a socket that can be upgraded to be `Send`.
#[derive(Debug)]
pub(crate) struct Activity {
    start: Instant,
    limits: ConnectionLimits,
    phase: AtomicU8,
    /// Milliseconds after `start` at which the phase began; [`UNKNOWN`]: just now, and nobody has asked.
    since: AtomicU64,
    /// Milliseconds after `start` since which the client has taken nothing; [`UNKNOWN`]: it takes.
    stalled: AtomicU64,
    /// Everything that was answered has left: what is written next begins a message.
    flushed: AtomicBool,
    /// Handed over to a tunnel, which has its own rules.
    tunnel: AtomicBool,
    /// The length of the body of the request that came last, if nobody has asked for it yet.
    announced: AtomicU64,
    /// Not all of a request's body has come.
    body_open: AtomicBool,
    /// A request's body was not read to its end, or a request was refused before.
    unread: AtomicBool,
    /// Something of the response has been written.
    begun: AtomicBool,
    /// Milliseconds after `start` at which the client had ended its side, or took something last since
    /// then; [`UNKNOWN`]: it has not.
    ended: AtomicU64,
}

impl Activity {
    pub(crate) fn new(limits: ConnectionLimits) -> Self {
        Self {
            start: Instant::now(),
            limits,
            // A connection that never says anything is as slow as one that speaks slowly.
            phase: AtomicU8::new(Phase::Head as u8),
            since: AtomicU64::new(0),
            stalled: AtomicU64::new(UNKNOWN),
            flushed: AtomicBool::new(true),
            tunnel: AtomicBool::new(false),
            announced: AtomicU64::new(UNKNOWN),
            body_open: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            begun: AtomicBool::new(false),
            ended: AtomicU64::new(UNKNOWN),
        }
    }

    /// What the connection is doing.
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            _ => Phase::Busy,
        }
    }

    /// A request has come, with a body of that length; `None`: in chunks.
    pub(crate) fn busy(&self, body: Option<u64>) {
        self.announced.store(body.unwrap_or(CHUNKED).min(CHUNKED), Relaxed);
        self.body_open.store(body != Some(0), Relaxed);
        self.begun.store(false, Relaxed);
        self.flushed.store(false, Relaxed);
        self.phase.store(Phase::Busy as u8, Relaxed);
    }

    /// The body that the last request announced. It says so once.
    pub(crate) fn take_announced(&self) -> Announced {
        match self.announced.swap(UNKNOWN, Relaxed) {
            UNKNOWN => Announced::Nothing,
            CHUNKED => Announced::Chunked,
            length => Announced::Length(length),
        }
    }

    /// The request's body has come whole.
    pub(crate) fn body_came(&self) {
        self.body_open.store(false, Relaxed);
        // What has been written until now was the word to go ahead.
        self.begun.store(false, Relaxed);
    }

    /// Not all of the request's body has come.
    pub(crate) fn is_body_open(&self) -> bool {
        self.body_open.load(Relaxed)
    }

    /// Nobody reads what the client still sends.
    pub(crate) fn give_up_reading(&self) {
        self.unread.store(true, Relaxed);
    }

    /// The client may still be sending what nobody reads.
    pub(crate) fn has_unread(&self) -> bool {
        self.unread.load(Relaxed)
    }

    /// The client has ended its side while it waits for a response that it may still take.
    pub(crate) fn end_of_client(&self) {
        if !self.has_ended() {
            self.ended.store(self.millis(Instant::now()), Relaxed);
        }
    }

    /// The client sends nothing any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Relaxed) != UNKNOWN
    }

    /// A response has ended.
    pub(crate) fn idle(&self, now: Instant) {
        self.since.store(self.millis(now), Relaxed);
        self.phase.store(Phase::Idle as u8, Relaxed);
    }

    /// The connection carries no HTTP any more.
    pub(crate) fn tunnel(&self) {
        self.tunnel.store(true, Relaxed);
    }

    pub(crate) fn is_tunnel(&self) -> bool {
        self.tunnel.load(Relaxed)
    }

    /// What is written now is no answer to a request: hyper refuses one that it could not read.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.flushed.load(Relaxed) && self.phase() != Phase::Busy
    }

    /// When the connection is to be closed if nothing changes. `draining_since`: we are stopping,
    /// and idle connections get only a short while in which a request may still come.
    pub(crate) fn deadline(&self, draining_since: Option<Instant>) -> Option<Instant> {
        const LINGER: Duration = Duration::from_secs(1);
        if self.tunnel.load(Relaxed) {
            return None;
        }
        let stalled = self.stalled.load(Relaxed);
        if stalled != UNKNOWN {
            return Some(self.at(stalled) + self.limits.piece);
        }
        match self.phase() {
            Phase::Busy if self.has_ended() && self.begun.load(Relaxed) => {
                Some(self.at(self.ended.load(Relaxed)) + QUIET_WITHOUT_CLIENT)
            }
            Phase::Busy => None,
            Phase::Head => Some(self.since() + self.limits.head),
            Phase::Idle => Some(match draining_since {
                Some(drain) => self.since().max(drain) + self.limits.idle.min(LINGER),
                None => self.since() + self.limits.idle,
            }),
        }
    }

    /// When a connection may give its buffers back if nothing changes: everything asked was answered,
    /// and nothing has come since.
    pub(crate) fn rest(&self) -> Option<Instant> {
        let rests = self.phase() == Phase::Idle
            && self.is_between_messages()
            && !self.is_tunnel()
            && !self.has_unread()
            && !self.has_ended()
            && self.stalled.load(Relaxed) == UNKNOWN;
        rests.then(|| self.since() + REST_AFTER)
    }

    fn since(&self) -> Instant {
        if self.since.load(Relaxed) == UNKNOWN {
            self.since.store(self.millis(Instant::now()), Relaxed);
        }
        self.at(self.since.load(Relaxed))
    }

    fn millis(&self, at: Instant) -> u64 {
        let passed = at.saturating_duration_since(self.start).as_millis();
        u64::try_from(passed).unwrap_or(UNKNOWN - 1)
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }
}

impl Clock for Activity {
    /// When, is only looked up if the head does not come at once.
    fn received(&self) {
        if self.phase() == Phase::Idle {
            self.since.store(UNKNOWN, Relaxed);
            self.phase.store(Phase::Head as u8, Relaxed);
        }
    }

    fn wrote(&self, taken: bool) {
        if taken {
            self.stalled.store(UNKNOWN, Relaxed);
            self.begun.store(true, Relaxed);
            if self.has_ended() {
                self.ended.store(self.millis(Instant::now()), Relaxed);
            }
        } else if self.stalled.load(Relaxed) == UNKNOWN {
            self.stalled.store(self.millis(Instant::now()), Relaxed);
        }
    }

    fn flushed(&self, all: bool) {
        if all {
            self.stalled.store(UNKNOWN, Relaxed);
        } else {
            self.wrote(false);
        }
        if all && self.phase() != Phase::Busy {
            self.flushed.store(true, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(120),
        piece: Duration::from_secs(30),
    };

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_limit() {
        let activity = Activity::new(LIMITS);
        let start = Instant::now();
        assert_eq!(activity.deadline(None), Some(start + LIMITS.head), "a silent client");
        activity.busy(Some(0));
        assert_eq!(activity.deadline(None), None, "the application's time has other limits");
        tokio::time::advance(Duration::from_secs(50)).await;
        activity.idle(Instant::now());
        assert_eq!(activity.deadline(None), Some(Instant::now() + LIMITS.idle));
        tokio::time::advance(Duration::from_secs(5)).await;
        activity.received();
        assert_eq!(activity.deadline(None), Some(Instant::now() + LIMITS.head));
        tokio::time::advance(Duration::from_secs(5)).await;
        activity.received();
        assert_eq!(
            activity.deadline(None),
            Some(Instant::now() + Duration::from_secs(5)),
            "a byte now and then does not extend it"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_not_waited_for_forever() {
        let activity = Activity::new(LIMITS);
        activity.busy(Some(0));
        activity.wrote(false);
        let stalled = Instant::now();
        tokio::time::advance(Duration::from_secs(5)).await;
        activity.wrote(false);
        assert_eq!(activity.deadline(None), Some(stalled + LIMITS.piece));
        activity.wrote(true);
        assert_eq!(activity.deadline(None), None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_ended_its_side_gets_an_answer_and_no_quiet_stream() {
        let activity = Activity::new(LIMITS);
        activity.busy(Some(0));
        activity.end_of_client();
        tokio::time::advance(Duration::from_secs(50)).await;
        assert_eq!(activity.deadline(None), None, "the application may take its time");
        activity.wrote(true);
        let deadline = activity.deadline(None);
        assert_eq!(deadline, Some(Instant::now() + QUIET_WITHOUT_CLIENT));
        tokio::time::advance(Duration::from_secs(3)).await;
        activity.flushed(true);
        assert_eq!(activity.deadline(None), deadline, "nothing was written");
        activity.wrote(true);
        assert_eq!(activity.deadline(None), Some(Instant::now() + QUIET_WITHOUT_CLIENT));
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_client_that_was_answered_and_asks_nothing_lets_its_connection_rest() {
        let activity = Activity::new(LIMITS);
        assert_eq!(activity.rest(), None, "its first request is due");
        activity.busy(Some(0));
        assert_eq!(activity.rest(), None);
        activity.wrote(true);
        activity.idle(Instant::now());
        assert_eq!(activity.rest(), None, "the answer has not left");
        activity.flushed(true);
        assert_eq!(activity.rest(), Some(Instant::now() + REST_AFTER));
        activity.received();
        assert_eq!(activity.rest(), None, "a request begins");
    }

    #[tokio::test(start_paused = true)]
    async fn while_stopping_idle_connections_linger_shortly() {
        let activity = Activity::new(LIMITS);
        activity.busy(Some(0));
        activity.idle(Instant::now());
        tokio::time::advance(Duration::from_secs(60)).await;
        let drain = Instant::now();
        assert_eq!(activity.deadline(Some(drain)), Some(drain + Duration::from_secs(1)));
    }
}
