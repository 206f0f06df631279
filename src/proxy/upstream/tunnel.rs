//! A connection after it has switched to another protocol: bytes both ways.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::wire::Wire;

/// A connection that carries another protocol now.
pub(crate) struct Tunnel {
    wire: Wire,
    /// What came right after the head.
    came: Bytes,
}

impl Tunnel {
    /// `came` is read before anything else.
    pub(crate) fn new(wire: Wire, came: Bytes) -> Self {
        Self { wire, came }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.came.is_empty() {
            let n = self.came.len().min(buf.remaining());
            buf.put_slice(&self.came[..n]);
            self.came.advance(n);
            return Poll::Ready(Ok(()));
        }
        let n = ready!(self.wire.poll_read(cx, buf.initialize_unfilled()))?;
        buf.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.wire.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_shutdown(cx)
    }
}
