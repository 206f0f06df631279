//! A request as it goes out.

use std::rc::Rc;
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde::{Deserialize, Serialize};

use crate::config;
use crate::proxy::request_body::Outgoing;
use crate::rules::target;

/// The times that one request is bounded by, whoever it is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RequestLimits {
    /// Between two pieces of a body, either way.
    pub(crate) piece: Duration,
    /// To the head of the response, once the request has gone out.
    pub(crate) response: Duration,
}

impl RequestLimits {
    /// Those of a request whose rule sets none.
    pub(crate) fn of(config: &config::Proxy) -> Self {
        Self { piece: config.body_timeout, response: config.response_timeout }
    }
}

/// nginx' own: 60 s for both.
impl Default for RequestLimits {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self { piece: minute, response: minute }
    }
}

/// A request for an application or for a peer.
///
/// What a client said stays in the map in which it came. What we add goes behind it in its form on
/// the wire: putting it into the map first, to write it out a moment later, would cost more than the rest of
/// the head.
pub(crate) struct Request {
    method: Method,
    target: Uri,
    fields: HeaderMap,
    added: RawHeaders,
    told: Rc<RawHeaders>,
    body: Outgoing,
    says_length: bool,
    limits: RequestLimits,
}

impl Request {
    /// Without a body. `added` must name no field of `fields`, and neither may frame the request;
    /// `says_length`: it says so if its length is 0.
    pub(crate) fn new(
        method: Method,
        target: Uri,
        fields: HeaderMap,
        added: RawHeaders,
        says_length: bool,
        limits: RequestLimits,
    ) -> Self {
        let (told, body) = (Rc::default(), Outgoing::Empty);
        Self { method, target, fields, added, told, body, says_length, limits }
    }

    /// Gives it a body.
    pub(crate) fn set_body(&mut self, body: Outgoing) {
        self.body = body;
    }

    /// Tells the receiver something that the next one may have to be told otherwise.
    pub(crate) fn tell(&mut self, told: Rc<RawHeaders>) {
        self.told = told;
    }

    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    pub(crate) fn target(&self) -> &Uri {
        &self.target
    }

    /// The fields, but for those that were added.
    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.fields
    }

    /// The fields, but for those that were added.
    pub(crate) fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.fields
    }

    pub(crate) fn body(&self) -> &Outgoing {
        &self.body
    }

    pub(super) fn limits(&self) -> RequestLimits {
        self.limits
    }

    /// Appends the head. The target is in origin form (RFC 9112, 3.2.1), or `*`. `asks`: the body is
    /// not sent before it is asked for.
    pub(super) fn write_head(&self, out: &mut Vec<u8>, asks: bool) {
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(&target::bytes(self.target.path()));
        if let Some(query) = self.target.query() {
            out.push(b'?');
            out.extend_from_slice(&target::bytes(query));
        }
        out.extend_from_slice(b" HTTP/1.1\r\n");
        for (name, value) in &self.fields {
            write_field(out, name, value);
        }
        out.extend_from_slice(&self.added.0);
        out.extend_from_slice(&self.told.0);
        match self.body.length() {
            Some(0) if !self.says_length => {}
            Some(length) => write_field(out, &CONTENT_LENGTH, &HeaderValue::from(length)),
            None => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        }
        if asks {
            out.extend_from_slice(b"expect: 100-continue\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Fields in their form on the wire. The types of what is added see to it that nothing in them ends a
/// line early.
#[derive(Clone, Debug, Default)]
pub(crate) struct RawHeaders(Vec<u8>);

impl RawHeaders {
    /// Room for about as many bytes.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(crate) fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        write_field(&mut self.0, name, value);
    }

    /// Adds a field whose value is put together from parts of others' values; none if there is no part.
    pub(crate) fn add_joined<'a>(
        &mut self,
        name: &HeaderName,
        separator: &str,
        parts: impl Iterator<Item = &'a [u8]>,
    ) {
        let before = self.0.len();
        for part in parts {
            if self.0.len() == before {
                self.0.extend_from_slice(name.as_str().as_bytes());
                self.0.extend_from_slice(b": ");
            } else {
                self.0.extend_from_slice(separator.as_bytes());
            }
            self.0.extend_from_slice(part);
        }
        if self.0.len() > before {
            self.0.extend_from_slice(b"\r\n");
        }
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

pub(super) fn write_field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}
