//! The body of a response as it comes, and with it the connection that it comes on: once the body
//! has come whole, the connection is kept for the next request.

use std::io;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::task::JoinHandle;

use super::Origin;
use super::chunked::{Chunks, Found};
use super::response::{Framing, Head};
use super::round_trip::Connection;
use super::tunnel::Tunnel;
use super::wire::READ;

/// An application that had so much ready at once has as much again: the next piece is read to where it stays,
/// with room for all that may come.
const FAST: usize = 64 * 1024;

/// The body of a response. Dropped before its end, it closes the connection.
pub(crate) struct Body(State);

enum State {
    /// All of it is here.
    Whole(Bytes),
    Coming(Box<Coming>),
    Switched(Tunnel),
}

struct Coming {
    origin: Rc<Origin>,
    connection: Connection,
    framing: Rest,
    /// What came and was not passed on yet.
    came: BytesMut,
    /// With the last read much came, or it is expected from the first one.
    fast: bool,
    keep: bool,
    upload: Option<Continuing>,
}

/// What is to come.
enum Rest {
    Length(u64),
    Chunks(Chunks),
    UntilClose,
}

/// A request that is still being sent while its response comes; ends when dropped.
pub(crate) struct Continuing(Option<JoinHandle<()>>);

impl Continuing {
    /// A task of this thread.
    pub(crate) fn new(task: JoinHandle<()>) -> Self {
        Self(Some(task))
    }

    /// Has it go on to its end by itself.
    fn promise(mut self) {
        self.0 = None;
    }
}

impl Drop for Continuing {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl Body {
    /// What follows a head on a connection; `upload`: the request is still being sent.
    pub(super) fn new(
        head: Head,
        connection: Connection,
        origin: &Rc<Origin>,
        upload: Option<Continuing>,
    ) -> Self {
        let Head { framing, keep, rest, .. } = head;
        let framing = match framing {
            Framing::Switched => {
                return Self(State::Switched(Tunnel::new(connection.wire, rest)));
            }
            Framing::Length(length) if length <= rest.len() as u64 => {
                // Beyond the end there must be nothing, or the next request would be answered by it.
                if keep && length == rest.len() as u64 {
                    origin.pool.give(connection);
                }
                if let Some(upload) = upload {
                    upload.promise();
                }
                return Self(State::Whole(rest.slice(..length as usize)));
            }
            Framing::Length(length) => Rest::Length(length),
            Framing::Chunked => Rest::Chunks(Chunks::default()),
            Framing::UntilClose => Rest::UntilClose,
        };
        let came = BytesMut::from(rest);
        let fast = matches!(framing, Rest::Length(length) if length >= READ as u64);
        let origin = origin.clone();
        let coming = Coming { origin, connection, framing, came, fast, keep, upload };
        Self(State::Coming(Box::new(coming)))
    }

    /// The connection itself, after it has switched to another protocol.
    pub(crate) fn into_tunnel(self) -> Option<Tunnel> {
        match self.0 {
            State::Switched(tunnel) => Some(tunnel),
            State::Whole(_) | State::Coming(_) => None,
        }
    }

    /// The end has come: the connection can be used again.
    fn finish(&mut self) {
        let State::Coming(coming) = mem::replace(&mut self.0, State::Whole(Bytes::new())) else {
            return;
        };
        if let Some(upload) = coming.upload {
            upload.promise();
        } else if coming.keep && coming.came.is_empty() {
            coming.origin.pool.give(coming.connection);
        }
    }
}

impl Coming {
    /// The next part of the body; `None`: its end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Frame<Bytes>>>> {
        loop {
            match &mut self.framing {
                Rest::Length(left) if !self.came.is_empty() => {
                    let here =
                        usize::try_from(*left).map_or(self.came.len(), |l| l.min(self.came.len()));
                    *left -= here as u64;
                    return Poll::Ready(Ok(Some(Frame::data(self.came.split_to(here).freeze()))));
                }
                Rest::UntilClose if !self.came.is_empty() => {
                    return Poll::Ready(Ok(Some(Frame::data(self.came.split().freeze()))));
                }
                Rest::Length(0) => return Poll::Ready(Ok(None)),
                Rest::Length(_) | Rest::UntilClose => {}
                Rest::Chunks(chunks) => match chunks.decode(&mut self.came)? {
                    Found::Data(data) => return Poll::Ready(Ok(Some(Frame::data(data)))),
                    Found::End(trailers) => return Poll::Ready(Ok(trailers.map(Frame::trailers))),
                    Found::Nothing => {}
                },
            }
            let n = ready!(self.poll_read(cx))?;
            self.fast = n >= FAST;
            if n == 0 {
                return Poll::Ready(match self.framing {
                    Rest::UntilClose => Ok(None),
                    _ => Err(io::ErrorKind::UnexpectedEof.into()),
                });
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let (came, wire) = (&mut self.came, &self.connection.wire);
        if self.fast && came.is_empty() {
            let room = match self.framing {
                Rest::Length(left) => usize::try_from(left).map_or(READ, |left| left.min(READ)),
                Rest::Chunks(_) | Rest::UntilClose => READ,
            };
            came.reserve(room);
            let read = wire.poll_read_into(cx, came);
            if read.is_pending() {
                // Nobody knows for how long.
                *came = BytesMut::new();
            }
            return read;
        }
        self.origin.buffers.poll_read(wire, cx, |data| {
            came.extend_from_slice(data);
            data.len()
        })
    }

    fn is_at_end(&self) -> bool {
        match &self.framing {
            Rest::Length(left) => *left == 0,
            Rest::Chunks(chunks) => chunks.is_at_end(),
            Rest::UntilClose => false,
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = match &mut self.0 {
            State::Whole(data) => Ok((!data.is_empty()).then(|| Frame::data(mem::take(data)))),
            State::Coming(coming) => ready!(coming.poll(cx)),
            State::Switched(_) => Ok(None),
        };
        let ended = match &self.0 {
            State::Coming(coming) => matches!(frame, Ok(None)) || coming.is_at_end(),
            State::Whole(_) | State::Switched(_) => false,
        };
        if ended {
            self.finish();
        }
        Poll::Ready(frame.transpose())
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            State::Whole(data) => data.is_empty(),
            State::Coming(_) => false,
            State::Switched(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            State::Whole(data) => SizeHint::with_exact(data.len() as u64),
            State::Coming(coming) => match coming.framing {
                Rest::Length(left) => SizeHint::with_exact(left),
                Rest::Chunks(_) | Rest::UntilClose => SizeHint::default(),
            },
            State::Switched(_) => SizeHint::with_exact(0),
        }
    }
}
