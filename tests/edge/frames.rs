//! HTTP/2, frame by frame (RFC 9113, 4.1), for clients that no library would be.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::node::TestNode;
use super::tls::{Offer, Secure};
use super::wire::soon;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A field in HPACK, without compression, not to be remembered (RFC 7541, 6.2.2).
pub fn field(name: &str, value: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name.as_bytes(), value.as_ref()] {
        // Lengths from 127 on take more than one byte.
        assert!(text.len() < 127);
        bytes.push(text.len() as u8);
        bytes.extend(text);
    }
    bytes
}

/// The pseudo-header fields of a request.
pub fn request(method: &str, path: &str) -> Vec<u8> {
    let fields =
        [(":method", method), (":scheme", "https"), (":authority", "shop.test"), (":path", path)];
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// A whole request without a body.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &request("GET", path))
}

/// A connection whose preface was sent.
pub struct Frames {
    stream: Secure,
    buffer: Vec<u8>,
}

impl Frames {
    /// With settings of its own, as in the payload of `SETTINGS`.
    pub async fn connect_with(node: &TestNode, settings: &[u8]) -> Self {
        let stream = Offer::default().connect(node).await.unwrap();
        let mut frames = Self { stream, buffer: Vec::new() };
        frames.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        frames.send(frame(SETTINGS, 0, 0, settings)).await.unwrap();
        frames
    }

    pub async fn connect(node: &TestNode) -> Self {
        Self::connect_with(node, &[]).await
    }

    /// Sends these bytes, unless the other side has closed already.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let sending = async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        };
        soon("room to send", sending).await
    }

    /// Sends the same bytes again and again, until the other side takes no more for so long, or closes;
    /// says how many bytes it took.
    pub async fn flood(&mut self, bytes: &[u8], most: usize, quiet: Duration) -> usize {
        let mut sent = 0;
        while sent < most {
            let sending = async {
                self.stream.write_all(bytes).await?;
                self.stream.flush().await
            };
            match tokio::time::timeout(quiet, sending).await {
                Ok(Ok(())) => sent += bytes.len(),
                Ok(Err(_)) | Err(_) => break,
            }
        }
        sent
    }

    async fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            let read = soon("bytes", self.stream.read_buf(&mut self.buffer)).await;
            // A reset is an end too: the other side has gone.
            if read.unwrap_or(0) == 0 {
                return None;
            }
        }
        Some(self.buffer.drain(..count).collect())
    }

    /// The next frame; `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<Frame> {
        let head = self.bytes(9).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let payload = self.bytes(length as usize).await?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame of that kind, if one comes before the end of the connection.
    pub async fn next_of(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    /// The error code with which the connection ends, if it says one.
    pub async fn goodbye(&mut self) -> Option<u32> {
        let frame = self.next_of(GOAWAY).await?;
        Some(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()))
    }
}
