//! What applications answer: see [`crate::fuzz`].

use bytes::{Bytes, BytesMut};
use http::Method;

use super::Request;
use super::chunked::{Chunks, Found};
use super::response::{self, ParsedHead};
use crate::fuzz::pieces;

/// As it goes out.
pub(crate) fn head_of(request: &Request) -> Vec<u8> {
    let mut head = Vec::new();
    request.write_head(&mut head, false);
    head
}

/// A head is one wherever it is cut off before its end; and what comes behind it is not touched.
pub(crate) fn head(data: &[u8]) {
    let Some((first, answer)) = data.split_first() else { return };
    let method = if *first == b'H' { Method::HEAD } else { Method::GET };
    let rest = match response::parse(&Bytes::copy_from_slice(answer), &method) {
        Ok(ParsedHead::Interim(_, rest)) => rest,
        Ok(ParsedHead::Final(head)) => head.rest,
        Ok(ParsedHead::Partial) | Err(_) => return,
    };
    let end = answer.len() - rest.len();
    assert_eq!(rest, answer[end..]);
    assert!(response::may_end(answer, end - 1), "the end would not be looked for");
    let cut_off = response::parse(&Bytes::copy_from_slice(&answer[..end - 1]), &method);
    assert!(matches!(cut_off, Ok(ParsedHead::Partial)), "{cut_off:?}");
}

/// The body is the same in whatever pieces its chunks come.
pub(crate) fn chunks(data: &[u8]) {
    let (in_pieces, all) = pieces(data);
    let whole = decoded([all].into_iter());
    let parts = decoded(in_pieces);
    assert!(whole.0.len() <= all.len());
    // Of what is no end the one may have found more than the other.
    let same = whole.0.starts_with(&parts.0) || parts.0.starts_with(&whole.0);
    assert!(same && whole.1 == parts.1, "{whole:?} {parts:?}");
}

/// What there is of a body, and whether it ended, with how many bytes behind it.
fn decoded<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, Option<usize>) {
    let (mut chunks, mut came, mut body) = (Chunks::default(), BytesMut::new(), Vec::new());
    for piece in pieces {
        came.extend_from_slice(piece);
        while !chunks.is_at_end() {
            match chunks.decode(&mut came) {
                Ok(Found::Data(data)) => body.extend_from_slice(&data),
                Ok(Found::End(_)) => {}
                Ok(Found::Nothing) => break,
                Err(_) => return (body, None),
            }
        }
    }
    (body, chunks.is_at_end().then_some(came.len()))
}
