//! From when until when a certificate is valid, and when somebody should be told. Pure.

use std::time::{Duration, SystemTime};

use crate::telemetry::clock::rfc3339;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// So long before a certificate expires, somebody should be told.
const WARN: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// From when until when a chain of certificates is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// When its last member becomes valid.
    pub from: SystemTime,
    /// When its first member expires.
    pub until: SystemTime,
}

/// What is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concern {
    /// It is not valid now, so that whoever is shown it refuses it.
    pub(crate) refused: bool,
    /// What is wrong, and what would be right.
    pub(crate) text: String,
}

impl Validity {
    /// What should be said at this time, if anything.
    pub(crate) fn concern(&self, now: SystemTime) -> Option<Concern> {
        let date = |at| rfc3339(at).split('T').next().unwrap_or_default().to_owned();
        let left = self.until.duration_since(now).unwrap_or_default();
        let (refused, text) = if now < self.from {
            let from = rfc3339(self.from);
            (true, format!("it is valid only from {from} on: is this machine's clock right?"))
        } else if left.is_zero() {
            (true, format!("it expired on {}: issue a new one", date(self.until)))
        } else if left < WARN {
            let days = left.as_secs() / DAY.as_secs();
            let until = date(self.until);
            (false, format!("it expires on {until}, in {days} days: issue a new one"))
        } else {
            return None;
        };
        Some(Concern { refused, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_is_told_in_time() {
        let at = |days: u32| SystemTime::UNIX_EPOCH + DAY * 20_000 + DAY * days;
        let validity = Validity { from: at(10), until: at(100) };
        let said = |now| validity.concern(now).map(|concern| (concern.refused, concern.text));
        let text = |now| said(now).unwrap().1;
        assert_eq!(said(at(10)), None);
        assert_eq!(said(at(86)), None);
        let soon = said(at(86) + Duration::from_secs(1)).unwrap();
        assert!(!soon.0 && soon.1.contains("in 13 days"), "{soon:?}");
        assert!(said(at(100)).unwrap().0 && text(at(100)).contains("expired on 2025-01-"));
        assert!(said(at(9)).unwrap().0 && text(at(9)).contains("clock"));
    }
}
