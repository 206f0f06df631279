//! The socket below a connection, whatever its kind.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Read from a socket at once.
pub(super) const READ: usize = 256 * 1024;
/// A write buffer that has grown beyond this is not kept.
const KEPT_WRITE: usize = 64 * 1024;

/// What a connection can be made over.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Socket for T {}

/// A socket that the sending and the receiving half of a round trip share.
#[derive(Clone)]
pub(crate) struct Wire(Rc<RefCell<dyn Socket>>);

impl Wire {
    pub(crate) fn new(socket: impl Socket + 'static) -> Self {
        Self(Rc::new(RefCell::new(socket)))
    }

    /// Reads what is there into `buffer`; 0: the other side has ended.
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Reads what is there, to the end of `buffer`, whose room must not be 0; 0: the other side has ended.
    pub(crate) fn poll_read_into(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        // Such a future has no state of its own.
        pin!(self.0.borrow_mut().read_buf(buffer)).poll(cx)
    }

    /// Writes some of `data`; never 0 of something.
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, data))?;
        if written == 0 && !data.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        Poll::Ready(Ok(written))
    }

    /// Has everything written leave.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_flush(cx)
    }

    /// Says that nothing more will be written.
    pub(crate) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(cx)
    }
}

/// The buffers of one worker for one origin. A connection has none of its own: what it reads and
/// writes passes through at once in nearly all cases, and the same few pages stay in the cache.
pub(crate) struct Buffers {
    read: RefCell<Box<[u8]>>,
    write: Cell<Vec<u8>>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self { read: RefCell::new(vec![0; READ].into()), write: Cell::default() }
    }
}

impl Buffers {
    /// Reads what is there and hands it to `take`.
    pub(crate) fn poll_read<R>(
        &self,
        wire: &Wire,
        cx: &mut Context<'_>,
        take: impl FnOnce(&[u8]) -> R,
    ) -> Poll<io::Result<R>> {
        let buffer = &mut *self.read.borrow_mut();
        let n = ready!(wire.poll_read(cx, buffer))?;
        Poll::Ready(Ok(take(&buffer[..n])))
    }

    /// An empty buffer to write into.
    pub(crate) fn take_write(&self) -> Vec<u8> {
        self.write.take()
    }

    /// Gives such a buffer back.
    pub(crate) fn give_write(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= KEPT_WRITE {
            buffer.clear();
            self.write.set(buffer);
        }
    }
}
