use super::*;

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
    fs::remove_file(dir.path().join(FILE)).unwrap();
    for txid in 2..=BLOCK {
        store.reserve(Txid(txid)).unwrap();
    }
    assert!(!dir.path().join(FILE).exists());
    store.reserve(Txid(BLOCK + 2)).unwrap();
    assert!(dir.path().join(FILE).exists());
}

#[test]
fn damaged_and_foreign_files_are_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    open(dir.path()).unwrap().begin(Epoch(1), None).unwrap();
    let good = fs::read(&path).unwrap();
    let mut cases: Vec<Vec<u8>> = (0..good.len()).map(|cut| good[..cut].to_vec()).collect();
    for byte in 0..good.len() {
        let mut flipped = good.clone();
        flipped[byte] ^= 1;
        cases.push(flipped);
    }
    cases.push(vec![b'x'; 1 << 20]);
    for bad in cases {
        fs::write(&path, &bad).unwrap();
        let error = open(dir.path()).err().expect("refused").to_string();
        assert!(error.contains("move it away") && error.contains(FILE), "{error}");
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
    let stamp = |txid, sum| Stamp {
        position: Position { epoch: Epoch(2), txid: Txid(txid) },
        checksum: Checksum(sum),
    };
    let (old, new) = (stamp(7, 70), stamp(9, 90));
    let reign = Reign::new(vec![Start { epoch: Epoch(2), held: stamp(1, 10) }]).unwrap();
    open(dir.path()).unwrap().applying(old, new, &reign).unwrap();
    let store = open(dir.path()).unwrap();
    for known in [old, new] {
        assert_eq!(store.find(known.checksum), Found { stamp: known, certain: true });
    }
    let unknown = Stamp { position: Position::default(), checksum: Checksum(1) };
    assert_eq!(store.find(Checksum(1)), Found { stamp: unknown, certain: false });
    assert_eq!(store.newest(), new.position);
}

#[test]
fn two_at_once_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path()).unwrap();
    let second = open(dir.path()).err().expect("refused");
    assert!(second.to_string().contains("data_dir"), "{second}");
}
