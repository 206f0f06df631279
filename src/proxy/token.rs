//! The token that gives a client read-your-writes: found in a request, taken out of it, set on a
//! response.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use ::cookie::time::Duration;
use http::header::{CACHE_CONTROL, COOKIE, HeaderName, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use memchr::memchr_iter;

use super::upstream::RawHeaders;
use crate::cluster::Epoch;
use crate::config;
use crate::txid::{EpochTxid, Token, Txid};

/// The name of LiteFS' own cookie.
const TXID_COOKIE: &[u8] = b"__txid";
const EPOCH_COOKIE: &[u8] = b"__txid_epoch";

/// And a mark, in hexadecimal: a cookie that holds a whole token.
const MARKED_COOKIE: &[u8] = b"__txid_at_";
/// So many of a request's are replaced by its response; the others by later ones.
const MARKS: usize = 8;

/// For clients without cookies, both ways.
pub(crate) const TXID_HEADER: HeaderName = HeaderName::from_static("litepilot-txid");
/// For clients without cookies, both ways.
pub(crate) const EPOCH_HEADER: HeaderName = HeaderName::from_static("litepilot-epoch");

/// How long a client keeps its token, in seconds; LiteFS' own choice.
const MAX_AGE_SECONDS: i64 = 300;

/// What a request carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// The highest well-formed token. Its epoch is 0 if the client kept only the transaction.
    pub token: Option<Token>,
    /// Something in a token's place was no token; the primary replaces it.
    pub(crate) malformed: bool,
    /// The cookies that hold a token each.
    pub(crate) marks: Marks,
    /// A `Cookie` header holds one of our cookies, to be removed before the app sees it.
    in_cookie: bool,
}

/// The marks of cookies. Each response sets one of its own, and takes away those that its request came
/// with: of responses in parallel none replaces what another has set, in whatever order they arrive, so
/// that what a browser holds only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks([Option<u16>; MARKS]);

impl Marks {
    fn add(&mut self, mark: u16) {
        if let Some(free) = self.0.iter_mut().find(|known| known.is_none()) {
            *free = Some(mark);
        }
    }

    fn iter(&self) -> impl Iterator<Item = u16> {
        self.0.iter().flatten().copied()
    }

    /// One that the request did not come with.
    fn fresh(&self) -> u16 {
        let random = || (RandomState::new().build_hasher().finish() & 0xffff) as u16;
        std::iter::repeat_with(random)
            .find(|mark| self.iter().all(|known| known != *mark))
            .unwrap_or(0)
    }
}

/// Finds the token of a request. Of several the highest counts; the n-th transaction goes with the
/// n-th epoch, since browsers send cookies of one path in pairs. Does not allocate. `speaks_to_us`:
/// some field is one of ours.
pub fn find(headers: &HeaderMap, speaks_to_us: bool) -> Carried {
    let mut found = Carried::default();
    let mut epochs = tokens(headers).filter(|(name, _)| *name == EPOCH_COOKIE);
    for (name, txid) in tokens(headers) {
        found.in_cookie = true;
        if name == TXID_COOKIE {
            found.offer(txid, epochs.next().map(|(_, epoch)| epoch));
        } else if let Some(mark) = mark(name) {
            found.marks.add(mark);
            let dot = txid.iter().position(|b| *b == b'.').unwrap_or(txid.len());
            found.offer(txid.get(dot + 1..).unwrap_or_default(), Some(&txid[..dot]));
        }
    }
    if !speaks_to_us {
        return found;
    }
    let mut epochs = headers.get_all(EPOCH_HEADER).iter();
    for txid in headers.get_all(TXID_HEADER) {
        found.offer(txid.as_bytes(), epochs.next().map(HeaderValue::as_bytes));
    }
    found
}

impl Carried {
    fn offer(&mut self, txid: &[u8], epoch: Option<&[u8]>) {
        let epoch = epoch.map_or(Some(0), decimal);
        match (Txid::from_hex(txid), epoch) {
            (Ok(txid), Some(epoch)) => {
                self.token = self.token.max(Some(EpochTxid { epoch: Epoch(epoch), txid }));
            }
            _ => self.malformed = true,
        }
    }

    /// Takes the cookies off a request that holds a token, and adds those that the application may
    /// see; they stay byte for byte. Tokens in headers go with [the others of
    /// ours](super::headers::clean).
    pub(crate) fn strip(&self, headers: &mut HeaderMap, added: &mut RawHeaders) {
        if !self.in_cookie {
            return;
        }
        for line in headers.get_all(COOKIE) {
            let kept = pairs(line).filter(|pair| !pair.is_empty() && token(pair).is_none());
            added.add_joined(&COOKIE, "; ", kept);
        }
        headers.remove(COOKIE);
    }
}

/// The name-value pairs of a `Cookie` header, untouched but for white space around them.
fn pairs(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let (line, mut start) = (line.as_bytes(), 0);
    memchr_iter(b';', line).chain([line.len()]).map(move |end| {
        let pair = &line[start..end];
        start = end + 1;
        pair.trim_ascii()
    })
}

/// The name and the value of a pair that is one of our cookies.
fn token(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    // Nearly every pair ends here.
    if !pair.starts_with(TXID_COOKIE) {
        return None;
    }
    let at = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
    let name = pair[..at].trim_ascii_end();
    let value = pair.get(at + 1..).unwrap_or_default().trim_ascii_start();
    let ours = matches!(name, TXID_COOKIE | EPOCH_COOKIE) || mark(name).is_some();
    ours.then_some((name, value))
}

/// The mark in the name of a cookie that has one.
fn mark(name: &[u8]) -> Option<u16> {
    let digits = name.strip_prefix(MARKED_COOKIE)?;
    let lower = digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let text = std::str::from_utf8(digits).ok().filter(|text| lower && text.len() == 4)?;
    u16::from_str_radix(text, 16).ok()
}

/// Our cookies in all `Cookie` headers.
fn tokens(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers.get_all(COOKIE).iter().flat_map(pairs).filter_map(token)
}

/// Decimal digits only, without sign or white space.
fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.len() <= 20 && text.iter().all(u8::is_ascii_digit);
    if !digits {
        return None;
    }
    text.iter()
        .try_fold(0u64, |value, digit| value.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
}

/// Our cookies with everything but their names and values, made once.
#[derive(Clone, Debug)]
pub(crate) struct Setter {
    secure: config::Secure,
    attributes: String,
    /// Those of a cookie that goes.
    removal: String,
}

impl Setter {
    /// From `proxy.cookie`.
    pub(crate) fn new(cookie: &config::Cookie) -> Self {
        let same_site = match cookie.same_site {
            config::SameSite::Strict => cookie::SameSite::Strict,
            config::SameSite::Lax => cookie::SameSite::Lax,
            config::SameSite::None => cookie::SameSite::None,
        };
        let mut template = cookie::Cookie::build(("", ""))
            .path("/")
            .http_only(true)
            .same_site(same_site)
            .secure(false)
            .max_age(Duration::seconds(MAX_AGE_SECONDS))
            .build();
        if let Some(domain) = &cookie.domain {
            template.set_domain(domain.clone());
        }
        let attributes = template.to_string().trim_start_matches('=').to_owned();
        template.set_max_age(Duration::ZERO);
        let removal = template.to_string().trim_start_matches('=').to_owned();
        Self { secure: cookie.secure, attributes, removal }
    }

    /// Puts the token on a response: as headers always, as cookies unless a shared cache could keep
    /// the response and hand one client's token to another (RFC 9111).
    ///
    /// `marks` are those that the request came with. `__txid` and its epoch are for clients of LiteFS'
    /// own, and for a former version of this one.
    pub(crate) fn set(&self, token: Token, over_tls: bool, marks: &Marks, headers: &mut HeaderMap) {
        let secure = match self.secure {
            config::Secure::Auto => over_tls,
            config::Secure::Always => true,
            config::Secure::Never => false,
        };
        let secure = if secure { "; Secure" } else { "" };
        if !shared_caches_may_keep(headers) {
            let Token { epoch, txid } = token;
            let mut add = |cookie: String| {
                if let Ok(cookie) = HeaderValue::try_from(cookie) {
                    headers.append(SET_COOKIE, cookie);
                }
            };
            let (kept, gone) = (&self.attributes, &self.removal);
            add(format!("__txid={txid}{kept}{secure}"));
            add(format!("__txid_epoch={epoch}{kept}{secure}"));
            add(format!("__txid_at_{:04x}={epoch}.{txid}{kept}{secure}", marks.fresh()));
            marks.iter().for_each(|mark| add(format!("__txid_at_{mark:04x}={gone}{secure}")));
        }
        set_headers(token, headers);
    }
}

/// The token as headers.
pub(crate) fn set_headers(token: Token, headers: &mut HeaderMap) {
    if let Ok(txid) = HeaderValue::from_bytes(&token.txid.to_hex()) {
        headers.insert(TXID_HEADER, txid);
    }
    headers.insert(EPOCH_HEADER, HeaderValue::from(token.epoch.0));
}

fn shared_caches_may_keep(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(CACHE_CONTROL).iter().filter_map(|v| v.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|directive| {
        let name = directive.split('=').next().unwrap_or_default().trim();
        name.eq_ignore_ascii_case("public") || name.eq_ignore_ascii_case("s-maxage")
    })
}

#[cfg(test)]
mod tests;
