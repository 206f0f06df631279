//! `litefs.yml`, LiteFS' own configuration: every key that LiteFS v0.5 knows, read as strictly as LiteFS
//! reads it, and written so that it reads the same.
//!
//! [`LitefsYml::parse`] is for files of users, [`LitefsYml::to_text`] for the one that we run LiteFS
//! with. A field is named like its key. One that is not given is `None` or empty: LiteFS' default.

use serde::{Deserialize, Serialize};

use super::reader::Reader;
use crate::yaml::{self, MAX_BYTES, Place, Problem};

mod exec;
pub(super) mod go_duration;
mod setting;
#[cfg(test)]
mod tests;
pub(crate) mod variables;
mod write;

pub(crate) use exec::Exec;
pub use setting::Setting;
pub(crate) use setting::{Count, Flag, Time};
use variables::Variables;

/// A whole `litefs.yml`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct LitefsYml {
    pub(crate) exit_on_error: Flag,
    pub(crate) skip_sync: Flag,
    pub(crate) strict_verify: Flag,
    pub(crate) fuse: Fuse,
    pub(crate) data: Data,
    pub(crate) http: Http,
    pub(crate) lease: Lease,
    pub(crate) proxy: Proxy,
    /// Commands, one after the other.
    #[serde(deserialize_with = "exec::commands")]
    pub(crate) exec: Vec<Exec>,
    pub(crate) backup: Backup,
    pub(crate) log: Log,
    pub(crate) tracing: Tracing,
}

/// The keys that `litefs.extra` may set: those that are not ours to write.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Extra {
    pub(crate) exit_on_error: Flag,
    pub(crate) skip_sync: Flag,
    pub strict_verify: Flag,
    #[serde(deserialize_with = "exec::commands")]
    pub(crate) exec: Vec<Exec>,
    pub(crate) backup: Backup,
    pub(crate) log: Log,
    pub tracing: Tracing,
}

impl From<Extra> for LitefsYml {
    fn from(extra: Extra) -> Self {
        let Extra { exit_on_error, skip_sync, strict_verify, exec, backup, log, tracing } = extra;
        Self {
            exit_on_error,
            skip_sync,
            strict_verify,
            exec,
            backup,
            log,
            tracing,
            ..Self::default()
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Fuse {
    pub(crate) dir: Option<String>,
    pub(crate) allow_other: Flag,
    pub(crate) debug: Flag,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Data {
    pub(crate) dir: Option<String>,
    pub(crate) compress: Flag,
    pub(crate) retention: Time,
    pub(crate) retention_monitor_interval: Time,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Http {
    pub(crate) addr: Option<String>,
    pub(crate) snapshot_timeout: Time,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Lease {
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) hostname: Option<String>,
    pub(crate) advertise_url: Option<String>,
    pub(crate) candidate: Flag,
    pub(crate) promote: Flag,
    pub(crate) reconnect_delay: Time,
    pub(crate) demote_delay: Time,
    pub(crate) databases: Vec<String>,
    pub(crate) consul: Consul,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Consul {
    pub(crate) url: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) ttl: Time,
    pub(crate) lock_delay: Time,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Proxy {
    pub(crate) addr: Option<String>,
    pub(crate) target: Option<String>,
    pub(crate) db: Option<String>,
    pub(crate) max_lag: Time,
    pub(crate) debug: Flag,
    pub(crate) passthrough: Vec<String>,
    pub(crate) always_forward: Vec<String>,
    pub(crate) primary_redirect_timeout: Time,
    pub(crate) read_timeout: Time,
    pub(crate) read_header_timeout: Time,
    pub(crate) write_timeout: Time,
    pub(crate) idle_timeout: Time,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Backup {
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) url: Option<String>,
    pub(crate) cluster: Option<String>,
    pub(crate) auth_token: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) format: Option<String>,
    pub(crate) timestamp: Flag,
    pub(crate) debug: Flag,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Tracing {
    pub(crate) enabled: Flag,
    pub path: Option<String>,
    pub max_size: Count,
    pub(crate) max_count: Count,
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
        let reader = Reader::new(file);
        let litefs = reader.root(&root, |root| root.rest());
        let problems = reader.into_problems();
        if problems.is_empty() { Ok((litefs, variables)) } else { Err(problems) }
    }

    /// The file. What it says does not depend on variables, whatever values hold.
    pub(crate) fn to_text(&self) -> String {
        write::text(self)
    }
}
