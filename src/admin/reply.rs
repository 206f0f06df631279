//! The forms of an answer.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use serde::Serialize;

use crate::cluster::NodeId;
use crate::control::ControlError;

/// An answer's body: a piece of text or a stream.
pub(crate) type Body = BoxBody<Bytes, Infallible>;

pub(crate) type Reply = Response<Body>;

/// Why a request is not done. Answered as a [`problem`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) name: &'static str,
    /// For people: why, and what to do.
    pub(crate) detail: String,
}

impl Failure {
    /// A failure of that status and name.
    pub(crate) fn new(status: StatusCode, name: &'static str, detail: impl Into<String>) -> Self {
        Self { status, name, detail: detail.into() }
    }

    /// The request cannot be understood.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    /// As an answer of this node's.
    pub(crate) fn reply(&self, node: &NodeId) -> Reply {
        problem(node, self.status, self.name, &self.detail)
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let (status, name) = match &error {
            ControlError::NotElected { .. } => (StatusCode::CONFLICT, "not-elected"),
            ControlError::UnknownNode(_) => (StatusCode::NOT_FOUND, "unknown-node"),
            ControlError::NotCandidate(_) => (StatusCode::CONFLICT, "not-candidate"),
            ControlError::NotFit { .. } => (StatusCode::CONFLICT, "not-fit"),
            ControlError::NoPrimary => (StatusCode::CONFLICT, "no-primary"),
            ControlError::Refused(_) => (StatusCode::CONFLICT, "refused"),
            ControlError::NoQuorum => (StatusCode::SERVICE_UNAVAILABLE, "no-quorum"),
            ControlError::Unreachable { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "peer-unreachable")
            }
            ControlError::NotInTime | ControlError::NotYet(_) => {
                (StatusCode::GATEWAY_TIMEOUT, "not-in-time")
            }
            ControlError::Failed(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        Self::new(status, name, error.to_string())
    }
}

pub(crate) fn text(text: impl Into<Bytes>) -> Reply {
    full(StatusCode::OK, "text/plain; charset=utf-8", text)
}

/// A whole body of that content type.
pub(crate) fn full(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Reply {
    with_body(status, content_type, Full::new(body.into()).boxed())
}

/// A value as JSON, for programs and for people who read it.
pub(crate) fn json(node: &NodeId, value: &impl Serialize) -> Reply {
    match serde_json::to_string_pretty(value) {
        Ok(json) => full(StatusCode::OK, "application/json", json + "\n"),
        Err(error) => {
            problem(node, StatusCode::INTERNAL_SERVER_ERROR, "internal", &error.to_string())
        }
    }
}

/// Any body of that content type. Nothing on this port may be cached or taken for another type.
pub(crate) fn with_body(status: StatusCode, content_type: &'static str, body: Body) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

/// An error as `application/problem+json` (RFC 9457). `name` ends its type.
pub(crate) fn problem(node: &NodeId, status: StatusCode, name: &str, detail: &str) -> Reply {
    let problem = serde_json::json!({
        "type": format!("urn:litepilot:problem:{name}"),
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": detail,
        "node": node,
    });
    full(status, "application/problem+json", problem.to_string())
}
