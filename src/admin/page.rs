//! The page for people: the status as a table.

use std::fmt::Write;

use http::StatusCode;
use http::header::{CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY};

use super::reply::{self, Reply};
use crate::html::escaped;
use crate::secret::random_hex;
use crate::status::{AppState, Member, Status};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;\
    padding:0 1rem}table{border-collapse:collapse;width:100%}th,td{text-align:left;\
    padding:.3rem .8rem;border-bottom:1px solid #ccc}";

/// The page. It loads nothing and runs nothing.
pub fn render(status: &Status) -> Reply {
    let Ok(nonce) = random_hex::<16>() else {
        let detail = "the system has no random bytes";
        let code = StatusCode::INTERNAL_SERVER_ERROR;
        return reply::problem(&status.node, code, "internal", detail);
    };
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let page = html(status, &nonce);
    let mut reply = reply::full(StatusCode::OK, "text/html; charset=utf-8", page);
    let headers = reply.headers_mut();
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    reply
}

fn html(status: &Status, nonce: &str) -> String {
    let rows: String = status.nodes.iter().map(row).collect();
    let primary = match &status.primary {
        Some(primary) => format!(
            "{} (epoch {}, since {})",
            escaped(primary.node.as_str()),
            primary.epoch,
            escaped(&primary.since)
        ),
        None => "none".to_owned(),
    };
    let app = match status.app.state {
        AppState::Up => "up",
        AppState::Down => "down",
    };
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"refresh\" content=\"5\"><title>Litepilot: {node}</title>\
         <style nonce=\"{nonce}\">{STYLE}</style></head><body>\
         <h1>{node}</h1><p>Litepilot {version}. Primary: {primary}. Application: {app}. \
         Engine: {engine}, {state}.</p>\
         <table><thead><tr><th>Node</th><th>Role</th><th>Reachable</th><th>Position</th>\
         <th>Lag</th></tr></thead><tbody>{rows}</tbody></table>\
         <p>As of the loading of this page, which repeats every 5 s. More: \
         <a href=\"/status\">status</a>, <a href=\"/metrics\">metrics</a>, \
         <a href=\"/events\">events</a>.</p></body></html>\n",
        node = escaped(status.node.as_str()),
        version = escaped(&status.version),
        engine = escaped(&status.litefs.engine),
        state = escaped(&status.litefs.state),
    )
}

fn row(member: &Member) -> String {
    let mut row = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        row,
        "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
        escaped(member.node.as_str()),
        member.role.as_str(),
        if member.reachable { "yes" } else { "no" },
        member.position.map_or("unknown".to_owned(), |position| position.to_string()),
        member.lag_ms.map_or("unknown".to_owned(), |lag| format!("{lag} ms")),
    );
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::example;

    #[test]
    fn shows_the_nodes_and_lets_no_text_become_markup() {
        let mut status = example();
        status.litefs.state = "<script>alert('1')</script>".into();
        let page = html(&status, "n");
        assert!(page.contains("<td>node-1</td><td>primary</td><td>yes</td>"), "{page}");
        assert!(!page.contains("<script"), "{page}");
    }
}
