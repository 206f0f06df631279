//! Which answer a request gets.

use std::error::Error;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{Method, Request, StatusCode};
use http_body::Body;

use super::reply::{self, Failure, Reply};
use super::server::Server;
use super::stream::{self, Live};
use super::{Admin, checks, page};
use crate::cluster::NodeId;
use crate::shutdown::Urgency;
use crate::status::Status;
use crate::telemetry::metrics;
use crate::yaml::value::{ValueError, parse_duration};

/// From where a browser's request was made (Fetch Metadata); others send none.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Check(Check),
    Status,
    Metrics,
    Page,
    Events,
    Promote,
    Members,
    OnPrimary,
    Forward,
    ResetLitefsId,
}

/// The load balancer checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Live,
    Ready,
    Primary,
    Replica,
    ReadOnly,
}

impl Endpoint {
    fn at(path: &str) -> Option<Self> {
        Some(match path {
            "/health/live" => Self::Check(Check::Live),
            "/health/ready" => Self::Check(Check::Ready),
            "/primary" => Self::Check(Check::Primary),
            "/replica" => Self::Check(Check::Replica),
            "/read-only" => Self::Check(Check::ReadOnly),
            "/status" => Self::Status,
            "/metrics" => Self::Metrics,
            "/" => Self::Page,
            "/events" => Self::Events,
            "/promote" => Self::Promote,
            "/members" => Self::Members,
            "/litefs-id/reset" => Self::ResetLitefsId,
            "/on-primary" => Self::OnPrimary,
            "/on-primary/forward" => Self::Forward,
            _ => return None,
        })
    }

    /// The methods allowed, as `Allow` lists them.
    fn methods(self) -> &'static str {
        match self {
            Self::Check(_) => "GET, HEAD, OPTIONS",
            Self::Status | Self::Metrics | Self::Page | Self::Events => "GET, HEAD",
            Self::Members => "GET, HEAD, POST",
            Self::Promote | Self::OnPrimary | Self::Forward | Self::ResetLitefsId => "POST",
        }
    }

    fn allows(self, method: &Method) -> bool {
        self.methods().split(", ").any(|allowed| allowed == method.as_str())
    }
}

/// Answers a request that came to the address `local`.
pub(crate) async fn answer<B>(server: &Server, request: Request<B>, local: IpAddr) -> Reply
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let status = (server.admin.status)();
    let endpoint = match admitted(&server.admin, &request, local) {
        Ok(endpoint) => endpoint,
        Err(refusal) => return refusal.reply(&status.node),
    };
    match dispatch(server, &status, endpoint, request).await {
        Ok(reply) => reply,
        Err(failure) => failure.reply(&status.node),
    }
}

/// What is asked for, if it may be.
fn admitted<B>(
    admin: &Admin,
    request: &Request<B>,
    local: IpAddr,
) -> Result<Endpoint, NotAdmitted> {
    let (version, uri, headers) = (request.version(), request.uri(), request.headers());
    if let Err((status, detail)) = admin.hosts.check(version, uri, headers, local) {
        let misdirected = status == StatusCode::MISDIRECTED_REQUEST;
        let name = if misdirected { "misdirected-request" } else { "bad-request" };
        return Err(Failure::new(status, name, detail).into());
    }
    let Some(endpoint) = Endpoint::at(uri.path()) else {
        let detail = "there is nothing at this path";
        return Err(Failure::new(StatusCode::NOT_FOUND, "not-found", detail).into());
    };
    let methods = endpoint.methods();
    if !endpoint.allows(request.method()) {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let failure = Failure::new(status, "method-not-allowed", format!("only {methods} here"));
        return Err(NotAdmitted { failure, header: Some((ALLOW, methods)) });
    }
    if request.method() == Method::POST && !admin.token.allows(headers) {
        let detail = "send `Authorization: Bearer TOKEN`; the token is admin.token of the configuration, or the content of admin.token in data_dir";
        let failure = Failure::new(StatusCode::UNAUTHORIZED, "unauthorized", detail);
        return Err(NotAdmitted { failure, header: Some((WWW_AUTHENTICATE, "Bearer")) });
    }
    Ok(endpoint)
}

/// Why a request is not admitted, with a header that says what would be.
struct NotAdmitted {
    failure: Failure,
    header: Option<(HeaderName, &'static str)>,
}

impl From<Failure> for NotAdmitted {
    fn from(failure: Failure) -> Self {
        Self { failure, header: None }
    }
}

impl NotAdmitted {
    fn reply(self, node: &NodeId) -> Reply {
        let mut reply = self.failure.reply(node);
        if let Some((name, value)) = self.header {
            reply.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        reply
    }
}

async fn dispatch<B>(
    server: &Server,
    status: &Status,
    endpoint: Endpoint,
    request: Request<B>,
) -> Result<Reply, Failure>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let Server { admin, changes, on_primary, forwarding, limits, .. } = server;
    let (head, body) = request.into_parts();
    let query = head.uri.query();
    Ok(match endpoint {
        Endpoint::Check(check) => return checked(check, admin, status, query),
        Endpoint::Status => reply::json(&status.node, status),
        Endpoint::Metrics => {
            reply::full(StatusCode::OK, metrics::CONTENT_TYPE, admin.metrics.render(status))
        }
        Endpoint::Page => page::render(&status.node),
        Endpoint::Events => follow(server, status, &head)?,
        Endpoint::Promote => reply::json(&status.node, &changes.promote(query).await?),
        Endpoint::Members if head.method == Method::POST => {
            let body = super::body::read(body, limits.body_timeout).await?;
            reply::json(&status.node, &changes.change_members(&body).await?)
        }
        Endpoint::ResetLitefsId => reply::json(&status.node, &changes.reset_litefs_id().await?),
        Endpoint::Members => reply::json(&status.node, &changes.members()?),
        Endpoint::OnPrimary => on_primary.open(query, body)?,
        Endpoint::Forward => {
            let body = super::body::read(body, limits.body_timeout).await?;
            forwarding.open(&body).await?
        }
    })
}

fn checked(
    check: Check,
    admin: &Admin,
    status: &Status,
    query: Option<&str>,
) -> Result<Reply, Failure> {
    let lag = match (check, query) {
        (Check::Replica, Some(query)) => {
            Some(allowed_lag(query).map_err(|why| Failure::bad_request(why.to_string()))?)
        }
        _ => None,
    };
    let stops = *admin.stopping.borrow() != Urgency::None;
    let outcome = match check {
        Check::Live => Ok(()),
        _ if stops => Err("this node is stopping".to_owned()),
        Check::Ready | Check::ReadOnly => checks::ready(status, admin.max_lag),
        Check::Primary => checks::primary(status),
        Check::Replica => checks::replica(status, admin.max_lag, lag),
    };
    let unavailable = |why| Failure::new(StatusCode::SERVICE_UNAVAILABLE, "check-failed", why);
    outcome.map(|()| reply::text("OK\n")).map_err(unavailable)
}

fn allowed_lag(query: &str) -> Result<Duration, ValueError> {
    match query.strip_prefix("lag=") {
        Some(lag) => parse_duration(lag),
        None => Err(format!("{query:?} is not understood: write lag=2s, or lag=250ms").into()),
    }
}

/// The events as they happen; with `?live` all that the page shows.
fn follow(server: &Server, status: &Status, head: &Parts) -> Result<Reply, Failure> {
    let Server { admin, streams, traffic, .. } = server;
    let live = match head.uri.query() {
        None => None,
        Some("live") => Some(Live {
            status: admin.status.clone(),
            view: admin.view.clone(),
            traffic: traffic.clone(),
        }),
        Some(other) => {
            let detail = format!("{other:?} is not understood: write ?live, or nothing");
            return Err(Failure::bad_request(detail));
        }
    };
    // A page of another site can open streams without being able to read them, and take every place.
    if head.headers.get(FETCH_SITE).is_some_and(|site| site == "cross-site") {
        let detail = "no page of another site may follow the events";
        return Err(Failure::new(StatusCode::FORBIDDEN, "cross-site", detail));
    }
    if head.method == Method::HEAD {
        return Ok(reply::full(StatusCode::OK, stream::CONTENT_TYPE, ""));
    }
    Ok(match streams.open(&admin.events, live) {
        Some(body) => reply::with_body(StatusCode::OK, stream::CONTENT_TYPE, body),
        None => {
            let mut reply = reply::problem(
                &status.node,
                StatusCode::SERVICE_UNAVAILABLE,
                "too-many-streams",
                "as many clients as allowed follow the events already",
            );
            reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
            // Who comes in thousands must not hold connections that others need.
            reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            reply
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_is_a_duration() {
        assert_eq!(allowed_lag("lag=2s"), Ok(Duration::from_secs(2)));
        assert_eq!(allowed_lag("lag=250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "lag", "lag=", "lag=2", "lag=-2s", "lag=2s&lag=3s", "lga=2s"] {
            assert!(allowed_lag(bad).is_err(), "{bad:?}");
        }
    }
}
