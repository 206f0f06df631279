//! Continuous backup of a real LiteFS, which alone speaks that API. What the port itself answers is tested in
//! `backup::tests`, without one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use super::harness::run;
use super::support::program;
use super::whole::{Cluster, Plan, place, until};

const DB: &str = "book.sqlite3";

/// With a backup; `None`: there is no real LiteFS.
fn backed_up(nodes: usize) -> Option<Cluster> {
    if !program().1 {
        eprintln!("only a real LiteFS (LITEFS_BIN) backs up");
        return None;
    }
    Some(Plan { nodes, backup: true, ..Plan::default() }.start())
}

fn store(cluster: &Cluster) -> PathBuf {
    cluster.dir.path().join("store")
}

fn backup(cluster: &Cluster, args: &[&str]) -> Output {
    let from = format!("file://{}", store(cluster).display());
    run(&[&["backup", args[0], "--from", &from], &args[1..]].concat())
}

/// The entries that a restored database has.
fn restored(cluster: &Cluster, at: &[&str]) -> Result<Vec<String>, String> {
    let to = cluster.dir.path().join("restored.db");
    let _ = fs::remove_file(&to);
    let output =
        backup(cluster, &[&["restore", "--db", DB, "--output", to.to_str().unwrap()], at].concat());
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let uri = format!("file:{}?immutable=1", to.display());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let db = Connection::open_with_flags(uri, flags).unwrap();
    let good: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(good, "ok");
    let mut all = db.prepare("SELECT text FROM entries ORDER BY id").unwrap();
    Ok(all.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap())
}

fn lag(cluster: &Cluster, i: usize) -> Value {
    cluster.status(i)["backup"].clone()
}

fn until_kept(cluster: &Cluster, i: usize) {
    until("all of it is kept", || lag(cluster, i)["lag_transactions"] == 0);
}

/// Of each generation, the files.
fn generations(cluster: &Cluster) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let Ok(dirs) = fs::read_dir(store(cluster).join("db").join(DB)) else { return found };
    for dir in dirs {
        let path = dir.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        found.push((name, fs::read_dir(path).unwrap().count()));
    }
    found.sort();
    found
}

fn millis() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

/// RFC 3339, as an operator writes it.
fn time(millis: u128) -> String {
    let seconds = i64::try_from(millis / 1000).unwrap();
    let date = ["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%S"].map(str::to_owned);
    let text = Command::new("date").args(date).output().unwrap().stdout;
    format!("{}.{:03}Z", String::from_utf8(text).unwrap().trim(), millis % 1000)
}

/// The oldest first.
fn shown(cluster: &Cluster, i: usize) -> Vec<String> {
    let mut entries = cluster.entries(i, "");
    entries.reverse();
    entries
}

fn written(n: usize) -> Vec<String> {
    (0..n).map(|n| format!("entry {n}")).collect()
}

#[test]
fn a_history_across_a_failover_comes_back_at_each_of_its_moments() {
    let Some(mut cluster) = backed_up(3) else { return };
    let first = cluster.primary();
    let mut moments = Vec::new();
    for n in 0..4 {
        assert_eq!(cluster.post(first, &format!("entry {n}"), "").code, 201);
        until_kept(&cluster, first);
        moments.push(millis());
    }
    (0..3).for_each(|i| cluster.until_level(i));
    // Without a word to anybody.
    drop(cluster.nodes[first].take());
    let second = cluster.primary();
    for n in 4..8 {
        assert_eq!(cluster.post(second, &format!("entry {n}"), "").code, 201);
        until_kept(&cluster, second);
        moments.push(millis());
    }
    assert_eq!(
        generations(&cluster).len(),
        1,
        "the next primary goes on: {:?}",
        generations(&cluster)
    );
    for (n, moment) in moments.iter().enumerate() {
        assert_eq!(restored(&cluster, &["--at", &time(*moment)]).unwrap(), written(n + 1));
    }
    assert_eq!(restored(&cluster, &[]).unwrap(), written(8));
    let verified = backup(&cluster, &["verify"]);
    assert!(verified.status.success(), "{verified:?}");
    let listed = String::from_utf8(backup(&cluster, &["list"]).stdout).unwrap();
    assert!(listed.contains(DB), "{listed}");
    cluster.run(first);
    cluster.until_level(first);
    cluster.stop();
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

/// The node's disk is put back: to the backup, what follows is a failover that lost the last writes.
#[test]
fn after_a_lossy_failover_the_primary_is_not_overwritten() {
    let Some(mut cluster) = backed_up(1) else { return };
    let data = place(&cluster.dir, 0).join("litefs");
    let aside = cluster.dir.path().join("aside");
    cluster.primary();
    cluster.post(0, "kept", "");
    until_kept(&cluster, 0);
    cluster.halt();
    copy(&data, &aside);
    for overtakes in [false, true] {
        cluster.run(0);
        cluster.primary();
        cluster.post(0, "lost", "");
        cluster.post(0, "lost", "");
        until_kept(&cluster, 0);
        let before = generations(&cluster).len();
        cluster.halt();
        fs::remove_dir_all(&data).unwrap();
        copy(&aside, &data);
        if overtakes {
            // Longer than what is kept before LiteFS asks: only checksums tell.
            fs::rename(store(&cluster), cluster.dir.path().join("away")).unwrap();
            fs::write(store(&cluster), "").unwrap();
        }
        cluster.run(0);
        cluster.primary();
        for _ in 0..4 {
            assert_eq!(cluster.post(0, "after", "").code, 201);
        }
        if overtakes {
            fs::remove_file(store(&cluster)).unwrap();
            fs::rename(cluster.dir.path().join("away"), store(&cluster)).unwrap();
        }
        until("a generation begins", || generations(&cluster).len() == before + 1);
        until_kept(&cluster, 0);
        let expected = ["kept", "after", "after", "after", "after"];
        assert_eq!(shown(&cluster, 0), expected, "what the primary has stays");
        assert_eq!(restored(&cluster, &[]).unwrap(), expected);
        cluster.post(0, "and on", "");
        until_kept(&cluster, 0);
        assert_eq!(generations(&cluster).len(), before + 1);
        let given_up = generations(&cluster)[before - 1].0.clone();
        let old = restored(&cluster, &["--generation", &given_up]).unwrap();
        assert!(old.contains(&"lost".to_owned()), "it can be had all the same: {old:?}");
        cluster.halt();
        fs::remove_dir_all(&data).unwrap();
        copy(&aside, &data);
    }
    cluster.run(0);
    cluster.primary();
    cluster.stop();
}

#[test]
fn while_the_store_is_away_writes_go_on_and_nothing_is_copied_anew() {
    let Some(cluster) = backed_up(1) else { return };
    cluster.primary();
    cluster.post(0, "entry 0", "");
    until_kept(&cluster, 0);
    let away = cluster.dir.path().join("away");
    fs::rename(store(&cluster), &away).unwrap();
    fs::write(store(&cluster), "").unwrap();
    for n in 1..5 {
        assert_eq!(cluster.post(0, &format!("entry {n}"), "").code, 201);
    }
    until("it shows", || {
        let lag = lag(&cluster, 0);
        lag["error"].is_string() && lag["lag_transactions"].as_u64().is_some_and(|lacks| lacks > 0)
    });
    fs::remove_file(store(&cluster)).unwrap();
    fs::rename(&away, store(&cluster)).unwrap();
    until_kept(&cluster, 0);
    assert_eq!(restored(&cluster, &[]).unwrap(), written(5));
    assert_eq!(generations(&cluster).len(), 1, "{:?}", generations(&cluster));
    cluster.stop();
}

#[test]
fn a_damaged_object_is_named_and_what_does_not_need_it_comes_back() {
    let Some(cluster) = backed_up(1) else { return };
    cluster.primary();
    for n in 0..3 {
        cluster.post(0, &format!("entry {n}"), "");
        until_kept(&cluster, 0);
    }
    let (generation, _) = generations(&cluster)[0].clone();
    let dir = store(&cluster).join("db").join(DB).join(generation);
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let last = files.last().unwrap();
    let mut bytes = fs::read(last).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(last, bytes).unwrap();
    let name = last.file_name().unwrap().to_str().unwrap();
    let verified = backup(&cluster, &["verify"]);
    let said = String::from_utf8(verified.stdout).unwrap();
    assert!(
        !verified.status.success() && said.contains("DAMAGED") && said.contains(name),
        "{said}"
    );
    let error = restored(&cluster, &[]).unwrap_err();
    assert!(error.contains(name) && error.contains("can be restored"), "{error}");
    let before = error.rsplit("TXID ").next().unwrap()[..16].to_owned();
    assert_eq!(restored(&cluster, &["--at", &before]).unwrap(), written(2));
    cluster.stop();
}

#[test]
fn a_running_cluster_goes_back_in_one_transaction_and_the_backup_goes_on() {
    let Some(cluster) = backed_up(3) else { return };
    let primary = cluster.primary();
    let second =
        |i: usize| Connection::open(place(&cluster.dir, i).join("mount/second.db")).unwrap();
    let x = |i: usize| second(i).query_row("SELECT max(x) FROM t", [], |row| row.get::<_, i64>(0));
    second(primary).execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
    cluster.post(primary, "entry 0", "");
    until_kept(&cluster, primary);
    let then = time(millis());
    second(primary).execute("INSERT INTO t VALUES (2)", []).unwrap();
    cluster.post(primary, "a mistake", "");
    until_kept(&cluster, primary);
    (0..3).for_each(|i| cluster.until_level(i));
    let restore = |i: usize, more: &[&str]| {
        let config = place(&cluster.dir, i).join("litepilot.yml");
        let config = config.to_str().unwrap();
        run(&[&["backup", "restore", "-c", config, "--into-cluster", "--at", &then], more].concat())
    };
    let refused = restore(primary, &[]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--overwrite"), "{refused:?}");
    let nothing = restore(primary, &["--if-empty"]);
    assert!(nothing.status.success(), "{nothing:?}");
    assert_eq!(cluster.entries(primary, "").len(), 2);
    let replica = (primary + 1) % 3;
    let refused = restore(replica, &["--overwrite"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("replica"), "{refused:?}");
    let done = restore(primary, &["--overwrite"]);
    assert!(done.status.success(), "{done:?}");
    for i in 0..3 {
        until("it is back everywhere", || shown(&cluster, i) == written(1) && x(i) == Ok(1));
    }
    cluster.post(primary, "entry 1", "");
    until_kept(&cluster, primary);
    assert_eq!(restored(&cluster, &[]).unwrap(), written(2));
    assert_eq!(generations(&cluster).len(), 1, "it extends the history");
    cluster.stop();
}
