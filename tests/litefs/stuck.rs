//! Replicas whose copy stands still: because of an open transaction, or of a LiteFS that hangs. And nodes
//! whose database or disk is not what it should be.

use std::path::Path;
use std::process::Command;

use litepilot::shutdown::Urgency;
use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::Value;

use super::harness::{Answer, exchange, send};
use super::support::prefix;
use super::whole::{Cluster, Plan, place, until};

fn leaky(place: &Path) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/litefs/leaky.py");
    let (place, script) = (place.display(), script.display());
    format!(
        "  command: [{}, python3, {script}, {place}/s, {place}/mount/book.sqlite3]\n  stuck_after: 1s\n",
        prefix().join(", ")
    )
}

impl Cluster {
    fn get(&self, i: usize, path: &str) -> Answer {
        exchange(self.proxy(i), "GET", path, "", b"")
    }

    fn write(&self, i: usize) {
        let written = exchange(self.proxy(i), "POST", "/", "", b"");
        assert_eq!(written.code, 201, "{written:?}");
    }

    /// What the node says is wrong with it, of one kind.
    fn warning(&self, i: usize, kind: &str) -> Option<String> {
        let status = self.status(i);
        let warnings = status["warnings"].as_array()?;
        let found = warnings.iter().find(|warning| warning["kind"] == kind)?;
        found["text"].as_str().map(str::to_owned)
    }

    fn is_ready(&self, i: usize) -> bool {
        self.admin(i, "GET", "/health/ready").code == 200
    }
}

/// A node answers from its own copy, which has so many rows.
fn holds(cluster: &Cluster, i: usize, rows: &str) -> bool {
    let answer = cluster.get(i, "/");
    answer.body == rows && answer.header("litepilot-route") == Some("local")
}

/// Primary, a replica, and another one; all hold one row.
fn level(cluster: &Cluster) -> [usize; 3] {
    let first = cluster.primary();
    let order = [first, (first + 1) % 3, (first + 2) % 3];
    cluster.write(first);
    for i in order {
        until("it is replicated", || holds(cluster, i, "1"));
        cluster.until_level(i);
    }
    order
}

#[test]
fn an_open_reader_is_named_and_neither_gives_old_answers_nor_holds_up_a_failover() {
    let mut cluster = Plan { app: leaky, proxy: ", max_lag: 1s", ..Plan::default() }.start();
    let [first, replica, other] = level(&cluster);
    let reader =
        Connection::open(cluster.configs[replica].litefs.mount.join("book.sqlite3")).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
    cluster.write(first);
    until("its reads go to the primary", || {
        let answer = cluster.get(replica, "/");
        answer.body == "2" && answer.header("litepilot-route") == Some("primary")
    });
    let own = format!("pid {}", std::process::id());
    until("the reader is named", || {
        cluster.warning(replica, "open-transaction").is_some_and(|text| text.contains(&own))
    });
    cluster.says("open-transaction");
    assert!(cluster.warning(other, "open-transaction").is_none());
    until("the other one has it", || holds(&cluster, other, "2"));
    // It ends without a word to anybody; the reader is still there.
    let gone = cluster.nodes[first].take().unwrap();
    gone.stop(Urgency::AtOnce);
    gone.wait();
    cluster.write(other);
    assert_eq!(cluster.primary(), other);
    assert_eq!(cluster.get(other, "/").body, "3");
    reader.execute_batch("COMMIT").unwrap();
    until("it goes on", || cluster.warning(replica, "open-transaction").is_none());
    until("it has all", || holds(&cluster, replica, "3"));
    cluster.stop();
}

#[test]
fn a_transaction_that_the_application_leaves_open_is_ended_after_a_while() {
    let cluster = Plan { app: leaky, ..Plan::default() }.start();
    let [first, replica, _] = level(&cluster);
    assert_eq!(cluster.get(replica, "/leak").body, "leaked\n");
    cluster.write(first);
    cluster.says("open-transaction");
    until("it is ended, and the write arrives", || holds(&cluster, replica, "2"));
    until("it is over", || cluster.warning(replica, "open-transaction").is_none());
    cluster.stop();
}

#[test]
fn a_replica_whose_litefs_hangs_leaves_its_reads_to_the_primary_and_comes_back() {
    let cluster = Plan { app: leaky, ..Plan::default() }.start();
    let [_, replica, _] = level(&cluster);
    let pid = cluster.status(replica)["litefs"]["pid"].as_u64().unwrap();
    send(Signal::STOP, u32::try_from(pid).unwrap());
    until("it says that it cannot serve", || !cluster.is_ready(replica));
    let answer = cluster.get(replica, "/");
    assert_eq!((answer.code, &*answer.body), (200, "1"), "{answer:?}");
    until("LiteFS is started again", || cluster.status(replica)["litefs"]["restarts"] == 1);
    cluster.until_level(replica);
    until("it serves itself", || {
        cluster.is_ready(replica)
            && cluster.get(replica, "/").header("litepilot-route") == Some("local")
    });
    cluster.stop();
}

#[test]
fn an_application_that_writes_another_database_is_noticed_within_ten_writes() {
    let app = |place: &Path| {
        let (litepilot, place) = (env!("CARGO_BIN_EXE_litepilot"), place.display());
        format!(
            "  command: [{litepilot}, demo-app, --socket, {place}/s, --db, {place}/book.sqlite3]\n"
        )
    };
    let cluster = Plan { nodes: 1, app, ..Plan::default() }.start();
    cluster.primary();
    for i in 0..10 {
        assert!(cluster.warning(0, "unmoved-writes").is_none());
        assert_eq!(cluster.post(0, &i.to_string(), "").code, 201);
    }
    let text = cluster.warning(0, "unmoved-writes").unwrap();
    assert!(text.contains("mount/book.sqlite3"), "{text}");
    cluster.says("unmoved-writes");
    let metrics = cluster.admin(0, "GET", "/metrics").body;
    assert!(metrics.contains("litepilot_warning{kind=\"unmoved-writes\"} 1"), "{metrics}");
    cluster.stop();
}

/// Unmounts when it is dropped.
struct Small(Vec<std::path::PathBuf>);

impl Drop for Small {
    fn drop(&mut self) {
        for dir in &self.0 {
            let _ = Command::new("umount").arg("-l").arg(dir).status();
        }
    }
}

/// A disk of 64 MiB for LiteFS' data.
fn on_a_small_disk(place: &Path) {
    let data = place.join("litefs");
    std::fs::create_dir_all(&data).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"]).arg(data);
    // Without the right to, its disk is as large as any.
    let _ = mount.status();
}

#[test]
fn a_primary_whose_disk_is_full_hands_over_to_one_whose_is_not() {
    let cluster = Plan { prepare: on_a_small_disk, ..Plan::default() }.start();
    let _small = Small((0..3).map(|i| place(&cluster.dir, i).join("litefs")).collect());
    let first = cluster.primary();
    let data = place(&cluster.dir, first).join("litefs");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    if !mounts.contains(data.to_str().unwrap()) {
        eprintln!("skipped: nobody may mount file systems here");
        return cluster.stop();
    }
    assert_eq!(cluster.post(first, "before", "").code, 201);
    (0..3).for_each(|i| cluster.until_level(i));
    let filling = data.join("filling");
    std::fs::write(&filling, vec![1; 56 << 20]).unwrap();
    let primary = |cluster: &Cluster| cluster.status(first)["primary"]["node"].clone();
    until("another takes writes", || {
        ![Value::Null, format!("n{first}").into()].contains(&primary(&cluster))
    });
    assert!(cluster.warning(first, "disk-full").unwrap().contains("litefs.data"));
    assert_eq!(cluster.post(first, "after", "").code, 201);
    std::fs::remove_file(filling).unwrap();
    until("there is room again", || cluster.warning(first, "disk-full").is_none());
    cluster.stop();
}
