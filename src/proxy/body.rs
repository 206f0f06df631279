//! Bodies on their way through. Both directions stream with back-pressure: a piece is asked for only
//! when the other side has taken the one before. Only what may have to be sent again is kept.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::lazy_timer::LazyTimer;
use super::upstream;

/// Gives each wait for the next piece of a body a limit of its own.
struct PieceTimer {
    limit: Duration,
    alarm: LazyTimer,
    waiting_since: Option<Instant>,
}

impl PieceTimer {
    fn new(limit: Duration) -> Self {
        Self { limit, alarm: LazyTimer::default(), waiting_since: None }
    }

    fn arrived(&mut self) {
        self.waiting_since = None;
    }

    /// Ready once the present wait has lasted too long.
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        self.alarm.poll_passed(since + self.limit, cx)
    }
}

/// How far the sending of a request has come, for the one who waits for its response.
#[derive(Debug)]
pub(crate) struct Progress {
    last: Cell<Instant>,
    sent: Cell<bool>,
    starved: Cell<bool>,
    failed: Cell<Option<ReadError>>,
}

impl Progress {
    /// When the last piece went out.
    pub(crate) fn last(&self) -> Instant {
        self.last.get()
    }

    /// The whole request went out.
    pub(crate) fn sent(&self) -> bool {
        self.sent.get()
    }

    /// It is the client that keeps us waiting, not the application.
    pub(crate) fn starved(&self) -> bool {
        self.starved.get()
    }

    /// Why nothing more comes from the client, if so.
    pub(crate) fn failed(&self) -> Option<ReadError> {
        self.failed.get()
    }

    /// The request is being sent: what it waited for before does not count.
    pub(crate) fn begin(&self) {
        self.last.set(Instant::now());
    }

    fn piece(&self) {
        self.last.set(Instant::now());
        self.starved.set(false);
    }
}

/// A request's body on its way to an application.
pub(crate) enum Outgoing {
    Empty,
    /// All of it is here; it goes out with `Content-Length`, or chunked if there are trailers.
    Whole(Option<Bytes>, Option<HeaderMap>),
    /// It comes as it comes, after what was read already.
    Streamed(Streamed),
}

/// A body that is still coming from the client. Copies share it: whoever polls first has it.
pub(crate) struct Streamed {
    source: Rc<RefCell<Source>>,
    progress: Rc<Progress>,
}

struct Source {
    read: Option<Bytes>,
    rest: Incoming,
    timer: PieceTimer,
    touched: bool,
}

/// Why a client's body could not be read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ReadError {
    /// Nothing came for as long as allowed.
    Timeout,
    /// It was not valid, or the client went away.
    Broken,
}

impl Outgoing {
    /// Reads a body of up to `keep` bytes whole; a larger one is streamed. A body that says it is
    /// larger is not touched at all, so that no `100 Continue` is sent before it is wanted.
    pub(crate) async fn prepare(
        mut body: Incoming,
        keep: usize,
        limit: Duration,
    ) -> Result<Self, ReadError> {
        if body.is_end_stream() {
            return Ok(Self::Empty);
        }
        let mut read = BytesMut::new();
        let mut trailers = None;
        if body.size_hint().lower() <= keep as u64 {
            loop {
                let frame = tokio::time::timeout(limit, body.frame()).await;
                match frame.map_err(|_| ReadError::Timeout)? {
                    None => return Ok(Self::Whole(Some(read.freeze()), trailers)),
                    Some(frame) => match frame.map_err(|_| ReadError::Broken)?.into_data() {
                        Ok(data) => read.extend_from_slice(&data),
                        Err(frame) => trailers = frame.into_trailers().ok(),
                    },
                }
                if read.len() > keep {
                    break;
                }
            }
        }
        Ok(Self::stream(read.freeze(), body, limit))
    }

    /// Reads nothing of a body before it is sent on, whatever its size: whoever sends it waits for a
    /// `100 Continue`, and may send it elsewhere as long as there was none.
    pub(crate) fn untouched(body: Incoming, limit: Duration) -> Self {
        Self::stream(Bytes::new(), body, limit)
    }

    fn stream(read: Bytes, rest: Incoming, limit: Duration) -> Self {
        let progress = Rc::new(Progress {
            last: Cell::new(Instant::now()),
            sent: Cell::new(false),
            starved: Cell::new(false),
            failed: Cell::new(None),
        });
        let read = (!read.is_empty()).then_some(read);
        let source = Source { read, rest, timer: PieceTimer::new(limit), touched: false };
        let source = Rc::new(RefCell::new(source));
        Self::Streamed(Streamed { source, progress })
    }

    /// Whether all of it is still here, or still to come.
    pub(crate) fn is_intact(&self) -> bool {
        match self {
            Self::Empty | Self::Whole(..) => true,
            Self::Streamed(streamed) => !streamed.source.borrow().touched,
        }
    }

    /// The clock of a body that is still coming.
    pub(crate) fn progress(&self) -> Option<Rc<Progress>> {
        match self {
            Self::Streamed(streamed) => Some(streamed.progress.clone()),
            _ => None,
        }
    }

    /// The length to announce; `None`: chunked.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Whole(data, None) => Some(data.as_ref().map_or(0, |d| d.len() as u64)),
            Self::Whole(_, Some(_)) => None,
            Self::Streamed(streamed) => streamed.size_hint().exact(),
        }
    }
}

impl Streamed {
    /// The same body once more.
    pub(crate) fn share(&self) -> Self {
        Self { source: self.source.clone(), progress: self.progress.clone() }
    }

    fn size_hint(&self) -> SizeHint {
        let source = self.source.borrow();
        let read = source.read.as_ref().map_or(0, |r| r.len() as u64);
        match source.rest.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(rest + read),
            None => SizeHint::new(),
        }
    }

    /// The next part of it.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let progress = &self.progress;
        let source = &mut *self.source.borrow_mut();
        source.touched = true;
        if let Some(read) = source.read.take() {
            progress.piece();
            return Poll::Ready(Some(Ok(Frame::data(read))));
        }
        let Poll::Ready(frame) = Pin::new(&mut source.rest).poll_frame(cx) else {
            progress.starved.set(true);
            ready!(source.timer.poll_expired(cx));
            progress.failed.set(Some(ReadError::Timeout));
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        };
        source.timer.arrived();
        progress.piece();
        if frame.as_ref().is_some_and(Result::is_err) {
            progress.failed.set(Some(ReadError::Broken));
        }
        if frame.is_none() || source.rest.is_end_stream() {
            progress.sent.set(true);
        }
        Poll::Ready(frame.map(|f| f.map_err(io::Error::other)))
    }
}

/// A response's body on its way to the client. Whatever is attached to it lives until the body has
/// been passed on or the client has gone.
pub(crate) struct Answer<A> {
    content: Content,
    attached: Option<A>,
}

enum Content {
    Whole(Option<Bytes>),
    App {
        body: upstream::Body,
        timer: PieceTimer,
    },
    /// It broke off, and why.
    Broken(Option<io::Error>),
}

impl<A> Answer<A> {
    /// A body of ours.
    pub(crate) fn whole(data: Bytes, attached: A) -> Self {
        Self { content: Content::Whole(Some(data)), attached: Some(attached) }
    }

    pub(crate) fn app(body: upstream::Body, limit: Duration, attached: A) -> Self {
        let content = Content::App { body, timer: PieceTimer::new(limit) };
        let mut answer = Self { content, attached: Some(attached) };
        if answer.content.is_at_end() {
            answer.attached = None;
        }
        answer
    }
}

impl Content {
    fn is_at_end(&self) -> bool {
        match self {
            Self::Whole(data) => data.as_ref().is_none_or(Bytes::is_empty),
            Self::App { body, .. } => body.is_end_stream(),
            Self::Broken(why) => why.is_none(),
        }
    }
}

impl<A: Unpin> Body for Answer<A> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = match &mut self.content {
            Content::Whole(data) => {
                data.take().filter(|d| !d.is_empty()).map(|d| Ok(Frame::data(d)))
            }
            Content::App { body, timer } => {
                let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
                    ready!(timer.poll_expired(cx));
                    return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
                };
                timer.arrived();
                if let Some(Err(why)) = frame {
                    // hyper drops a connection whose body fails, with whatever it has not flushed:
                    // a client that never sees the head may take the request for one not sent, and
                    // send it again. Polled anew, it has flushed.
                    self.content = Content::Broken(Some(io::Error::other(why)));
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                frame.map(|f| f.map_err(io::Error::other))
            }
            Content::Broken(why) => why.take().map(Err),
        };
        let failed = frame.as_ref().is_some_and(Result::is_err);
        if !failed && (frame.is_none() || self.content.is_at_end()) {
            self.attached = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_at_end()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(data) => {
                SizeHint::with_exact(data.as_ref().map_or(0, |d| d.len() as u64))
            }
            Content::App { body, .. } => body.size_hint(),
            Content::Broken(_) => SizeHint::new(),
        }
    }
}
