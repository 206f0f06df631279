//! Notices an open transaction on a replica. LiteFS applies nothing of its primary's while one lasts, in
//! whatever database, and says no word about it: what is read here grows old.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::time::sleep;

use super::engine::{ASKING, Duty, Litefs};
use super::mount;
use super::supervise::apart;
use crate::engine::Stalled;
use crate::process::openers::{self, Opener};
use crate::txid::EpochTxid;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// An ordinary transaction is over before that.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two searches for whoever has the database open.
const SEARCH: Duration = Duration::from_secs(2);

/// What LiteFS says of its databases' locks, in `GET /debug/vars`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Vars {
    store: Store,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Store {
    dbs: BTreeMap<String, Database>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Database {
    /// `unlocked`, `shared` or `exclusive`, by SQLite's names of its locks.
    locks: BTreeMap<String, String>,
}

impl Vars {
    /// Whether an application is in a transaction. LiteFS itself takes readers' locks as a writer only.
    fn is_read(&self) -> bool {
        self.store.dbs.values().any(Database::is_read)
    }
}

impl Database {
    fn is_read(&self) -> bool {
        let is = |lock: &str, state: &str| self.locks.get(lock).is_some_and(|now| now == state);
        let in_wal =
            ["read0", "read1", "read2", "read3", "read4"].iter().any(|lock| is(lock, "shared"));
        // With a WAL whoever has the database open holds that one, and the index' own.
        in_wal || is("shared", "shared") && is("dms", "unlocked")
    }
}

/// Since when a replica has not moved on, because of readers.
#[derive(Debug, Default)]
struct Standstill {
    since: Option<(Instant, EpochTxid)>,
    searched: Option<Instant>,
}

impl Standstill {
    /// For how long that has been, after another look.
    fn observe(&mut self, stalled: bool, at: EpochTxid, now: Instant) -> Option<Duration> {
        let since = self.since.filter(|(_, before)| stalled && *before == at);
        match since {
            None => *self = Self { since: stalled.then_some((now, at)), searched: None },
            Some((since, _)) => return Some(now.saturating_duration_since(since)),
        }
        None
    }

    /// Whether it is to be searched who does that, now.
    fn is_search_due(&mut self, now: Instant) -> bool {
        let due = self.searched.is_none_or(|at| now.saturating_duration_since(at) >= SEARCH);
        if due {
            self.searched = Some(now);
        }
        due
    }
}

impl Litefs {
    pub(super) async fn watch_readers(self: Arc<Self>) {
        let mut standstill = Standstill::default();
        loop {
            sleep(LOOK).await;
            let stalled = self.lacks_data() && self.is_read().await;
            let now = Instant::now();
            match standstill.observe(stalled, self.position.get(), now) {
                Some(lasts) if lasts >= PATIENCE => {
                    if standstill.is_search_due(now) {
                        let openers = self.openers().await;
                        self.stalled.send_replace(Some(Stalled { since: now - lasts, openers }));
                    }
                }
                _ => drop(self.stalled.send_if_modified(|stalled| stalled.take().is_some())),
            }
        }
    }

    /// There is something that this copy should have applied by now, or a primary that LiteFS should have left:
    /// it then needs its databases for itself before it asks for the lease.
    fn lacks_data(&self) -> bool {
        let behind = self.awaits_for().is_some_and(|time| time > LOOK);
        let idle =
            self.watch.seen().borrow().is_idle() && !self.lease_state.has_asked_within(ASKING);
        self.duty() == Duty::Replica && (behind || idle || self.clings())
    }

    async fn is_read(&self) -> bool {
        self.api.vars().await.is_ok_and(|vars| vars.is_read())
    }

    async fn openers(&self) -> Vec<Opener> {
        let (mount, litefs) = (mount::absolute(&self.mount), self.pid());
        // `-pos` we read ourselves.
        let counts = |name: &str| !name.ends_with("-pos");
        apart(move || openers::of(&mount, counts, litefs)).await.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Epoch;
    use crate::txid::Txid;

    fn is_read(locks: &str) -> bool {
        let text = format!(
            r#"{{"cmdline":["litefs"],"memstats":{{"Alloc":1}},"store":{{"isPrimary":false,
            "dbs":{{"app.db":{{"name":"app.db","txid":"0000000000000003","locks":{{{locks}}}}}}}}}}}"#
        );
        serde_json::from_str::<Vars>(&text).unwrap().is_read()
    }

    #[test]
    fn a_transaction_is_told_from_an_open_database_and_from_litefs_itself() {
        let wal = r#""shared":"shared","write":"unlocked","dms":"shared""#;
        assert!(!is_read(&format!(r#"{wal},"read0":"unlocked","read1":"unlocked""#)));
        assert!(is_read(&format!(r#"{wal},"read0":"unlocked","read1":"shared""#)));
        assert!(!is_read(&format!(r#"{wal},"read0":"exclusive","read1":"exclusive""#)));
        assert!(is_read(r#""shared":"shared","reserved":"unlocked","dms":"unlocked""#));
        assert!(!is_read(r#""shared":"exclusive","reserved":"exclusive","dms":"unlocked""#));
        assert!(!serde_json::from_str::<Vars>("{}").unwrap().is_read());
    }

    #[test]
    fn only_one_that_lasts_without_a_move_counts() {
        let (mut standstill, start) = (Standstill::default(), Instant::now());
        let at = |txid| EpochTxid { epoch: Epoch(1), txid: Txid(txid) };
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(standstill.observe(true, at(1), start), None);
        assert_eq!(standstill.observe(true, at(1), after(4)), Some(Duration::from_secs(4)));
        assert!(standstill.is_search_due(after(4)) && !standstill.is_search_due(after(5)));
        assert_eq!(standstill.observe(true, at(2), after(5)), None, "it has moved");
        assert_eq!(standstill.observe(true, at(2), after(6)), Some(Duration::from_secs(1)));
        assert_eq!(standstill.observe(false, at(2), after(7)), None);
        assert_eq!(standstill.observe(true, at(2), after(8)), None, "it begins anew");
    }
}
