//! The access log: a line for each request that was answered.

use http::{HeaderValue, Method, StatusCode, Uri};
use tokio::time::Duration;

use crate::rules::Class;
use crate::telemetry::metrics::{Replay, Route};

/// A parameter of the query whose name holds one of these is a secret …
const SECRET_PARTS: [&str; 10] = [
    "token",
    "passw",
    "secret",
    "signature",
    "api_key",
    "apikey",
    "api-key",
    "auth",
    "session",
    "jwt",
];
/// … or is one of these.
const SECRET_NAMES: [&str; 5] = ["key", "sig", "code", "pwd", "sid"];
/// Stands for a secret.
const HIDDEN: &str = "***";

/// What the log says of a request, besides how it was answered.
pub(crate) struct Logged {
    pub(crate) client: String,
    /// What it asked for.
    pub(crate) method: Method,
    pub(crate) target: Uri,
    /// By which name it is known elsewhere.
    pub(crate) request_id: HeaderValue,
}

impl Logged {
    pub(crate) fn write(
        &self,
        class: Class,
        route: Route,
        replay: Option<Replay>,
        status: StatusCode,
        took: Duration,
    ) {
        tracing::info!(
            target: "access",
            client = self.client,
            method = %self.method,
            // Not `target`: in JSON that is the log's own key.
            uri = shown(&self.target),
            status = status.as_u16(),
            class = class.as_str(),
            route = route.as_str(),
            // Left out where there was none.
            replay = replay.map(Replay::as_str),
            took_ms = took.as_secs_f64() * 1000.0,
            request_id = self.request_id.to_str().unwrap_or_default(),
            "request"
        );
    }
}

/// The target without the values of parameters that are secrets by their names. Other headers and
/// bodies are never logged.
fn shown(target: &Uri) -> String {
    let Some(query) = target.query() else { return target.to_string() };
    let parameters: Vec<String> = query.split('&').map(shown_parameter).collect();
    format!("{}?{}", target.path(), parameters.join("&"))
}

fn shown_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, value)) if !value.is_empty() && is_secret(name) => format!("{name}={HIDDEN}"),
        _ => parameter.to_owned(),
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.contains(&name.as_str()) || SECRET_PARTS.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_a_query_are_hidden_and_all_else_is_shown() {
        for (target, expected) in [
            ("/", "/"),
            ("/a?b", "/a?b"),
            ("/a?page=2&q=x%20y&=z&", "/a?page=2&q=x%20y&=z&"),
            ("/reset?access_token=abc&next=/", "/reset?access_token=***&next=/"),
            ("/x?PASSWORD=a=b&key=1&code=2&monkey=3", "/x?PASSWORD=***&key=***&code=***&monkey=3"),
            ("/x?token=&api-key", "/x?token=&api-key"),
            ("*", "*"),
        ] {
            assert_eq!(shown(&target.parse().unwrap()), expected);
        }
    }
}
