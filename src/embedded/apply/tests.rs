use super::*;
use crate::embedded::image::Image;
use std::path::PathBuf;

const MODES: [&str; 2] = ["delete", "wal"];

fn database(path: &Path, mode: &str, page_size: u32) -> Connection {
    let app = Connection::open(path).unwrap();
    app.pragma_update(None, "page_size", page_size).unwrap();
    app.pragma_update(None, "journal_mode", mode).unwrap();
    app.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY, x)").unwrap();
    app
}

fn image(path: &Path, previous: &Image) -> Image {
    let connection = Connection::open(path).unwrap();
    Image::read(&connection, path, previous).unwrap()
}

fn count(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("SELECT count(*) FROM t", (), |row| row.get(0))
}

struct Pair {
    _dir: tempfile::TempDir,
    primary: PathBuf,
    replica: PathBuf,
    shipped: Image,
    app: Connection,
    target: Connection,
}

impl Pair {
    fn new(mode: &str, page_size: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (primary, replica) = (dir.path().join("primary"), dir.path().join("replica"));
        let app = database(&primary, mode, page_size);
        create(&replica).unwrap();
        let target = open(&replica).unwrap();
        Self { _dir: dir, primary, replica, shipped: Image::default(), app, target }
    }

    fn ship(&mut self) -> usize {
        let next = image(&self.primary, &self.shipped);
        let update = next.update(Some(&self.shipped));
        apply(&self.target, &update).unwrap();
        self.shipped = next;
        assert_eq!(
            image(&self.replica, &Image::default()).position().checksum,
            self.shipped.position().checksum,
            "the copy is equal"
        );
        update.pages.len()
    }
}

#[test]
fn this_build_is_able() {
    supported().unwrap();
}

#[test]
fn a_copy_follows_and_refuses_writes() {
    for mode in MODES {
        for page_size in [512, 4096, 65536] {
            let mut pair = Pair::new(mode, page_size);
            pair.ship();
            // One reader stays, others come and go.
            let reader = Connection::open(&pair.replica).unwrap();
            for n in 1..20 {
                pair.app.execute("INSERT INTO t VALUES (?1, randomblob(3000))", [n]).unwrap();
                pair.ship();
                assert_eq!(count(&reader).unwrap(), n, "{mode} {page_size}");
                let new = Connection::open(&pair.replica).unwrap();
                assert_eq!(count(&new).unwrap(), n, "{mode} {page_size}");
                for app in [&reader, &new] {
                    let error = app.execute("DELETE FROM t", ()).unwrap_err();
                    assert!(error.to_string().contains("readonly"), "{mode}: {error}");
                }
                // What many applications do each time they connect.
                let kept: String =
                    new.pragma_update_and_check(None, "journal_mode", mode, |r| r.get(0)).unwrap();
                assert_eq!(kept, mode);
            }
        }
    }
}

#[test]
fn growing_shrinking_and_a_new_schema_reach_a_reader_that_stays() {
    for mode in MODES {
        for vacuum in ["NONE", "FULL", "INCREMENTAL"] {
            let mut pair = Pair::new(mode, 1024);
            pair.app.execute_batch(&format!("PRAGMA auto_vacuum = {vacuum}; VACUUM")).unwrap();
            pair.ship();
            let reader = Connection::open(&pair.replica).unwrap();
            assert_eq!(count(&reader).unwrap(), 0);
            let fill = "WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n+1 FROM c LIMIT 500)
                INSERT INTO t SELECT n, randomblob(500) FROM c";
            pair.app.execute_batch(fill).unwrap();
            pair.ship();
            assert_eq!(count(&reader).unwrap(), 500, "{mode} {vacuum}");
            pair.app.execute_batch("DELETE FROM t WHERE n > 5; VACUUM").unwrap();
            pair.ship();
            assert_eq!(count(&reader).unwrap(), 5, "{mode} {vacuum}");
            pair.app
                .execute_batch("CREATE TABLE u AS SELECT n FROM t; DROP TABLE t; CREATE VIEW t AS SELECT n FROM u UNION SELECT 77")
                .unwrap();
            pair.ship();
            assert_eq!(count(&reader).unwrap(), 6, "{mode} {vacuum}: new schema");
            let sound: String =
                reader.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
            assert_eq!(sound, "ok", "{mode} {vacuum}");
        }
    }
}

#[test]
fn only_changed_pages_are_sent() {
    let mut pair = Pair::new("wal", 4096);
    for n in 0..200 {
        pair.app.execute("INSERT INTO t VALUES (?1, randomblob(3000))", [n]).unwrap();
    }
    assert!(pair.ship() > 150);
    pair.app.execute("UPDATE t SET x = randomblob(3000) WHERE n = 7", ()).unwrap();
    assert!(pair.ship() < 10);
    assert_eq!(pair.ship(), 0);
}

#[test]
fn a_change_of_journal_mode_is_followed() {
    let mut pair = Pair::new("delete", 4096);
    pair.ship();
    for (n, mode) in ["wal", "delete", "wal", "delete"].iter().enumerate() {
        pair.app.pragma_update(None, "journal_mode", mode).unwrap();
        pair.app.execute("INSERT INTO t (x) VALUES (1)", ()).unwrap();
        pair.ship();
        let reader = Connection::open(&pair.replica).unwrap();
        assert_eq!(count(&reader).unwrap() as usize, n + 1, "{mode}");
        assert!(reader.execute("DELETE FROM t", ()).is_err());
    }
}

#[test]
fn the_mark_comes_and_goes() {
    for mode in MODES {
        let mut pair = Pair::new(mode, 4096);
        pair.ship();
        assert!(set_read_only(&pair.target, false).unwrap());
        assert!(!set_read_only(&pair.target, false).unwrap());
        let app = Connection::open(&pair.replica).unwrap();
        let kept: String = app.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!(kept, mode);
        app.execute("INSERT INTO t (x) VALUES (1)", ()).unwrap();
        assert!(set_read_only(&pair.target, true).unwrap());
        let error = app.execute("INSERT INTO t (x) VALUES (1)", ()).unwrap_err();
        assert!(error.to_string().contains("readonly"), "{mode}: {error}");
        assert_eq!(count(&app).unwrap(), 1);
    }
}

#[test]
fn a_reader_in_a_transaction_keeps_its_view() {
    for mode in MODES {
        let mut pair = Pair::new(mode, 4096);
        pair.ship();
        let reader = Connection::open(&pair.replica).unwrap();
        reader.execute_batch("BEGIN").unwrap();
        assert_eq!(count(&reader).unwrap(), 0);
        pair.app.execute("INSERT INTO t (x) VALUES (1)", ()).unwrap();
        let next = image(&pair.primary, &pair.shipped);
        let update = next.update(Some(&pair.shipped));
        let applied = apply(&pair.target, &update);
        // With a rollback journal readers hold it up; with a WAL they do not.
        assert_eq!(applied.is_ok(), mode == "wal");
        assert_eq!(count(&reader).unwrap(), 0, "{mode}");
        reader.execute_batch("COMMIT").unwrap();
        if applied.is_err() {
            apply(&pair.target, &update).unwrap();
        }
        assert_eq!(count(&reader).unwrap(), 1, "{mode}");
    }
}
