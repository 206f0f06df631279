use std::fs;

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;

/// A SQLite database, and what LiteFS would make of its transactions.
pub(crate) struct Lab {
    dir: TempDir,
    db: Connection,
    pages: Vec<Vec<u8>>,
    pub(crate) at: Option<Pos>,
    pub(crate) millis: u64,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = Connection::open(dir.path().join("db")).unwrap();
        db.pragma_update(None, "page_size", 1024).unwrap();
        Self { dir, db, pages: Vec::new(), at: None, millis: 0 }
    }

    /// A second database that goes on from here.
    pub(crate) fn fork(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(self.dir.path().join("db"), dir.path().join("db")).unwrap();
        let db = Connection::open(dir.path().join("db")).unwrap();
        Self { dir, db, pages: self.pages.clone(), at: self.at, millis: self.millis }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.pages.concat()
    }

    /// A transaction of one second later, as a file.
    pub(crate) fn write(&mut self, sql: &str) -> Vec<u8> {
        self.db.execute_batch(sql).unwrap();
        self.millis += 1000;
        let before = std::mem::take(&mut self.pages);
        let file = fs::read(self.dir.path().join("db")).unwrap();
        self.pages = file.chunks(1024).map(<[u8]>::to_vec).collect();
        let changed =
            self.pages.iter().enumerate().filter(|(i, page)| before.get(*i) != Some(*page));
        let changed: Vec<_> = changed.map(|(i, page)| (i as u32 + 1, page.clone())).collect();
        let last = self.at.map_or(0, |at| at.txid.0);
        let pre = self.at.map_or(0, |at| at.checksum.0);
        self.at = Some(Pos { txid: Txid(last + 1), checksum: self.checksum() });
        self.file((Txid(last + 1), Txid(last + 1)), pre, &changed)
    }

    /// `inserts` rows, so that a transaction changes several pages.
    pub(crate) fn insert(&mut self, inserts: u32) -> Vec<u8> {
        let sql = format!(
            "CREATE TABLE IF NOT EXISTS t (x);
             WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {inserts})
             INSERT INTO t SELECT hex(randomblob(100)) FROM n;"
        );
        self.write(&format!("BEGIN; {sql} COMMIT;"))
    }

    pub(crate) fn snapshot(&self) -> Vec<u8> {
        let pages: Vec<_> =
            self.pages.iter().enumerate().map(|(i, page)| (i as u32 + 1, page.clone())).collect();
        self.file((Txid(1), self.at.unwrap().txid), 0, &pages)
    }

    fn file(&self, range: (Txid, Txid), pre: u64, pages: &[(u32, Vec<u8>)]) -> Vec<u8> {
        let mut header = Header::new(1024, self.pages.len() as u32, range, self.millis);
        header.pre = pre;
        let mut to = Encoder::new(Vec::new(), header).unwrap();
        for (number, page) in pages {
            to.page(*number, page).unwrap();
        }
        to.finish(self.checksum()).unwrap().1
    }

    fn checksum(&self) -> Checksum {
        let sum =
            |sum, (i, page): (usize, &Vec<u8>)| combine(sum, page_checksum(i as u32 + 1, page));
        Checksum(self.pages.iter().enumerate().fold(FLAG, sum))
    }
}

fn verify(bytes: &[u8]) -> io::Result<Facts> {
    Decoder::new(bytes)?.verify()
}

#[test]
fn what_was_written_is_read() {
    let mut lab = Lab::new();
    let first = lab.insert(50);
    let facts = verify(&first).unwrap();
    assert_eq!(Some(facts.after()), lab.at);
    assert!(facts.header.is_snapshot() && facts.header.before().is_none());
    let before = lab.at;
    let second = verify(&lab.insert(1)).unwrap();
    assert_eq!((second.header.before(), Some(second.after())), (before, lab.at));
    assert_eq!(verify(&lab.snapshot()).unwrap().header.max, Txid(2));
}

#[test]
fn any_damage_is_found() {
    let mut lab = Lab::new();
    lab.insert(5);
    for file in [lab.snapshot(), lab.insert(1)] {
        assert!(verify(&file).is_ok());
        for i in 0..file.len() {
            let mut damaged = file.clone();
            damaged[i] ^= 1 << (i % 8);
            // LZ4 has several forms of the same pages.
            let harmless = verify(&damaged).is_ok_and(|facts| facts == verify(&file).unwrap());
            assert!(harmless || verify(&damaged).is_err(), "byte {i} of {}", file.len());
            assert!(verify(&file[..i]).is_err(), "cut off after {i}");
        }
        assert!(verify(&[&file[..], b"x"].concat()).is_err(), "more than one");
    }
}

proptest::proptest! {
    #[test]
    fn nothing_makes_it_panic(bytes: Vec<u8>, good: bool) {
        let mut file = if good { Header::new(512, 9, (Txid(1), Txid(2)), 0).to_bytes().to_vec() } else { Vec::new() };
        file.extend(bytes);
        let _ = verify(&file);
    }
}
