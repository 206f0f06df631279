//! What is wrong with this node now and needs an operator: one text for each kind, as long as it lasts.
//! Whoever finds it raises it here, and it is said in the log, as an event, in the status, on the page, and
//! as a metric.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::events::Events;

/// What is wrong now.
pub struct Warnings {
    events: Arc<Events>,
    raised: Mutex<BTreeMap<&'static str, String>>,
}

impl Warnings {
    /// Nothing yet.
    pub fn new(events: Arc<Events>) -> Self {
        Self { events, raised: Mutex::default() }
    }

    /// Something is wrong. It is told when it begins; while it lasts, only the text is replaced.
    pub(crate) fn raise(&self, kind: &'static str, text: String) {
        if self.raised.lock().insert(kind, text.clone()).is_none() {
            self.events.warn(kind, text);
        }
    }

    /// It is over, which is told as `text`.
    pub(crate) fn clear(&self, kind: &'static str, text: &str) {
        if self.raised.lock().remove(kind).is_some() {
            self.events.record(kind, text);
        }
    }

    /// Kinds and texts, for `/status`.
    pub fn list(&self) -> Vec<(&'static str, String)> {
        self.raised.lock().iter().map(|(kind, text)| (*kind, text.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once_and_listed_while_it_lasts() {
        let events = Arc::new(Events::default());
        let warnings = Warnings::new(events.clone());
        warnings.clear("disk-full", "there is room again");
        warnings.raise("disk-full", "3 MiB left".to_owned());
        warnings.raise("disk-full", "2 MiB left".to_owned());
        assert_eq!(warnings.list(), [("disk-full", "2 MiB left".to_owned())]);
        warnings.clear("disk-full", "there is room again");
        assert!(warnings.list().is_empty());
        let told: Vec<_> = events.latest().iter().map(|event| event.text.clone()).collect();
        assert_eq!(told, ["3 MiB left", "there is room again"]);
    }
}
