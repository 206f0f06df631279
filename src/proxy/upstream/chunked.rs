//! Chunks of a response as they come in (RFC 9112, 7.1).

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use httparse::Status;

/// Bytes of a chunk's size and its extensions.
const MAX_LINE: usize = 4 * 1024;
/// Bytes of all trailers.
const MAX_TRAILERS: usize = 16 * 1024;
const MAX_TRAILER_FIELDS: usize = 100;

/// Where in a body of chunks we are.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    state: State,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    /// So many bytes are left of a chunk.
    Data(u64),
    /// The line end after a chunk's data.
    DataEnd,
    Trailers,
    End,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing more without more bytes.
    Nothing,
    /// A piece of the body.
    Data(Bytes),
    /// The end, and the trailers if there are any.
    End(Option<HeaderMap>),
}

impl Chunks {
    /// Whether the end was found.
    pub(crate) fn is_at_end(&self) -> bool {
        self.state == State::End
    }

    /// Takes the next thing off what came.
    ///
    /// # Errors
    ///
    /// When these are no chunks, or a line is too long.
    pub(crate) fn decode(&mut self, came: &mut BytesMut) -> io::Result<Found> {
        loop {
            match self.state {
                State::Size => match size(came)? {
                    None => return Ok(Found::Nothing),
                    Some(0) => self.state = State::Trailers,
                    Some(size) => self.state = State::Data(size),
                },
                State::Data(_) if came.is_empty() => return Ok(Found::Nothing),
                State::Data(left) => {
                    let here = usize::try_from(left).map_or(came.len(), |l| l.min(came.len()));
                    let left = left - here as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Found::Data(came.split_to(here).freeze()));
                }
                State::DataEnd => match came.get(..2) {
                    None => return Ok(Found::Nothing),
                    Some(b"\r\n") => {
                        came.advance(2);
                        self.state = State::Size;
                    }
                    Some(_) => return Err(invalid("a chunk is longer than its size")),
                },
                State::Trailers => {
                    let Some(trailers) = trailers(came)? else { return Ok(Found::Nothing) };
                    self.state = State::End;
                    return Ok(Found::End((!trailers.is_empty()).then_some(trailers)));
                }
                State::End => return Ok(Found::End(None)),
            }
        }
    }
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The line with the size of a chunk. Extensions mean nothing to us.
fn size(came: &mut BytesMut) -> io::Result<Option<u64>> {
    let line = &came[..came.len().min(MAX_LINE)];
    match httparse::parse_chunk_size(line) {
        Ok(Status::Complete((length, size))) => {
            // What the parser lets pass, and others might take for something else.
            if has_bare_line_end(&line[..length]) || !line[0].is_ascii_hexdigit() {
                return Err(invalid("the size of a chunk is malformed"));
            }
            came.advance(length);
            Ok(Some(size))
        }
        Ok(Status::Partial) if line.len() < MAX_LINE => Ok(None),
        Ok(Status::Partial) | Err(_) => Err(invalid("the size of a chunk is malformed")),
    }
}

/// The fields after the last chunk, up to the empty line.
fn trailers(came: &mut BytesMut) -> io::Result<Option<HeaderMap>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
    let lines = &came[..came.len().min(MAX_TRAILERS)];
    let (length, fields) = match httparse::parse_headers(lines, &mut fields) {
        Ok(Status::Complete(parsed)) => parsed,
        Ok(Status::Partial) if lines.len() < MAX_TRAILERS => return Ok(None),
        Ok(Status::Partial) => return Err(invalid("the trailers are too large")),
        Err(why) => return Err(io::Error::new(io::ErrorKind::InvalidData, why)),
    };
    if has_bare_line_end(&lines[..length]) {
        return Err(invalid("a trailer is malformed"));
    }
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value);
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(invalid("a trailer is malformed"));
        };
        trailers.append(name, value);
    }
    came.advance(length);
    Ok(Some(trailers))
}

/// Whether a line ends with LF alone.
fn has_bare_line_end(lines: &[u8]) -> bool {
    lines.iter().enumerate().any(|(i, b)| *b == b'\n' && (i == 0 || lines[i - 1] != b'\r'))
}

#[cfg(test)]
mod tests;
