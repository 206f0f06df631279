//! Why the primary's application gets a request that the one here was asked: a wish of it, `Litepilot-Replay`
//! or `fly-replay` as libraries for Fly.io say it, or its [failure](super::failed_read).

use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use crate::telemetry::metrics::Replay;

const FLY_REPLAY: HeaderName = HeaderName::from_static("fly-replay");
const LITEPILOT_REPLAY: HeaderName = HeaderName::from_static("litepilot-replay");

/// Such a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplayRequest {
    /// What it is, or was said with.
    pub(crate) reason: Replay,
    /// `state=…` of `fly-replay`, to be handed back with the replay.
    state: Option<String>,
}

impl ReplayRequest {
    /// Takes such a wish off a response. Its fields never reach a client, whatever they say.
    pub(crate) fn take(response: &mut HeaderMap) -> Option<Self> {
        // Looking at the few names is cheaper than looking up two.
        if !response.keys().any(|name| *name == LITEPILOT_REPLAY || *name == FLY_REPLAY) {
            return None;
        }
        let asked = response.remove(LITEPILOT_REPLAY).is_some_and(|to| to == "primary");
        let fly = response.remove(FLY_REPLAY);
        if asked {
            return Some(Self { reason: Replay::Litepilot, state: None });
        }
        Self::parse(fly?.to_str().ok()?)
    }

    /// Nobody wishes it, but a read has failed.
    pub(crate) fn failed_read() -> Self {
        Self { reason: Replay::FailedRead, state: None }
    }

    /// `fly-replay` may name a machine or a region, for which our primary stands; `app=` and
    /// `elsewhere=` mean something that we are not.
    fn parse(fly: &str) -> Option<Self> {
        let fields: Vec<(&str, &str)> = fly
            .split(';')
            .map(|field| field.split_once('=').unwrap_or((field, "")))
            .map(|(key, value)| (key.trim(), value.trim()))
            .collect();
        let value = |key| fields.iter().find(|(k, _)| *k == key).map(|(_, value)| *value);
        if value("app").is_some() || value("elsewhere").is_some() {
            return None;
        }
        let reason = match (value("instance"), value("region")) {
            (Some(_), _) => Replay::FlyInstance,
            (None, Some(_)) => Replay::FlyRegion,
            (None, None) => return None,
        };
        Some(Self { reason, state: value("state").map(str::to_owned) })
    }

    /// `fly-replay-src`, by which the application that gets the replay knows it for one.
    pub(crate) fn source(&self, node: &str) -> HeaderValue {
        let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_micros());
        let mut text = format!("instance={node};region={node};t={micros}");
        if let Some(state) = &self.state {
            text.push_str(";state=");
            text.push_str(state);
        }
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("instance=unknown"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replays_that_concern_us() {
        for (text, reason) in [
            ("instance=abc", Replay::FlyInstance),
            ("region=ams;state=x", Replay::FlyRegion),
            ("instance=a; timeout=5s", Replay::FlyInstance),
        ] {
            assert_eq!(ReplayRequest::parse(text).unwrap().reason, reason, "{text}");
        }
        for no in ["app=other", "elsewhere=true", "app=other;region=ams", "", "state=x"] {
            assert_eq!(ReplayRequest::parse(no), None, "{no}");
        }
    }

    #[test]
    fn the_state_comes_back() {
        let source = ReplayRequest::parse("region=ams;state=abc").unwrap().source("n1");
        let source = source.to_str().unwrap();
        assert!(source.starts_with("instance=n1;") && source.ends_with(";state=abc"), "{source}");
    }

    #[test]
    fn what_asks_for_a_replay_never_stays() {
        let mut headers = HeaderMap::new();
        headers.insert(LITEPILOT_REPLAY, HeaderValue::from_static("primary"));
        headers.insert(FLY_REPLAY, HeaderValue::from_static("app=x"));
        assert_eq!(ReplayRequest::take(&mut headers).unwrap().reason, Replay::Litepilot);
        assert!(headers.is_empty());
    }
}
