//! What was acknowledged is there again, whatever happens; and what is damaged is left as it is.

use std::io::{BufRead, BufReader};
use std::process::{Command as Process, Stdio};

use openraft::entry::RaftEntry;
use openraft::storage::RaftLogStorage;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, StorageError};
use rand::RngExt;
use tempfile::TempDir;
use tokio::sync::watch;

use super::testing::{Shelf, chance};
use super::*;
use crate::election::raft::machine::{Machine, Published};
use crate::election::raft::types::{Proposal, RaftId};
use crate::election::table::Command;

struct OnDisk;

impl StoreBuilder<Types, LogStore, Machine, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let published = Published {
            table: watch::Sender::new(Arc::default()),
            applied: watch::Sender::new(None),
        };
        Ok((dir, LogStore(store.clone()), Machine::new(store, published)))
    }
}

#[tokio::test]
async fn openrafts_own_suite() {
    Suite::test_all(OnDisk).await.unwrap();
}

fn entry(term: u64, index: u64, key: &str) -> Entry {
    let command = Command::SetLitefsId { id: key.to_owned() };
    Entry::new(LogId::new_term_index(term, index), EntryPayload::Normal(Proposal(command)))
}

fn vote(term: u64) -> Vote {
    Vote::new(term, RaftId::from(term))
}

/// Returns once the entry is on the disk.
async fn append(store: &Store, entry: Entry) -> io::Result<()> {
    let (sent, flushed) = Types::oneshot();
    store.append(vec![entry], IOFlushed::signal(sent)).await?;
    flushed.await.unwrap_or_else(|_| Err(ended()))
}

fn contents(store: &Store) -> (Option<Vote>, Vec<LogId>) {
    let memory = store.memory();
    (memory.vote, memory.log.values().map(|entry| entry.log_id).collect())
}

#[tokio::test]
async fn all_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for index in 0..10 {
        append(&store, entry(1, index, "k")).await.unwrap();
    }
    store.save_vote(&vote(2)).await.unwrap();
    store.truncate(8).await.unwrap();
    store.purge(LogId::new_term_index(1, 3)).await.unwrap();
    // Carries the two before.
    append(&store, entry(2, 8, "new")).await.unwrap();
    let before = contents(&store);
    assert_eq!(before.1.len(), 5);
    drop(store);
    let store = reopened(dir.path());
    assert_eq!(contents(&store), before);
    assert_eq!(store.memory().purged, Some(LogId::new_term_index(1, 3)));
    assert_eq!(store.memory().log[&8], entry(2, 8, "new"));
}

/// Once the thread that wrote it has let go of it.
fn reopened(dir: &Path) -> Store {
    loop {
        match Store::open(dir) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => std::thread::yield_now(),
            other => return other.unwrap(),
        }
    }
}

#[test]
fn a_store_is_opened_once() {
    let dir = tempfile::tempdir().unwrap();
    let _store = Store::open(dir.path()).unwrap();
    let error = Store::open(dir.path()).err().unwrap();
    assert!(error.to_string().contains("another litepilot runs with this data_dir"), "{error}");
}

/// What was acknowledged before the power failed.
#[derive(Default)]
struct Promised {
    vote: u64,
    log: BTreeMap<u64, u64>,
}

impl Promised {
    /// Does something at random, and remembers it if it was acknowledged.
    async fn step(&mut self, store: &Store, chance: &mut impl RngExt) -> io::Result<()> {
        let next = self.log.last_key_value().map_or(0, |(index, _)| index + 1);
        let term = self.log.values().max().copied().unwrap_or(0).max(self.vote);
        match chance.random_range(0..10) {
            0 => {
                store.save_vote(&vote(term + 1)).await?;
                self.vote = term + 1;
            }
            1 if next > 2 => {
                let from = chance.random_range(next - 2..next);
                store.truncate(from).await?;
                append(store, entry(term, from, "after")).await?;
                self.log.split_off(&from);
                self.log.insert(from, term);
            }
            2 => {
                store
                    .save_committed(next.checked_sub(1).map(|i| LogId::new_term_index(term, i)))
                    .await?
            }
            _ => {
                append(store, entry(term, next, &"x".repeat(chance.random_range(0..3000)))).await?;
                self.log.insert(next, term);
            }
        }
        Ok(())
    }

    /// Beyond what was promised there may be what was about to be.
    fn is_kept_by(&self, store: &Store) {
        let memory = store.memory();
        assert!(memory.vote.map_or(0, |vote| vote.leader_id.term) >= self.vote);
        for (index, term) in &self.log {
            let found = memory.log.get(index).unwrap_or_else(|| panic!("entry {index} is lost"));
            assert!(found.log_id.leader_id.term >= *term);
        }
        assert!(memory.log.len() <= self.log.len() + 1, "entries that were never written");
    }
}

/// The power fails in the middle of a transaction, and the disk has reordered what it was given.
#[tokio::test]
async fn a_power_failure_takes_nothing_that_was_acknowledged() {
    for seed in 0..60 {
        let chance = &mut chance(seed);
        let shelf = Shelf::default();
        let mut promised = Promised::default();
        for _ in 0..4 {
            let disk = shelf.clone();
            let store = Store::with_backend(move || disk.open()).unwrap();
            promised.is_kept_by(&store);
            let now = contents(&store);
            promised.vote = now.0.map_or(0, |vote| vote.leader_id.term);
            promised.log = now.1.iter().map(|id| (id.index, id.leader_id.term)).collect();
            for _ in 0..chance.random_range(0..12) {
                promised.step(&store, chance).await.unwrap();
            }
            // And one that is not acknowledged: the disk fails before it is.
            shelf.set_full(true);
            let mut lost = Promised { vote: promised.vote, log: promised.log.clone() };
            let _ = lost.step(&store, chance).await;
            shelf.set_full(false);
            shelf.crash(chance);
        }
    }
}

const CHILD: &str = "LITEPILOT_TEST_RAFT_STORE";

/// Run by the test below in a process of its own: appends until it is killed.
#[tokio::test]
async fn child_that_appends() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let store = reopened(Path::new(&dir));
    let first = store.memory().log.last_key_value().map_or(0, |(index, _)| index + 1);
    for index in first.. {
        append(&store, entry(index, index, &"x".repeat(index as usize % 700))).await.unwrap();
        store.save_vote(&vote(index)).await.unwrap();
        println!("\nacknowledged {index}");
    }
}

#[test]
fn a_kill_takes_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut total = 0;
    for round in 0..12 {
        let mut child = Process::new(std::env::current_exe().unwrap())
            .args(["--exact", "election::raft::store::tests::child_that_appends", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let acknowledged =
            lines.filter_map(|l| Some(l.strip_prefix("acknowledged ")?.parse().unwrap()));
        // At another point in its work each time.
        let last: u64 = acknowledged.take(1 + round * 7 % 23).last().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let store = reopened(dir.path());
        let (vote, log) = contents(&store);
        assert!(vote.unwrap().leader_id.term >= last);
        assert_eq!(log.len() as u64, log.last().unwrap().index + 1);
        assert!(log.last().unwrap().index >= last, "round {round}");
        assert!(last >= total, "nothing was done");
        total = last;
    }
}

/// A store with something in everything.
async fn full_store(shelf: &Shelf) -> (Option<Vote>, Vec<LogId>) {
    let disk = shelf.clone();
    let store = Store::with_backend(move || disk.open()).unwrap();
    for index in 0..20 {
        append(&store, entry(1, index, &"x".repeat(300))).await.unwrap();
    }
    store.save_vote(&vote(7)).await.unwrap();
    contents(&store)
}

/// Wherever a byte is wrong: either it does not matter, or it is refused and nothing is written.
#[tokio::test]
async fn a_damaged_store_is_refused_and_left_as_it_is() {
    let shelf = Shelf::default();
    let whole = full_store(&shelf).await;
    let good = shelf.bytes();
    let chance = &mut chance(1);
    let used: Vec<usize> = (0..good.len()).filter(|at| good[*at] != 0).collect();
    let mut refused = 0;
    for round in 0..200 {
        let mut bad = good.clone();
        match round % 10 {
            0 => bad.truncate(chance.random_range(1..bad.len())),
            1 => bad[chance.random_range(0..good.len() / 4096) * 4096..][..512].fill(0xff),
            _ => bad[used[chance.random_range(0..used.len())]] ^= 1 << chance.random_range(0..8),
        }
        shelf.set_bytes(bad.clone());
        let disk = shelf.clone();
        match Store::with_backend(move || disk.open()) {
            Ok(store) => {
                assert_eq!(contents(&store), whole, "round {round}");
                // Nor does it matter later.
                append(&store, entry(7, 20, &"y".repeat(9000))).await.unwrap();
                drop(store);
                let disk = shelf.clone();
                let again = Store::with_backend(move || disk.open()).unwrap();
                assert_eq!(again.memory().log.len(), 21, "round {round}");
            }
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("it was left as it is"), "{error}");
                assert!(shelf.bytes() == bad, "it was written to");
            }
        }
    }
    assert!(refused > 30, "only {refused} were noticed");
}

#[test]
fn a_foreign_file_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    for foreign in [b"SQLite format 3\0".repeat(300), b"hello".to_vec(), vec![0; 100_000]] {
        fs::write(&path, &foreign).unwrap();
        let error = Store::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains("raft.redb") && error.contains("members replace"), "{error}");
        assert!(fs::read(&path).unwrap() == foreign);
    }
}

/// As a later version would leave it, whose log and table this one could not read.
#[tokio::test]
async fn a_store_of_a_newer_format_is_refused_in_words_and_left_as_it_is() {
    let shelf = Shelf::default();
    full_store(&shelf).await;
    let open = || {
        let disk = shelf.clone();
        Store::with_backend(move || disk.open())
    };
    let newer = encode(&"litepilot raft 9").unwrap();
    open().unwrap().write(vec![Change::Put("format", newer)]).await.unwrap();
    let before = shelf.bytes();
    let error = open().err().unwrap().to_string();
    for words in ["litepilot raft 9", "Start that version again", "left as it is"] {
        assert!(error.contains(words), "{error}");
    }
    assert!(shelf.bytes() == before, "it was written to");
}

#[tokio::test]
async fn after_a_failed_write_it_is_opened_anew() {
    let shelf = Shelf::default();
    let disk = shelf.clone();
    let store = Store::with_backend(move || disk.open()).unwrap();
    append(&store, entry(1, 0, "kept")).await.unwrap();
    shelf.set_full(true);
    let error = append(&store, entry(1, 1, "lost")).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(store.save_vote(&vote(1)).await.is_err());
    assert!(store.reopen().await.is_err());
    shelf.set_full(false);
    assert!(store.save_vote(&vote(1)).await.is_err(), "it is not known what is in the file");
    store.reopen().await.unwrap();
    assert_eq!(contents(&store), (None, vec![LogId::new_term_index(1, 0)]));
    append(&store, entry(2, 1, "again")).await.unwrap();
    assert_eq!(LogStore(store).get_log_state().await.unwrap().last_log_id.unwrap().index, 1);
}
