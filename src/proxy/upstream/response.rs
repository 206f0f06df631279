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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(said: &str, method: &Method) -> io::Result<ParsedHead> {
        parse(&Bytes::copy_from_slice(said.as_bytes()), method)
    }

    fn head(fields: &str) -> io::Result<Head> {
        match read(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"), &Method::GET)? {
            ParsedHead::Final(head) => Ok(head),
            other => panic!("{fields:?}: {other:?}"),
        }
    }

    #[test]
    fn each_body_has_one_end() {
        for (fields, framing) in [
            ("content-length: 5\r\n", Framing::Length(5)),
            ("content-length: 5\r\nContent-Length: 5\r\n", Framing::Length(5)),
            ("content-length: 5, 5\r\n", Framing::Length(5)),
            ("content-length: 18446744073709551615\r\n", Framing::Length(u64::MAX)),
            ("transfer-encoding: Chunked\r\n", Framing::Chunked),
            ("content-length: 5\r\ntransfer-encoding: chunked\r\n", Framing::Chunked),
            ("x: y\r\n", Framing::UntilClose),
        ] {
            let head = head(fields).unwrap();
            assert_eq!(head.framing, framing, "{fields}");
            let lengths: Vec<_> = head.response.headers().get_all(CONTENT_LENGTH).iter().collect();
            match framing {
                Framing::Length(length) => assert_eq!(lengths, [&HeaderValue::from(length)]),
                _ => assert!(lengths.is_empty(), "{fields}"),
            }
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for fields in [
            "content-length: 5\r\ncontent-length: 6\r\n",
            "content-length: 5, 6\r\n",
            "content-length: +5\r\n",
            "content-length: -5\r\n",
            "content-length: 0x5\r\n",
            "content-length: 5 5\r\n",
            "content-length: \r\n",
            "content-length: ,\r\n",
            "content-length: 18446744073709551616\r\n",
            "transfer-encoding: gzip, chunked\r\n",
            "transfer-encoding: chunked, chunked\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: identity\r\n",
            "transfer-encoding: \r\n",
            "transfer-encoding : chunked\r\n",
            " x: folded\r\n",
            "x: y\r\n folded\r\n",
            "x y: z\r\n",
            "x\0: z\r\n",
            "x: a\0b\r\n",
            "x: a\rb\r\n",
            "no colon\r\n",
        ] {
            assert!(head(fields).is_err(), "{fields:?}");
        }
        for line in ["HTTP/2 200 OK", "HTTP/1.1 20 OK", "HTTP/1.1 099 OK", "ICY 200 OK", "200 OK"] {
            assert!(read(&format!("{line}\r\n\r\n"), &Method::GET).is_err(), "{line}");
        }
        let old = "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        assert!(read(old, &Method::GET).is_err());
    }

    #[test]
    fn some_responses_have_no_body_whatever_they_say() {
        for (method, status) in [(Method::HEAD, 200), (Method::GET, 204), (Method::GET, 304)] {
            for fields in ["content-length: 5\r\n", "transfer-encoding: chunked\r\n", ""] {
                let said = format!("HTTP/1.1 {status} x\r\n{fields}\r\n");
                let ParsedHead::Final(head) = read(&said, &method).unwrap() else {
                    panic!("{said}")
                };
                assert_eq!((head.framing, head.keep), (Framing::Length(0), true), "{said}");
            }
        }
    }

    #[test]
    fn what_concerns_the_connection_goes_no_further() {
        let head = head(
            "connection: x-private, keep-alive\r\nX-Private: 1\r\nkeep-alive: timeout=5\r\n\
             upgrade: h2c\r\nproxy-authenticate: Basic\r\ncontent-length: 0\r\nx-kept: 1\r\n",
        )
        .unwrap();
        let mut names: Vec<_> = head.response.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "x-kept"]);
    }

    #[test]
    fn interim_responses_are_told_from_final_ones() {
        let said = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 2";
        let ParsedHead::Interim(status, rest) = read(said, &Method::GET).unwrap() else { panic!() };
        assert_eq!((status.as_u16(), &rest[..]), (103, &b"HTTP/1.1 2"[..]));
        let said = "HTTP/1.1 101 Switching\r\nupgrade: websocket\r\n\r\nhello";
        let ParsedHead::Final(head) = read(said, &Method::GET).unwrap() else { panic!() };
        assert_eq!((head.framing, head.keep), (Framing::Switched, false));
        assert_eq!(&head.rest[..], b"hello");
    }

    #[test]
    fn a_reason_of_its_own_is_kept() {
        let ParsedHead::Final(head) = read("HTTP/1.1 200 Fine\r\n\r\n", &Method::GET).unwrap()
        else {
            panic!()
        };
        let reason = head.response.extensions().get::<ReasonPhrase>().unwrap();
        assert_eq!(reason.as_bytes(), b"Fine");
    }

    #[test]
    fn a_head_has_its_limits() {
        let fields = |n| (0..n).map(|i| format!("x-{i}: y\r\n")).collect::<String>();
        assert!(head(&fields(MAX_FIELDS)).is_ok());
        assert!(head(&fields(MAX_FIELDS + 1)).is_err());
        assert!(head(&format!("x: {}\r\n", "y".repeat(MAX_HEAD))).is_err());
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(MAX_HEAD));
        assert!(read(&endless, &Method::GET).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much_for_it(said in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&Bytes::from(said), &Method::GET);
        }

        #[test]
        fn the_end_of_a_head_is_never_overlooked(
            fields in "([a-z]{1,5}: [ -~]{0,9}\r?\n){0,5}", cut in any::<proptest::sample::Index>()
        ) {
            let said = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            let cut = cut.index(said.len());
            prop_assert!(matches!(read(&said[..cut], &Method::GET), Ok(ParsedHead::Partial) | Err(_)));
            prop_assert!(may_end(said.as_bytes(), cut), "{said:?} cut at {cut}");
        }
    }
}
