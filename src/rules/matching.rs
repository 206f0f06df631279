//! What a rule asks of a request.

use std::borrow::Cow;

use http::header::{CONTENT_TYPE, HOST, HeaderName, UPGRADE};
use http::{HeaderMap, Uri};
use regex::bytes::Regex;

use super::glob::Glob;
use super::{path, target};

/// The parts of a request that rules look at, but for its method and its path.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
}

/// A rule's `match`, but for `method`. All of it must hold; what is not set always does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Match {
    pub(crate) path: Option<Glob>,
    /// Found anywhere in the path.
    pub(crate) path_regex: Option<Regex>,
    /// The host without its port.
    pub(crate) host: Option<Glob>,
    /// Parameters of the query.
    pub(crate) query: Vec<(String, Condition)>,
    pub(crate) header: Vec<(HeaderName, Condition)>,
    /// The media type without its parameters.
    pub(crate) content_type: Option<Glob>,
    /// One of the protocols that `Upgrade` names.
    pub(crate) upgrade: Option<Glob>,
}

/// What a named value must be.
#[derive(Clone, Debug)]
pub(crate) enum Condition {
    /// There, whatever it is.
    Present,
    Absent,
    /// There, and at least one of its values is like this.
    Like(Glob),
}

impl Match {
    /// Whether a request matches, if its path reads like this.
    pub(crate) fn matches(&self, request: Request<'_>, path: &[u8]) -> bool {
        // The path first: it is the cheapest, and tells most rules apart.
        holds(&self.path, |glob| glob.matches(path))
            && holds(&self.upgrade, |glob| upgrades(request.headers, glob))
            && holds(&self.content_type, |glob| has_type(request.headers, glob))
            && holds(&self.host, |glob| host(request).is_some_and(|host| glob.matches(host)))
            && self.header.iter().all(|(name, condition)| {
                condition.holds(|like| {
                    request.headers.get_all(name).iter().any(|value| like(value.as_bytes()))
                })
            })
            && self.query.iter().all(|(name, condition)| {
                condition.holds(|like| {
                    let query = target::bytes(request.uri.query().unwrap_or_default());
                    parameters(&query).any(|(key, value)| *key == *name.as_bytes() && like(&value))
                })
            })
            && holds(&self.path_regex, |regex| regex.is_match(path))
    }
}

impl Condition {
    /// Whether it holds; `any` says whether there is a value that is like something.
    fn holds(&self, any: impl Fn(&dyn Fn(&[u8]) -> bool) -> bool) -> bool {
        match self {
            Self::Present => any(&|_| true),
            Self::Absent => !any(&|_| true),
            Self::Like(glob) => any(&|value| glob.matches(value)),
        }
    }
}

fn holds<T>(condition: &Option<T>, check: impl Fn(&T) -> bool) -> bool {
    condition.as_ref().is_none_or(check)
}

fn upgrades(headers: &HeaderMap, protocol: &Glob) -> bool {
    let mut fields = headers.get_all(UPGRADE).iter();
    fields.any(|field| {
        field.as_bytes().split(|byte| *byte == b',').any(|name| protocol.matches(name.trim_ascii()))
    })
}

fn has_type(headers: &HeaderMap, media_type: &Glob) -> bool {
    let mut fields = headers.get_all(CONTENT_TYPE).iter();
    fields.any(|field| media_type.matches(before(field.as_bytes(), b';').trim_ascii()))
}

/// The host that a request is for: an absolute target counts more than `Host` (RFC 9112, 3.2.2).
fn host<'a>(request: Request<'a>) -> Option<&'a [u8]> {
    let host = match request.uri.host() {
        Some(host) => host.as_bytes(),
        None => request.headers.get(HOST)?.as_bytes(),
    };
    // An IPv6 address is full of colons, but for its port it ends in a bracket.
    let without_port = match host.iter().position(|byte| *byte == b']') {
        Some(bracket) => &host[..=bracket],
        None => before(host, b':'),
    };
    Some(without_port.strip_suffix(b".").unwrap_or(without_port))
}

/// The query's parameters as a form reads them, decoded once.
fn parameters(query: &[u8]) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
    query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        let key = before(pair, b'=');
        let value = pair.get(key.len() + 1..).unwrap_or_default();
        (form_decode(key), form_decode(value))
    })
}

fn form_decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let spaced: Vec<u8> =
        text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Cow::Owned(path::decode(&spaced))
}

fn before(text: &[u8], end: u8) -> &[u8] {
    text.split(|byte| *byte == end).next().unwrap_or(text)
}
