//! A client's socket that reports its traffic to the connection's clock.

use std::io;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a connection's limits are reckoned by.
pub(crate) trait Clock {
    fn received(&self);

    /// The client took what was written, or (`false`) could not.
    fn wrote(&self, taken: bool);

    /// All that was written has left, or (`false`) waits: TLS keeps back what the socket does not take.
    fn flushed(&self, all: bool);
}

/// A socket, and the clock that it reports to.
pub(crate) struct ObservedIo<T, C> {
    /// What goes through it directly is not reported.
    pub(crate) socket: T,
    pub(crate) clock: C,
}

impl<T, C> AsyncRead for ObservedIo<T, C>
where
    T: AsyncRead + Unpin,
    C: Deref<Target: Clock> + Unpin,
{
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.clock.received();
        }
        read
    }
}

impl<T, C> AsyncWrite for ObservedIo<T, C>
where
    T: AsyncWrite + Unpin,
    C: Deref<Target: Clock> + Unpin,
{
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.clock.wrote(written.is_ready());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.clock.wrote(written.is_ready());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        self.clock.flushed(flushed.is_ready());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
