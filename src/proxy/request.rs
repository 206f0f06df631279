//! Whether a request is one that everybody reads alike. What hyper lets pass and an application
//! might take differently is refused here; what is passed on is serialised anew, never copied.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    EXPECT, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, Uri, Version};

use super::problem::{Problem, ProblemKind};

/// What to do about an `Upgrade` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upgrade {
    /// None was asked for, or one that we ignore (RFC 9110, 7.8 allows that).
    None,
    /// A WebSocket handshake (RFC 6455).
    WebSocket,
}

/// Checks a request's head and brings its target into origin form.
///
/// # Errors
///
/// 400 for what is ambiguous, 417 for an unknown expectation, 426 for a handshake of another version, 501
/// for CONNECT, 405 for TRACE.
pub(crate) fn check(head: &mut Parts) -> Result<Upgrade, Problem> {
    if head.method == Method::CONNECT {
        return Err(Problem::new(ProblemKind::NotImplemented, "this is no forward proxy"));
    }
    if head.method == Method::TRACE {
        let problem = Problem::new(ProblemKind::MethodNotAllowed, "TRACE is not passed on");
        return Err(problem.allow("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    check_framing(&head.headers)?;
    check_host(head)?;
    origin_form(head)?;
    check_expectation(&head.headers)?;
    let upgrade = upgrade(head);
    if upgrade == Upgrade::WebSocket {
        check_handshake(&head.headers)?;
    }
    Ok(upgrade)
}

fn bad(detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(ProblemKind::BadRequest, detail)
}

/// hyper has refused what has no single reading, and dropped a length beside a coding. This adds what it merely tolerates: codings that
/// it does not undo, so that the application would get them unannounced.
fn check_framing(headers: &HeaderMap) -> Result<(), Problem> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let only_chunked = match codings.next() {
        Some(coding) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        None => return Ok(()),
    };
    if !only_chunked || codings.next().is_some() {
        return Err(bad("Transfer-Encoding may only be \"chunked\", once (RFC 9112, 6.1)"));
    }
    Ok(())
}

/// Exactly one `Host`, well formed, in HTTP/1.1 (RFC 9112, 3.2); at most one in HTTP/1.0.
fn check_host(head: &Parts) -> Result<(), Problem> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let Some(host) = hosts.next() else {
        let needed = head.version >= Version::HTTP_11 && head.uri.authority().is_none();
        return if needed { Err(bad("the request has no Host (RFC 9112, 3.2)")) } else { Ok(()) };
    };
    if hosts.next().is_some() {
        return Err(bad("the request has more than one Host (RFC 9112, 3.2)"));
    }
    match foreign_to_authority(host.as_bytes()) {
        None => Ok(()),
        Some(byte) => Err(bad(format!(
            "the request's Host is not a host name with an optional port: it holds {:?}",
            char::from(byte)
        ))),
    }
}

/// What cannot be in `uri-host [":" port]`: user information, a path, white space, and whatever is not of
/// its alphabet.
fn foreign_to_authority(host: &[u8]) -> Option<u8> {
    let belongs = |b: &u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(b);
    host.iter().copied().find(|byte| !belongs(byte))
}

/// Nobody here knows another one than `100-continue` (RFC 9110, 10.1.1).
fn check_expectation(headers: &HeaderMap) -> Result<(), Problem> {
    let known = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if headers.get_all(EXPECT).iter().all(known) {
        return Ok(());
    }
    let detail = "the only expectation that can be met is 100-continue";
    Err(Problem::new(ProblemKind::ExpectationFailed, detail))
}

/// RFC 6455, 4.2.1: a client of another version learns which one is spoken.
fn check_handshake(headers: &HeaderMap) -> Result<(), Problem> {
    let only = |name| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none()).map(HeaderValue::as_bytes)
    };
    if only(SEC_WEBSOCKET_VERSION) != Some(b"13") {
        let detail = "a WebSocket is opened with Sec-WebSocket-Version: 13 (RFC 6455)";
        return Err(Problem::new(ProblemKind::UpgradeRequired, detail));
    }
    let nonce = only(SEC_WEBSOCKET_KEY).and_then(|key| STANDARD.decode(key).ok());
    match nonce {
        Some(nonce) if nonce.len() == 16 => Ok(()),
        _ => Err(bad(
            "a WebSocket is opened with one Sec-WebSocket-Key: 16 bytes in base64 (RFC 6455)",
        )),
    }
}

/// `http://host/path` becomes `/path`, with `host` as `Host` (RFC 9112, 3.2.2). Two hosts that
/// differ are refused rather than one chosen: a rule or a cache in front may have seen the other.
fn origin_form(head: &mut Parts) -> Result<(), Problem> {
    if let Some(authority) = head.uri.authority().cloned() {
        let scheme = head.uri.scheme_str().unwrap_or_default();
        if !matches!(scheme, "http" | "https") {
            return Err(bad("the target must be a path, or an http or https URL"));
        }
        adopt_authority(head, &authority)?;
    } else if head.uri.path() != "*" && !head.uri.path().starts_with('/') {
        return Err(bad("the target must begin with \"/\""));
    }
    if head.uri.path() == "*" && head.method != Method::OPTIONS {
        return Err(bad("the target \"*\" goes with OPTIONS only (RFC 9112, 3.2.4)"));
    }
    if head.uri.authority().is_some() {
        head.uri = Uri::from(path_of_absolute(&head.uri)?);
    }
    Ok(())
}

/// `http://host?query` asks for `/?query`, and `http://host#fragment` for `/`. `Uri` shows both paths as `/`,
/// but holds none.
fn path_of_absolute(uri: &Uri) -> Result<PathAndQuery, Problem> {
    match (uri.path_and_query(), uri.query()) {
        (Some(path), _) if uri.path() != "/" => Ok(path.clone()),
        (_, Some(query)) => PathAndQuery::try_from(format!("/?{query}"))
            .map_err(|_| bad("the target's query is malformed")),
        _ => Ok(PathAndQuery::from_static("/")),
    }
}

fn adopt_authority(head: &mut Parts, authority: &Authority) -> Result<(), Problem> {
    if foreign_to_authority(authority.as_str().as_bytes()).is_some() {
        return Err(bad("the target's host must be a host name with an optional port"));
    }
    match head.headers.get(HOST) {
        Some(host) if host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) => Ok(()),
        Some(_) => Err(bad("the target's host and the Host header differ")),
        None => {
            let host = HeaderValue::from_str(authority.as_str());
            head.headers.insert(HOST, host.map_err(|_| bad("the target's host is malformed"))?);
            Ok(())
        }
    }
}

fn upgrade(head: &Parts) -> Upgrade {
    let mut wanted = head.headers.get_all(UPGRADE).iter();
    let web_socket = head.version == Version::HTTP_11
        && head.method == Method::GET
        && wanted.next().is_some_and(|u| u.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && wanted.next().is_none();
    if web_socket { Upgrade::WebSocket } else { Upgrade::None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn head(method: &str, target: &str, headers: &[(&'static str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn an_absolute_target_becomes_a_path_and_its_host_the_host() {
        let mut h = head("GET", "http://shop:81/a?b", &[]);
        check(&mut h).unwrap();
        assert_eq!(h.uri, "/a?b");
        assert_eq!(h.headers[HOST], "shop:81");
        for (target, path) in
            [("http://SHOP", "/"), ("http://shop#top", "/"), ("http://shop?a#b", "/?a")]
        {
            let mut h = head("GET", target, &[("host", "shop")]);
            check(&mut h).unwrap();
            assert_eq!(h.uri.to_string(), path);
        }
        let mut h = head("GET", "http://shop?b", &[]);
        check(&mut h).unwrap();
        assert_eq!(h.uri, "/?b");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (mut h, why) in [
            (head("GET", "/", &[]), "no Host"),
            (head("GET", "/", &[("host", "a"), ("host", "a")]), "two hosts"),
            (head("GET", "/", &[("host", "a b")]), "white space in the host"),
            (head("GET", "/", &[("host", "a/b")]), "path in the host"),
            (head("GET", "/", &[("host", "u@a")]), "user in the host"),
            (head("GET", "http://a/", &[("host", "b")]), "two different hosts"),
            (head("GET", "http://u@a/", &[]), "user in the target"),
            (head("GET", "ftp://a/", &[("host", "a")]), "another scheme"),
            (head("GET", "*", &[("host", "a")]), "asterisk without OPTIONS"),
            (head("GET", "a:80", &[("host", "a")]), "authority form without CONNECT"),
            (head("CONNECT", "a:80", &[("host", "a")]), "CONNECT"),
            (head("TRACE", "/", &[("host", "a")]), "TRACE"),
            (
                head("POST", "/", &[("host", "a"), ("transfer-encoding", "gzip, chunked")]),
                "a coding that we do not undo",
            ),
            (
                head(
                    "POST",
                    "/",
                    &[
                        ("host", "a"),
                        ("transfer-encoding", "chunked"),
                        ("transfer-encoding", "chunked"),
                    ],
                ),
                "chunked twice",
            ),
        ] {
            assert!(check(&mut h).is_err(), "{why}");
        }
        assert!(check(&mut head("OPTIONS", "*", &[("host", "a")])).is_ok());
    }

    #[test]
    fn only_a_web_socket_handshake_is_an_upgrade() {
        let handshake =
            [("sec-websocket-version", "13"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")];
        let h =
            |m, u: &str| head(m, "/", &[&[("host", "a"), ("upgrade", u)][..], &handshake].concat());
        assert_eq!(check(&mut h("GET", "WebSocket")).unwrap(), Upgrade::WebSocket);
        assert_eq!(check(&mut h("GET", "h2c")).unwrap(), Upgrade::None);
        assert_eq!(check(&mut h("POST", "websocket")).unwrap(), Upgrade::None);
    }
}
