//! What LiteFS was last seen to be.

use tokio::sync::watch;

use super::events::{Event, Listener, Role};
use super::position::LitefsPosition;
use crate::txid::Txid;

/// What LiteFS was last seen to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// It answers. Otherwise nothing else counts.
    pub live: bool,
    /// Counts the beginnings of its event stream: after each, the position has to be read anew.
    pub(crate) beginning: u64,
    /// Primary, replica of somebody, or neither.
    pub(crate) role: Role,
    /// What the database holds since the last transaction that was heard of.
    pub(crate) applied: Option<LitefsPosition>,
    /// Counts how often the database was replaced by another history: transactions went back.
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
    database: String,
    seen: watch::Sender<Seen>,
}

impl Watch {
    pub(crate) fn new(database: String) -> Self {
        Self { database, seen: watch::Sender::default() }
    }

    /// What is seen, now and as it changes.
    pub(crate) fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
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
                seen.applied = None;
            }),
            Event::PrimaryChange { data } => self.seen.send_modify(|seen| seen.role = data),
            Event::Tx { db, data } if db == self.database => self.seen.send_modify(|seen| {
                let before = seen.applied.map_or(Txid(0), |applied| applied.txid);
                if data.txid <= before {
                    seen.replaced += 1;
                }
                let checksum = data.post_apply_checksum;
                seen.applied = Some(LitefsPosition { txid: data.txid, checksum });
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

    fn tell(watch: &Watch, lines: &str) -> Seen {
        for line in lines.lines() {
            watch.event(serde_json::from_str(line).unwrap());
        }
        watch.seen().borrow().clone()
    }

    #[test]
    fn recorded_events_say_what_it_is() {
        let watch = Watch::new("app.db".to_owned());
        let recorded = include_str!("../../tests/litefs-contract/events-node1.ndjson");
        let lines: Vec<_> = recorded.lines().collect();
        let seen = tell(&watch, lines[0]);
        assert!(seen.is_primary() && seen.applied.is_none() && seen.beginning == 1);
        let seen = tell(&watch, &lines[1..4].join("\n"));
        assert_eq!(seen.applied.unwrap().txid, Txid(3));
        let seen = tell(&watch, &lines[4..12].join("\n"));
        assert_eq!((seen.is_primary(), seen.follows()), (false, Some("node2")));
        watch.silence();
        let seen = watch.seen().borrow().clone();
        assert!(!seen.live && !seen.is_primary() && seen.follows().is_none());
    }

    #[test]
    fn a_snapshot_of_another_history_is_noticed() {
        let watch = Watch::new("app.db".to_owned());
        let tx = |db: &str, txid: u64| {
            format!(
                r#"{{"type":"tx","db":"{db}","data":{{"txID":"{txid:016x}","postApplyChecksum":"8000000000000001","pageSize":4096,"commit":1,"timestamp":"2026-11-20T10:21:27.481Z"}}}}"#
            )
        };
        tell(&watch, &tx("app.db", 7));
        assert_eq!(tell(&watch, &tx("other.db", 1)).replaced, 0);
        let seen = tell(&watch, &tx("app.db", 5));
        assert_eq!((seen.replaced, seen.applied.unwrap().txid), (1, Txid(5)));
    }
}
