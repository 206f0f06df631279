//! The streams of one HTTP/2 connection on the clock: how many are open, since when there is none, and
//! which client takes nothing of its response. What [`activity`](super::activity) is to HTTP/1.1.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::time::Instant;

use super::activity::ConnectionLimits;
use super::lazy_timer::LazyTimer;
use super::observed_io::Clock;

/// Bytes of a response that are handed over at once: as much as a client has to take within
/// `body_timeout`, and as much as waits in memory for it.
const PIECE: usize = 16 * 1024;
/// Streams that a client may give up, beyond those that it lets come to an answer. A browser gives up a
/// few; who gives up all of them makes applications work for nobody (CVE-2023-44487).
const MAX_GIVEN_UP: usize = 200;
/// How long a connection that was asked to end, and has no stream, may still have something to say.
const LINGER: std::time::Duration = std::time::Duration::from_secs(2);

tokio::task_local! {
    /// The stream whose task runs.
    static STREAM: Rc<Pace>;
}

/// The clock of a connection, shared by its socket, its watchdog and its streams.
pub(crate) struct Streams {
    limits: ConnectionLimits,
    open: Cell<usize>,
    /// No stream has been opened yet.
    fresh: Cell<bool>,
    /// Since when none is open.
    quiet: Cell<Instant>,
    /// When the socket last took or gave something.
    moved: Cell<Instant>,
    /// Since when the socket has taken nothing.
    stalled: Cell<Option<Instant>>,
    given_up: Cell<usize>,
    watchdog: RefCell<Option<Waker>>,
}

impl Streams {
    /// Of a new connection.
    pub(crate) fn new(limits: ConnectionLimits) -> Rc<Self> {
        let now = Instant::now();
        Rc::new(Self {
            limits,
            open: Cell::new(0),
            fresh: Cell::new(true),
            quiet: Cell::new(now),
            moved: Cell::new(now),
            stalled: Cell::new(None),
            given_up: Cell::new(0),
            watchdog: RefCell::new(None),
        })
    }

    /// Who is woken when the last stream ends.
    pub(crate) fn watched_by(&self, waker: Waker) {
        *self.watchdog.borrow_mut() = Some(waker);
    }

    /// The client gives up one stream after the other.
    pub(crate) fn is_abused(&self) -> bool {
        self.given_up.get() > MAX_GIVEN_UP
    }

    /// When the connection is to be asked to end; once that was done (`leaving`), when it is cut.
    /// `impatient`: since when idle connections get only a short while.
    pub(crate) fn deadline(
        &self,
        leaving: Option<Instant>,
        impatient: Option<Instant>,
    ) -> Option<Instant> {
        let ConnectionLimits { head, idle, piece } = self.limits;
        let stalled = self.stalled.get().map(|since| since + piece);
        let quiet = self.quiet.get();
        let without_streams = match leaving {
            _ if self.open.get() > 0 => None,
            // What the last streams have left may still be on its way.
            Some(since) => {
                let since = since.max(quiet);
                Some((since.max(self.moved.get()) + LINGER).min(since + piece))
            }
            None if self.fresh.get() => Some(quiet + head),
            None => Some(match impatient {
                Some(since) => quiet.max(since) + idle.min(LINGER),
                None => quiet + idle,
            }),
        };
        [stalled, without_streams].into_iter().flatten().min()
    }

    /// The socket takes nothing any more: asking the client to end would not reach it.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.get().is_some_and(|since| since + self.limits.piece <= Instant::now())
    }

    fn opened(&self) {
        self.fresh.set(false);
        self.open.set(self.open.get() + 1);
    }

    fn closed(&self, answered: bool) {
        let given_up = self.given_up.get();
        self.given_up.set(if answered { given_up.saturating_sub(1) } else { given_up + 1 });
        self.open.set(self.open.get() - 1);
        if self.open.get() == 0 || self.is_abused() {
            self.quiet.set(Instant::now());
            if let Some(watchdog) = &*self.watchdog.borrow() {
                watchdog.wake_by_ref();
            }
        }
    }
}

impl Clock for Streams {
    fn received(&self) {
        self.moved.set(Instant::now());
    }

    fn wrote(&self, taken: bool) {
        if taken {
            self.moved.set(Instant::now());
            self.stalled.set(None);
        } else if self.stalled.get().is_none() {
            self.stalled.set(Some(Instant::now()));
        }
    }

    /// No sign of life by itself: there may have been nothing to flush.
    fn flushed(&self, all: bool) {
        if all {
            self.stalled.set(None);
        } else {
            self.wrote(false);
        }
    }
}

/// Runs the streams of a connection as tasks of its worker's thread, each until its client has taken
/// nothing of the response for too long; then it is reset.
#[derive(Clone)]
pub(crate) struct Spawner(pub(crate) Rc<Streams>);

impl<F: Future<Output = ()> + 'static> Executor<F> for Spawner {
    fn execute(&self, stream: F) {
        let open = Open::new(self.0.clone());
        let limit = self.0.limits.piece;
        tokio::task::spawn_local(STREAM.scope(open.pace.clone(), async move {
            let mut stream = pin!(stream);
            let mut timer = LazyTimer::default();
            poll_fn(|cx| {
                if stream.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                match open.pace.waiting.get() {
                    Some(since) => timer.poll_passed(since + limit, cx),
                    None => Poll::Pending,
                }
            })
            .await;
        }));
    }
}

/// A stream's place among those of its connection.
struct Open {
    streams: Rc<Streams>,
    pace: Rc<Pace>,
}

impl Open {
    fn new(streams: Rc<Streams>) -> Self {
        streams.opened();
        Self { streams, pace: Rc::default() }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.streams.closed(self.pace.answered.get());
    }
}

/// How far the answer to a stream has come.
#[derive(Default)]
struct Pace {
    answered: Cell<bool>,
    /// Since when the client has to take what it was given.
    waiting: Cell<Option<Instant>>,
}

/// A response's body that tells the stream's clock when the next part of it is asked for.
pub(crate) struct Paced<B> {
    body: B,
    pace: Rc<Pace>,
    /// A piece of which not all was handed over.
    rest: Bytes,
    /// The request was HEAD: there is a head only.
    head_only: bool,
}

impl<B> Paced<B> {
    /// The answer to the stream whose task calls this.
    pub(crate) fn new(body: B, head_only: bool) -> Self {
        let pace = STREAM.try_with(Rc::clone).unwrap_or_default();
        pace.answered.set(true);
        pace.waiting.set(Some(Instant::now()));
        Self { body, pace, rest: Bytes::new(), head_only }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Paced<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.pace.waiting.set(None);
        let mut piece = std::mem::take(&mut self.rest);
        if piece.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => piece = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                ended => return Poll::Ready(ended),
            }
        }
        self.rest = piece.split_off(piece.len().min(PIECE));
        self.pace.waiting.set(Some(Instant::now()));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.head_only || self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        match self.body.size_hint().exact() {
            Some(more) => SizeHint::with_exact(more + rest),
            None => SizeHint::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LIMITS: ConnectionLimits = ConnectionLimits {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(120),
        piece: Duration::from_secs(30),
    };

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_streams_has_its_limits() {
        let streams = Streams::new(LIMITS);
        let start = Instant::now();
        assert_eq!(streams.deadline(None, None), Some(start + LIMITS.head), "a silent client");
        let (one, other) = (Open::new(streams.clone()), Open::new(streams.clone()));
        tokio::time::advance(Duration::from_secs(500)).await;
        assert_eq!(streams.deadline(None, None), None);
        drop(one);
        assert_eq!(streams.deadline(None, None), None, "the other is open");
        drop(other);
        let quiet = Instant::now();
        assert_eq!(streams.deadline(None, None), Some(quiet + LIMITS.idle));
        tokio::time::advance(Duration::from_secs(5)).await;
        streams.received();
        assert_eq!(streams.deadline(None, None), Some(quiet + LIMITS.idle), "a ping is no request");
        let full = Instant::now();
        assert_eq!(streams.deadline(None, Some(full)), Some(full + LINGER));
        assert_eq!(streams.deadline(Some(full), None), Some(full + LINGER));
        tokio::time::advance(Duration::from_secs(29)).await;
        streams.wrote(true);
        assert_eq!(streams.deadline(Some(full), None), Some(full + LIMITS.piece), "not forever");
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_takes_nothing_has_a_limit_whatever_is_open() {
        let streams = Streams::new(LIMITS);
        let _open = Open::new(streams.clone());
        streams.wrote(false);
        let since = Instant::now();
        tokio::time::advance(LIMITS.piece).await;
        streams.wrote(false);
        assert_eq!(streams.deadline(None, None), Some(since + LIMITS.piece));
        assert!(streams.is_stalled());
        streams.wrote(true);
        assert_eq!(streams.deadline(None, None), None);
    }

    #[test]
    fn giving_up_now_and_then_is_no_abuse() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _entered = runtime.enter();
        let streams = Streams::new(LIMITS);
        let end = |answered| Open::new(streams.clone()).pace.answered.set(answered);
        for _ in 0..10 * MAX_GIVEN_UP {
            end(false);
            end(true);
        }
        assert!(!streams.is_abused());
        (0..=MAX_GIVEN_UP).for_each(|_| end(false));
        assert!(streams.is_abused());
    }
}
