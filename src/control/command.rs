//! A command that an operator gives on one node, to run on the primary's machine.

use serde::{Deserialize, Serialize};

use super::OnceKey;

/// What is to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardedCommand {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Not again after it succeeded under this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub once: Option<String>,
}

/// What whoever gave it is told, one JSON value on each line. After the last three nothing follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// A line of its standard output.
    Out(String),
    /// A line of its standard error.
    Err(String),
    /// It does not run yet, and why.
    Waits(String),
    /// It has ended with this exit code, and that is noted.
    Exit(u8),
    /// It was done before, under its key.
    AlreadyDone,
    /// It did not run, or does not count as done, and why.
    Refused(String),
}

impl ForwardedCommand {
    /// The key, if there is one and it is well-formed.
    ///
    /// # Errors
    ///
    /// What a key looks like.
    pub(crate) fn key(&self) -> Result<Option<OnceKey>, &'static str> {
        self.once.as_deref().map(str::parse).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::json_line;

    #[test]
    fn what_is_said_is_a_line_that_others_can_read() {
        assert_eq!(json_line(&Said::Out("a\nb".into())).unwrap(), b"{\"out\":\"a\\nb\"}\n");
        assert_eq!(json_line(&Said::AlreadyDone).unwrap(), b"\"already-done\"\n");
        let plain: ForwardedCommand = serde_json::from_str(r#"{"command":["ls"]}"#).unwrap();
        assert_eq!(plain.key(), Ok(None));
    }
}
