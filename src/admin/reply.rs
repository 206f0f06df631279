//! The forms of an answer.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};

use crate::cluster::NodeId;

/// An answer's body: a piece of text or a stream.
pub type Body = BoxBody<Bytes, Infallible>;

/// An answer.
pub type Reply = Response<Body>;

/// Plain text.
pub fn text(text: impl Into<Bytes>) -> Reply {
    full(StatusCode::OK, "text/plain; charset=utf-8", text)
}

/// A whole body of that content type.
pub fn full(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    with_body(status, content_type, Full::new(body.into()).boxed())
}

/// Any body of that content type. Nothing on this port may be cached or taken for another type.
pub fn with_body(status: StatusCode, content_type: &'static str, body: Body) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

/// An error as `application/problem+json` (RFC 9457). `name` ends its type.
pub fn problem(node: &NodeId, status: StatusCode, name: &str, detail: &str) -> Reply {
    let problem = serde_json::json!({
        "type": format!("urn:litepilot:problem:{name}"),
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": detail,
        "node": node,
    });
    full(status, "application/problem+json", problem.to_string())
}
