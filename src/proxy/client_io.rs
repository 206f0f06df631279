//! A client's socket as hyper sees it: tells the connection's [`Activity`] what passes, and puts our
//! own answer in the place of the bare one that hyper gives to a request it cannot read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;
use super::observed_io::ObservedIo;
use super::problem::{Problem, ProblemKind};

/// Wraps a client's socket.
pub(crate) struct ClientIo<T> {
    inner: ObservedIo<T, Arc<Activity>>,
    node: Arc<str>,
    /// Our answer, being written in the place of hyper's.
    refusal: Option<Bytes>,
}

impl<T> ClientIo<T> {
    /// `node` is named in answers.
    pub(crate) fn new(inner: T, activity: Arc<Activity>, node: Arc<str>) -> Self {
        Self { inner: ObservedIo { socket: inner, clock: activity }, node, refusal: None }
    }

    pub(crate) fn into_inner(self) -> T {
        self.inner.socket
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
            _ => Problem::new(ProblemKind::BadRequest, "this is not valid HTTP/1.1 (RFC 9112)"),
        };
        self.refusal = Some(problem.raw(&self.node));
        true
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
        Pin::new(&mut self.inner).poll_read(cx, buf)
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
        if bufs.first().is_some_and(|first| self.replaces(first)) {
            return Poll::Ready(Ok(bufs.iter().map(|b| b.len()).sum()));
        }
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
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
