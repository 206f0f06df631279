//! Keeps a log line that others can provoke from being written more than once a minute. How many were
//! left out stands in the next one, as `held_back`.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long a key stays silent after it was logged.
const PAUSE: Duration = Duration::from_secs(60);
/// Keys remembered at once. Beyond it new keys stay silent: a flood from many addresses must cost
/// neither memory nor log.
const MAX_KEYS: usize = 1024;

/// Of lines that need nothing to tell them apart but what they are about.
static KINDS: LazyLock<LogThrottle<&'static str>> = LazyLock::new(LogThrottle::new);

/// Whether a line of this kind may be written now; if so, how many were left out since the last.
pub(crate) fn may_say(kind: &'static str) -> Option<u64> {
    KINDS.may_speak(kind, Instant::now())
}

/// When each key was last logged.
pub(crate) struct LogThrottle<K> {
    said: Mutex<Said<K>>,
}

struct Said<K> {
    keys: HashMap<K, Spoke>,
    /// Lines of keys that are forgotten, or had no room.
    unheard: u64,
}

struct Spoke {
    at: Instant,
    /// How often it was to be logged since.
    held_back: u64,
}

impl<K: Hash + Eq> LogThrottle<K> {
    pub(crate) fn new() -> Self {
        Self { said: Mutex::new(Said { keys: HashMap::new(), unheard: 0 }) }
    }

    /// Whether `key` may speak now; if so, how many lines were held back since it last did, with those
    /// that no other line will count.
    pub(crate) fn may_speak(&self, key: K, now: Instant) -> Option<u64> {
        let mut said = self.said.lock();
        if let Some(known) = said.keys.get_mut(&key) {
            if known.is_silent(now) {
                known.held_back += 1;
                return None;
            }
            let held_back = std::mem::take(&mut known.held_back);
            known.at = now;
            return Some(held_back + std::mem::take(&mut said.unheard));
        }
        if said.keys.len() >= MAX_KEYS {
            said.forget(now);
        }
        if said.keys.len() >= MAX_KEYS {
            said.unheard += 1;
            return None;
        }
        said.keys.insert(key, Spoke { at: now, held_back: 0 });
        Some(std::mem::take(&mut said.unheard))
    }
}

impl<K: Hash + Eq> Said<K> {
    /// Makes room.
    fn forget(&mut self, now: Instant) {
        let unheard = &mut self.unheard;
        self.keys.retain(|_, spoke| {
            let silent = spoke.is_silent(now);
            *unheard += if silent { 0 } else { spoke.held_back };
            silent
        });
    }
}

impl Spoke {
    fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < PAUSE
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
    fn a_flood_of_keys_is_bounded_and_counted() {
        let throttle = LogThrottle::new();
        let now = Instant::now();
        for key in 0..5000 {
            let first = throttle.may_speak(key, now).is_some();
            assert_eq!(first, key < MAX_KEYS);
            assert_eq!(throttle.may_speak(key, now), None);
        }
        let left_out = MAX_KEYS + 2 * (5000 - MAX_KEYS);
        assert_eq!(throttle.may_speak(5000, now + PAUSE), Some(left_out as u64));
        assert_eq!(throttle.may_speak(5001, now + PAUSE), Some(0));
    }
}
