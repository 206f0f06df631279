//! What happened lately, for the admin port: a bounded ring and a live feed.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use tokio::sync::broadcast;

use super::beginning;
use super::clock::rfc3339;
use super::ring::Ring;

/// Events kept for those who come later; a follower may be as many behind.
const KEPT: usize = 256;
/// Bytes of an event's text; the rest is cut off.
const LONGEST_TEXT: usize = 1024;

/// Something worth knowing that happened on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When (RFC 3339, UTC).
    pub(crate) at: String,
    /// The kind of event in one word: `primary`, `app`, `config`, …
    pub(crate) kind: &'static str,
    /// What happened, for people.
    pub text: String,
}

/// The latest events, and those who follow them.
pub struct Events(Ring<Arc<Event>>);

impl Default for Events {
    fn default() -> Self {
        Self(Ring::new(KEPT))
    }
}

impl Events {
    /// Keeps an event, tells the followers, and logs it.
    pub fn record(&self, kind: &'static str, text: impl Into<String>) {
        let text = beginning(&text.into(), LONGEST_TEXT).to_owned();
        tracing::info!(kind, "{text}");
        self.keep(kind, text);
    }

    /// The same for what needs an operator.
    pub fn warn(&self, kind: &'static str, text: impl Into<String>) {
        let text = beginning(&text.into(), LONGEST_TEXT).to_owned();
        tracing::warn!(kind, "{text}");
        self.keep(kind, text);
    }

    /// The same for what is logged elsewhere.
    pub(crate) fn keep(&self, kind: &'static str, text: impl Into<String>) {
        let text = text.into();
        self.0.push(Arc::new(Event { at: rfc3339(SystemTime::now()), kind, text }));
    }

    /// The latest events, oldest first.
    pub fn latest(&self) -> Vec<Arc<Event>> {
        self.0.latest()
    }

    /// The latest events, and from there on each new one. A follower that falls too far behind is
    /// told how many it missed.
    pub(crate) fn follow(&self) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        self.0.follow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_the_latest_and_feeds_the_rest() {
        let events = Events::default();
        for i in 0..KEPT + 3 {
            events.record("app", format!("event {i}"));
        }
        let (kept, mut feed) = events.follow();
        assert_eq!(kept.len(), KEPT);
        assert_eq!(kept[0].text, "event 3");
        events.record("primary", "é".repeat(LONGEST_TEXT));
        let event = feed.recv().await.unwrap();
        assert_eq!((event.kind, event.text.len()), ("primary", LONGEST_TEXT));
        assert_eq!(events.latest().last(), Some(&event));
    }

    #[tokio::test]
    async fn a_follower_that_sleeps_costs_nothing_and_hears_what_it_missed() {
        let events = Events::default();
        let (_, mut feed) = events.follow();
        for _ in 0..KEPT + 7 {
            events.record("app", "again");
        }
        assert_eq!(feed.recv().await, Err(broadcast::error::RecvError::Lagged(7)));
    }
}
