//! What travels between the primary's engine and a replica's: JSON in frames with a length. An update is
//! followed by its pages, a frame each: the number (4 bytes, big-endian) and the bytes.
//!
//! The replica says what it has, the primary which history it continues. From then on the primary speaks,
//! and the replica answers each [`Message::Level`] and each update with [`Message::Applied`]; while it
//! works on one it says [`Message::Alive`]. So each side hears from the other all the time, and a dead
//! connection is noticed. [`crate::peer::EMBEDDED`] has the version: other versions are not connected.

use std::io;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::image::{MAX_SIZE, Update};
use super::lineage::Lineage;
use crate::txid::Position;

/// A side that has nothing to say says so this often.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(250);
/// A side that says nothing for this long is gone.
pub(crate) const SILENCE: Duration = Duration::from_secs(3);
/// A page has up to 64 KiB, a history less. In bytes.
const MAX_FRAME: usize = 80 * 1024;
const PAGE_SIZES: std::ops::RangeInclusive<u32> = 512..=65_536;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// The replica's first: what its copy holds.
    Hello(Position),
    /// The primary's first.
    Lineage(Lineage),
    /// The primary is here now; if that is the replica's checksum, then so is the replica.
    Level(Position),
    Update(Update),
    /// The replica's copy holds this.
    Applied(Position),
    Alive,
    /// The primary will not ship, and why.
    Refused(String),
}

pub(crate) struct Wire<S>(Framed<S, LengthDelimitedCodec>);

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(crate) fn new(stream: S) -> Self {
        let mut codec = LengthDelimitedCodec::new();
        codec.set_max_frame_length(MAX_FRAME);
        Self(Framed::new(stream, codec))
    }

    /// The next message; an update with its pages.
    ///
    /// # Errors
    ///
    /// `TimedOut` after [`SILENCE`], `UnexpectedEof` when the other side has closed, `InvalidData`
    /// when it sends what is not of this protocol.
    pub(crate) async fn receive(&mut self) -> io::Result<Message> {
        let mut message = serde_json::from_slice(&self.frame().await?)
            .map_err(|why| bad(&format!("no message: {why}")))?;
        if let Message::Update(update) = &mut message {
            self.receive_pages(update).await?;
        }
        Ok(message)
    }

    async fn receive_pages(&mut self, update: &mut Update) -> io::Result<()> {
        let Update { page_size, count, changed, .. } = *update;
        let size = u64::from(page_size) * u64::from(count);
        let possible = page_size.is_power_of_two() && PAGE_SIZES.contains(&page_size);
        if !possible || size > MAX_SIZE || changed > count {
            return Err(bad("an update of impossible size"));
        }
        for _ in 0..changed {
            let mut page = self.frame().await?;
            if page.len() != 4 + page_size as usize {
                return Err(bad("a part of a page"));
            }
            update.pages.push((page.get_u32(), page[..].into()));
        }
        Ok(())
    }

    async fn frame(&mut self) -> io::Result<BytesMut> {
        let closed = || io::Error::new(io::ErrorKind::UnexpectedEof, "the other node closed");
        in_time(async { self.0.next().await.ok_or_else(closed)? }).await
    }

    /// Sends a message; an update with its pages.
    ///
    /// # Errors
    ///
    /// `TimedOut` when the other side takes nothing for [`SILENCE`].
    pub(crate) async fn send(&mut self, message: &Message) -> io::Result<()> {
        in_time(self.0.feed(Bytes::from(serde_json::to_vec(message)?))).await?;
        if let Message::Update(update) = message {
            for (number, bytes) in &update.pages {
                let mut page = BytesMut::with_capacity(4 + bytes.len());
                page.put_u32(*number);
                page.put_slice(bytes);
                in_time(self.0.feed(page.freeze())).await?;
            }
        }
        in_time(SinkExt::<Bytes>::flush(&mut self.0)).await
    }
}

async fn in_time<T>(done: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "the other node is silent");
    timeout(SILENCE, done).await.map_err(silent)?
}

/// What the other side sent is not this protocol.
pub(crate) fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the other node sent {what}"))
}

#[cfg(test)]
mod tests;
