use super::*;
use proptest::prelude::*;

const DB: &str = "/app/db.sqlite3";

fn open(dir: &Path) -> io::Result<Store> {
    Store::open(dir, Path::new(DB))
}

#[test]
fn a_restart_begins_beyond_what_was_given_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap();
    assert_eq!(store.newest().txid, Txid(0));
    store.begin(Epoch(3), None).unwrap();
    for txid in [1, 2, 999, 1_500, 5_000] {
        store.reserve(Txid(txid)).unwrap();
        drop(store);
        store = open(dir.path()).unwrap();
        assert!(store.newest().txid >= Txid(txid), "{txid}");
        assert_eq!(store.newest().epoch, Epoch(3));
    }
}

#[test]
fn within_a_block_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap();
    store.begin(Epoch(1), None).unwrap();
    store.reserve(Txid(1)).unwrap();
    fs::remove_file(dir.path().join(STATE_FILE)).unwrap();
    for txid in 2..=BLOCK {
        store.reserve(Txid(txid)).unwrap();
    }
    assert!(!dir.path().join(STATE_FILE).exists());
    store.reserve(Txid(BLOCK + 2)).unwrap();
    assert!(dir.path().join(STATE_FILE).exists());
}

#[test]
fn damaged_and_foreign_files_are_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(STATE_FILE);
    open(dir.path()).unwrap().begin(Epoch(1), None).unwrap();
    let good = fs::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[30] ^= 1;
    let cases = [good[..20].to_vec(), flipped, Vec::new(), vec![b'x'; 1 << 20]];
    for bad in cases {
        fs::write(&path, &bad).unwrap();
        let error = open(dir.path()).err().expect("refused").to_string();
        assert!(error.contains("move it away") && error.contains(STATE_FILE), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bad);
    }
    fs::write(&path, &good).unwrap();
    let other = Store::open(dir.path(), Path::new("/other/db")).err().expect("refused");
    assert!(other.to_string().contains("/other/db"), "{other}");
    open(dir.path()).unwrap();
}

#[test]
fn a_copy_is_recognized_before_and_after_an_update() {
    let dir = tempfile::tempdir().unwrap();
    let position = |txid, sum| Position {
        at: EpochTxid { epoch: Epoch(2), txid: Txid(txid) },
        checksum: Checksum(sum),
    };
    let (old, new) = (position(7, 70), position(9, 90));
    let lineage =
        Lineage::new(vec![EpochStart { epoch: Epoch(2), held: position(1, 10) }]).unwrap();
    open(dir.path()).unwrap().applying(sure(old), new, &lineage).unwrap();
    let store = open(dir.path()).unwrap();
    for known in [old, new] {
        assert_eq!(store.find(known.checksum), sure(known));
    }
    let unknown = Position { at: EpochTxid::default(), checksum: Checksum(1) };
    assert_eq!(store.find(Checksum(1)), Found { position: unknown, certain: false });
    assert_eq!(store.newest(), new.at);
}

#[test]
fn two_at_once_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path()).unwrap();
    let second = open(dir.path()).err().expect("refused");
    assert!(second.to_string().contains("data_dir"), "{second}");
}

fn sure(position: Position) -> Found {
    Found { position, certain: true }
}

fn position(epoch: u64, txid: u64, sum: u64) -> Position {
    let position = EpochTxid { epoch: Epoch(epoch), txid: Txid(txid) };
    Position { at: position, checksum: Checksum(1 << 63 | sum) }
}

#[test]
fn a_promise_is_kept_and_never_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    for (promised, floor) in [(3, 3), (2, 3), (3, 3), (7, 7), (0, 7)] {
        open(dir.path()).unwrap().promise(Epoch(promised)).unwrap();
        assert_eq!(open(dir.path()).unwrap().floor(), Epoch(floor));
    }
    let mut store = open(dir.path()).unwrap();
    let error = store.begin(Epoch(6), None).unwrap_err();
    assert!(error.to_string().contains("epoch 7"), "{error}");
    store.begin(Epoch(7), None).unwrap();
    store.promise(Epoch(8)).unwrap();
    assert!(store.began(Epoch(7)).is_err(), "it is over");
}

#[test]
fn what_an_epoch_began_with_stays_what_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let lineage =
        Lineage::new(vec![EpochStart { epoch: Epoch(2), held: position(1, 5, 5) }]).unwrap();
    let held = position(2, 9, 9);
    open(dir.path()).unwrap().applying(sure(held), held, &lineage).unwrap();
    let mut given = EpochTxid::default();
    for round in 0..4 {
        let mut store = open(dir.path()).unwrap();
        // Whatever it holds by now.
        let now = position(2, 9 + round, 9 + round);
        let (began, start) = store.begin(Epoch(3), Some(now)).unwrap();
        assert_eq!((began, store.began(Epoch(3)).unwrap()), (held, held));
        assert!(round == 0 && start.txid == Txid(9) || start > given, "{start} after {given}");
        given = EpochTxid { txid: Txid(start.txid.0 + 1), ..start };
        store.reserve(given.txid).unwrap();
        let starts = store.lineage().unwrap().starts().to_vec();
        assert_eq!(starts, [lineage.starts()[0], EpochStart { epoch: Epoch(3), held }]);
    }
}

/// What happens to a primary and its copy, in any order.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The application commits something.
    Commit,
    /// It gets a number, which is given out.
    Number,
    /// It is sent to replicas.
    Ship,
    /// The process is killed. Whether the machine crashes, too: what was not flushed is lost.
    Crash(bool),
    /// It becomes primary again, in the same epoch or (`true`) in the next.
    Primary(bool),
}

proptest! {
    #[test]
    fn a_copy_is_never_taken_for_less_than_was_said_of_it(
        steps in proptest::collection::vec(prop_oneof![
            4 => Just(Step::Commit),
            4 => Just(Step::Number),
            3 => Just(Step::Ship),
            2 => any::<bool>().prop_map(Step::Crash),
            1 => any::<bool>().prop_map(Step::Primary),
        ], 1..40),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path()).unwrap();
        let (mut epoch, mut content) = (Epoch(1), 1_u64);
        // The present number, and the content that it was given to; none of the replica's.
        let mut at = Some(store.begin(epoch, Some(Position::default())).unwrap().1);
        let (mut given, mut shipped) = (at.unwrap(), None);
        let (mut numbered, mut highest) = (content, given);
        let path = dir.path().join(COPY_FILE);
        let mut flushed = fs::read(&path).unwrap();
        for step in steps {
            match step {
                Step::Commit if at.is_some() => content += 1,
                Step::Number => if let Some(at) = &mut at {
                    if content != numbered || shipped.is_none() {
                        at.txid.0 += 1;
                        prop_assert!(*at > highest, "{at} was given out before: {highest}");
                    }
                    store.reserve(at.txid).unwrap();
                    (given, highest, numbered) = (*at, *at, content);
                },
                Step::Ship => if let Some(position) = at && given == position {
                    // A commit in between is in the image.
                    let position = Position { at: position, checksum: Checksum(1 << 63 | content) };
                    store.shipping(position).unwrap();
                    shipped = Some(position);
                },
                Step::Crash(machine) => {
                    drop(store);
                    if machine && at.is_some() {
                        fs::write(&path, &flushed).unwrap();
                    }
                    store = open(dir.path()).unwrap();
                    let checksum = Checksum(1 << 63 | content);
                    let found = store.identify(checksum).unwrap();
                    let position = found.position.at;
                    prop_assert_eq!(found.position.checksum, checksum);
                    prop_assert!(machine || position >= given, "{:?}: {} was given out", found, given);
                    if let Some(shipped) = shipped && found.certain && !machine {
                        prop_assert_eq!(shipped.checksum, checksum, "nobody else can know it");
                    }
                    // Killed again, it still is that.
                    drop(store);
                    store = open(dir.path()).unwrap();
                    prop_assert_eq!(store.identify(checksum).unwrap(), found);
                    (given, highest) = (position, highest.max(position));
                    at = None;
                }
                Step::Primary(later) if at.is_none() => {
                    epoch.0 += u64::from(later);
                    let held = store.find(Checksum(1 << 63 | content)).position;
                    let (began, start) = store.begin(epoch, Some(held)).unwrap();
                    prop_assert!(!later || began == held);
                    prop_assert!(later || start >= highest);
                    (at, given, highest, shipped) = (Some(start), start, start, None);
                    flushed = fs::read(&path).unwrap();
                }
                _ => {}
            }
        }
    }
}
