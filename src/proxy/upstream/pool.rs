//! The idle connections to one origin.

use std::cell::RefCell;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::round_trip::Connection;
use super::wire::Buffers;

/// Idle connections kept to one origin by one worker.
const MAX_IDLE: usize = 256;

/// Connections that wait for their next request, in the order of use.
pub(crate) struct Pool {
    idle: RefCell<Vec<Idle>>,
    keep: Duration,
}

struct Idle {
    connection: Connection,
    /// When a [sweep](Pool::sweep) first saw it here: the time is looked up for all at once.
    since: Option<Instant>,
}

impl Pool {
    /// An idle connection is kept for as long as `keep` says.
    pub(crate) fn new(keep: Duration) -> Self {
        Self { idle: RefCell::default(), keep }
    }

    /// The most recently used connection. It may have ended meanwhile.
    pub(crate) fn take(&self) -> Option<Connection> {
        self.idle.borrow_mut().pop().map(|idle| idle.connection)
    }

    /// Keeps a connection whose last response has come whole.
    pub(crate) fn give(&self, connection: Connection) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < MAX_IDLE && !self.keep.is_zero() {
            idle.push(Idle { connection, since: None });
        }
    }

    /// Closes those that have been idle for too long, and those that the origin has closed. To be
    /// called often: a connection may be kept longer than said by the time between two calls.
    pub(crate) fn sweep(&self, buffers: &Buffers) {
        let mut cx = Context::from_waker(Waker::noop());
        let now = Instant::now();
        self.idle.borrow_mut().retain_mut(|idle| {
            let since = *idle.since.get_or_insert(now);
            now.duration_since(since) < self.keep
                && idle.connection.poll_ended(buffers, &mut cx).is_pending()
        });
    }
}
