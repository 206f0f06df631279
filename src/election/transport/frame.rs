//! What goes over a connection: JSON behind its length (4 bytes, the highest first).

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::STALLED;
use crate::election::rpc::{Request, Response};

/// Of one frame, in bytes. The largest is a snapshot of the table.
const LONGEST: usize = 4 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
pub(crate) struct Question {
    pub(crate) id: u64,
    pub(crate) ask: Request,
}

/// What is answered to the question of that number.
#[derive(Serialize, Deserialize)]
pub(crate) struct Answered {
    pub(crate) id: u64,
    pub(crate) answer: Response,
}

/// All that is understood of a question of another version.
#[derive(Deserialize)]
pub(crate) struct Unknown {
    pub(crate) id: u64,
}

/// A frame, ready to be sent.
///
/// # Errors
///
/// When it would be too long.
pub(crate) fn encode(frame: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, frame)?;
    let length = bytes.len() - 4;
    if length > LONGEST {
        return Err(too_long(length));
    }
    bytes[..4].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(bytes)
}

/// # Errors
///
/// When it is no such frame.
pub(crate) fn decode<T: DeserializeOwned>(json: &[u8]) -> io::Result<T> {
    Ok(serde_json::from_slice(json)?)
}

/// The next frame's JSON; waits for its beginning without a limit.
///
/// # Errors
///
/// When the connection has ended, or its peer sends something else, or stalls.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > LONGEST {
        return Err(too_long(length));
    }
    let mut json = Vec::new();
    // Memory grows with what has come, not with what was announced.
    timeout(STALLED, stream.take(length as u64).read_to_end(&mut json)).await??;
    if json.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(json)
}

/// Sends a frame.
///
/// # Errors
///
/// When the connection is broken, or its peer does not take anything.
pub(crate) async fn write(stream: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    timeout(STALLED, async {
        stream.write_all(frame).await?;
        stream.flush().await
    })
    .await?
}

fn too_long(length: usize) -> io::Error {
    let message = format!("a message of {length} bytes; at most {LONGEST} are allowed");
    io::Error::new(io::ErrorKind::InvalidData, message)
}
