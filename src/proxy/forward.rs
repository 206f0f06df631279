//! What two Litepilots say to each other about a request that one passes on to the other.
//!
//! The one that a client is connected to (the entry) decides, waits and sets cookies. The other only
//! hands over to its application, at once, if it is the primary of the epoch that the entry believes
//! in; else it refuses before its application sees a byte, and only that lets the entry try again.

use std::rc::Rc;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::look::Doubt;
use super::token;
use super::upstream::{RawHeaders, RequestLimits};
use crate::cluster::{ClusterView, Epoch};
use crate::config::{Ack, Consistency};
use crate::rules::Class;
use crate::txid::{EpochTxid, Token, Txid};

/// Carries a [`Forwarded`], from the entry to the primary.
pub(crate) const FORWARDED: HeaderName = HeaderName::from_static("litepilot-forwarded");
/// Marks a refusal, from the primary to the entry. No application can set it: whatever begins with
/// `Litepilot-` is removed from what applications answer.
pub(crate) const REFUSED: HeaderName = HeaderName::from_static("litepilot-refused");
/// Marks an answer, from the primary to the entry: what the entry's application had failed to do has
/// written.
pub(crate) const WROTE: HeaderName = HeaderName::from_static("litepilot-wrote");
/// Fly.io's name for where a replayed request comes from; litefs-js and fly-ruby look for it.
pub(crate) const FLY_REPLAY_SRC: HeaderName = HeaderName::from_static("fly-replay-src");

/// What the entry found out about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Forwarded {
    /// The epoch in which the entry believes the receiver to be the primary.
    pub(crate) epoch: Epoch,
    /// What the request does.
    pub(crate) class: Class,
    /// What a read must see.
    pub(crate) consistency: Consistency,
    /// What the client last saw.
    pub(crate) token: Option<Token>,
    /// The client's token was malformed.
    #[serde(default)]
    pub(crate) malformed: bool,
    /// Who must hold a write before it is answered, by the entry's rules.
    #[serde(default)]
    pub(crate) ack: Ack,
    /// Why it is not known whether it writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) doubt: Option<Doubt>,
    /// By the entry's rules; `None`: those of the receiver's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limits: Option<RequestLimits>,
}

impl Forwarded {
    /// As a field of a request.
    pub(crate) fn headers(&self) -> Rc<RawHeaders> {
        let mut lines = RawHeaders::default();
        if let Some(value) = self.value() {
            lines.add(&FORWARDED, &value);
        }
        Rc::new(lines)
    }

    fn value(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(serde_json::to_string(self).ok()?).ok()
    }

    /// Takes it off a request.
    pub(crate) fn take(headers: &mut HeaderMap) -> Option<Self> {
        let value = headers.remove(FORWARDED)?;
        serde_json::from_slice(value.as_bytes()).ok()
    }
}

/// Why a primary does not take a request. It has done nothing with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerRefusal {
    /// It is not, or no more, the primary of that epoch.
    NotPrimary,
    /// Its application takes no connections.
    AppDown,
    Stopping,
}

impl PeerRefusal {
    const ALL: [Self; 3] = [Self::NotPrimary, Self::AppDown, Self::Stopping];

    fn as_str(self) -> &'static str {
        match self {
            Self::NotPrimary => "not-primary",
            Self::AppDown => "app-down",
            Self::Stopping => "stopping",
        }
    }

    /// The answer that says so.
    pub(crate) fn respond(self) -> Response<bytes::Bytes> {
        let mut response = Response::new(bytes::Bytes::new());
        *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
        response.headers_mut().insert(REFUSED, HeaderValue::from_static(self.as_str()));
        response
    }

    /// Whether a peer's answer is a refusal. One of a later version's counts as "not primary".
    pub(crate) fn of<B>(response: &Response<B>) -> Option<Self> {
        let why = response.headers().get(REFUSED)?;
        if response.status() != StatusCode::MISDIRECTED_REQUEST {
            return None;
        }
        let known = Self::ALL.into_iter().find(|r| r.as_str() == why);
        Some(known.unwrap_or(Self::NotPrimary))
    }
}

/// Whether this node takes a forwarded request; `takes_writes`: it may take one at this moment.
pub(crate) fn accept(
    forwarded: &Forwarded,
    view: &ClusterView,
    takes_writes: bool,
    stopping: bool,
) -> Result<(), PeerRefusal> {
    if !takes_writes || view.epoch() != forwarded.epoch {
        Err(PeerRefusal::NotPrimary)
    } else if stopping {
        Err(PeerRefusal::Stopping)
    } else {
        Ok(())
    }
}

/// The token that the primary gives with its answer.
pub(crate) fn token_of(headers: &HeaderMap) -> Option<Token> {
    let txid = Txid::from_hex(headers.get(token::TXID_HEADER)?.as_bytes()).ok()?;
    let epoch = headers.get(token::EPOCH_HEADER)?.to_str().ok()?.parse().ok()?;
    Some(EpochTxid { epoch: Epoch(epoch), txid })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(epoch: u64) -> Forwarded {
        Forwarded {
            epoch: Epoch(epoch),
            class: Class::Write,
            consistency: Consistency::Monotonic,
            token: Some(EpochTxid { epoch: Epoch(2), txid: Txid(7) }),
            malformed: false,
            ack: Ack::Majority,
            doubt: Some(Doubt::Failed),
            limits: Some(RequestLimits::default()),
        }
    }

    #[test]
    fn arrives_as_it_left() {
        let mut headers = HeaderMap::new();
        headers.insert(FORWARDED, forwarded(3).value().unwrap());
        assert_eq!(Forwarded::take(&mut headers), Some(forwarded(3)));
        assert!(headers.is_empty());
        let older = r#"{"epoch":3,"class":"write","consistency":"monotonic","token":null}"#;
        headers.insert(FORWARDED, HeaderValue::from_static(older));
        let taken = Forwarded::take(&mut headers).unwrap();
        assert_eq!((taken.ack, taken.doubt, taken.limits), (Ack::Primary, None, None));
        headers.insert(FORWARDED, HeaderValue::from_static("nonsense"));
        assert_eq!(Forwarded::take(&mut headers), None);
    }

    #[test]
    fn only_the_primary_of_that_epoch_accepts() {
        let view = ClusterView::single("me".parse().unwrap(), Epoch(3));
        let accepts = |epoch, takes, stops| accept(&forwarded(epoch), &view, takes, stops);
        assert_eq!(accepts(3, true, false), Ok(()));
        assert_eq!(accepts(2, true, false), Err(PeerRefusal::NotPrimary));
        assert_eq!(accepts(4, true, false), Err(PeerRefusal::NotPrimary));
        assert_eq!(accepts(3, false, false), Err(PeerRefusal::NotPrimary));
        assert_eq!(accepts(3, true, true), Err(PeerRefusal::Stopping));
    }

    #[test]
    fn refusals_are_told_from_applications_answers() {
        for refusal in PeerRefusal::ALL {
            assert_eq!(PeerRefusal::of(&refusal.respond()), Some(refusal));
        }
        let mut of_app = PeerRefusal::AppDown.respond();
        super::super::headers::remove_ours(of_app.headers_mut());
        assert_eq!(PeerRefusal::of(&of_app), None);
    }
}
