//! A client's socket as hyper sees it: tells the connection's [`Activity`] what passes, puts our own
//! answer in the place of the bare one that hyper gives to a request it cannot read, brings odd targets
//! into the form that hyper takes, and hides from hyper that a client has ended its side of the
//! connection for as long as an answer is due to it.

use std::borrow::Cow;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::{Activity, Phase};
use super::observed_io::{Clock, ObservedIo};
use super::problem::{Problem, ProblemKind};
use super::request_line::{Passed, RequestLines};

/// Up to this a response is put together for one plain write, which costs less than a gathering one; beyond it
/// the copy would.
const SMALL: usize = 8 * 1024;

/// Wraps a client's socket.
pub(crate) struct ClientIo<T> {
    inner: ObservedIo<T, Arc<Activity>>,
    node: Arc<str>,
    lines: RequestLines,
    /// What is ready for the reader, and had no room there.
    ready: Bytes,
    /// What came behind that, and waits until the reader asks for it.
    waiting: Bytes,
    /// The other side may end its own and still wait for an answer: a client, for a peer that closes has
    /// no use for one.
    half_close: bool,
    /// Our answer, being written in the place of hyper's.
    refusal: Option<Bytes>,
}

impl<T> ClientIo<T> {
    /// `node` is named in answers.
    pub(crate) fn new(inner: T, activity: Arc<Activity>, node: Arc<str>, half_close: bool) -> Self {
        let inner = ObservedIo { socket: inner, clock: activity };
        let (ready, waiting) = (Bytes::new(), Bytes::new());
        let lines = RequestLines::default();
        Self { inner, node, lines, ready, waiting, half_close, refusal: None }
    }

    pub(crate) fn into_inner(self) -> T {
        self.inner.socket
    }

    /// Has `bytes` read again, before anything else.
    pub(crate) fn put_back(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.ready = [bytes, &self.ready].concat().into();
        }
    }

    /// Takes note if `buf` is hyper's own refusal; then all of it counts as written.
    fn replaces(&mut self, buf: &[u8]) -> bool {
        if self.refusal.is_some() {
            return true;
        }
        if !self.inner.clock.is_between_messages() {
            return false;
        }
        let Some(status) = buf.strip_prefix(b"HTTP/1.1 ").and_then(|b| b.get(..3)) else {
            return false;
        };
        let problem = match status {
            b"431" | b"414" => Problem::new(
                ProblemKind::HeadersTooLarge,
                "the request head is larger than 64 KiB or has more than 100 fields",
            ),
            _ => Problem::new(ProblemKind::BadRequest, self.malformed()),
        };
        self.inner.clock.give_up_reading();
        self.refusal = Some(problem.raw(&self.node));
        true
    }

    fn malformed(&self) -> Cow<'static, str> {
        match self.lines.fault() {
            Some(b' ') => "the request's target holds a space: write %20 in its place".into(),
            Some(byte) => format!(
                "the request line holds the byte 0x{byte:02X}: write %{byte:02X} in its place"
            )
            .into(),
            None => "this is not valid HTTP/1.1 (RFC 9112)".into(),
        }
    }

    /// Keeps back of what was read what hyper should not see yet, and changes what it would not take.
    fn adapt(&mut self, before: usize, buf: &mut ReadBuf<'_>) {
        let came = &buf.filled()[before..];
        let clock = &self.inner.clock;
        let Passed { taken, plain } = self.lines.pass(came, || clock.take_announced());
        if taken < came.len() {
            self.waiting = Bytes::copy_from_slice(&came[taken..]);
        }
        match plain {
            None => buf.set_filled(before + taken),
            Some(plain) => {
                buf.set_filled(before);
                self.ready = plain.into();
                self.take_over(buf);
            }
        }
    }

    /// Gives the reader what it has left, or what waited.
    fn go_on(&mut self, buf: &mut ReadBuf<'_>) {
        if self.ready.is_empty() {
            let came = self.waiting.slice(..self.waiting.len().min(buf.remaining()));
            let clock = &self.inner.clock;
            clock.received();
            let Passed { taken, plain } = match clock.is_tunnel() {
                true => Passed { taken: came.len(), plain: None },
                false => self.lines.pass(&came, || clock.take_announced()),
            };
            self.waiting.advance(taken);
            self.ready = plain.map_or_else(|| came.slice(..taken), Bytes::from);
        }
        self.take_over(buf);
    }

    /// Whether the client, which sends nothing any more, has sent a whole request and not got the answer.
    fn is_answer_due(&mut self) -> bool {
        let clock = &self.inner.clock;
        if clock.has_ended() {
            return !clock.is_between_messages();
        }
        clock.phase() == Phase::Busy
            && !clock.is_tunnel()
            && self.lines.are_whole(|| clock.take_announced())
    }

    fn take_over(&mut self, buf: &mut ReadBuf<'_>) {
        let piece = self.ready.split_to(self.ready.len().min(buf.remaining()));
        buf.put_slice(&piece);
    }
}

impl<T: AsyncWrite + Unpin> ClientIo<T> {
    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(refusal) = self.refusal.as_mut().filter(|r| !r.is_empty()) {
            let n = ready!(Pin::new(&mut self.inner.socket).poll_write(cx, refusal))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            refusal.advance(n);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for ClientIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ready.is_empty() || !self.waiting.is_empty() {
            self.go_on(buf);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        if !self.inner.clock.has_ended() {
            ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        }
        if buf.filled().len() > before {
            if !self.inner.clock.is_tunnel() {
                self.adapt(before, buf);
            }
            return Poll::Ready(Ok(()));
        }
        // Whoever drives the connection asks again once the answer has left.
        if self.half_close && self.is_answer_due() {
            self.inner.clock.end_of_client();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for ClientIo<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.replaces(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if bufs.first().is_some_and(|first| self.replaces(first)) {
            return Poll::Ready(Ok(length));
        }
        if length > SMALL {
            return Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        }
        let mut whole = [0; SMALL];
        Pin::new(&mut self.inner).poll_write(cx, gather(bufs, &mut whole))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// All of `parts` in one; no more than there is room for.
fn gather<'a>(parts: &[io::IoSlice<'_>], whole: &'a mut [u8; SMALL]) -> &'a [u8] {
    let mut room = &mut whole[..];
    for part in parts {
        room.put_slice(&part[..part.len().min(room.len())]);
    }
    let left = room.len();
    &whole[..SMALL - left]
}
