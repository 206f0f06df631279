//! `log:`, what is logged.

use super::reader::Section;
use super::value;

const FORMAT: LogFormat = LogFormat::Text;
const LEVEL: tracing::Level = tracing::Level::INFO;
const ACCESS: bool = false;

/// `log:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: tracing::Level,
    /// Whether each request is logged.
    pub access: bool,
}

/// The forms of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

pub(super) fn read(section: &Section<'_>) -> Log {
    let format = value::one_of(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);
    let level = value::one_of(&[
        ("error", tracing::Level::ERROR),
        ("warn", tracing::Level::WARN),
        ("info", tracing::Level::INFO),
        ("debug", tracing::Level::DEBUG),
        ("trace", tracing::Level::TRACE),
    ]);
    let access = value::one_of(&[("off", false), ("on", true), ("false", false), ("true", true)]);
    Log {
        format: section.get("format", format).unwrap_or(FORMAT),
        level: section.get("level", level).unwrap_or(LEVEL),
        access: section.get("access", access).unwrap_or(ACCESS),
    }
}
