//! A connection between two nodes that know each other.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::listener::Slot;

/// A connection to a peer, after the greeting: the protocol's own bytes, whether over TLS or not.
///
/// Whoever has written all there is for now must flush: TLS keeps back what the socket does not take
/// at once, and nothing else sends it on, not even a read.
///
/// Concrete rather than boxed, so that vectored writes reach the socket.
#[derive(Debug)]
pub struct Stream {
    wire: Wire,
    /// Of an incoming connection: counted until it is dropped.
    _slot: Option<Slot>,
}

#[derive(Debug)]
enum Wire {
    Plain(TcpStream),
    /// Boxed: a session takes more than a thousand bytes.
    Secured(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub(super) fn plain(socket: TcpStream) -> Self {
        Self { wire: Wire::Plain(socket), _slot: None }
    }

    pub(super) fn secured(stream: TlsStream<TcpStream>) -> Self {
        Self { wire: Wire::Secured(Box::new(stream)), _slot: None }
    }

    /// Counts it with the slot.
    pub(super) fn counted(self, slot: Slot) -> Self {
        Self { _slot: Some(slot), ..self }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        match &self.wire {
            Wire::Plain(socket) => socket,
            Wire::Secured(stream) => stream.get_ref().0,
        }
    }

    /// Ties the connection to the runtime that calls this. A handler runs on the listener's runtime:
    /// whoever passes a connection on to another thread calls this there, so that the listener's
    /// thread does not wake it for every byte.
    ///
    /// # Errors
    ///
    /// When the socket cannot be registered: no file descriptors left.
    pub(crate) fn adopt(mut self) -> io::Result<Self> {
        match &mut self.wire {
            Wire::Plain(socket) => adopt(socket)?,
            Wire::Secured(stream) => adopt(stream.get_mut().0)?,
        }
        Ok(self)
    }
}

/// Puts in its place the same socket, registered with this runtime. A session of TLS is tied to its
/// socket, so it is exchanged within.
fn adopt(socket: &mut TcpStream) -> io::Result<()> {
    let same = std::net::TcpStream::from(socket.as_fd().try_clone_to_owned()?);
    *socket = TcpStream::from_std(same)?;
    Ok(())
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Wire::Secured(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.wire {
            Wire::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Wire::Secured(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.wire {
            Wire::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Wire::Secured(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.wire {
            Wire::Plain(socket) => socket.is_write_vectored(),
            Wire::Secured(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Wire::Secured(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Wire::Secured(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
