//! A connection between two nodes that know each other.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::listener::Slot;

/// A connection to a peer, after the greeting: the protocol's own bytes.
///
/// Concrete rather than boxed, so that vectored writes reach the socket; plain TCP today, and TLS
/// will be another variant in here.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    /// Of an incoming connection: counted until it is dropped.
    slot: Option<Slot>,
}

impl Stream {
    pub(super) fn new(socket: TcpStream, slot: Option<Slot>) -> Self {
        Self { socket, slot }
    }

    #[cfg(test)]
    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Ties the connection to the runtime that calls this. A handler runs on the listener's runtime:
    /// whoever passes a connection on to another thread calls this there, so that the listener's
    /// thread does not wake it for every byte.
    ///
    /// # Errors
    ///
    /// When the socket cannot be registered: no file descriptors left.
    pub fn adopt(self) -> io::Result<Self> {
        let socket = TcpStream::from_std(self.socket.into_std()?)?;
        Ok(Self { socket, slot: self.slot })
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
