//! `litefs.yml`, LiteFS' own configuration: every key that LiteFS v0.5 knows, read as strictly as LiteFS
//! reads it, and written so that it reads the same.
//!
//! [`LitefsYml::parse`] is for files of users, [`LitefsYml::to_text`] for the one that we run LiteFS
//! with. A key that is not given is `None` or empty: LiteFS' default.

use std::time::Duration;

use crate::yaml::{self, MAX_BYTES, Place, Problem};

mod go_duration;
mod read;
#[cfg(test)]
mod tests;
pub mod variables;
mod write;

pub(super) use read::general;
use variables::Variables;

/// A whole `litefs.yml`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LitefsYml {
    /// `fuse:`
    pub fuse: Fuse,
    /// `data:`
    pub data: Data,
    /// `http:`
    pub http: Http,
    /// `lease:`
    pub lease: Lease,
    /// `proxy:`
    pub proxy: Proxy,
    /// All other keys: those that `litefs.extra` may set.
    pub general: General,
}

/// A value that is no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting<T> {
    /// This value.
    Is(T),
    /// Whatever variables say: see [`Variables::show`].
    Depends(String),
}

/// Shorthand: most keys need not be given.
pub type Flag = Option<Setting<bool>>;
/// Shorthand.
pub type Time = Option<Setting<Duration>>;
/// Shorthand.
pub type Count = Option<Setting<u32>>;

/// `fuse:`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fuse {
    /// `dir`
    pub dir: Option<String>,
    /// `allow-other`
    pub allow_other: Flag,
    /// `debug`
    pub debug: Flag,
}

/// `data:`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Data {
    /// `dir`
    pub dir: Option<String>,
    /// `compress`
    pub compress: Flag,
    /// `retention`
    pub retention: Time,
    /// `retention-monitor-interval`
    pub retention_monitor_interval: Time,
}

/// `http:`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Http {
    /// `addr`
    pub addr: Option<String>,
    /// `snapshot-timeout`
    pub snapshot_timeout: Time,
}

/// `lease:`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lease {
    /// `type`
    pub kind: Option<String>,
    /// `hostname`
    pub hostname: Option<String>,
    /// `advertise-url`
    pub advertise_url: Option<String>,
    /// `candidate`
    pub candidate: Flag,
    /// `promote`
    pub promote: Flag,
    /// `reconnect-delay`
    pub reconnect_delay: Time,
    /// `demote-delay`
    pub demote_delay: Time,
    /// `databases`
    pub databases: Vec<String>,
    /// `consul`
    pub consul: Consul,
}

/// `lease.consul:`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Consul {
    /// `url`
    pub url: Option<String>,
    /// `key`
    pub key: Option<String>,
    /// `ttl`
    pub ttl: Time,
    /// `lock-delay`
    pub lock_delay: Time,
}

/// `proxy:`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proxy {
    /// `addr`
    pub addr: Option<String>,
    /// `target`
    pub target: Option<String>,
    /// `db`
    pub db: Option<String>,
    /// `max-lag`
    pub max_lag: Time,
    /// `debug`
    pub debug: Flag,
    /// `passthrough`
    pub passthrough: Vec<String>,
    /// `always-forward`
    pub always_forward: Vec<String>,
    /// `primary-redirect-timeout`
    pub primary_redirect_timeout: Time,
    /// `read-timeout`
    pub read_timeout: Time,
    /// `read-header-timeout`
    pub read_header_timeout: Time,
    /// `write-timeout`
    pub write_timeout: Time,
    /// `idle-timeout`
    pub idle_timeout: Time,
}

/// The keys of the top level, and the sections that are none of our concern.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct General {
    /// `exit-on-error`
    pub exit_on_error: Flag,
    /// `skip-sync`
    pub skip_sync: Flag,
    /// `strict-verify`
    pub strict_verify: Flag,
    /// `exec`: commands, one after the other.
    pub exec: Vec<Exec>,
    /// `backup`
    pub backup: Backup,
    /// `log`
    pub log: Log,
    /// `tracing`
    pub tracing: Tracing,
}

/// An item of `exec:`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exec {
    /// `cmd`
    pub cmd: String,
    /// `if-candidate`
    pub if_candidate: Flag,
}

/// `backup:`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Backup {
    /// `type`
    pub kind: Option<String>,
    /// `path`
    pub path: Option<String>,
    /// `url`
    pub url: Option<String>,
    /// `cluster`
    pub cluster: Option<String>,
    /// `auth-token`
    pub auth_token: Option<String>,
}

/// `log:`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    /// `format`
    pub format: Option<String>,
    /// `timestamp`
    pub timestamp: Flag,
    /// `debug`
    pub debug: Flag,
}

/// `tracing:`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tracing {
    /// `enabled`
    pub enabled: Flag,
    /// `path`
    pub path: Option<String>,
    /// `max-size`
    pub max_size: Count,
    /// `max-count`
    pub max_count: Count,
    /// `compress`
    pub compress: Flag,
}

impl LitefsYml {
    /// Reads a file. Its variables are not expanded but kept: as in LiteFS they may stand anywhere.
    ///
    /// # Errors
    ///
    /// Every problem found, in the order of the file: whatever LiteFS itself would refuse.
    pub fn parse(file: &str, text: &[u8]) -> Result<(Self, Variables), Vec<Problem>> {
        let problem = |message: &str| vec![Problem::new(file, Place::START, message)];
        if text.len() > MAX_BYTES {
            return Err(problem("the file is too large for a litefs.yml: is it the right one?"));
        }
        let text = std::str::from_utf8(text).map_err(|_| problem("not UTF-8: save it as UTF-8"))?;
        let (text, variables) = Variables::take_out(text)
            .ok_or_else(|| problem("more variables than a litefs.yml can need"))?;
        let root = yaml::parse_literally(file, text.as_bytes())?;
        read::whole(file, &root).map(|litefs| (litefs, variables))
    }

    /// The file. What it says does not depend on variables, whatever values hold.
    pub fn to_text(&self) -> String {
        write::whole(self)
    }
}

impl<T> From<T> for Setting<T> {
    fn from(value: T) -> Self {
        Self::Is(value)
    }
}
