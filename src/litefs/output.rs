//! LiteFS' output in our log: with its level, and without the secret of the lease's URL.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use serde::Deserialize;

use crate::process::output::LogLine;
use crate::telemetry::log_throttle::may_say;

/// What LiteFS says again and again, each 50 ms, while there is no primary. Its reasons are ours.
const CHATTER: [&str; 5] = [
    "cannot acquire lease or find primary",
    "cannot find primary",
    "cannot fetch cluster ID",
    "cannot release consul key",
    "disconnected from primary with error, retrying",
];

/// In what LiteFS says of each write that it refuses on a replica, before the application hears of it.
const REFUSED: &str = "read only replica";

/// What others need of LiteFS' output.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard(Arc<HeardSoFar>);

#[derive(Debug, Default)]
struct HeardSoFar {
    last_error: Mutex<Option<String>>,
    refused_writes: AtomicU64,
}

impl Heard {
    /// The last error, for whoever has to explain its end.
    pub(crate) fn take_error(&self) -> Option<String> {
        self.0.last_error.lock().take()
    }

    /// See [`Engine::refused_writes`](crate::engine::Engine::refused_writes).
    pub(crate) fn refused_writes(&self) -> u64 {
        self.0.refused_writes.load(Relaxed)
    }

    fn note(&self, said: &Said) {
        if said.text.contains(REFUSED) {
            self.0.refused_writes.fetch_add(1, Relaxed);
        }
        if said.level == Level::Error {
            *self.0.last_error.lock() = Some(said.text.clone());
        }
    }
}

/// A line of LiteFS', understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    level: Level,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

impl Said {
    /// A client that has the application write on a replica provokes a line with each request. How many there
    /// were is in the metrics.
    fn may_be_written(&self) -> bool {
        !self.text.contains(REFUSED) || may_say("refused write").is_some()
    }
}

/// Go's `slog` in JSON.
#[derive(Deserialize)]
struct Line {
    level: String,
    msg: String,
}

/// Writes LiteFS' lines to our log.
pub(crate) fn log(heard: Heard) -> LogLine {
    let write = move |_: &str, _: &str, line: &str| {
        let said = understand(line);
        heard.note(&said);
        if !said.may_be_written() {
            return;
        }
        let Said { level, text } = said;
        match level {
            Level::Debug => tracing::debug!(target: "litefs", "{text}"),
            Level::Info => tracing::info!(target: "litefs", "{text}"),
            Level::Warn => tracing::warn!(target: "litefs", "{text}"),
            Level::Error => tracing::error!(target: "litefs", "{text}"),
        }
    };
    write.into()
}

pub(super) fn understand(line: &str) -> Said {
    let said = |level, text: &str| Said { level, text: without_secrets(text) };
    // What it prints before it exits.
    if let Some(text) = line.strip_prefix("ERROR: ") {
        return said(Level::Error, text);
    }
    match serde_json::from_str::<Line>(line) {
        Ok(Line { msg, .. }) if CHATTER.iter().any(|known| msg.contains(known)) => {
            said(Level::Debug, &msg)
        }
        Ok(Line { level, msg }) => {
            let level = match level.as_str() {
                "DEBUG" => Level::Debug,
                "WARN" => Level::Warn,
                "ERROR" => Level::Error,
                _ => Level::Info,
            };
            said(level, &msg)
        }
        Err(_) => said(Level::Info, line),
    }
}

/// The text with `***` for user and password of each URL.
pub(super) fn without_secrets(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, url) = rest.split_at(at + 3);
        out.push_str(before);
        let end =
            url.find(|c: char| c.is_whitespace() || matches!(c, '/' | '"')).unwrap_or(url.len());
        let (authority, behind) = url.split_at(end);
        match authority.rsplit_once('@') {
            Some((_, host)) => out.extend(["***@", host]),
            None => out.push_str(authority),
        }
        rest = behind;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_of_the_lease_does_not_get_into_the_log() {
        let line = r#"{"level":"INFO","msg":"initializing consul: key=litefs/primary url=http://litefs:s3cret@127.0.0.1:20203 hostname=a advertise-url=http://127.0.0.1:20202"}"#;
        let said = understand(line);
        assert_eq!(
            said.text,
            "initializing consul: key=litefs/primary url=http://***@127.0.0.1:20203 hostname=a \
             advertise-url=http://127.0.0.1:20202"
        );
        for (text, expected) in [
            ("Get \"http://u:p@w@h:1/x@y\": no", "Get \"http://***@h:1/x@y\": no"),
            ("a://b", "a://b"),
            ("://@", "://***@"),
            ("none", "none"),
        ] {
            assert_eq!(without_secrets(text), expected);
        }
    }

    #[test]
    fn writes_that_it_refuses_are_counted() {
        let heard = Heard::default();
        for (line, refused) in [
            (r#"{"level":"INFO","msg":"fuse: write(): wal error: read only replica"}"#, 1),
            (r#"{"level":"INFO","msg":"connected to cluster, ready"}"#, 1),
            ("fuse: create(): cannot create journal: read only replica", 2),
        ] {
            heard.note(&understand(line));
            assert_eq!(heard.refused_writes(), refused, "{line}");
        }
    }

    #[test]
    fn lines_have_their_level() {
        let level = |line: &str| understand(line).level;
        assert_eq!(level(r#"{"level":"INFO","msg":"x"}"#), Level::Info);
        assert_eq!(level(r#"{"level":"WARN","msg":"x"}"#), Level::Warn);
        assert_eq!(level("ERROR: cannot open store"), Level::Error);
        assert_eq!(level("waiting for signal or subprocess to exit"), Level::Info);
        let chatter = r#"{"level":"INFO","msg":"A: cannot acquire lease or find primary, retrying: no primary"}"#;
        assert_eq!(level(chatter), Level::Debug);
    }
}
