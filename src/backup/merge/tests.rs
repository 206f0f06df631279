use super::*;
use crate::backup::ltx::tests::Lab;

fn merged(files: &[Vec<u8>]) -> io::Result<Merge> {
    let dir = tempfile::tempdir().unwrap();
    let mut merge = Merge::new(dir.path())?;
    for file in files {
        merge.add(&file[..])?;
    }
    Ok(merge)
}

fn database(merge: &Merge) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    merge.write_database(&File::create(&path).unwrap()).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn transactions_in_a_row_make_the_database() {
    let mut lab = Lab::new();
    let mut files = vec![lab.insert(200)];
    files.push(lab.write("DELETE FROM t; VACUUM;"));
    assert_eq!(database(&merged(&files).unwrap()), lab.bytes(), "it has shrunk");
    files.push(lab.insert(300));
    files.push(lab.insert(3));
    let merge = merged(&files).unwrap();
    assert_eq!(database(&merge), lab.bytes());
}

#[test]
fn what_was_merged_does_what_its_parts_did() {
    let mut lab = Lab::new();
    let first = lab.insert(50);
    let parts = [lab.insert(20), lab.write("DELETE FROM t WHERE rowid % 2;"), lab.insert(1)];
    let mut one = Vec::new();
    let facts = merged(&parts).unwrap().write_ltx(&mut one).unwrap();
    assert_eq!(Some(facts.after()), lab.at);
    assert!(one.len() < parts.concat().len());
    assert_eq!(database(&merged(&[first.clone(), one]).unwrap()), lab.bytes());
    let mut snapshot = Vec::new();
    let all = [&[first], &parts[..]].concat();
    merged(&all).unwrap().write_ltx(&mut snapshot).unwrap();
    assert_eq!(database(&merged(&[snapshot]).unwrap()), lab.bytes());
}

#[test]
fn only_what_follows_is_merged() {
    let mut lab = Lab::new();
    let first = lab.insert(5);
    let mut other = lab.fork();
    let (second, third) = (lab.insert(1), lab.insert(1));
    other.insert(1);
    let parted = other.insert(1);
    assert!(merged(&[first.clone(), third.clone()]).is_err(), "one is missing");
    assert!(merged(&[first.clone(), second.clone(), parted]).is_err(), "of another history");
    assert!(merged(&[first, second, third]).is_ok());
}

#[test]
fn what_a_real_litefs_wrote_makes_the_database() {
    let files = [
        include_bytes!("../../../tests/litefs-contract/snapshot.ltx").to_vec(),
        include_bytes!("../../../tests/litefs-contract/transaction.ltx").to_vec(),
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let at = merged(&files).unwrap().write_database(&File::create(&path).unwrap()).unwrap();
    assert_eq!(at.to_string(), "0000000000000003/cc9425e9317a6e0e");
    let db = rusqlite::Connection::open(&path).unwrap();
    let mut all = db.prepare("SELECT text FROM entries ORDER BY id").unwrap();
    let texts: Vec<String> =
        all.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(texts, ["entry 0", "entry 1"]);
}
