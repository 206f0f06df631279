//! Answers that Litepilot makes itself: `application/problem+json` (RFC 9457), or a small page for
//! browsers. The one place that maps an error to a status.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use super::error_pages::ErrorPages;
use super::{ack, headers};
use crate::html::escaped;
use crate::txid::Token;

/// What went wrong. The names are part of the contract with users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProblemKind {
    /// Nobody takes writes now.
    NoPrimary,
    /// No majority of the voters is in contact.
    NoQuorum,
    /// As many requests wait already as may.
    TooManyHeld,
    /// The primary's node does not answer.
    PrimaryUnreachable,
    /// The application does not answer.
    AppUnreachable,
    /// The application took too long.
    AppTimeout,
    /// The application may or may not have done the write.
    WriteOutcomeUnknown,
    /// Too few replicas confirmed the write in time.
    AckTimeout,
    /// The application asked for a replay of a body that was not kept.
    BodyTooLargeToReplay,
    /// The request head is too large.
    HeadersTooLarge,
    /// The client took too long to send.
    RequestTimeout,
    /// The request came back to where it had been.
    LoopDetected,
    /// The request is not valid HTTP, or means different things to different readers.
    BadRequest,
    /// The client expects what nobody here does.
    ExpectationFailed,
    /// The client wants a WebSocket of another version.
    UpgradeRequired,
    MethodNotAllowed,
    NotImplemented,
}

impl ProblemKind {
    /// The status it is answered with.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::NoPrimary | Self::NoQuorum | Self::TooManyHeld => StatusCode::SERVICE_UNAVAILABLE,
            Self::PrimaryUnreachable | Self::AppUnreachable | Self::WriteOutcomeUnknown => {
                StatusCode::BAD_GATEWAY
            }
            Self::AppTimeout | Self::AckTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::BodyTooLargeToReplay => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::LoopDetected => StatusCode::LOOP_DETECTED,
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::ExpectationFailed => StatusCode::EXPECTATION_FAILED,
            Self::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        }
    }

    /// The last part of `urn:litepilot:problem:…`, and the title.
    fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::NoPrimary => ("no-primary", "No node takes writes"),
            Self::NoQuorum => ("no-quorum", "The cluster has no quorum"),
            Self::TooManyHeld => ("too-many-held", "Too many requests are waiting"),
            Self::PrimaryUnreachable => ("primary-unreachable", "The primary does not answer"),
            Self::AppUnreachable => ("app-unreachable", "The application does not answer"),
            Self::AppTimeout => ("app-timeout", "The application took too long"),
            Self::WriteOutcomeUnknown => {
                ("write-outcome-unknown", "It is unknown whether this was done")
            }
            Self::AckTimeout => ("ack-timeout", "Too few replicas confirmed the write in time"),
            Self::BodyTooLargeToReplay => {
                ("body-too-large-to-replay", "The body is too large to be sent again")
            }
            Self::HeadersTooLarge => ("headers-too-large", "The request head is too large"),
            Self::RequestTimeout => ("request-timeout", "The request came too slowly"),
            Self::LoopDetected => ("loop-detected", "The request went in a circle"),
            Self::BadRequest => ("bad-request", "The request is not acceptable"),
            Self::ExpectationFailed => ("expectation-failed", "The expectation cannot be met"),
            Self::UpgradeRequired => ("upgrade-required", "Another version of WebSocket is spoken"),
            Self::MethodNotAllowed => ("method-not-allowed", "The method is not allowed"),
            Self::NotImplemented => ("not-implemented", "The method is not supported"),
        }
    }

    /// Whether the request provably did nothing, so that it may be sent again.
    fn did_nothing(self) -> bool {
        !matches!(
            self,
            Self::AppTimeout
                | Self::WriteOutcomeUnknown
                | Self::AckTimeout
                | Self::PrimaryUnreachable
        )
    }
}

/// A refusal, with what the client needs to know about it.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    kind: ProblemKind,
    status: StatusCode,
    detail: Cow<'static, str>,
    safe: bool,
    retry_after: Option<u32>,
    allow: Option<&'static str>,
    /// Where its client finds out what became of a write.
    token: Option<Token>,
}

impl Problem {
    /// A problem of that kind; `detail` says what happened and what to do.
    pub(crate) fn new(kind: ProblemKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            status: kind.status(),
            detail: detail.into(),
            safe: kind.did_nothing(),
            retry_after: None,
            allow: None,
            token: None,
        }
    }

    /// The write may have been done: whoever looks for it has to see at least `token`.
    pub(crate) fn with_token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    /// See [`Problem::with_token`].
    pub(crate) fn token(&self) -> Option<Token> {
        self.token
    }

    /// Says whether sending the request again is safe, where the kind alone does not tell.
    pub(crate) fn retry_safe(mut self, safe: bool) -> Self {
        self.safe = safe;
        self
    }

    /// Says what went wrong before.
    pub(crate) fn preceded_by(mut self, what: &str) -> Self {
        self.detail = format!("{what}: {}", self.detail).into();
        self
    }

    /// The request waited in vain: 503 with `Retry-After`, so that load balancers try another node.
    pub(crate) fn after_waiting(mut self) -> Self {
        self.status = StatusCode::SERVICE_UNAVAILABLE;
        self.retry_after = Some(1);
        self
    }

    /// The methods that would be accepted.
    pub(crate) fn allow(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }

    #[cfg(test)]
    pub(super) fn kind(&self) -> ProblemKind {
        self.kind
    }

    /// The answer, as JSON, or as a page if the request's `Accept` prefers one: that of the operator, if
    /// there is one for it.
    pub(crate) fn respond(
        &self,
        node: &str,
        accept: Option<&HeaderValue>,
        pages: &ErrorPages,
    ) -> Response<Bytes> {
        let (kind, body) = if prefers_html(accept) {
            let page = pages.of(self.status).unwrap_or_else(|| self.html(node).into());
            ("text/html; charset=utf-8", page)
        } else {
            ("application/problem+json", self.json(node).into())
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let fields = response.headers_mut();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            fields.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        // What can be read in two ways may end in two places: what follows it is no request.
        if self.kind == ProblemKind::BadRequest {
            fields.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if self.kind == ProblemKind::UpgradeRequired {
            // RFC 9110, 15.5.22, and RFC 6455, 4.2.2.
            fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
            fields.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        if self.kind == ProblemKind::AckTimeout {
            fields.insert(headers::ACK, ack::TIMEOUT);
        }
        if let Some(methods) = self.allow {
            fields.insert(http::header::ALLOW, HeaderValue::from_static(methods));
        }
        response
    }

    /// The whole answer as bytes, for a connection on which no request could be read.
    pub(crate) fn raw(&self, node: &str) -> Bytes {
        let body = self.json(node);
        let mut head = format!("HTTP/1.1 {}\r\n", self.status);
        let _ = write!(
            head,
            "content-type: application/problem+json\r\ncache-control: no-store\r\n\
             content-length: {}\r\nconnection: close\r\nlitepilot-node: {node}\r\n\
             litepilot-route: none\r\n\r\n{body}",
            body.len()
        );
        head.into()
    }

    fn retry(&self) -> &'static str {
        if self.safe { "safe" } else { "unsafe" }
    }

    fn json(&self, node: &str) -> String {
        let (name, title) = self.kind.texts();
        let body = json!({
            "type": format!("urn:litepilot:problem:{name}"),
            "title": title,
            "status": self.status.as_u16(),
            "detail": self.detail,
            "node": node,
            "retry": self.retry(),
        });
        format!("{body}\n")
    }

    fn html(&self, node: &str) -> String {
        let (name, title) = self.kind.texts();
        let advice = if self.safe {
            "Nothing was done. It is safe to try again."
        } else {
            "It may have been done. Look before you try again."
        };
        format!(
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
             <meta name=color-scheme content=\"light dark\"><title>{status}</title>\
             <style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:20vh auto;padding:0 1rem}}\
             small{{opacity:.6}}</style><h1>{title}</h1><p>{detail}</p><p>{advice}</p>\
             <small>{code} {name} &middot; {node}</small></html>\n",
            status = self.status,
            detail = escaped(&self.detail),
            code = self.status.as_u16(),
        )
    }
}

/// Whether `Accept` puts HTML before JSON. A client that takes anything (curl) gets JSON.
fn prefers_html(accept: Option<&HeaderValue>) -> bool {
    let (mut html, mut json) = (0.0, 0.0);
    for range in accept.and_then(|a| a.to_str().ok()).unwrap_or_default().split(',') {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts
            .find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q=")))
            .map_or(1.0, |q| q.parse().unwrap_or(0.0));
        match name.as_str() {
            "text/html" | "application/xhtml+xml" => html = f32::max(html, quality),
            "application/problem+json" | "application/json" | "application/*" => {
                json = f32::max(json, quality);
            }
            _ => {}
        }
    }
    html > json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_get_a_page_and_programs_get_json() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (accept, html) in [
            (browser, true),
            ("*/*", false),
            ("application/json, text/html;q=0.5", false),
            ("text/html;q=0.9, application/json;q=0.1", true),
            ("text/html;q=nonsense", false),
        ] {
            assert_eq!(prefers_html(Some(&HeaderValue::from_static(accept))), html, "{accept}");
        }
        assert!(!prefers_html(None));
    }

    #[test]
    fn a_page_cannot_be_injected_into() {
        let problem = Problem::new(ProblemKind::BadRequest, "<script>alert(1)</script>");
        let accept = HeaderValue::from_static("text/html");
        let page = problem.respond("n", Some(&accept), &ErrorPages::default()).into_body();
        assert!(!String::from_utf8_lossy(&page).contains("<script>"));
    }

    #[test]
    fn says_whether_to_retry() {
        let problem = Problem::new(ProblemKind::WriteOutcomeUnknown, "x");
        let body = problem.respond("n1", None, &ErrorPages::default());
        let json: serde_json::Value = serde_json::from_slice(body.body()).unwrap();
        assert_eq!(json["retry"], "unsafe");
        assert_eq!(json["type"], "urn:litepilot:problem:write-outcome-unknown");
        assert_eq!(json["node"], "n1");
        assert_eq!(json["status"], 502);
    }
}
