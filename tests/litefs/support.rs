//! Nodes with a LiteFS each, in one process, and what stands for their election.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use litepilot::acks::Acks;
use litepilot::claim::{BootTime, Claim};
use litepilot::cluster::{Epoch, EpochStart, NodeId};
use litepilot::config::Config;
use litepilot::engine::replication::{Dial, Stream};
use litepilot::engine::{BoxFuture, Engine, Grant, Held};
use litepilot::litefs::agreement::{Agreement, IdProposal, agreement};
use litepilot::litefs::engine::{Litefs, Options};
use litepilot::litefs::supervise::Spec;
use litepilot::litefs::{mount, render};
use litepilot::secret::Secret;
use litepilot::txid::Position;
use rusqlite::Connection;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::port::reserve_port;
use super::preload;

/// For whatever has to happen sooner or later.
pub const LONG: Duration = Duration::from_secs(60);
pub const TTL: Duration = Duration::from_secs(2);
pub const DB: &str = "app.db";

/// The LiteFS of these tests: its program, and whether it has a file system.
pub fn program() -> (PathBuf, bool) {
    match std::env::var_os("LITEFS_BIN") {
        Some(real) => (real.into(), true),
        None => (Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/litefs/stand_in.py"), false),
    }
}

/// The words with which an application's command begins, so that a stand-in refuses its writes on replicas
/// as a real LiteFS does.
pub fn prefix() -> Vec<String> {
    let mut words = vec!["env".to_owned()];
    if !program().1 {
        words.push(format!("LD_PRELOAD={}", preload::library().display()));
    }
    words
}

/// The beginning of that command.
pub fn application() -> Command {
    let mut command = Command::new("env");
    command.args(&prefix()[1..]);
    command
}

/// With `LITEPILOT_TEST_LOG` set, what the nodes log is printed.
pub fn log() {
    if std::env::var_os("LITEPILOT_TEST_LOG").is_some() {
        let log = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG);
        let _ = log.with_test_writer().try_init();
    }
}

/// Waits until something is so.
pub async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let wait = async {
        while !is_so().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, wait).await.unwrap_or_else(|_| panic!("not within {LONG:?}: {what}"));
}

/// What the nodes agree upon.
#[derive(Default)]
pub struct Agreed {
    starts: watch::Sender<Vec<EpochStart>>,
    litefs_id: watch::Sender<Option<String>>,
    engines: Mutex<Vec<(NodeId, Arc<Litefs>)>>,
    /// What replicas acknowledge to whichever is primary.
    pub acks: Arc<Acks>,
}

/// One node's part in that.
pub struct Member {
    name: NodeId,
    agreed: Arc<Agreed>,
    claim: Mutex<(Epoch, Claim)>,
    /// It reaches nobody.
    pub cut_off: AtomicBool,
}

impl Member {
    /// What it was granted of `epoch`.
    pub fn claim(&self, epoch: Epoch) -> Claim {
        let claim = self.claim.lock().unwrap();
        if claim.0 == epoch { claim.1.clone() } else { Claim::none() }
    }

    /// A connection over which a primary announces how far it is, and this node what it has reached.
    fn link_to(&self, primary: &NodeId) -> io::Result<Stream> {
        let engines = self.agreed.engines.lock().unwrap();
        let found = engines.iter().find(|(name, _)| name == primary);
        let (_, primary) = found.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (ours, theirs) = tokio::io::duplex(4096);
        let (own, primary, acks) = (self.name.clone(), primary.clone(), self.agreed.acks.clone());
        tokio::spawn(async move {
            let Err(_) = primary.tell(&own, theirs, |at| acks.heard(&own, at)).await;
        });
        Ok(Box::new(ours))
    }

    /// A tunnel to that node's LiteFS.
    fn tunnel_to(&self, node: &NodeId) -> io::Result<Stream> {
        let engines = self.agreed.engines.lock().unwrap();
        let found = engines.iter().find(|(name, _)| name == node);
        let found = found.filter(|_| !self.cut_off.load(Ordering::SeqCst));
        let (_, to) = found.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (own, to) = (self.name.clone(), to.clone());
        tokio::spawn(async move { to.pass(&own, theirs).await });
        Ok(Box::new(ours))
    }

    pub fn grant(&self, epoch: Epoch) -> Grant {
        Grant { epoch, claim: self.claim(epoch) }
    }
}

impl Dial for Member {
    fn dial<'a>(
        &'a self,
        node: &'a NodeId,
        protocol: &'static str,
    ) -> BoxFuture<'a, io::Result<Stream>> {
        if protocol.starts_with("litepilot-positions") {
            return Box::pin(std::future::ready(self.link_to(node)));
        }
        Box::pin(std::future::ready(self.tunnel_to(node)))
    }
}

/// Tells an engine what is agreed upon, and agrees upon what it proposes.
async fn agree(agreement: Agreement, agreed: Arc<Agreed>) {
    let Agreement { starts, litefs_id, mut proposals } = agreement;
    let (mut known_starts, mut known_id) =
        (agreed.starts.subscribe(), agreed.litefs_id.subscribe());
    loop {
        starts.send_replace(known_starts.borrow_and_update().clone().into());
        litefs_id.send_replace(known_id.borrow_and_update().clone());
        tokio::select! {
            _ = known_starts.changed() => {}
            _ = known_id.changed() => {}
            Some(IdProposal { id, reply }) = proposals.recv() => {
                agreed.litefs_id.send_if_modified(|known| {
                    let news = known.is_none();
                    known.get_or_insert(id.clone());
                    news
                });
                let same = agreed.litefs_id.borrow().as_ref() == Some(&id);
                litefs_id.send_replace(agreed.litefs_id.borrow().clone());
                let _ = reply.send(if same { Ok(()) } else { Err("there is another".to_owned()) });
            }
        }
    }
}

/// A node: its LiteFS, and the engine over that.
pub struct Node {
    pub name: NodeId,
    pub litefs: Arc<Litefs>,
    pub member: Arc<Member>,
    pub config: Config,
    agreeing: JoinHandle<()>,
    dir: tempfile::TempDir,
}

/// Nodes that can replicate to each other.
pub struct Nodes {
    pub nodes: Vec<Node>,
    pub agreed: Arc<Agreed>,
    epoch: u64,
    /// Who follows a primary, over its link.
    links: Mutex<BTreeMap<usize, JoinHandle<()>>>,
}

/// Nobody else's, also before LiteFS has begun to listen.
pub fn free_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, reserve_port()).into()
}

pub fn config(name: &str, dir: &Path, http: SocketAddr, lease: SocketAddr) -> Config {
    let (program, _) = program();
    let text = format!(
        "node: {name}
data_dir: {dir}/state
proxy: {{target: ':1', db: {DB}}}
cluster: {{lease: {{ttl: {ttl}ms}}}}
litefs:
  binary: {program}
  mount: {dir}/mount
  data: {dir}/data
  http: {http}
  lease_listen: {lease}
",
        dir = dir.display(),
        program = program.display(),
        ttl = TTL.as_millis(),
    );
    Config::from_yaml("litepilot.yml", text.as_bytes(), &|_| None).unwrap()
}

impl Node {
    pub async fn start(name: &str, agreed: &Arc<Agreed>) -> Self {
        Self::start_with(name, agreed, |_| {}).await
    }

    /// With a LiteFS of another kind.
    pub async fn start_with(
        name: &str,
        agreed: &Arc<Agreed>,
        change: impl FnOnce(&mut Spec),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("mount")).unwrap();
        Self::start_as(dir, name, agreed, change).await
    }

    /// In a directory that may hold something already.
    pub async fn start_in(dir: tempfile::TempDir, name: &str, agreed: &Arc<Agreed>) -> Self {
        Self::start_as(dir, name, agreed, |_| {}).await
    }

    async fn start_as(
        dir: tempfile::TempDir,
        name: &str,
        agreed: &Arc<Agreed>,
        change: impl FnOnce(&mut Spec),
    ) -> Self {
        let lease = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = free_port();
        let config = config(name, dir.path(), http, lease.local_addr().unwrap());
        let secret: Secret = "0123456789abcdef-secret".parse().unwrap();
        let name: NodeId = name.parse().unwrap();
        let member = Arc::new(Member {
            name: name.clone(),
            agreed: agreed.clone(),
            claim: Mutex::new((Epoch(0), Claim::none())),
            cut_off: AtomicBool::new(false),
        });
        let (_, fuse) = program();
        let (agreement, heard) = agreement();
        let mut spec = Spec {
            litefs: config.litefs.clone(),
            file: render::write(&config, &secret).unwrap(),
            guard: None,
            fuse,
        };
        change(&mut spec);
        let options = Options {
            node: name.clone(),
            mount: config.litefs.mount.clone(),
            db: DB.into(),
            untracked: BTreeSet::new(),
            data_dir: config.data_dir.clone(),
            http,
            ttl: TTL,
            secret,
            program: env!("CARGO_BIN_EXE_litepilot").into(),
            fuse,
            supervise: Some(spec),
            elects: true,
            agreed: heard,
        };
        let litefs = Litefs::start(options, lease).unwrap();
        agreed.engines.lock().unwrap().retain(|(known, _)| *known != name);
        agreed.engines.lock().unwrap().push((name.clone(), litefs.clone()));
        let agreeing = tokio::spawn(agree(agreement, agreed.clone()));
        Self { name, litefs, member, config, agreeing, dir }
    }

    /// LiteFS answers.
    pub async fn ready(&self) {
        let mut seen = self.litefs.seen();
        timeout(LONG, seen.wait_for(|seen| seen.live)).await.expect("LiteFS starts").unwrap();
    }

    /// Stops LiteFS; the node's directory stays.
    pub async fn stop(self) -> tempfile::TempDir {
        self.litefs.stop().await;
        self.agreeing.abort();
        self.dir
    }

    pub fn path(&self) -> PathBuf {
        self.config.litefs.mount.join(DB)
    }

    pub fn open(&self) -> rusqlite::Result<Connection> {
        let connection = Connection::open(self.path())?;
        connection.busy_timeout(Duration::from_secs(10))?;
        Ok(connection)
    }

    /// Every number in the table.
    pub fn rows(&self) -> rusqlite::Result<Vec<i64>> {
        let connection = self.open()?;
        let mut all = connection.prepare("SELECT x FROM t ORDER BY x")?;
        all.query_map([], |row| row.get(0))?.collect()
    }

    pub async fn held(&self) -> Held {
        timeout(LONG, async {
            loop {
                match self.litefs.held().await {
                    Ok(held) => return held,
                    Err(_) => sleep(Duration::from_millis(5)).await,
                }
            }
        })
        .await
        .expect("a position")
    }

    pub fn restarts(&self) -> u64 {
        self.litefs.state().restarts
    }
}

impl Nodes {
    pub async fn start(names: &[&str]) -> Self {
        log();
        let agreed = Arc::new(Agreed::default());
        let mut nodes = Vec::new();
        for name in names {
            nodes.push(Node::start(name, &agreed).await);
        }
        for node in &nodes {
            node.ready().await;
        }
        Self { nodes, agreed, epoch: 0, links: Mutex::default() }
    }

    pub async fn stop(self) {
        (0..self.nodes.len()).for_each(|i| self.unlink(i));
        for node in self.nodes {
            node.stop().await;
        }
    }

    /// The next epoch.
    pub fn next(&mut self) -> Epoch {
        self.epoch += 1;
        Epoch(self.epoch)
    }

    /// A claim for `epoch`, for as long as a test may take.
    pub fn claim(&self, i: usize, epoch: Epoch) -> Claim {
        let claim = Claim::until(BootTime::now().after(LONG * 10));
        *self.nodes[i].member.claim.lock().unwrap() = (epoch, claim.clone());
        claim
    }

    /// As after an election: everybody promises, and this node becomes primary.
    pub async fn elect(&mut self, i: usize, others: &[usize]) -> (Epoch, Position) {
        let epoch = self.next();
        for j in others.iter().copied().chain([i]) {
            timeout(LONG, async {
                while self.nodes[j].litefs.promise(epoch).await.is_err() {
                    sleep(Duration::from_millis(10)).await;
                }
            })
            .await
            .expect("it promises");
        }
        self.unlink(i);
        self.claim(i, epoch);
        let node = &self.nodes[i];
        let held = node.litefs.become_primary(node.member.grant(epoch)).await.unwrap();
        self.open(epoch, held);
        (epoch, held)
    }

    pub fn open(&self, epoch: Epoch, held: Position) {
        self.agreed.starts.send_modify(|starts| starts.push(EpochStart { epoch, held }));
    }

    /// From now on the node follows that primary; returns once its LiteFS does.
    pub async fn follow(&self, i: usize, primary: usize) {
        let primary = self.nodes[primary].name.clone();
        let epoch = self.agreed.starts.borrow().last().unwrap().epoch;
        let node = &self.nodes[i];
        let dial: Arc<dyn Dial> = node.member.clone();
        let (engine, name) = (node.litefs.clone(), primary.clone());
        self.unlink(i);
        let link = tokio::spawn(async move {
            loop {
                let Err(_) = engine.follow(&name, epoch, &dial).await;
                sleep(Duration::from_millis(10)).await;
            }
        });
        self.links.lock().unwrap().insert(i, link);
        let follows = async || node.litefs.seen().borrow().follows() == Some(primary.as_str());
        until("it follows", follows).await;
    }

    /// The node follows nobody any more, as before it becomes primary.
    pub fn unlink(&self, i: usize) {
        if let Some(link) = self.links.lock().unwrap().remove(&i) {
            link.abort();
        }
    }

    /// A primary that others follow.
    pub async fn serve(&mut self, i: usize, others: &[usize]) -> Epoch {
        let (epoch, _) = self.elect(i, others).await;
        for other in others {
            self.follow(*other, i).await;
        }
        epoch
    }

    /// The table that tests write.
    pub async fn create(&self, i: usize, mode: &str) {
        let before = self.nodes[i].held().await.position;
        let connection = self.nodes[i].open().unwrap();
        connection.pragma_update(None, "journal_mode", mode).unwrap();
        connection.execute_batch("CREATE TABLE t (x INTEGER PRIMARY KEY)").unwrap();
        drop(connection);
        self.settle(i).await;
        assert_ne!(self.nodes[i].held().await.position, before);
    }

    /// A stand-in sees a commit a little after it was made: waits for that.
    pub async fn settle(&self, i: usize) {
        if !program().1 {
            let address = self.nodes[i].config.litefs.http;
            let asked = tokio::task::spawn_blocking(move || {
                super::harness::exchange(address, "GET", "/settle", "", b"").code
            });
            assert_eq!(asked.await.unwrap(), 200);
        }
    }

    /// Writes one row, and waits until LiteFS has seen it: a stand-in does so a little later.
    pub async fn write(&self, i: usize, x: i64) {
        self.nodes[i].open().unwrap().execute("INSERT INTO t VALUES (?)", [x]).unwrap();
        self.settle(i).await;
    }

    /// Both hold the same, of the same epoch.
    pub async fn level(&self, a: usize, b: usize) {
        let same = async || {
            let (a, b) = (self.nodes[a].held().await, self.nodes[b].held().await);
            a == b
        };
        until("both hold the same", same).await;
    }
}

/// Whether the node's file system is there.
pub fn is_mounted(node: &Node) -> bool {
    mount::is_mounted(&node.config.litefs.mount).unwrap()
}
