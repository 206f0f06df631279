//! Which answer a request gets.

use std::net::IpAddr;
use std::time::Duration;

use http::header::{ALLOW, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Method, Request, StatusCode};

use super::reply::{self, Reply};
use super::stream::Streams;
use super::{Admin, checks, page};
use crate::config::value::parse_duration;
use crate::status::Status;
use crate::telemetry::metrics;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Check(Check),
    Status,
    Metrics,
    Page,
    Events,
    /// Changes who is primary, or who is a member.
    Change,
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
            "/promote" | "/members" => Self::Change,
            _ => return None,
        })
    }

    /// The methods allowed, as `Allow` lists them.
    fn methods(self) -> &'static str {
        match self {
            Self::Check(_) => "GET, HEAD, OPTIONS",
            Self::Status | Self::Metrics | Self::Page | Self::Events => "GET, HEAD",
            Self::Change => "POST",
        }
    }

    fn allows(self, method: &Method) -> bool {
        self.methods().split(", ").any(|allowed| allowed == method.as_str())
    }
}

/// Answers a request that came to the address `local`. Its body is never read.
pub fn answer<B>(admin: &Admin, streams: &Streams, request: &Request<B>, local: IpAddr) -> Reply {
    let status = (admin.status)();
    let problem = |code, name, detail: &str| reply::problem(&status.node, code, name, detail);
    let (version, uri, headers) = (request.version(), request.uri(), request.headers());
    if let Err((code, detail)) = admin.hosts.check(version, uri, headers, local) {
        let misdirected = code == StatusCode::MISDIRECTED_REQUEST;
        let name = if misdirected { "misdirected-request" } else { "bad-request" };
        return problem(code, name, &detail);
    }
    let Some(endpoint) = Endpoint::at(uri.path()) else {
        return problem(StatusCode::NOT_FOUND, "not-found", "there is nothing at this path");
    };
    if !endpoint.allows(request.method()) {
        let methods = endpoint.methods();
        let detail = format!("only {methods} here");
        let mut reply = problem(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", &detail);
        reply.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
        return reply;
    }
    match endpoint {
        Endpoint::Check(check) => checked(check, admin, &status, uri.query()),
        Endpoint::Status => status_json(&status),
        Endpoint::Metrics => {
            reply::full(StatusCode::OK, metrics::CONTENT_TYPE, admin.metrics.render(&status))
        }
        Endpoint::Page => page::render(&status),
        Endpoint::Events => follow(admin, streams, &status, request.method()),
        Endpoint::Change if admin.token.allows(headers) => cannot_change(&status),
        Endpoint::Change => {
            let detail = "send `Authorization: Bearer TOKEN`; the token is admin.token of the configuration, or the content of admin.token in data_dir";
            let mut reply = problem(StatusCode::UNAUTHORIZED, "unauthorized", detail);
            reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            reply
        }
    }
}

fn checked(check: Check, admin: &Admin, status: &Status, query: Option<&str>) -> Reply {
    let lag = match (check, query) {
        (Check::Replica, Some(query)) => match allowed_lag(query) {
            Ok(lag) => Some(lag),
            Err(detail) => {
                return reply::problem(
                    &status.node,
                    StatusCode::BAD_REQUEST,
                    "bad-request",
                    &detail,
                );
            }
        },
        _ => None,
    };
    let outcome = match check {
        Check::Live => Ok(()),
        Check::Ready | Check::ReadOnly => checks::ready(status, admin.max_lag),
        Check::Primary => checks::primary(status),
        Check::Replica => checks::replica(status, admin.max_lag, lag),
    };
    match outcome {
        Ok(()) => reply::text("OK\n"),
        Err(why) => {
            reply::problem(&status.node, StatusCode::SERVICE_UNAVAILABLE, "check-failed", &why)
        }
    }
}

fn allowed_lag(query: &str) -> Result<Duration, String> {
    match query.strip_prefix("lag=") {
        Some(lag) => parse_duration(lag),
        None => Err(format!("{query:?} is not understood: write lag=2s, or lag=250ms")),
    }
}

fn status_json(status: &Status) -> Reply {
    match serde_json::to_string_pretty(status) {
        Ok(json) => reply::full(StatusCode::OK, "application/json", json + "\n"),
        Err(error) => reply::problem(
            &status.node,
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            &error.to_string(),
        ),
    }
}

fn follow(admin: &Admin, streams: &Streams, status: &Status, method: &Method) -> Reply {
    if method == Method::HEAD {
        return reply::full(StatusCode::OK, super::stream::CONTENT_TYPE, "");
    }
    match streams.open(&admin.events) {
        Some(body) => reply::with_body(StatusCode::OK, super::stream::CONTENT_TYPE, body),
        None => {
            let mut reply = reply::problem(
                &status.node,
                StatusCode::SERVICE_UNAVAILABLE,
                "too-many-streams",
                "as many clients as allowed follow the events already",
            );
            reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
            reply
        }
    }
}

/// What there is to say while no election can be asked to change anything.
fn cannot_change(status: &Status) -> Reply {
    let detail = if status.nodes.len() < 2 {
        "this node is on its own: there is no other node to hand over to, and no membership to change"
    } else {
        "the primary and the members are fixed by the configuration: change cluster.primary or cluster.peers there"
    };
    reply::problem(&status.node, StatusCode::CONFLICT, "not-elected", detail)
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
