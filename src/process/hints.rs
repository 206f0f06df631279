//! What a program's output tells us, and its users had better know.

use crate::telemetry::log_throttle::may_say;

/// SQLite's text for SQLITE_BUSY, in whatever language the program is written.
const LOCKED: &str = "database is locked";

/// Says what helps against what a program has just complained of, not more than once a minute.
pub(crate) fn look(program: &str, line: &str) {
    if is_locked(line)
        && let Some(held_back) = may_say(LOCKED)
    {
        tracing::warn!(
            held_back,
            "{program} says {LOCKED:?}: have each connection wait (PRAGMA busy_timeout = 5000), and begin \
             what will write with BEGIN IMMEDIATE (in Django OPTIONS {{\"timeout\": 5, \
             \"transaction_mode\": \"IMMEDIATE\"}}); see docs/applications/sqlite.md"
        );
    }
}

fn is_locked(line: &str) -> bool {
    line.contains(LOCKED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_complaint_is_known_in_whatever_wrapping() {
        assert!(is_locked("sqlite3.OperationalError: database is locked"));
        assert!(is_locked("Error: SQLITE_BUSY: database is locked"));
        assert!(!is_locked("the database is looked at"));
    }
}
