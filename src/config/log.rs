//! `log:`, what is logged.

use super::reader::Section;
use super::value;
use crate::rules::Class;
use crate::yaml::value::ValueError;
use crate::yaml::{Node, Value};

const FORMAT: LogFormat = LogFormat::Text;
const LEVEL: tracing::Level = tracing::Level::INFO;
const ACCESS: Access = Access { passthrough: false, read: false, write: false };

/// `log:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: tracing::Level,
    /// Which requests are logged.
    pub access: Access,
}

/// The forms of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// The classes of requests that are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Those that pass through.
    pub(crate) passthrough: bool,
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl Access {
    pub(crate) const ALL: Self = Self { passthrough: true, read: true, write: true };

    /// Whether any request is logged.
    pub fn any(self) -> bool {
        self != ACCESS
    }

    /// Whether requests of that class are.
    pub(crate) fn has(self, class: Class) -> bool {
        match class {
            Class::Passthrough => self.passthrough,
            Class::Read => self.read,
            Class::Write => self.write,
        }
    }
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
    Log {
        format: section.get("format", format).unwrap_or(FORMAT),
        level: section.get("level", level).unwrap_or(LEVEL),
        access: section.get("access", access).unwrap_or(ACCESS),
    }
}

/// `on`, `off`, or a list of classes.
fn access(node: &Node) -> Result<Access, ValueError> {
    let class = value::one_of(&[
        ("passthrough", Access { passthrough: true, ..ACCESS }),
        ("read", Access { read: true, ..ACCESS }),
        ("write", Access { write: true, ..ACCESS }),
    ]);
    let Value::List(classes) = &node.value else {
        let switch = value::one_of(&[
            ("off", ACCESS),
            ("on", Access::ALL),
            ("false", ACCESS),
            ("true", Access::ALL),
        ]);
        return switch(node)
            .map_err(|why| format!("{why}; or a list of classes, as [write]").into());
    };
    classes.iter().try_fold(ACCESS, |all, node| {
        let one = class(node)?;
        Ok(Access {
            passthrough: all.passthrough || one.passthrough,
            read: all.read || one.read,
            write: all.write || one.write,
        })
    })
}
