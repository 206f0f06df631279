//! A kind of request that was found to write: method, host and path, in which what names one thing only
//! (numbers, UUIDs, long keys, which may be secrets too) is any. As a key it is compared as it is, so that
//! looking a request up costs the same however many are known; as a rule it can be pasted into a rule file.

use std::fmt::Write as _;

use http::Method;
use serde::{Deserialize, Serialize};

use super::glob::check_path;
use super::path;

/// A segment of a path of at least this many bytes that holds a digit names one thing only …
const LONG: usize = 16;
/// … and so does one of at least this many that is a number in base 16, as short hashes are.
const HASH: usize = 7;
/// What glob patterns take for more than itself.
const SPECIAL: &[char] = &['*', '?', '[', ']', '{', '}', '\\', '!', ','];
/// Bytes of the longest that are kept.
const MAX_METHOD: usize = 16;
const MAX_PATH: usize = 256;
const MAX_HOST: usize = 128;

/// Requests that write.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WriteRoute {
    /// `GET` also means `HEAD`.
    method: String,
    /// Without its port, in small letters; empty: any.
    host: String,
    /// A pattern, as rules have it.
    path: String,
}

impl WriteRoute {
    /// The route of such requests; `None` for what is not kept: long ones, odd hosts, and paths that no rule
    /// may name (with `..`, or encoded twice). `host`: the field.
    pub(crate) fn of(method: &Method, host: &[u8], path: &str) -> Option<Self> {
        if method.as_str().len() > MAX_METHOD || path.len() > MAX_PATH || !path.starts_with('/') {
            return None;
        }
        let (host, path) = (plain_host(host)?, pattern(path));
        check_path(&path).is_ok().then(|| Self { method: as_in_rules(method), host, path })
    }

    /// The default rules call such requests reads.
    pub(crate) fn is_read_by_default(&self) -> bool {
        matches!(self.method.as_str(), "GET" | "OPTIONS")
    }

    /// What a peer says may be anything.
    pub(crate) fn is_sound(&self) -> bool {
        // Escaping at most doubles a path.
        self.method.len() <= MAX_METHOD
            && self.host.len() <= MAX_HOST
            && self.path.len() <= 2 * MAX_PATH
    }

    /// Method and path, for people.
    pub(crate) fn request(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// A rule that calls such requests writes, as an item of `rules:`.
    pub(crate) fn rule(&self) -> String {
        let host = match self.host.as_str() {
            "" => String::new(),
            host => format!("host: {}, ", quoted(host)),
        };
        let (method, path) = (&self.method, quoted(&self.path));
        format!("- {{match: {{method: {method}, {host}path: {path}}}, as: write}}")
    }
}

/// Rules for GET hold for HEAD.
fn as_in_rules(method: &Method) -> String {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    method.as_str().to_owned()
}

/// The host without its port, if it is one that a rule can name.
fn plain_host(host: &[u8]) -> Option<String> {
    let host = std::str::from_utf8(host).ok()?.to_ascii_lowercase();
    let end = match host.rfind(']') {
        Some(bracket) => bracket + 1,
        None => host.find(':').unwrap_or(host.len()),
    };
    let host = host[..end].trim_end_matches('.');
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    (host.len() <= MAX_HOST && host.bytes().all(plain)).then(|| host.to_owned())
}

/// A value of YAML's. JSON's text is YAML's, and its quotes are needed where there are signs of YAML's.
fn quoted(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/_.-*~+@".contains(&b);
    // A name of digits would be a number.
    match text.bytes().all(plain) && text.bytes().any(|b| b.is_ascii_alphabetic() || b == b'/') {
        true => text.to_owned(),
        false => serde_json::Value::from(text.replace("${", "$${")).to_string(),
    }
}

/// The path as a rule has it.
fn pattern(path: &str) -> String {
    let mut pattern = String::new();
    for (i, segment) in path.split('/').enumerate() {
        if i > 0 {
            pattern.push('/');
        }
        let decoded = String::from_utf8(path::decode(segment.as_bytes()));
        match decoded {
            Ok(text) if !is_single(&text) => {
                for c in text.chars() {
                    // Writing to a String cannot fail.
                    let _ = match SPECIAL.contains(&c) {
                        true => write!(pattern, "\\{c}"),
                        false => write!(pattern, "{c}"),
                    };
                }
            }
            _ => pattern.push('*'),
        }
    }
    pattern
}

/// Whether a segment names one thing only.
fn is_single(segment: &str) -> bool {
    let digits = segment.bytes().filter(u8::is_ascii_digit).count();
    let number = digits > 0 && digits == segment.len();
    let base_16 = segment.bytes().all(|b| b.is_ascii_hexdigit());
    number
        || digits > 0 && (segment.len() >= LONG || base_16 && segment.len() >= HASH)
        || segment.chars().any(char::is_control)
        || segment.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Class, RuleSet};
    use http::{HeaderMap, HeaderValue, Uri, header::HOST};

    fn route(path: &str) -> WriteRoute {
        WriteRoute::of(&Method::GET, b"", path).unwrap()
    }

    fn class(rule: &str, method: &Method, host: &str, uri: &Uri) -> Class {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("fix.yml");
        std::fs::write(&file, format!("rules:\n  {rule}\n")).unwrap();
        let rules = RuleSet::load(&[file.display().to_string()]);
        let rules = rules.unwrap_or_else(|why| panic!("{rule}: {why:?}"));
        let mut fields = HeaderMap::new();
        fields.insert(HOST, HeaderValue::from_str(host).unwrap());
        rules.classify(method, uri, &fields).unwrap().class
    }

    #[test]
    fn the_rule_that_is_proposed_makes_it_a_write() {
        for target in [
            "/",
            "/cart/clear",
            "/item/17/like",
            "/item/%7B17%7D,a",
            "/a*b/[c]?q=1",
            "/reset/4f1c8a0b7d6e5f4a3b2c",
            "/caf%C3%A9/%22quoted%22/$%7BHOME%7D",
            "/x%FF/y",
            "/a:b/#",
        ] {
            let uri: Uri = target.parse().unwrap();
            for host in ["", "Shop.Example:8080", "[::1]:81", "10.0.0.1", "12"] {
                let route = WriteRoute::of(&Method::GET, host.as_bytes(), uri.path()).unwrap();
                for method in [Method::GET, Method::HEAD] {
                    let class = class(&route.rule(), &method, host, &uri);
                    assert_eq!(class, Class::Write, "{target} at {host}: {}", route.rule());
                }
            }
        }
    }

    #[test]
    fn what_names_one_thing_is_any() {
        for (path, expected) in [
            ("/item/17/like", "/item/*/like"),
            ("/v2/page", "/v2/page"),
            ("/reset/4f1c8a0b7d6e5f4a3b2c/", "/reset/*/"),
            ("/unsubscribe-from-newsletter", "/unsubscribe-from-newsletter"),
            ("/user/0b8f6a1e-0b52-4c53-9a6e-6a8d6f7f6f11", "/user/*"),
            ("/commit/7870d9a", "/commit/*"),
            ("/facade/decade", "/facade/decade"),
        ] {
            assert_eq!(route(path).path, expected);
        }
    }

    #[test]
    fn a_request_and_its_like_have_one_route() {
        let of = |method, host: &str, path| WriteRoute::of(&method, host.as_bytes(), path);
        let like = of(Method::GET, "shop:81", "/item/17/like");
        assert_eq!(like, of(Method::HEAD, "SHOP", "/item/18/like"));
        assert_ne!(like, of(Method::GET, "other", "/item/17/like"));
        assert_ne!(like, of(Method::GET, "shop", "/item/17/view"));
    }

    #[test]
    fn what_cannot_be_kept_has_none() {
        let long = "/x".repeat(MAX_PATH);
        for (method, host, path) in [
            (Method::GET, "shop", long.as_str()),
            (Method::GET, "a,b", "/"),
            (Method::OPTIONS, "shop", "*"),
            (Method::GET, "shop", "/a/../b"),
            (Method::GET, "shop", "/%2561"),
        ] {
            assert_eq!(WriteRoute::of(&method, host.as_bytes(), path), None, "{path}");
        }
    }
}
