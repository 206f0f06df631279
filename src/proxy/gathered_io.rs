//! Gathers what HTTP/2 writes. h2 flushes after each frame of a body; to a socket with TLS that is a record
//! and a system call for each, although several streams often have something to say at once.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The plaintext of a full record of TLS (RFC 8446, 5.1).
const RECORD: usize = 16 * 1024;

/// A socket for h2, which keeps what is written until there is a record of it, or until
/// [`poll_send`](Self::poll_send): whoever polls the connection has to call that afterwards.
pub(crate) struct GatheredIo<T>(Rc<RefCell<Gathered<T>>>);

struct Gathered<T> {
    socket: T,
    /// At most [`RECORD`].
    unsent: Vec<u8>,
}

impl<T> Clone for GatheredIo<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> GatheredIo<T> {
    pub(crate) fn new(socket: T) -> Self {
        Self(Rc::new(RefCell::new(Gathered { socket, unsent: Vec::new() })))
    }

    /// Sends all that was written.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = self.0.borrow_mut();
        ready!(gathered.poll_empty(cx))?;
        // An idle connection keeps no buffer.
        gathered.unsent = Vec::new();
        Pin::new(&mut gathered.socket).poll_flush(cx)
    }
}

impl<T: AsyncWrite + Unpin> Gathered<T> {
    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.unsent))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.drain(..sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for GatheredIo<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().socket).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for GatheredIo<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut gathered = self.0.borrow_mut();
        if gathered.unsent.len() == RECORD {
            ready!(gathered.poll_empty(cx))?;
        }
        if gathered.unsent.capacity() == 0 {
            gathered.unsent.reserve_exact(RECORD);
        }
        let taken = buf.len().min(RECORD - gathered.unsent.len());
        gathered.unsent.extend_from_slice(&buf[..taken]);
        Poll::Ready(Ok(taken))
    }

    /// What h2 has written leaves with what it writes next.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = self.0.borrow_mut();
        ready!(gathered.poll_empty(cx))?;
        Pin::new(&mut gathered.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|number| u8::try_from(number % 251).unwrap()).collect()
    }

    #[tokio::test]
    async fn what_is_written_arrives_in_order_whatever_the_socket_takes_at_once() {
        let (socket, mut client) = duplex(100);
        let mut io = GatheredIo::new(socket);
        let sent = bytes(3 * RECORD + 17);
        let sending = async {
            for piece in sent.chunks(777) {
                io.write_all(piece).await.unwrap();
                io.flush().await.unwrap();
            }
            poll_fn(|cx| io.poll_send(cx)).await.unwrap();
        };
        let mut received = vec![0; sent.len()];
        let (_, read) = tokio::join!(sending, client.read_exact(&mut received));
        read.unwrap();
        assert!(received == sent);
    }

    #[tokio::test]
    async fn what_waits_is_sent_before_the_end() {
        let (socket, mut client) = duplex(100);
        let mut io = GatheredIo::new(socket);
        let sent = bytes(1000);
        io.write_all(&sent).await.unwrap();
        let mut received = Vec::new();
        let (ended, read) = tokio::join!(io.shutdown(), client.read_to_end(&mut received));
        ended.unwrap();
        read.unwrap();
        assert!(received == sent);
    }

    #[tokio::test]
    async fn a_client_that_has_left_is_told() {
        let (socket, client) = duplex(100);
        let mut io = GatheredIo::new(socket);
        drop(client);
        io.write_all(&bytes(10)).await.unwrap();
        let sent = poll_fn(|cx| io.poll_send(cx)).await;
        assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
