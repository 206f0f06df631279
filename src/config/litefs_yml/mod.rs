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
pub(crate) mod variables;
mod write;

pub(super) use read::general;
use variables::Variables;

/// A whole `litefs.yml`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LitefsYml {
    /// `fuse:`
    pub(crate) fuse: Fuse,
    /// `data:`
    pub(crate) data: Data,
    /// `http:`
    pub(crate) http: Http,
    /// `lease:`
    pub(crate) lease: Lease,
    /// `proxy:`
    pub(crate) proxy: Proxy,
    /// All other keys: those that `litefs.extra` may set.
    pub(crate) general: General,
}

/// A value that is no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting<T> {
    Is(T),
    /// Whatever variables say: see [`Variables::show`].
    Depends(String),
}

/// Shorthand: most keys need not be given.
pub(crate) type Flag = Option<Setting<bool>>;
pub(crate) type Time = Option<Setting<Duration>>;
pub(crate) type Count = Option<Setting<u32>>;

/// `fuse:`
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Fuse {
    /// `dir`
    pub(crate) dir: Option<String>,
    /// `allow-other`
    pub(crate) allow_other: Flag,
    /// `debug`
    pub(crate) debug: Flag,
}

/// `data:`
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Data {
    /// `dir`
    pub(crate) dir: Option<String>,
    /// `compress`
    pub(crate) compress: Flag,
    /// `retention`
    pub(crate) retention: Time,
    /// `retention-monitor-interval`
    pub(crate) retention_monitor_interval: Time,
}

/// `http:`
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Http {
    /// `addr`
    pub(crate) addr: Option<String>,
    /// `snapshot-timeout`
    pub(crate) snapshot_timeout: Time,
}

/// `lease:`
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Lease {
    /// `type`
    pub(crate) kind: Option<String>,
    /// `hostname`
    pub(crate) hostname: Option<String>,
    /// `advertise-url`
    pub(crate) advertise_url: Option<String>,
    /// `candidate`
    pub(crate) candidate: Flag,
    /// `promote`
    pub(crate) promote: Flag,
    /// `reconnect-delay`
    pub(crate) reconnect_delay: Time,
    /// `demote-delay`
    pub(crate) demote_delay: Time,
    /// `databases`
    pub(crate) databases: Vec<String>,
    /// `consul`
    pub(crate) consul: Consul,
}

/// `lease.consul:`
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Consul {
    /// `url`
    pub(crate) url: Option<String>,
    /// `key`
    pub(crate) key: Option<String>,
    /// `ttl`
    pub(crate) ttl: Time,
    /// `lock-delay`
    pub(crate) lock_delay: Time,
}

/// `proxy:`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proxy {
    /// `addr`
    pub(crate) addr: Option<String>,
    /// `target`
    pub target: Option<String>,
    /// `db`
    pub(crate) db: Option<String>,
    /// `max-lag`
    pub(crate) max_lag: Time,
    /// `debug`
    pub(crate) debug: Flag,
    /// `passthrough`
    pub(crate) passthrough: Vec<String>,
    /// `always-forward`
    pub(crate) always_forward: Vec<String>,
    /// `primary-redirect-timeout`
    pub(crate) primary_redirect_timeout: Time,
    /// `read-timeout`
    pub(crate) read_timeout: Time,
    /// `read-header-timeout`
    pub(crate) read_header_timeout: Time,
    /// `write-timeout`
    pub(crate) write_timeout: Time,
    /// `idle-timeout`
    pub(crate) idle_timeout: Time,
}

/// The keys of the top level, and the sections that are none of our concern.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct General {
    /// `exit-on-error`
    pub(crate) exit_on_error: Flag,
    /// `skip-sync`
    pub(crate) skip_sync: Flag,
    /// `strict-verify`
    pub strict_verify: Flag,
    /// `exec`: commands, one after the other.
    pub(crate) exec: Vec<Exec>,
    /// `backup`
    pub(crate) backup: Backup,
    /// `log`
    pub(crate) log: Log,
    /// `tracing`
    pub tracing: Tracing,
}

/// An item of `exec:`
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Exec {
    /// `cmd`
    pub(crate) cmd: String,
    /// `if-candidate`
    pub(crate) if_candidate: Flag,
}

/// `backup:`
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Backup {
    /// `type`
    pub(crate) kind: Option<String>,
    /// `path`
    pub(crate) path: Option<String>,
    /// `url`
    pub(crate) url: Option<String>,
    /// `cluster`
    pub(crate) cluster: Option<String>,
    /// `auth-token`
    pub(crate) auth_token: Option<String>,
}

/// `log:`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    /// `format`
    pub format: Option<String>,
    /// `timestamp`
    pub(crate) timestamp: Flag,
    /// `debug`
    pub(crate) debug: Flag,
}

/// `tracing:`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tracing {
    /// `enabled`
    pub(crate) enabled: Flag,
    /// `path`
    pub path: Option<String>,
    /// `max-size`
    pub max_size: Count,
    /// `max-count`
    pub(crate) max_count: Count,
    /// `compress`
    pub(crate) compress: Flag,
}

impl LitefsYml {
    /// Reads a file. Its variables are not expanded but kept: as in LiteFS they may stand anywhere.
    ///
    /// # Errors
    ///
    /// Every problem found, in the order of the file: whatever LiteFS itself would refuse.
    pub(crate) fn parse(file: &str, text: &[u8]) -> Result<(Self, Variables), Vec<Problem>> {
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
    pub(crate) fn to_text(&self) -> String {
        write::whole(self)
    }
}

impl<T> From<T> for Setting<T> {
    fn from(value: T) -> Self {
        Self::Is(value)
    }
}
