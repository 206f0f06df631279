//! The backup's port, spoken to as LiteFS does, over a directory.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::history::Moment;
use super::ltx::tests::Lab;
use super::restore::{RestoreError, Wanted, restore};
use super::store::{Directory, Store};
use super::upkeep::Upkeep;
use super::*;
use crate::claim::Claim;
use crate::cluster::{Epoch, NodeId};
use crate::litefs::position::LitefsPosition;
use crate::telemetry::events::Events;

const TOKEN: &str = "0123456789abcdef";
const DB: &str = "app.db";

/// A primary's backup server, and the mount of its LiteFS.
struct Bench {
    dir: TempDir,
    at: SocketAddr,
    view: watch::Sender<ClusterView>,
    keeper: Arc<Keeper>,
    progress: Arc<Progress>,
    _tasks: JoinSet<()>,
}

struct Said {
    status: u16,
    hwm: Option<String>,
    body: Value,
}

fn primary(epoch: u64, claim: Claim) -> ClusterView {
    let node: NodeId = "n1".parse().unwrap();
    ClusterView { claim, ..ClusterView::single(node, Epoch(epoch)) }
}

impl Bench {
    async fn new(epoch: u64) -> Self {
        Self::over(tempfile::tempdir().unwrap(), epoch).await
    }

    /// Over what is in the directory's store already.
    async fn over(dir: TempDir, epoch: u64) -> Self {
        fs::create_dir_all(dir.path().join("mount")).unwrap();
        let (view, heard) = watch::channel(primary(epoch, Claim::unlimited()));
        let warnings = Arc::new(Warnings::new(Arc::new(Events::default())));
        let progress = Arc::new(Progress::new("here".to_owned(), warnings));
        progress.begin(true);
        let keeper = Arc::new(Keeper {
            store: Arc::new(Directory::new(dir.path().join("store"))),
            place: "here".to_owned(),
            spool: Spool::new(dir.path().join("spool")).unwrap(),
            mount: dir.path().join("mount"),
            untracked: BTreeSet::new(),
            view: heard,
            progress: progress.clone(),
            tenure: Default::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let server =
            server::BackupServer { keeper: keeper.clone(), secret: TOKEN.parse().unwrap() };
        let mut tasks = JoinSet::new();
        tasks.spawn(server.serve(listener));
        Self { dir, at, view, keeper, progress, _tasks: tasks }
    }

    /// The same store, another node.
    async fn next(self, epoch: u64) -> Self {
        Self::over(self.dir, epoch).await
    }

    /// What LiteFS holds.
    fn holds(&self, lab: &Lab) {
        let at = lab.at.unwrap();
        let mount = self.dir.path().join("mount");
        fs::write(mount.join(DB), lab.bytes()).unwrap();
        fs::write(mount.join(format!("{DB}-pos")), format!("{at}\n")).unwrap();
        let read = crate::litefs::position::read_one(&mount, DB).unwrap().unwrap();
        assert_eq!(read, LitefsPosition { txid: at.txid, checksum: at.checksum });
    }

    async fn ask(&self, line: &str, body: &[u8]) -> Said {
        self.ask_as(line, body, TOKEN, "LFSCAAAA").await
    }

    async fn ask_as(&self, line: &str, body: &[u8], token: &str, cluster: &str) -> Said {
        let mut stream = TcpStream::connect(self.at).await.unwrap();
        let length = body.len();
        let head = format!(
            "{line} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nLitefs-Cluster-Id: {cluster}\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // One that is refused at once may be answered before all of it was read.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let hwm = head.lines().find_map(|line| line.strip_prefix("litefs-hwm: "));
        Said {
            status: head[9..12].parse().unwrap(),
            hwm: hwm.map(str::to_owned),
            body: serde_json::from_str(body).unwrap(),
        }
    }

    async fn positions(&self) -> BTreeMap<String, String> {
        let said = self.ask("GET /pos", b"").await;
        assert_eq!(said.status, 200, "{}", said.body);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let one = |(db, at): (&String, &Value)| {
            (db.clone(), format!("{}/{}", text(&at["TXID"]), text(&at["PostApplyChecksum"])))
        };
        said.body.as_object().unwrap().iter().map(one).collect()
    }

    async fn send(&self, file: &[u8]) -> Said {
        self.ask(&format!("POST /db/tx?db={DB}"), file).await
    }

    async fn keep(&self, file: &[u8]) {
        let said = self.send(file).await;
        assert_eq!(said.status, 200, "{}", said.body);
    }

    fn store(&self) -> Directory {
        Directory::new(self.dir.path().join("store"))
    }

    /// Names, without what differs from run to run.
    async fn files(&self) -> Vec<String> {
        let catalog = catalog::list(&self.store()).await.unwrap();
        let all = catalog.values().flat_map(|generations| generations.values().flatten());
        let name = |stored: &object::Stored| {
            let object = &stored.object;
            format!("{}: {}-{}", object.generation, object.min.0, object.after.txid.0)
        };
        let mut names: Vec<_> = all.map(name).collect();
        names.sort();
        names
    }

    async fn restore(&self, moment: Moment) -> Result<Vec<u8>, RestoreError> {
        let catalog = catalog::list(&self.store()).await?;
        let wanted = Wanted { db: DB.to_owned(), generation: None, moment };
        let to = self.dir.path().join("restored");
        restore(&self.store(), &self.keeper.spool, &catalog, &wanted, &to).await?;
        Ok(fs::read(to)?)
    }
}

#[tokio::test]
async fn each_second_of_a_history_can_be_restored() {
    let (bench, mut lab) = (Bench::new(1).await, Lab::new());
    lab.insert(40);
    assert!(bench.positions().await.is_empty());
    bench.keep(&lab.snapshot()).await;
    let mut history = vec![(lab.millis, lab.at.unwrap(), lab.bytes())];
    for n in 1..20 {
        let file = if n % 5 == 0 {
            lab.write("DELETE FROM t WHERE rowid % 3 = 0; VACUUM;")
        } else {
            lab.insert(n)
        };
        bench.holds(&lab);
        let said = bench.send(&file).await;
        assert_eq!((said.status, said.hwm), (200, Some(lab.at.unwrap().txid.to_string())));
        assert_eq!(bench.positions().await[DB], lab.at.unwrap().to_string());
        history.push((lab.millis, lab.at.unwrap(), lab.bytes()));
    }
    for (millis, at, bytes) in &history {
        assert_eq!(&bench.restore(Moment::Time(*millis)).await.unwrap(), bytes, "{at}");
        assert_eq!(&bench.restore(Moment::Time(millis + 999)).await.unwrap(), bytes, "{at}");
        assert_eq!(&bench.restore(Moment::Txid(at.txid)).await.unwrap(), bytes, "{at}");
    }
    assert_eq!(bench.restore(Moment::Newest).await.unwrap(), lab.bytes());
    let before = bench.restore(Moment::Time(0)).await.unwrap_err().to_string();
    assert!(before.contains("It can be to:"), "{before}");
}

/// Whatever LiteFS asks, and whatever is kept, nothing makes it overwrite itself.
#[tokio::test]
async fn litefs_is_never_given_what_would_overwrite_it() {
    let (bench, mut lab) = (Bench::new(1).await, Lab::new());
    lab.insert(5);
    bench.keep(&lab.snapshot()).await;
    bench.holds(&lab);
    let mut lost = lab.fork();
    bench.keep(&lost.insert(1)).await;
    bench.keep(&lost.insert(1)).await;
    // The next primary lacks the last two.
    let bench = bench.next(2).await;
    bench.holds(&lab);
    assert!(bench.positions().await.is_empty(), "the backup is ahead");
    let asked = bench.ask(&format!("GET /db/snapshot?db={DB}"), b"").await;
    assert_eq!((asked.status, &asked.body["code"]), (403, &"ENEVERRESTORED".into()));
    let file = lab.insert(3);
    for _ in 0..2 {
        let refused = bench.send(&file).await;
        assert_eq!((refused.status, &refused.body["code"]), (409, &"ENEWHISTORY".into()));
    }
    bench.holds(&lab);
    assert!(bench.positions().await.is_empty());
    bench.keep(&lab.snapshot()).await;
    assert_eq!(bench.positions().await[DB], lab.at.unwrap().to_string());
    bench.keep(&lab.insert(1)).await;
    assert_eq!(bench.files().await, ["1-0: 1-1", "1-0: 2-2", "1-0: 3-3", "2-0: 1-2", "2-0: 3-3"]);
    assert_eq!(bench.restore(Moment::Newest).await.unwrap(), lab.bytes());
}

#[tokio::test]
async fn a_history_that_overtook_the_backup_is_found_out() {
    let (bench, mut lab) = (Bench::new(1).await, Lab::new());
    lab.insert(5);
    bench.keep(&lab.snapshot()).await;
    let mut lost = lab.fork();
    bench.keep(&lost.insert(1)).await;
    let bench = bench.next(2).await;
    lab.insert(2);
    let file = lab.insert(1);
    bench.holds(&lab);
    assert_eq!(bench.positions().await[DB], lost.at.unwrap().to_string(), "it may be its history");
    assert_eq!(bench.send(&file).await.status, 409);
    assert!(bench.positions().await.is_empty(), "it is not");
    bench.keep(&lab.snapshot()).await;
    assert_eq!(bench.restore(Moment::Newest).await.unwrap(), lab.bytes());
}

#[tokio::test]
async fn a_request_for_a_snapshot_begins_a_generation() {
    let (bench, mut lab) = (Bench::new(1).await, Lab::new());
    lab.insert(5);
    bench.keep(&lab.snapshot()).await;
    lab.insert(1);
    bench.holds(&lab);
    assert_eq!(bench.positions().await.len(), 1);
    // LiteFS has no such transactions any more.
    assert_eq!(bench.ask(&format!("GET /db/snapshot?db={DB}"), b"").await.status, 403);
    assert!(bench.positions().await.is_empty());
    bench.keep(&lab.snapshot()).await;
    assert_eq!(bench.files().await, ["1-0: 1-1", "1-1: 1-2"]);
}

#[tokio::test]
async fn only_the_holder_of_the_lease_backs_up() {
    let (bench, mut lab) = (Bench::new(1).await, Lab::new());
    lab.insert(5);
    let claim = Claim::unlimited();
    bench.view.send_replace(primary(1, claim.clone()));
    assert!(bench.positions().await.is_empty());
    claim.end();
    for said in [bench.ask("GET /pos", b"").await, bench.send(&lab.snapshot()).await] {
        assert_eq!((said.status, &said.body["code"]), (503, &"ENOTPRIMARY".into()));
    }
    let replica = ClusterView { role: Role::Replica, ..primary(1, Claim::unlimited()) };
    bench.view.send_replace(replica);
    assert_eq!(bench.ask("GET /pos", b"").await.status, 503);
    assert!(bench.files().await.is_empty());
}

#[tokio::test]
async fn a_deposed_primary_and_its_successor_do_each_other_no_harm() {
    let (old, mut lab) = (Bench::new(1).await, Lab::new());
    lab.insert(5);
    old.keep(&lab.snapshot()).await;
    let mut deposed = lab.fork();
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(old.dir.path().join("store"), dir.path().join("store")).unwrap();
    let new = Bench::over(dir, 2).await;
    new.holds(&lab);
    assert_eq!(new.positions().await.len(), 1);
    old.keep(&deposed.insert(1)).await;
    new.keep(&lab.insert(1)).await;
    old.keep(&deposed.insert(1)).await;
    old.keep(&deposed.insert(1)).await;
    assert_eq!(new.restore(Moment::Newest).await.unwrap(), lab.bytes());
    let third = new.next(3).await;
    third.holds(&lab);
    assert_eq!(third.positions().await[DB], lab.at.unwrap().to_string());
}

#[tokio::test]
async fn strangers_and_other_clusters_are_refused() {
    let bench = Bench::new(1).await;
    assert_eq!(bench.ask_as("GET /pos", b"", "wrong", "LFSCAAAA").await.status, 403);
    assert_eq!(bench.ask_as("GET /pos", b"", TOKEN, "LFSCAAAA").await.status, 200);
    let other = bench.ask_as("GET /pos", b"", TOKEN, "LFSCBBBB").await;
    assert_eq!((other.status, &other.body["code"]), (403, &"EOTHERCLUSTER".into()));
    let text = other.body["error"].as_str().unwrap();
    assert!(text.contains("LFSCAAAA") && text.contains("backup.url"), "{text}");
    assert!(bench.progress.status(Txid(0)).error.is_some());
    assert_eq!(bench.ask("GET /elsewhere", b"").await.status, 404);
}

/// Whatever is in a place that was refused stays as it is.
#[tokio::test]
async fn what_another_cluster_keeps_is_not_tidied_up() {
    let (bench, mut lab) = (Bench::new(1).await, Lab::new());
    lab.insert(5);
    bench.keep(&lab.snapshot()).await;
    bench.keep(&lab.insert(1)).await;
    bench.keep(&lab.insert(1)).await;
    let before = bench.files().await;
    let stranger = bench.next(9).await;
    assert_eq!(stranger.ask_as("GET /pos", b"", TOKEN, "LFSCBBBB").await.status, 403);
    let none = Duration::ZERO;
    let schedule = plan::Schedule { retention: none, snapshot_interval: none, precision: none };
    let upkeep = Upkeep { keeper: &stranger.keeper, schedule, epoch: Epoch(9) };
    assert!(upkeep.once().await.is_err());
    assert_eq!(stranger.files().await, before);
}

#[tokio::test]
async fn what_is_damaged_on_its_way_is_not_kept() {
    let (bench, mut lab) = (Bench::new(1).await, Lab::new());
    lab.insert(5);
    let mut file = lab.snapshot();
    let middle = file.len() / 2;
    file[middle] ^= 1;
    assert_eq!(bench.send(&file).await.status, 400);
    assert_eq!(bench.send(b"").await.status, 400);
    assert!(bench.files().await.is_empty());
    file[middle] ^= 1;
    bench.keep(&file).await;
    let left = fs::read_dir(bench.dir.path().join("spool")).unwrap().count();
    assert_eq!(left, 0, "nothing is left on our disk");
}

/// A file in the place of the store: nothing can be kept.
#[tokio::test]
async fn while_the_store_is_away_litefs_keeps_its_transactions_and_the_lag_shows() {
    let (bench, mut lab) = (Bench::new(1).await, Lab::new());
    lab.insert(5);
    bench.holds(&lab);
    bench.positions().await;
    bench.keep(&lab.snapshot()).await;
    bench.positions().await;
    assert_eq!(bench.progress.status(Txid(1)).lag_transactions, Some(0));
    let (store, aside) = (bench.dir.path().join("store"), bench.dir.path().join("aside"));
    fs::rename(&store, &aside).unwrap();
    fs::write(&store, "").unwrap();
    let file = lab.insert(1);
    let said = bench.send(&file).await;
    assert_eq!((said.status, said.hwm, &said.body["code"]), (503, None, &"ESTORE".into()));
    let status = bench.progress.status(Txid(2));
    assert_eq!((status.lag_transactions, status.error.is_some()), (Some(1), true));
    fs::remove_file(&store).unwrap();
    fs::rename(&aside, &store).unwrap();
    bench.keep(&file).await;
    let status = bench.progress.status(Txid(2));
    assert_eq!((status.lag_transactions, status.error), (Some(0), None));
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_damaged_object_is_named_and_what_is_left_is_said() {
    let (bench, mut lab) = (Bench::new(1).await, Lab::new());
    lab.insert(5);
    bench.keep(&lab.snapshot()).await;
    for _ in 0..3 {
        bench.keep(&lab.insert(1)).await;
    }
    let listed = bench.store().list("db/").await.unwrap();
    let third = listed.iter().find(|entry| entry.key.contains("/0000000000000003-")).unwrap();
    flip(&bench.dir.path().join("store").join(&third.key));
    let error = bench.restore(Moment::Newest).await.unwrap_err().to_string();
    assert!(error.contains(&third.key) && error.contains("TXID 0000000000000002"), "{error}");
    assert!(bench.restore(Moment::Txid(Txid(2))).await.is_ok(), "what does not need it");
    // The same by another way.
    bench.keeper.never_restore(DB).await;
    bench.keep(&lab.snapshot()).await;
    assert_eq!(bench.restore(Moment::Newest).await.unwrap(), lab.bytes());
}

#[tokio::test]
async fn upkeep_makes_snapshots_merges_and_removes_and_nothing_is_lost() {
    let (bench, mut lab) = (Bench::new(1).await, Lab::new());
    lab.insert(5);
    bench.keep(&lab.snapshot()).await;
    let early = lab.bytes();
    for _ in 0..5 {
        bench.keep(&lab.insert(2)).await;
    }
    let hour = Duration::from_secs(3600);
    let run =
        async |schedule| Upkeep { keeper: &bench.keeper, schedule, epoch: Epoch(1) }.once().await;
    let mut schedule =
        plan::Schedule { retention: hour, snapshot_interval: hour, precision: Duration::ZERO };
    run(schedule).await.unwrap();
    assert_eq!(bench.files().await, ["1-0: 1-1", "1-0: 2-6"]);
    assert_eq!(bench.restore(Moment::Newest).await.unwrap(), lab.bytes());
    schedule.snapshot_interval = Duration::ZERO;
    run(schedule).await.unwrap();
    assert_eq!(bench.files().await, ["1-0: 1-1", "1-0: 1-6", "1-0: 2-6"]);
    assert_eq!(bench.restore(Moment::Txid(Txid(1))).await.unwrap(), early);
    schedule.retention = Duration::ZERO;
    run(schedule).await.unwrap();
    assert_eq!(bench.files().await, ["1-0: 1-6", "1-0: 2-6"]);
    bench.keep(&lab.insert(2)).await;
    assert_eq!(bench.restore(Moment::Newest).await.unwrap(), lab.bytes());
    // A deposed primary leaves off.
    bench.view.send_replace(primary(2, Claim::unlimited()));
    schedule.snapshot_interval = Duration::ZERO;
    assert!(run(schedule).await.is_err());
}
