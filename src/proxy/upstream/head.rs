//! The head of a request as it goes out. Names, values and targets cannot hold what would end a line:
//! their types have checked that.

use http::header::{EXPECT, TRAILER};
use http::{HeaderMap, HeaderName, HeaderValue, Request};

use crate::proxy::body::Outgoing;

/// Appends a request's head.
pub fn write(out: &mut Vec<u8>, request: &Request<Outgoing>) {
    line_start(out, request);
    write_fields(out, request.headers());
    if request.body().asks_first() && !request.headers().contains_key(EXPECT) {
        out.extend_from_slice(b"expect: 100-continue\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Always in origin form (RFC 9112, 3.2.1), or `*`.
fn line_start(out: &mut Vec<u8>, request: &Request<Outgoing>) {
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(request.uri().path().as_bytes());
    if let Some(query) = request.uri().query() {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

fn write_fields(out: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        write_field(out, name, value);
    }
}

/// Appends one field.
pub fn write_field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The fields that a head says will come after the body.
pub fn announced_trailers(fields: &HeaderMap) -> Vec<HeaderName> {
    let lines = fields.get_all(TRAILER).iter().flat_map(|line| line.as_bytes().split(|b| *b == b','));
    lines.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).collect()
}
