//! The data planes of two nodes, of which the test plays the rest: who is primary and how long the claim
//! lasts, what the databases hold, and what replicas acknowledge.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, SystemTime};

use litepilot::acks::{Acks, Electorate};
use litepilot::claim::Claim;
use litepilot::cluster::{ClusterView, Epoch, EpochStart, NodeId, Primary, Role};
use litepilot::config::{self, Ack, Config, HostPort};
use litepilot::engine::{BoxFuture, Engine, EngineState};
use litepilot::peer::{self, ConnectionLimits, Dialer, Listener, Times};
use litepilot::position::PositionCell;
use litepilot::process::health;
use litepilot::proxy::DataPlane;
use litepilot::proxy::acceptor::Slots;
use litepilot::proxy::ack::Acknowledging;
use litepilot::proxy::hold::Holds;
use litepilot::proxy::learned::LearnedRoutes;
use litepilot::proxy::misclassified_reads::MisclassifiedReads;
use litepilot::proxy::replay_budget::ReplayBudget;
use litepilot::proxy::unmoved_writes::UnmovedWrites;
use litepilot::proxy::worker::WorkerContext;
use litepilot::proxy::writes::Writes;
use litepilot::rules::{Class, RuleSet};
use litepilot::status::{AppStatus, Status};
use litepilot::telemetry::metrics::Metrics;
use litepilot::telemetry::warnings::Warnings;
use litepilot::txid::{EpochTxid, Position, Txid};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::raw::Client;
use super::recorder::Recorder;
use super::wire::soon;

/// The two nodes.
pub const NAMES: [&str; 2] = ["n1", "n2"];

/// What will not pass during a test.
const EVER: Duration = Duration::from_secs(3600);

pub fn at(epoch: u64, txid: u64) -> EpochTxid {
    EpochTxid { epoch: Epoch(epoch), txid: Txid(txid) }
}

/// The fields by which a client tells what it last saw.
pub fn token(epoch: u64, txid: u64) -> [String; 2] {
    [format!("Litepilot-Txid: {txid:016x}"), format!("Litepilot-Epoch: {epoch}")]
}

/// Two nodes about to be started.
pub struct Stage {
    proxy: String,
    rules: [Option<String>; 2],
    ack: [Ack; 2],
    ack_timeout: Duration,
    first_at: Option<SocketAddr>,
}

/// The nodes. At first nobody is primary, and both databases are at transaction 5 of epoch 1.
pub struct Pair {
    pub nodes: [Plane; 2],
    _dir: TempDir,
    _peers: JoinSet<()>,
}

/// One node's data plane. Dropping it stops it.
pub struct Plane {
    pub view: watch::Sender<ClusterView>,
    pub database: Arc<Database>,
    pub acks: Arc<Acks>,
    pub writes: Arc<Writes>,
    pub metrics: Arc<Metrics>,
    pub suspects: Arc<MisclassifiedReads>,
    pub learned: Arc<LearnedRoutes>,
    name: NodeId,
    address: SocketAddr,
    data_plane: Option<DataPlane>,
}

/// A database that is where the test says.
#[derive(Default)]
pub struct Database {
    position: Arc<PositionCell>,
    unreadable: AtomicBool,
    old: AtomicBool,
    refused: AtomicU64,
    held_up: watch::Sender<bool>,
}

impl Database {
    /// Whoever reads it waits until this is over.
    pub fn holds_readers_up(&self, yes: bool) {
        self.held_up.send_replace(yes);
    }

    /// It refuses what an application writes on this replica, and says so to nobody else.
    pub fn refuses_a_write(&self) {
        self.refused.fetch_add(1, SeqCst);
    }

    /// From now on it is there.
    pub fn is_at(&self, position: EpochTxid) {
        self.position.reset(position);
    }

    /// From now on nobody knows how far behind it is.
    pub fn grows_old(&self) {
        self.old.store(true, SeqCst);
    }

    /// From now on it cannot be read.
    pub fn breaks(&self) {
        self.unreadable.store(true, SeqCst);
    }
}

impl Engine for Database {
    fn position(&self) -> &Arc<PositionCell> {
        &self.position
    }

    fn read_position(&self) -> BoxFuture<'_, io::Result<EpochTxid>> {
        let unreadable = self.unreadable.load(SeqCst);
        let (position, mut held_up) = (self.position.clone(), self.held_up.subscribe());
        Box::pin(async move {
            let _ = held_up.wait_for(|held_up| !*held_up).await;
            if unreadable { Err(io::Error::other("gone")) } else { Ok(position.get()) }
        })
    }

    fn lag(&self) -> Option<Duration> {
        (!self.old.load(SeqCst)).then_some(Duration::ZERO)
    }

    fn refused_writes(&self) -> u64 {
        self.refused.load(SeqCst)
    }

    fn state(&self) -> EngineState {
        EngineState { engine: "played", state: "running".into(), pid: None, restarts: 0 }
    }
}

impl Stage {
    pub fn new() -> Self {
        let (proxy, rules, first_at) = (String::new(), [None, None], None);
        Self { proxy, rules, ack: [Ack::Primary; 2], ack_timeout: EVER, first_at }
    }

    /// Sets a key of `proxy:` on both, as YAML.
    pub fn proxy(mut self, line: &str) -> Self {
        self.proxy += &format!("  {line}\n");
        self
    }

    /// Gives a node a rule file, as YAML.
    pub fn rules(mut self, node: usize, rules: &str) -> Self {
        self.rules[node] = Some(rules.to_owned());
        self
    }

    /// `cluster.ack` of each.
    pub fn ack(mut self, ack: [Ack; 2]) -> Self {
        self.ack = ack;
        self
    }

    /// `cluster.ack_timeout`
    pub fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.ack_timeout = timeout;
        self
    }

    /// The second node takes this for the first one's peer port.
    pub fn first_at(mut self, address: SocketAddr) -> Self {
        self.first_at = Some(address);
        self
    }

    /// Starts both, each in front of an application.
    pub async fn before(self, apps: [&Recorder; 2]) -> Pair {
        let dir = tempfile::tempdir().unwrap();
        let names = NAMES.map(|name| name.parse::<NodeId>().unwrap());
        let times = Times { connect: EVER, greeting: EVER, ..Times::default() };
        let mut listeners = Vec::new();
        let mut peers = Vec::new();
        for (i, name) in names.iter().enumerate() {
            let local = (Ipv4Addr::LOCALHOST, 0).into();
            let anybody = Arc::new(|_: &NodeId| true);
            let listener = Listener::bind(name.clone(), local, anybody, times).await.unwrap();
            let own = listener.local_addr().unwrap();
            let at = if i == 0 { self.first_at.unwrap_or(own) } else { own };
            peers.push((name.clone(), HostPort { host: at.ip().to_string(), port: at.port() }));
            listeners.push(listener);
        }
        let mut tasks = JoinSet::new();
        let nodes = [0, 1].map(|i| {
            let dialer = Arc::new(Dialer::new(names[i].clone(), &peers, times));
            let file = dir.path().join(NAMES[i]);
            if let Some(rules) = &self.rules[i] {
                std::fs::create_dir(&file).unwrap();
                std::fs::write(file.join("rules.yml"), rules).unwrap();
            }
            let config =
                self.config(i, apps[i].target(), &file.join("litepilot.yml").to_string_lossy());
            self.start(i, config, dialer, &mut tasks)
        });
        for (mut listener, node) in listeners.into_iter().zip(&nodes) {
            let door = node.data_plane.as_ref().unwrap().peer_door();
            let limits = ConnectionLimits { per_peer: 100, total: 100 };
            let enter = Arc::new(move |incoming: peer::Incoming| door.enter(incoming.stream));
            listener.handle(peer::HTTP, limits, enter);
            tasks.spawn(listener.run());
        }
        let pair = Pair { nodes, _dir: dir, _peers: tasks };
        for node in &pair.nodes {
            node.finds_its_application().await;
        }
        pair
    }

    fn config(&self, node: usize, target: &str, file: &str) -> config::Proxy {
        let rules = if self.rules[node].is_some() { "  rules: [rules.yml]\n" } else { "" };
        let yaml = format!(
            "node: {}\nlitefs: {{engine: embedded, mount: .}}\n\
             proxy:\n  target: {target}\n  db: db\n{rules}{}",
            NAMES[node], self.proxy
        );
        Config::from_yaml(file, yaml.as_bytes(), &|_| None).unwrap().proxy
    }

    fn start(
        &self,
        node: usize,
        config: config::Proxy,
        dialer: Arc<Dialer>,
        tasks: &mut JoinSet<()>,
    ) -> Plane {
        const WORKERS: usize = 2;
        let name: NodeId = NAMES[node].parse().unwrap();
        let (checker, app) = health::channel();
        tasks.spawn(health::run(checker, config.target.clone(), None));
        let nobody = ClusterView {
            role: Role::Replica,
            primary: None,
            writable: false,
            claim: Claim::none(),
            ..ClusterView::single(name.clone(), Epoch(0))
        };
        let view = watch::Sender::new(nobody);
        let database = Arc::<Database>::default();
        database.is_at(at(1, 5));
        let (acks, writes, metrics) =
            (Arc::<Acks>::default(), Arc::default(), Metrics::new(WORKERS));
        let (rules, draining) =
            (Arc::new(RuleSet::load(&config.rules).unwrap()), watch::Sender::new(false));
        let learned = Arc::<LearnedRoutes>::default();
        let suspects = Arc::new(MisclassifiedReads::new(Arc::default()));
        let shared = WorkerContext {
            app_on_primary: false,
            node: NAMES[node].into(),
            access_log: Default::default(),
            rules: watch::Sender::new(rules).subscribe(),
            view: view.subscribe(),
            engine: database.clone(),
            app,
            dialer: Some(dialer),
            forwarded: Slots::new(usize::MAX),
            holds: Holds::new(config.held_writes, config.held_reads),
            ack: Acknowledging {
                level: self.ack[node],
                timeout: self.ack_timeout,
                acks: acks.clone(),
                alone: false,
            },
            metrics: metrics.clone(),
            writes: Arc::clone(&writes),
            tls: None,
            at_app: Arc::default(),
            suspects: suspects.clone(),
            learned: learned.clone(),
            replay_budget: ReplayBudget::new(Instant::now()).into(),
            unmoved: UnmovedWrites::new("app.db".into(), Arc::new(Warnings::new(Arc::default()))),
            draining: draining.subscribe(),
            front: Default::default(),
            config,
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let data_plane = DataPlane::start(listener, Arc::new(shared), WORKERS).unwrap();
        let address = data_plane.address();
        // Nobody begins to stop it, and who might has not gone.
        tasks.spawn(async move {
            let _draining = draining;
            std::future::pending().await
        });
        let data_plane = Some(data_plane);
        Plane {
            view,
            database,
            acks,
            writes,
            metrics,
            suspects,
            learned,
            name,
            address,
            data_plane,
        }
    }
}

impl Pair {
    /// Both know that this node is the primary of that epoch, with this claim.
    pub fn elects(&self, node: usize, epoch: u64, claim: &Claim) {
        self.learns_at_home(node, epoch, claim);
        self.learns(1 - node, node, epoch);
    }

    /// The primary itself knows.
    pub fn learns_at_home(&self, node: usize, epoch: u64, claim: &Claim) {
        let plane = &self.nodes[node];
        let others = vec![NAMES[1 - node].parse().unwrap()];
        plane.acks.begin(Epoch(epoch), vec![Electorate { others, unheard: 0, own: true }]);
        plane.view.send_modify(|view| {
            view.role = Role::Primary;
            view.primary = Some(primary_of(node, epoch));
            view.writable = true;
            view.claim = claim.clone();
        });
    }

    /// The other one knows.
    pub fn learns(&self, node: usize, primary: usize, epoch: u64) {
        self.nodes[node].view.send_modify(|view| {
            view.role = Role::Replica;
            view.primary = Some(primary_of(primary, epoch));
            view.writable = false;
            view.claim = Claim::none();
        });
    }

    /// Both know where that epoch began.
    pub fn began(&self, epoch: u64, held: EpochTxid) {
        let start =
            EpochStart { epoch: Epoch(epoch), held: Position { at: held, ..Position::default() } };
        for node in &self.nodes {
            node.view.send_modify(|view| {
                view.starts = view.starts.iter().copied().chain([start]).collect();
            });
        }
    }
}

fn primary_of(node: usize, epoch: u64) -> Primary {
    let node = NAMES[node].parse().unwrap();
    Primary { node, epoch: Epoch(epoch), since: SystemTime::UNIX_EPOCH }
}

impl Plane {
    /// A new connection to it.
    pub async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// Likewise; it is reset when it is dropped.
    pub async fn abrupt_client(&self) -> Client {
        Client::abrupt(self.address).await
    }

    /// Takes no more writes: it is about to hand over, and has its claim still.
    pub fn holds_writes(&self) {
        self.view.send_modify(|view| {
            view.writable = false;
            view.primary = None;
        });
    }

    /// The other node holds that.
    pub fn hears(&self, position: EpochTxid) {
        let other = NAMES.iter().find(|name| **name != self.name.as_str()).unwrap();
        self.acks.heard(&other.parse().unwrap(), position);
    }

    /// Returns once so many requests of that class wait here.
    pub async fn held(&self, class: Class, count: u64) {
        let line = format!("litepilot_requests_held{{class=\"{}\"}}", class.as_str());
        let what = format!("{line} {count} at {}", self.name);
        self.until(&what, || self.metric(&line) == count).await;
    }

    /// The number behind a line of the metrics; 0 if it is not there.
    pub fn metric(&self, line: &str) -> u64 {
        let text = self.metrics.render(&self.status());
        let found = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
        found.map_or(0, |number| number.parse().unwrap())
    }

    async fn finds_its_application(&self) {
        let mut client = self.client().await;
        let find = async {
            while client.ask("GET /litefs/health", &[]).await.status() != 200 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon("the application to be found", find).await;
    }

    pub async fn until(&self, what: &str, mut state: impl FnMut() -> bool) {
        let reached = async {
            while !state() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon(what, reached).await;
    }

    /// What metrics want to know beside what they count.
    fn status(&self) -> Status {
        Status {
            raft: None,
            node: self.name.clone(),
            role: Role::Replica,
            writable: false,
            primary: None,
            no_primary: None,
            quorum: true,
            position: EpochTxid::default(),
            lag_ms: None,
            litefs: self.database.state().into(),
            app: AppStatus { state: true.into(), pid: None, restarts: 0, note: None },
            services: Vec::new(),
            nodes: Vec::new(),
            suspected_writes: Vec::new(),
            learned_writes: Vec::new(),
            warnings: Vec::new(),
            backup: None,
            version: String::new(),
        }
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        if let Some(data_plane) = self.data_plane.take() {
            data_plane.stop();
        }
    }
}
