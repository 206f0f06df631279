//! A request on its way out: its head, then its body as it comes.

use std::io;
use std::mem;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    HOST, MAX_FORWARDS, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName};

use super::request::{self, Request};
use super::wire::Wire;
use crate::proxy::request_body::{Outgoing, Streamed};

/// A piece of a body up to this size is copied behind what goes before it, to be written at once.
const SMALL: usize = 16 * 1024;

/// Fields that a trailer must not bring: they would change how the message before them is read
/// (RFC 9110, 6.5.1).
const NO_TRAILERS: [HeaderName; 12] = [
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    HOST,
    MAX_FORWARDS,
    SET_COOKIE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
];

/// What is still to be sent of a request.
pub(crate) struct Upload {
    /// To be written next, from `written` on.
    buffer: Vec<u8>,
    written: usize,
    /// To be written after the buffer, and what follows it.
    piece: Bytes,
    after: &'static [u8],
    source: Option<Streamed>,
    framing: Framing,
    /// The origin is asked first whether it wants the body, and has not said so yet.
    held: bool,
    moved: bool,
}

/// How the body is delimited.
enum Framing {
    /// How many bytes are still to come.
    Length(u64),
    /// By chunks, and the trailers that were announced.
    Chunked(Vec<HeaderName>),
}

/// Why a request could not be sent whole.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// Its body did not come whole from the client.
    Source,
    /// The origin took no more.
    Wire(io::Error),
}

impl Upload {
    /// All of a request, from its first byte; `buffer` is empty and used for what goes out. `asks`: a
    /// body that is still coming waits until the origin has accepted the request (RFC 9110, 10.1.1), so
    /// that one which is refused can still go elsewhere.
    pub(crate) fn new(mut buffer: Vec<u8>, request: &Request, asks: bool) -> Self {
        let body = request.body();
        let held = asks && matches!(body, Outgoing::Streamed(_));
        request.write_head(&mut buffer, held);
        let framing = match body.length() {
            Some(length) => Framing::Length(length),
            None => Framing::Chunked(announced_trailers(request.headers())),
        };
        let (piece, after) = (Bytes::new(), &b""[..]);
        let (source, written, moved) = (None, 0, false);
        let mut upload = Self { buffer, written, piece, after, source, framing, held, moved };
        match body {
            Outgoing::Empty => {}
            Outgoing::Whole(data, trailers) => {
                if let Some(data) = data.clone().filter(|data| !data.is_empty()) {
                    upload.push(data);
                }
                if trailers.is_some() {
                    upload.end(trailers.as_ref());
                }
            }
            Outgoing::Streamed(streamed) => upload.source = Some(streamed.share()),
        }
        upload
    }

    /// The origin wants the body.
    pub(crate) fn go_ahead(&mut self) {
        self.held = false;
    }

    /// The body waits for the origin to want it.
    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    /// Whether the origin took something since this was last asked.
    pub(crate) fn has_moved(&mut self) -> bool {
        mem::take(&mut self.moved)
    }

    /// The buffer, of no more use here.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }

    /// Sends what can be sent now. Ready once all has left.
    pub(crate) fn poll(&mut self, wire: &Wire, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        loop {
            ready!(self.poll_drain(wire, cx)).map_err(Stopped::Wire)?;
            let Some(source) = self.source.as_mut() else {
                return wire.poll_flush(cx).map_err(Stopped::Wire);
            };
            let frame = if self.held { Poll::Pending } else { source.poll_frame(cx) };
            let Poll::Ready(frame) = frame else {
                ready!(wire.poll_flush(cx)).map_err(Stopped::Wire)?;
                return Poll::Pending;
            };
            match frame {
                Some(Err(_)) => return Poll::Ready(Err(Stopped::Source)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => self.take(data)?,
                    Err(frame) => self.finish(frame.into_trailers().ok().as_ref())?,
                },
                None => self.finish(None)?,
            }
        }
    }

    /// A piece of a body that is coming.
    fn take(&mut self, data: Bytes) -> Result<(), Stopped> {
        if let Framing::Length(left) = &mut self.framing {
            // More than was announced would be read as another request.
            *left = left.checked_sub(data.len() as u64).ok_or(Stopped::Source)?;
        }
        self.push(data);
        Ok(())
    }

    /// The end of a body that was coming.
    fn finish(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Stopped> {
        self.source = None;
        match self.framing {
            Framing::Length(0) => Ok(()),
            // Less than was announced: what follows would be taken for the rest.
            Framing::Length(_) => Err(Stopped::Source),
            Framing::Chunked(_) => {
                self.end(trailers);
                Ok(())
            }
        }
    }

    /// Frames a piece. What went before it has been written, or stands in the buffer.
    fn push(&mut self, data: Bytes) {
        if let Framing::Chunked(_) = self.framing {
            self.buffer.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
            self.after = b"\r\n";
        }
        if data.len() <= SMALL {
            self.buffer.extend_from_slice(&data);
            self.buffer.extend_from_slice(mem::take(&mut self.after));
        } else {
            self.piece = data;
        }
    }

    /// Ends a chunked body.
    fn end(&mut self, trailers: Option<&HeaderMap>) {
        self.buffer_piece();
        let Framing::Chunked(announced) = &self.framing else { return };
        self.buffer.extend_from_slice(b"0\r\n");
        let allowed = |name: &HeaderName| announced.contains(name) && !NO_TRAILERS.contains(name);
        for (name, value) in trailers.into_iter().flatten().filter(|(name, _)| allowed(name)) {
            request::write_field(&mut self.buffer, name, value);
        }
        self.buffer.extend_from_slice(b"\r\n");
    }

    /// Puts a large piece into the buffer after all, since something follows it.
    fn buffer_piece(&mut self) {
        self.buffer.extend_from_slice(&mem::take(&mut self.piece));
        self.buffer.extend_from_slice(mem::take(&mut self.after));
    }

    /// Writes what is framed.
    fn poll_drain(&mut self, wire: &Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.written < self.buffer.len() {
                self.written += ready!(wire.poll_write(cx, &self.buffer[self.written..]))?;
                self.moved = true;
            }
            self.buffer.clear();
            self.written = 0;
            while !self.piece.is_empty() {
                let written = ready!(wire.poll_write(cx, &self.piece))?;
                self.piece.advance(written);
                self.moved = true;
            }
            if self.after.is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.buffer.extend_from_slice(mem::take(&mut self.after));
        }
    }
}

/// The fields that a head says will come after the body.
fn announced_trailers(fields: &HeaderMap) -> Vec<HeaderName> {
    let lines = fields.get_all(TRAILER).iter();
    let names = lines.flat_map(|line| line.as_bytes().split(|b| *b == b','));
    names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).collect()
}
