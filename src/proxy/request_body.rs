//! A request's body on its way to an application. It streams with back-pressure: a piece is asked for
//! only when the application has taken the one before. Only what may have to be sent again is kept.

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
use tokio::time::Instant;

use super::client_body::ClientBody;
use super::piece_timer::PieceTimer;

/// Room that is made at once for a body that announces its length.
const RESERVED: usize = 64 * 1024;

/// How far the sending of a body has come, for whoever waits for the response.
#[derive(Debug)]
pub(crate) struct UploadProgress {
    last: Cell<Instant>,
    sent: Cell<bool>,
    starved: Cell<bool>,
    failed: Cell<Option<ReadError>>,
}

impl UploadProgress {
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
    progress: Rc<UploadProgress>,
}

struct Source {
    read: Option<Bytes>,
    rest: ClientBody,
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
        mut body: ClientBody,
        keep: usize,
        limit: Duration,
    ) -> Result<Self, ReadError> {
        if body.is_end_stream() {
            return Ok(Self::Empty);
        }
        let announced = body.size_hint();
        let mut read = BytesMut::new();
        let mut trailers = None;
        if announced.lower() <= keep as u64 {
            loop {
                let frame = tokio::time::timeout(limit, body.frame()).await;
                match frame.map_err(|_| ReadError::Timeout)? {
                    None => return Ok(Self::Whole(Some(read.freeze()), trailers)),
                    Some(frame) => match frame.map_err(|_| ReadError::Broken)?.into_data() {
                        Ok(data) => {
                            if read.is_empty() {
                                // Not before something comes: a client may announce much and send none.
                                read.reserve((announced.lower() as usize).min(RESERVED));
                            }
                            read.extend_from_slice(&data);
                        }
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
    pub(crate) fn untouched(body: ClientBody, limit: Duration) -> Self {
        Self::stream(Bytes::new(), body, limit)
    }

    fn stream(read: Bytes, rest: ClientBody, limit: Duration) -> Self {
        let progress = Rc::new(UploadProgress {
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
    pub(crate) fn progress(&self) -> Option<Rc<UploadProgress>> {
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
