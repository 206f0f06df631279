//! What LiteFS was last seen to be.

use std::collections::BTreeSet;

use tokio::sync::watch;

use super::databases::Databases;
use super::events::{Event, Listener, Role};
use super::position::{LitefsPosition, is_database};

/// What LiteFS was last seen to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// It answers. Otherwise nothing else counts.
    pub live: bool,
    /// Counts the beginnings of its event stream: after each, the position has to be read anew.
    pub(crate) beginning: u64,
    /// Primary, replica of somebody, or neither.
    pub(crate) role: Role,
    /// What the databases hold since the last transactions that were heard of.
    pub(crate) applied: Databases,
    /// Counts how often a database was replaced by another history: transactions went back.
    pub(crate) replaced: u64,
}

impl Seen {
    /// It is the primary.
    pub fn is_primary(&self) -> bool {
        self.live && self.role.is_primary
    }

    /// It is neither primary nor follows anybody.
    pub(crate) fn is_idle(&self) -> bool {
        self.live && !self.role.is_primary && self.role.hostname.is_none()
    }

    /// The node that it follows.
    pub fn follows(&self) -> Option<&str> {
        self.role.hostname.as_deref().filter(|_| self.live)
    }
}

/// Keeps [`Seen`] up to date.
pub(crate) struct Watch {
    untracked: BTreeSet<String>,
    seen: watch::Sender<Seen>,
}

impl Watch {
    pub(crate) fn new(untracked: BTreeSet<String>) -> Self {
        Self { untracked, seen: watch::Sender::default() }
    }

    /// What is seen, now and as it changes.
    pub(crate) fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
    }

    fn is_tracked(&self, db: &str) -> bool {
        is_database(db) && !self.untracked.contains(db)
    }

    /// LiteFS is known to have ended.
    pub(crate) fn ended(&self) {
        self.seen.send_if_modified(|seen| {
            let was_live = seen.live;
            seen.live = false;
            seen.role = Role::default();
            was_live
        });
    }
}

impl Listener for Watch {
    fn event(&self, event: Event) {
        match event {
            Event::Init { data } => self.seen.send_modify(|seen| {
                seen.live = true;
                seen.beginning += 1;
                seen.role = data;
                seen.applied = Databases::default();
            }),
            Event::PrimaryChange { data } => self.seen.send_modify(|seen| seen.role = data),
            Event::Tx { db, data } if self.is_tracked(&db) => self.seen.send_modify(|seen| {
                if data.txid <= seen.applied.get(&db).txid {
                    seen.replaced += 1;
                }
                let checksum = data.post_apply_checksum;
                seen.applied.set(&db, LitefsPosition { txid: data.txid, checksum });
            }),
            Event::Tx { .. } | Event::Other => {}
        }
    }

    fn silence(&self) {
        self.ended();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txid::Txid;

    fn tell(watch: &Watch, lines: &str) -> Seen {
        for line in lines.lines() {
            watch.event(serde_json::from_str(line).unwrap());
        }
        watch.seen().borrow().clone()
    }

    #[test]
    fn recorded_events_say_what_it_is() {
        let watch = Watch::new(BTreeSet::from(["cache.db".to_owned()]));
        let recorded = include_str!("../../tests/litefs-contract/events-node1.ndjson");
        let lines: Vec<_> = recorded.lines().collect();
        let seen = tell(&watch, lines[0]);
        assert!(seen.is_primary() && seen.applied.is_empty() && seen.beginning == 1);
        let seen = tell(&watch, &lines[1..4].join("\n"));
        assert_eq!(seen.applied.get("app.db").txid, Txid(3));
        let seen = tell(&watch, &lines[4..12].join("\n"));
        assert_eq!((seen.is_primary(), seen.follows()), (false, Some("node2")));
        watch.silence();
        let seen = watch.seen().borrow().clone();
        assert!(!seen.live && !seen.is_primary() && seen.follows().is_none());
    }

    #[test]
    fn a_snapshot_of_another_history_is_noticed() {
        let watch = Watch::new(BTreeSet::from(["cache.db".to_owned()]));
        let tx = |db: &str, txid: u64| {
            format!(
                r#"{{"type":"tx","db":"{db}","data":{{"txID":"{txid:016x}","postApplyChecksum":"8000000000000001","pageSize":4096,"commit":1,"timestamp":"2026-11-20T10:21:27.481Z"}}}}"#
            )
        };
        tell(&watch, &tx("app.db", 7));
        let seen = tell(&watch, &[tx("other.db", 1), tx("cache.db", 1)].join("\n"));
        assert_eq!((seen.replaced, seen.applied.seq()), (0, Txid(8)));
        let seen = tell(&watch, &tx("app.db", 5));
        assert_eq!((seen.replaced, seen.applied.get("app.db").txid), (1, Txid(5)));
    }
}
