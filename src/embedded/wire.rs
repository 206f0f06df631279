//! What travels between the primary's engine and a replica's: length-prefixed, checksummed frames.
//!
//! The replica says what it has, the primary in which reign. From then on the primary speaks and the replica answers each
//! [`Message::Level`] and each update with [`Message::Applied`]; while it works on one it says
//! [`Message::Alive`]. So each side hears from the other all the time, and a dead link is noticed.

use std::io;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::checksum::{Checksum, Position, crc64};
use super::tenure::{MAX_STARTS, Tenure};
use crate::cluster::{Epoch, EpochStart};
use crate::txid::{EpochTxid, Txid};

/// The version of this protocol.
pub(crate) const VERSION: u8 = 2;
/// At most this long is nothing said by a side that has nothing to say.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(250);
/// A side that says nothing for this long is gone.
pub(crate) const SILENCE: Duration = Duration::from_secs(3);
/// Pages are sent in frames of about this size, in bytes.
pub(crate) const CHUNK: usize = 256 * 1024;
/// No frame is larger, in bytes: a chunk, and one page of 64 KiB more.
const MAX_FRAME: usize = CHUNK + 128 * 1024;
/// Kind before, CRC behind what a message says.
const OVERHEAD: usize = 1 + 8;
const STAMP: usize = 24;
const START: usize = 8 + STAMP;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// The replica's first: the protocol it speaks and what it has.
    Hello {
        /// [`VERSION`].
        version: u8,
        /// What its copy holds.
        have: Position,
    },
    /// The primary's first: its reign, and where that began.
    Tenure(Tenure),
    /// The primary is here now; if that is the replica's checksum, then so is the replica.
    Level(Position),
    /// An update begins; as many pages follow in [`Message::Pages`].
    Update {
        /// What it applies to; `None` if it contains every page.
        base: Option<Checksum>,
        /// What the copy is afterwards.
        position: Position,
        page_size: u32,
        /// Pages of the database afterwards.
        count: u32,
        changed: u32,
    },
    /// Pages: each its number (4 bytes, big-endian) and its bytes.
    Pages(Bytes),
    /// The replica's copy holds this.
    Applied(Position),
    Alive,
    /// The primary will not ship, and why.
    Refused(String),
}

/// Reads frames. Dropping a read in the middle loses nothing.
pub(crate) struct Frames<R> {
    io: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    /// Frames from `io`.
    pub(crate) fn new(io: R) -> Self {
        Self { io, buffer: BytesMut::new() }
    }

    /// The next message.
    ///
    /// # Errors
    ///
    /// `TimedOut` after [`SILENCE`], `UnexpectedEof` when the other side has closed, `InvalidData`
    /// when it sends what is no frame of this protocol.
    pub(crate) async fn next(&mut self) -> io::Result<Message> {
        timeout(SILENCE, self.read()).await.map_err(|_| silent())?
    }

    async fn read(&mut self) -> io::Result<Message> {
        loop {
            if let Some(message) = take(&mut self.buffer)? {
                return Ok(message);
            }
            if self.io.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other node closed"));
            }
        }
    }
}

/// Sends one message.
///
/// # Errors
///
/// `TimedOut` when the other side has not taken it within [`SILENCE`].
pub(crate) async fn send<W: AsyncWrite + Unpin>(io: &mut W, message: &Message) -> io::Result<()> {
    let frame = encode(message);
    let sent = async {
        io.write_all(&frame).await?;
        io.flush().await
    };
    timeout(SILENCE, sent).await.map_err(|_| silent())?
}

fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the other node is silent")
}

fn encode(message: &Message) -> BytesMut {
    let mut body = BytesMut::new();
    match message {
        Message::Hello { version, have } => {
            body.put_u8(b'H');
            body.put_u8(*version);
            put_stamp(&mut body, have);
        }
        Message::Tenure(reign) => {
            body.put_u8(b'E');
            for start in reign.starts() {
                body.put_u64(start.epoch.0);
                put_stamp(&mut body, &start.held);
            }
        }
        Message::Level(position) => {
            body.put_u8(b'L');
            put_stamp(&mut body, position);
        }
        Message::Update { base, position, page_size, count, changed } => {
            body.put_u8(b'U');
            // No checksum is 0.
            body.put_u64(base.map_or(0, |checksum| checksum.0));
            put_stamp(&mut body, position);
            body.put_u32(*page_size);
            body.put_u32(*count);
            body.put_u32(*changed);
        }
        Message::Pages(pages) => {
            body.put_u8(b'P');
            body.put_slice(pages);
        }
        Message::Applied(position) => {
            body.put_u8(b'A');
            put_stamp(&mut body, position);
        }
        Message::Alive => body.put_u8(b'.'),
        Message::Refused(reason) => {
            body.put_u8(b'R');
            body.put_slice(reason.as_bytes());
        }
    }
    body.put_u64(crc64(&body));
    let mut frame = BytesMut::with_capacity(4 + body.len());
    // `MAX_FRAME` bounds it: chunks are cut, reasons are ours.
    frame.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
    frame.put_slice(&body);
    frame
}

/// Takes one whole frame off `buffer`, if there is one.
fn take(buffer: &mut BytesMut) -> io::Result<Option<Message>> {
    let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*head) as usize;
    if !(OVERHEAD..=MAX_FRAME).contains(&length) {
        return Err(bad("a frame of impossible length"));
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    buffer.advance(4);
    let mut body = buffer.split_to(length).freeze();
    let mut crc = body.split_off(length - 8);
    if crc.get_u64() != crc64(&body) {
        return Err(bad("a frame with a wrong checksum"));
    }
    decode(body).map(Some)
}

fn decode(mut body: Bytes) -> io::Result<Message> {
    let kind = body.get_u8();
    let size = match kind {
        b'H' => 1 + STAMP,
        b'L' | b'A' => STAMP,
        b'U' => 8 + STAMP + 12,
        b'.' => 0,
        b'P' | b'R' => body.len(),
        b'E' if body.len() <= MAX_STARTS * START => body.len().next_multiple_of(START),
        _ => return Err(bad("a frame of unknown kind")),
    };
    if body.len() != size {
        return Err(bad("a frame of wrong size"));
    }
    Ok(match kind {
        b'H' => Message::Hello { version: body.get_u8(), have: get_stamp(&mut body) },
        b'E' => Message::Tenure(get_reign(body)?),
        b'L' => Message::Level(get_stamp(&mut body)),
        b'A' => Message::Applied(get_stamp(&mut body)),
        b'U' => Message::Update {
            base: Some(Checksum(body.get_u64())).filter(|base| base.0 != 0),
            position: get_stamp(&mut body),
            page_size: body.get_u32(),
            count: body.get_u32(),
            changed: body.get_u32(),
        },
        b'P' => Message::Pages(body),
        b'R' => Message::Refused(String::from_utf8_lossy(&body).into_owned()),
        _ => Message::Alive,
    })
}

fn put_stamp(to: &mut BytesMut, position: &Position) {
    to.put_u64(position.at.epoch.0);
    to.put_u64(position.at.txid.0);
    to.put_u64(position.checksum.0);
}

fn get_stamp(from: &mut Bytes) -> Position {
    let position = EpochTxid { epoch: Epoch(from.get_u64()), txid: Txid(from.get_u64()) };
    Position { at: position, checksum: Checksum(from.get_u64()) }
}

fn get_reign(mut from: Bytes) -> io::Result<Tenure> {
    let mut starts = Vec::new();
    while from.remaining() >= START {
        starts.push(EpochStart { epoch: Epoch(from.get_u64()), held: get_stamp(&mut from) });
    }
    Tenure::new(starts).ok_or_else(|| bad("a reign without a beginning"))
}

/// What the other side sent is not this protocol.
pub(crate) fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the other node sent {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn samples() -> Vec<Message> {
        let position = EpochTxid { epoch: Epoch(3), txid: Txid(77) };
        let position = Position { at: position, checksum: Checksum(1 << 63 | 5) };
        let start = |epoch| EpochStart { epoch: Epoch(epoch), held: position };
        let update =
            |base| Message::Update { base, position, page_size: 4096, count: 9, changed: 2 };
        vec![
            Message::Hello { version: VERSION, have: position },
            Message::Tenure(Tenure::new(vec![start(2), start(7)]).unwrap()),
            Message::Level(position),
            update(None),
            update(Some(Checksum(1 << 63))),
            Message::Pages(Bytes::from_static(b"pages")),
            Message::Applied(Position::default()),
            Message::Alive,
            Message::Refused("too large".to_owned()),
        ]
    }

    #[tokio::test]
    async fn every_message_arrives_however_it_is_cut() {
        for piece in [1, 7, 4096] {
            let (mut near, far) = tokio::io::duplex(piece);
            let mut frames = Frames::new(far);
            let sender = tokio::spawn(async move {
                for message in samples() {
                    send(&mut near, &message).await.unwrap();
                }
            });
            for message in samples() {
                assert_eq!(frames.next().await.unwrap(), message);
            }
            sender.await.unwrap();
            assert_eq!(frames.next().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn a_changed_bit_is_noticed() {
        for message in samples() {
            let good = encode(&message);
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                // An error, or a wait for the rest of a longer frame: never another message.
                assert!(matches!(take(&mut bad), Err(_) | Ok(None)), "{message:?}, bit {bit}");
            }
        }
    }

    #[tokio::test]
    async fn a_silent_peer_is_given_up() {
        let (_near, far) = tokio::io::duplex(64);
        let error = Frames::new(far).next().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_bounded(bytes: Vec<u8>) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = take(&mut buffer) {}
            prop_assert!(buffer.len() <= bytes.len());
        }
    }
}
