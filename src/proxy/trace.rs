//! The names by which one request is known in every log on its way: `X-Request-Id`, and `traceparent`
//! of W3C's Trace Context. What came is passed on; what did not, or is malformed, is made here.
//!
//! A request is no span of ours, so a `traceparent` that came stays as it is. One that is made has
//! the flag "sampled": an application that samples by its parent then decides as without a proxy.

use std::cell::Cell;
use std::io::Write;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{Entry, HeaderName, HeaderValue};

/// `X-Request-Id`
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Bytes of an `X-Request-Id` that is passed on.
const LONGEST_ID: usize = 128;
/// `00-{32 digits}-{16 digits}-{2 digits}`
const TRACEPARENT_LENGTH: usize = 55;
/// Where the trace's own number is in it.
const TRACE_ID: std::ops::Range<usize> = 3..35;

/// Makes numbers that nobody else makes, one set per worker.
pub(crate) struct Numbers(Cell<u64>);

impl Default for Numbers {
    fn default() -> Self {
        // Without random bytes workers may repeat each other's numbers, which are only names.
        Self(Cell::new(getrandom::u64().unwrap_or_default()))
    }
}

impl Numbers {
    /// The next one, never 0. SplitMix64: these are names, not secrets.
    fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).max(1)
    }

    fn traceparent(&self) -> Bytes {
        let mut text = Vec::with_capacity(TRACEPARENT_LENGTH);
        let (high, low, parent) = (self.next(), self.next(), self.next());
        // Writing to a Vec cannot fail.
        let _ = write!(text, "00-{high:016x}{low:016x}-{parent:016x}-01");
        text.into()
    }
}

/// Sees to it that a request has both names, and gives its `X-Request-Id`: the trace's number, unless
/// the client has given it another.
pub(crate) fn name(fields: &mut HeaderMap, numbers: &Numbers) -> HeaderValue {
    let came = only(fields, &TRACEPARENT).filter(|value| is_traceparent(value.as_bytes())).cloned();
    let parent = match came {
        Some(parent) => parent,
        None => {
            // It belongs to the traceparent that was none.
            fields.remove(TRACESTATE);
            let made = value(numbers.traceparent());
            fields.insert(TRACEPARENT, made.clone());
            made
        }
    };
    if let Some(id) = only(fields, &REQUEST_ID).filter(|value| is_id(value.as_bytes())) {
        return id.clone();
    }
    let id = value(Bytes::copy_from_slice(&parent.as_bytes()[TRACE_ID]));
    fields.insert(REQUEST_ID, id.clone());
    id
}

/// Tells the client the request's name, unless the application has told it one.
pub(crate) fn tell(id: HeaderValue, answer: &mut HeaderMap) {
    if let Entry::Vacant(vacant) = answer.entry(REQUEST_ID) {
        vacant.insert(id);
    }
}

/// Digits and dashes are a valid value.
fn value(text: Bytes) -> HeaderValue {
    HeaderValue::from_maybe_shared(text).unwrap_or(HeaderValue::from_static("unknown"))
}

/// A field's value, if there is exactly one.
fn only<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = fields.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// What stands in every log as one word.
fn is_id(text: &[u8]) -> bool {
    (1..=LONGEST_ID).contains(&text.len())
        && text.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=@~".contains(b))
}

/// Trace Context, 3.2: lower-case digits, no number 0, no version ff. Of a later version more may
/// follow after a dash.
fn is_traceparent(text: &[u8]) -> bool {
    let Some((head, rest)) = text.split_at_checked(TRACEPARENT_LENGTH) else { return false };
    let fields: Vec<&[u8]> = head.split(|b| *b == b'-').collect();
    let [version, trace, parent, flags] = fields[..] else { return false };
    let digits = |text: &[u8]| text.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let some = |text: &[u8]| text.iter().any(|b| *b != b'0');
    (version.len(), trace.len(), parent.len(), flags.len()) == (2, 32, 16, 2)
        && fields.iter().all(|field| digits(field))
        && some(trace)
        && some(parent)
        && match version {
            b"00" => rest.is_empty(),
            b"ff" => false,
            _ => rest.is_empty() || rest[0] == b'-',
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    fn named(fields: &[(&'static str, &str)]) -> (String, HeaderMap) {
        let mut headers = HeaderMap::new();
        for (name, text) in fields {
            headers.append(*name, HeaderValue::from_str(text).unwrap());
        }
        let id = name(&mut headers, &Numbers::default());
        assert_eq!(headers.get_all(REQUEST_ID).iter().collect::<Vec<_>>(), [&id]);
        (id.to_str().unwrap().to_owned(), headers)
    }

    #[test]
    fn what_came_is_passed_on() {
        let (id, fields) = named(&[
            ("x-request-id", "a-1:b/c"),
            ("traceparent", PARENT),
            ("tracestate", "vendor=1"),
        ]);
        assert_eq!(id, "a-1:b/c");
        assert_eq!(fields[TRACEPARENT], PARENT);
        assert_eq!(fields[TRACESTATE], "vendor=1");
        let later = format!("01{}-more", &PARENT[2..]);
        assert_eq!(named(&[("traceparent", &later)]).1[TRACEPARENT], later);
    }

    #[test]
    fn a_trace_without_another_name_gives_the_request_its_number() {
        assert_eq!(named(&[("traceparent", PARENT)]).0, PARENT[TRACE_ID]);
        let (id, fields) = named(&[]);
        let parent = fields[TRACEPARENT].to_str().unwrap();
        assert!(is_traceparent(parent.as_bytes()) && parent.ends_with("-01"), "{parent}");
        assert_eq!(id, parent[TRACE_ID]);
        assert_ne!(named(&[]).0, id);
    }

    #[test]
    fn what_is_malformed_is_made_anew() {
        for bad in [
            "",
            "00",
            &PARENT.to_uppercase(),
            &format!("{PARENT}-more"),
            &format!("{PARENT}x"),
            &format!("ff{}", &PARENT[2..]),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319cb-7ad6b7169203331-01",
        ] {
            let (_, fields) = named(&[("traceparent", bad), ("tracestate", "vendor=1")]);
            assert_ne!(fields[TRACEPARENT], bad);
            assert!(is_traceparent(fields[TRACEPARENT].as_bytes()));
            assert!(!fields.contains_key(TRACESTATE), "{bad}");
        }
        let twice = named(&[("traceparent", PARENT), ("traceparent", PARENT)]).1;
        assert_eq!(twice.get_all(TRACEPARENT).iter().count(), 1);
        for bad in ["", "a b", "\"", "a,b", &"x".repeat(LONGEST_ID + 1)] {
            assert_ne!(named(&[("x-request-id", bad)]).0, bad);
        }
        assert_eq!(named(&[("x-request-id", "a"), ("x-request-id", "b")]).0.len(), 32);
    }

    #[test]
    fn an_applications_own_name_stays() {
        let mut answer = HeaderMap::new();
        tell(HeaderValue::from_static("ours"), &mut answer);
        tell(HeaderValue::from_static("another"), &mut answer);
        assert_eq!(answer[REQUEST_ID], "ours");
    }
}
