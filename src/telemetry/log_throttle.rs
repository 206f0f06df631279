//! Keeps a log line that others can provoke from being written more than once a minute.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long a key stays silent after it was logged.
const PAUSE: Duration = Duration::from_secs(60);
/// Keys remembered at once. Beyond it new keys stay silent: a flood from many addresses must cost
/// neither memory nor log.
const MAX_KEYS: usize = 1024;

/// When each key was last logged.
pub(crate) struct LogThrottle<K> {
    spoke: Mutex<HashMap<K, Spoke>>,
}

struct Spoke {
    at: Instant,
    /// How often it was to be logged since.
    held_back: u64,
}

impl<K: Hash + Eq> LogThrottle<K> {
    pub(crate) fn new() -> Self {
        Self { spoke: Mutex::new(HashMap::new()) }
    }

    /// Whether `key` may speak now; if so, how often it was held back since it last did.
    pub(crate) fn may_speak(&self, key: K, now: Instant) -> Option<u64> {
        let mut spoke = self.spoke.lock();
        let silent = |s: &Spoke| now.saturating_duration_since(s.at) < PAUSE;
        if let Some(known) = spoke.get_mut(&key) {
            if silent(known) {
                known.held_back += 1;
                return None;
            }
            let held_back = std::mem::take(&mut known.held_back);
            known.at = now;
            return Some(held_back);
        }
        if spoke.len() >= MAX_KEYS {
            spoke.retain(|_, s| silent(s));
        }
        if spoke.len() >= MAX_KEYS {
            return None;
        }
        spoke.insert(key, Spoke { at: now, held_back: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_speaks_once_a_minute() {
        let throttle = LogThrottle::new();
        let start = Instant::now();
        assert_eq!(throttle.may_speak("a", start), Some(0));
        assert_eq!(throttle.may_speak("b", start), Some(0));
        for second in 1..60 {
            assert_eq!(throttle.may_speak("a", start + Duration::from_secs(second)), None);
        }
        assert_eq!(throttle.may_speak("a", start + Duration::from_secs(60)), Some(59));
    }

    #[test]
    fn a_flood_of_keys_is_bounded() {
        let throttle = LogThrottle::new();
        let now = Instant::now();
        let spoke = (0..5000).filter(|key| throttle.may_speak(*key, now).is_some()).count();
        assert_eq!(spoke, MAX_KEYS);
        assert_eq!(throttle.may_speak(5000, now + PAUSE), Some(0));
    }
}
