//! `GET /litefs/health`, the path that LiteFS' own proxy answers.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};

use super::worker::Worker;
use crate::shutdown::Urgency;

/// Whether this is for us.
pub(crate) fn is_asked(head: &Parts) -> bool {
    head.uri.path() == "/litefs/health" && matches!(head.method, Method::GET | Method::HEAD)
}

/// 200 `OK`, or 503 and the reason.
pub(crate) fn answer(worker: &Worker) -> Response<Bytes> {
    let (status, text) = match trouble(worker) {
        None => (StatusCode::OK, "OK\n"),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    };
    let mut response = Response::new(Bytes::from_static(text.as_bytes()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A node that lags is unhealthy only while there is a primary: without one, old data is the best there
/// is.
fn trouble(worker: &Worker) -> Option<&'static str> {
    let shared = &worker.shared;
    let lags = || shared.engine.lag().is_none_or(|lag| lag > shared.config.max_lag);
    let standby = worker.is_standby();
    if *shared.front.stopping.borrow() != Urgency::None {
        Some("this node is stopping\n")
    } else if standby && worker.seen().view.primary.is_none() {
        Some("this node is a standby, and there is no primary to send requests to\n")
    } else if !standby && !shared.app.is_up() {
        Some("the application does not answer\n")
    } else if worker.seen().view.primary.is_some() && lags() {
        Some("this node lags its primary by more than proxy.max_lag\n")
    } else {
        None
    }
}
