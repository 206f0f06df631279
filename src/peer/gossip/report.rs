//! A node's report about itself, and the line that carries it.

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cluster::{Epoch, NodeId, Role};
use crate::lines::json_line;
use crate::rules::WriteRoute;
use crate::txid::EpochTxid;

/// What a node says about itself. Fields that it does not know are ignored and missing ones get
/// defaults, so that nodes of different versions understand each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub(crate) node: NodeId,
    /// What it does.
    pub role: Role,
    /// It takes writes now.
    #[serde(default)]
    pub writable: bool,
    /// The newest epoch that it knows of.
    #[serde(default)]
    pub epoch: Epoch,
    /// How far its copy is.
    #[serde(default)]
    pub(crate) position: EpochTxid,
    /// How far its copy is behind the primary's, in milliseconds; `None`: it does not know.
    #[serde(default)]
    pub lag_ms: Option<u64>,
    /// It may become primary. Older nodes do not say.
    #[serde(default = "yes")]
    pub candidate: bool,
    /// Its application answers, or would once this node were the primary.
    #[serde(default)]
    pub app_up: bool,
    /// As the primary: how far the database was when its application was first found up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) app_wrote: Option<EpochTxid>,
    /// Why nobody takes writes. Only who chooses the primary says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_primary: Option<Arc<str>>,
    /// Its engine: `litefs`, `external`, `embedded`.
    #[serde(default)]
    pub(crate) engine: String,
    /// The engine's state, one word.
    #[serde(default)]
    pub(crate) engine_state: String,
    /// There is no room on its disk.
    #[serde(default)]
    pub(crate) disk_full: bool,
    /// Its version of Litepilot.
    #[serde(default)]
    pub(crate) version: String,
    /// How others reach its peer port, `host:port`.
    #[serde(default)]
    pub(crate) address: String,
    /// The routes that a primary has found to write; on the wire only where they have changed since the
    /// last line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) learned: Option<Routes>,
}

/// Routes, shared by the lines that carry them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<WriteRoute>", into = "Vec<WriteRoute>")]
pub(crate) struct Routes(pub(crate) Arc<[WriteRoute]>);

impl From<Vec<WriteRoute>> for Routes {
    fn from(routes: Vec<WriteRoute>) -> Self {
        Self(routes.into())
    }
}

impl From<Routes> for Vec<WriteRoute> {
    fn from(routes: Routes) -> Self {
        routes.0.to_vec()
    }
}

impl Report {
    /// A node that has just started and knows nothing yet.
    pub fn new(node: NodeId, role: Role) -> Self {
        Self {
            node,
            role,
            writable: false,
            epoch: Epoch::default(),
            position: EpochTxid::default(),
            lag_ms: None,
            candidate: true,
            app_up: false,
            app_wrote: None,
            no_primary: None,
            engine: String::new(),
            engine_state: String::new(),
            disk_full: false,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            address: String::new(),
            learned: None,
        }
    }
}

fn yes() -> bool {
    true
}

/// A report on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Tells one life of a node from another.
    pub(crate) boot: u64,
    /// Grows within one life: a later report has a higher number, whatever connection it took.
    pub(crate) sequence: u64,
    #[serde(flatten)]
    pub(crate) report: Report,
}

impl Line {
    /// The bytes to send, with the end of the line.
    ///
    /// # Errors
    ///
    /// Never, as long as the fields are what they are now.
    pub(crate) fn encode(&self) -> io::Result<Vec<u8>> {
        json_line(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txid::Txid;

    #[test]
    fn a_report_travels_whole() {
        let mut report = Report::new("node-1".parse().unwrap(), Role::Primary);
        report.writable = true;
        report.epoch = Epoch(u64::MAX);
        report.position = EpochTxid { epoch: Epoch(3), txid: Txid(0xff) };
        report.lag_ms = Some(12);
        let line = Line { boot: u64::MAX, sequence: 1, report };
        let bytes = line.encode().unwrap();
        assert_eq!(bytes.iter().filter(|b| **b == b'\n').count(), 1);
        assert_eq!(serde_json::from_slice::<Line>(&bytes).unwrap(), line);
    }

    #[test]
    fn other_versions_are_understood() {
        let text = br#"{"boot":1,"sequence":2,"node":"a","role":"replica","mood":["good"]}"#;
        let line = serde_json::from_slice::<Line>(text).unwrap();
        assert_eq!(line.report.role, Role::Replica);
        assert_eq!(line.report.position, EpochTxid::default());
    }

    #[test]
    fn nonsense_is_an_error() {
        for bad in [
            &b"\n"[..],
            b"{}\n",
            b"[]",
            b"\xff",
            br#"{"boot":1,"sequence":2,"node":"a b","role":"replica"}"#,
            br#"{"boot":-1,"sequence":2,"node":"a","role":"replica"}"#,
            br#"{"boot":1,"sequence":2,"node":"a","role":"king"}"#,
        ] {
            assert!(
                serde_json::from_slice::<Line>(bad).is_err(),
                "{}",
                String::from_utf8_lossy(bad)
            );
        }
        assert!(serde_json::from_slice::<Line>(&[b'['; 10_000]).is_err());
    }
}
