//! Notices an application that writes another database than the one that is replicated: it answers writes
//! with success, and the position never moves. Each node then has data of its own, and nobody is told.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::telemetry::warnings::Warnings;
use crate::txid::{EpochTxid, Txid};

const KIND: &str = "unmoved-writes";
/// So many without a change are no chance. A log-in that fails, or a search by POST, is one.
const MANY: u64 = 10;

/// Shared by all workers.
pub struct UnmovedWrites {
    warnings: Arc<Warnings>,
    /// The one that is replicated.
    database: PathBuf,
    /// It has changed since the start, so it is the application's.
    moved: AtomicBool,
    /// Where it was, and how many writes have been answered since.
    seen: Mutex<Option<(Txid, u64)>>,
}

impl UnmovedWrites {
    /// None yet.
    pub fn new(database: PathBuf, warnings: Arc<Warnings>) -> Self {
        Self { warnings, database, moved: AtomicBool::new(false), seen: Mutex::default() }
    }

    /// The application here has answered a write with success, and the database is at `at` then.
    pub(crate) fn note(&self, at: EpochTxid) {
        if self.moved.load(Relaxed) {
            return;
        }
        let mut seen = self.seen.lock();
        match &mut *seen {
            None => *seen = Some((at.txid, 1)),
            Some((before, _)) if *before != at.txid => {
                self.moved.store(true, Relaxed);
                self.warnings.clear(KIND, "the application's writes change the database");
            }
            Some((_, count)) => {
                *count += 1;
                if *count >= MANY {
                    self.warnings.raise(KIND, self.text(*count));
                }
            }
        }
    }

    fn text(&self, count: u64) -> String {
        let database = self.database.display();
        format!(
            "{count} writes were answered with success, and {database} has not changed: does the application write \
             another file, which nobody replicates? Have it open that one, or correct proxy.db and litefs.mount"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Epoch;

    fn at(epoch: u64, txid: u64) -> EpochTxid {
        EpochTxid { epoch: Epoch(epoch), txid: Txid(txid) }
    }

    #[test]
    fn ten_writes_without_a_change_are_told() {
        let warnings = Arc::new(Warnings::new(Arc::default()));
        let writes = UnmovedWrites::new("/litefs/app.db".into(), warnings.clone());
        for _ in 1..MANY {
            writes.note(at(1, 7));
        }
        assert!(warnings.list().is_empty());
        // A new epoch is no change.
        writes.note(at(2, 7));
        let [(KIND, text)] = &warnings.list()[..] else { panic!("{:?}", warnings.list()) };
        assert!(text.contains("10 writes") && text.contains("/litefs/app.db"), "{text}");
        writes.note(at(2, 8));
        assert!(warnings.list().is_empty());
        (0..2 * MANY).for_each(|_| writes.note(at(2, 8)));
        assert!(warnings.list().is_empty(), "it was the right database");
    }
}
