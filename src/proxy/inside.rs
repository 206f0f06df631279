//! What operators learn of a failure behind this proxy, and visitors do not: addresses. And what both do:
//! why an answer was none.

use std::fmt::Display;
use std::io;
use std::sync::LazyLock;
use std::time::Instant;

use crate::telemetry::log_throttle::LogThrottle;

static SAID: LazyLock<LogThrottle<String>> = LazyLock::new(LogThrottle::new);

/// Nobody took a connection there.
pub(super) fn unreached(who: &str, address: &impl Display, why: &io::Error) {
    warn(format!("cannot reach {who} at {address}: {why}"));
}

/// The application was asked, and gave no answer that could be passed on.
pub(super) fn no_answer(why: &io::Error) {
    warn(said_of(why));
}

/// Without an address: what this kind of error says comes from the system or from our own parser.
pub(super) fn said_of(why: &io::Error) -> String {
    match why.kind() {
        io::ErrorKind::InvalidData => format!("the application's answer is malformed: {why}"),
        _ => format!("the application closed the connection without a valid answer: {why}"),
    }
}

fn warn(text: String) {
    if let Some(held_back) = SAID.may_speak(text.clone(), Instant::now()) {
        tracing::warn!(held_back, "{text}");
    }
}
