//! The page for people: one file that shows what `/events?live` tells. It is the same for every node,
//! holds no data of its own, and loads nothing from elsewhere.

use http::StatusCode;
use http::header::{CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY};

use super::reply::{self, Reply};
use crate::cluster::NodeId;
use crate::secret::random_hex;

/// The page. `NONCE` marks what the browser may apply and run.
const PAGE: &str = include_str!("page.html");
/// In its place stands a number that nobody can guess, another one each time: no markup that somebody
/// might bring in, by whatever way, has it.
const NONCE: &str = "{{nonce}}";
/// Keeps the page out of reach of windows that other sites have opened.
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// The page, which may run its own script, and talk to this port only.
pub(crate) fn render(node: &NodeId) -> Reply {
    let Ok(nonce) = random_hex::<16>() else {
        let detail = "the system has no random bytes";
        return reply::problem(node, StatusCode::INTERNAL_SERVER_ERROR, "internal", detail);
    };
    let page = PAGE.replace(NONCE, &nonce);
    let mut reply = reply::full(StatusCode::OK, "text/html; charset=utf-8", page);
    let headers = reply.headers_mut();
    if let Ok(policy) = HeaderValue::try_from(policy(&nonce)) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(OPENER_POLICY, HeaderValue::from_static("same-origin"));
    reply
}

/// Trusted types without a policy: the browser refuses to make markup of text.
fn policy(nonce: &str) -> String {
    format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_no_other_resource_and_makes_no_markup_of_text() {
        for word in [
            "http://",
            "https://",
            "//cdn",
            "@import",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "localStorage",
            "sessionStorage",
            "document.cookie",
            "style=\"",
            "onclick=",
            "javascript:",
        ] {
            // Names of namespaces are no addresses, though they look like some.
            let text = PAGE.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains(word), "{word}");
        }
        assert_eq!(PAGE.matches(NONCE).count(), 2, "a style and a script");
        assert_eq!(PAGE.matches("<script").count() + PAGE.matches("<style").count(), 2);
    }
}
