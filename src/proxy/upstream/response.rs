//! The head of a response as it comes in (RFC 9112): what cannot be read in one way only is refused,
//! so that nobody behind us reads it in another.

use std::io;
use std::mem::MaybeUninit;
use std::str;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use httparse::Status;
use hyper::ext::ReasonPhrase;

use crate::proxy::headers;

/// Bytes of a response's head.
pub(crate) const MAX_HEAD: usize = 128 * 1024;
/// Fields of a response's head.
const MAX_FIELDS: usize = 100;
/// Room for the fields that are added on the way to a client.
const OURS: usize = 4;

/// What the bytes that came from an origin begin with.
#[derive(Debug)]
pub(crate) enum ParsedHead {
    /// A head that has not come whole.
    Partial,
    /// An interim response (RFC 9110, 15.2), and what came after it.
    Interim(StatusCode, Bytes),
    /// The head of the response.
    Final(Head),
}

/// The head of a response.
#[derive(Debug)]
pub(crate) struct Head {
    /// Status and fields, less those that concern this connection only.
    pub(crate) response: Response<()>,
    /// How its body is delimited.
    pub(crate) framing: Framing,
    /// The connection can be used again once the body has come.
    pub(crate) keep: bool,
    /// What came after the head.
    pub(crate) rest: Bytes,
}

/// How the body of a response is delimited (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    /// By the end of the connection.
    UntilClose,
    /// The connection speaks another protocol from here on.
    Switched,
}

/// Reads what came in answer to a request with this method. The values of the head are parts of it.
///
/// # Errors
///
/// When it is no HTTP/1, or its body could be delimited in more than one way.
pub(crate) fn parse(came: &Bytes, method: &Method) -> io::Result<ParsedHead> {
    let mut fields = [MaybeUninit::uninit(); MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut parsed, came, &mut fields) {
        Ok(Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(Status::Partial) if came.len() < MAX_HEAD => return Ok(ParsedHead::Partial),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(too_large()),
        Err(why) => return Err(io::Error::new(io::ErrorKind::InvalidData, why)),
    };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or_else(|| invalid("its status is none"))?;
    if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(ParsedHead::Interim(status, came.slice(length..)));
    }
    Head::new(came, length, &parsed, status, method).map(ParsedHead::Final)
}

/// Whether the end of a head may lie beyond `from`: looks at the new bytes only, so that a head which
/// comes byte by byte is not read anew each time.
pub(crate) fn may_end(data: &[u8], from: usize) -> bool {
    let new = &data[from.saturating_sub(2).min(data.len())..];
    new.windows(2).any(|pair| pair == b"\n\n" || pair == b"\n\r")
}

/// The error for a head that does not end.
pub(crate) fn too_large() -> io::Error {
    invalid("its head is larger than 128 KiB or has more than 100 fields")
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl Head {
    fn new(
        came: &Bytes,
        length: usize,
        parsed: &httparse::Response<'_, '_>,
        status: StatusCode,
        method: &Method,
    ) -> io::Result<Self> {
        let mut response = Response::new(());
        *response.status_mut() = status;
        let mut about = About::default();
        let fields = response.headers_mut();
        fields.reserve(parsed.headers.len() + OURS);
        for field in &*parsed.headers {
            let name = HeaderName::from_bytes(field.name.as_bytes());
            let name = name.map_err(|_| invalid("a field's name is none"))?;
            let value = HeaderValue::from_maybe_shared(came.slice_ref(field.value));
            let value = value.map_err(|_| invalid("a field's value is none"))?;
            about.note(name.as_str(), &value)?;
            if !headers::is_hop_by_hop(name.as_str()) {
                fields.append(name, value);
            }
        }
        about.correct(fields);
        let reason = parsed.reason.unwrap_or_default();
        if Some(reason) != status.canonical_reason()
            && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
        {
            response.extensions_mut().insert(reason);
        }
        let is_1_1 = parsed.version == Some(1);
        let framing = about.framing(is_1_1, status, method)?;
        let keep =
            about.keeps(is_1_1) && !matches!(framing, Framing::UntilClose | Framing::Switched);
        Ok(Self { response, framing, keep, rest: came.slice(length..) })
    }
}

/// What the fields say about the message itself.
#[derive(Default)]
struct About {
    length: Option<u64>,
    /// The length was said more than once.
    repeated: bool,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    /// Fields that concern this connection only.
    named: Vec<HeaderName>,
}

impl About {
    /// Takes note of a field.
    fn note(&mut self, name: &str, value: &HeaderValue) -> io::Result<()> {
        match name {
            "content-length" => {
                self.repeated |= self.length.is_some() || value.as_bytes().contains(&b',');
                self.length = Some(content_length(value.as_bytes(), self.length)?);
            }
            // Others we would have to undo, or to announce to a client that did not ask for them.
            "transfer-encoding" => {
                if self.chunked || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                    return Err(invalid("its Transfer-Encoding is not \"chunked\", once"));
                }
                self.chunked = true;
            }
            "connection" => {
                for option in value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
                self.named.extend(headers::named_by(value));
            }
            _ => {}
        }
        Ok(())
    }

    /// Brings the fields into the form in which they are passed on.
    fn correct(&self, fields: &mut HeaderMap) {
        for name in &self.named {
            fields.remove(name);
        }
        match self.length {
            // Where there is a coding a length means nothing (RFC 9112, 6.3), and would then.
            Some(_) if self.chunked => drop(fields.remove(CONTENT_LENGTH)),
            Some(length) if self.repeated => {
                fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
            _ => {}
        }
    }

    fn framing(&self, is_1_1: bool, status: StatusCode, method: &Method) -> io::Result<Framing> {
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Framing::Switched);
        }
        let has_none = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if has_none || method == Method::HEAD {
            return Ok(Framing::Length(0));
        }
        Ok(match self.length {
            _ if self.chunked && !is_1_1 => {
                return Err(invalid("HTTP/1.0 has no Transfer-Encoding"));
            }
            _ if self.chunked => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => Framing::UntilClose,
        })
    }

    /// Where there are both a length and chunks, somebody on the way may have gone by the other.
    fn keeps(&self, is_1_1: bool) -> bool {
        !self.close && (is_1_1 || self.keep_alive) && !(self.chunked && self.length.is_some())
    }
}

/// Decimal digits, or a list of the same number (RFC 9112, 6.3), equal to what was said `before`.
fn content_length(value: &[u8], before: Option<u64>) -> io::Result<u64> {
    let mut length = before;
    for item in value.split(|b| *b == b',') {
        let digits = item.trim_ascii();
        let number = str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
        let number = number.and_then(|digits| digits.parse().ok());
        if number.is_none() || length.is_some() && length != number {
            return Err(invalid("its Content-Length is not one number"));
        }
        length = number;
    }
    length.ok_or_else(|| invalid("its Content-Length is empty"))
}

#[cfg(test)]
mod tests;
