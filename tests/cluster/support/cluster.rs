//! Whole nodes that form a cluster, each in front of an application of its own. The first node is the
//! primary.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, SystemTime};

use litepilot::config::Config;
use litepilot::node::{Node, Tuning};
use litepilot::shutdown::Urgency;
use litepilot::tls::Validity;
use litepilot::tls::authority::Authority;
use serde_json::Value;
use tempfile::TempDir;

use super::link::PeerLink;
use super::port::reserve_port;
use super::python::{App, Gunicorn, Launch, Uvicorn, Worker, django_migrate};
use super::raw::Client;
use super::until;
use super::wire::{Message, soon};

/// The nodes' names. Each is an index into a [`Cluster`] too.
pub const NAMES: [&str; 3] = ["n1", "n2", "n3"];
/// The node that takes writes.
pub const PRIMARY: usize = 0;
/// Nodes that do not.
pub const REPLICAS: [usize; 2] = [1, 2];

/// A cluster about to be started.
pub struct Plan {
    app: fn(&str, PathBuf) -> Launch,
    proxy: String,
    cluster: String,
    rules: Option<String>,
    tuning: Tuning,
    linked: bool,
    tls: bool,
    /// Where each node listens, if that is fixed.
    circle: Option<[u16; 3]>,
}

/// A running cluster. Dropping it stops everything.
pub struct Cluster {
    pub members: Vec<Member>,
    /// From each replica to the primary, if the plan was [`Plan::linked`].
    links: Vec<Option<PeerLink>>,
}

/// One node, running or not, and its application.
pub struct Member {
    node: Option<Node>,
    /// Outlives the node.
    app: Option<App>,
    config: Config,
    tuning: Tuning,
    dir: TempDir,
}

impl Plan {
    /// In front of the Flask guestbook.
    pub fn flask() -> Self {
        Self::of(|node, dir| Gunicorn::flask(Worker::Gthread, 1, &dir).env("LITEPILOT_NODE", node))
    }

    /// In front of the Django guestbook; the primary's tables are made.
    pub fn django() -> Self {
        Self::of(|node, dir| {
            if node == NAMES[PRIMARY] {
                django_migrate(&dir);
            }
            let app = Gunicorn::django(Worker::Gthread, 1, &dir).env("LITEPILOT_NODE", node);
            app.env("DJANGO_ALLOWED_HOSTS", "shop")
        })
    }

    /// In front of the WebSocket echo.
    pub fn ws_echo() -> Self {
        Self::of(|_, _| Uvicorn::ws_echo())
    }

    fn of(app: fn(&str, PathBuf) -> Launch) -> Self {
        let (proxy, cluster) = Default::default();
        let (rules, tuning) = (None, Tuning::default());
        Self { app, proxy, cluster, rules, tuning, linked: false, tls: false, circle: None }
    }

    /// Sets a key of `proxy:` on all nodes, as YAML.
    pub fn proxy(mut self, line: &str) -> Self {
        self.proxy += &format!("  {line}\n");
        self
    }

    /// Sets a key of `cluster:` on all nodes, as YAML.
    pub fn cluster(mut self, line: &str) -> Self {
        self.cluster += &format!("  {line}\n");
        self
    }

    /// Gives all nodes a rule file, as YAML.
    pub fn rules(mut self, rules: &str) -> Self {
        self.rules = Some(rules.to_owned());
        self.proxy("rules: [rules.yml]")
    }

    /// Replicas apply what they receive this much later.
    pub fn apply_delay(mut self, delay: Duration) -> Self {
        self.tuning.apply_delay = delay;
        self
    }

    /// Has the replicas reach the primary through [`Cluster::link`].
    pub fn linked(mut self) -> Self {
        self.linked = true;
        self
    }

    /// Nodes speak TLS to each other.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Each node takes the next one for its application.
    pub fn in_a_circle(mut self) -> Self {
        self.circle = Some(NAMES.map(|_| reserve_port()));
        self
    }

    /// Starts the applications and the nodes, and returns once all nodes hear the primary.
    pub async fn start(self) -> Cluster {
        let cluster = self.launch().await;
        cluster.settled().await;
        cluster
    }

    async fn launch(self) -> Cluster {
        let dirs = NAMES.map(|_| {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("mount")).unwrap();
            if let Some(rules) = &self.rules {
                std::fs::write(dir.path().join("rules.yml"), rules).unwrap();
            }
            dir
        });
        if self.tls {
            certificates(&dirs);
        }
        let apps = self.start_apps(&dirs);
        let ports = NAMES.map(|_| reserve_port());
        let mut cluster = Cluster { members: Vec::new(), links: Vec::new() };
        for (i, (app, dir)) in apps.into_iter().zip(dirs).enumerate() {
            let to_primary = SocketAddr::from((Ipv4Addr::LOCALHOST, ports[PRIMARY]));
            let link = match self.linked && i != PRIMARY {
                true => Some(PeerLink::to(to_primary).await),
                false => None,
            };
            let primary = link.as_ref().map_or(to_primary, PeerLink::addr);
            let config = self.config(i, &app, &dir, &ports, primary);
            let node = Some(Node::start_with(config.clone(), self.tuning.clone()).unwrap());
            cluster.members.push(Member {
                node,
                app: Some(app),
                config,
                tuning: self.tuning.clone(),
                dir,
            });
            cluster.links.push(link);
        }
        cluster
    }

    fn start_apps(&self, dirs: &[TempDir; 3]) -> Vec<App> {
        let start = |i: usize| (self.app)(NAMES[i], dirs[i].path().join("mount")).start();
        thread::scope(|scope| {
            let starting: Vec<_> = (0..3).map(|i| scope.spawn(move || start(i))).collect();
            starting.into_iter().map(|app| app.join().unwrap()).collect()
        })
    }

    fn config(
        &self,
        own: usize,
        app: &App,
        dir: &TempDir,
        ports: &[u16; 3],
        primary: SocketAddr,
    ) -> Config {
        let peers = (0..3).map(|i| match i {
            PRIMARY if own != PRIMARY => format!("{}: {primary}", NAMES[i]),
            // Where nobody is: else the others would go round a link that fails.
            PRIMARY if self.linked => format!("{}: 127.0.0.1:1", NAMES[i]),
            _ => format!("{}: 127.0.0.1:{}", NAMES[i], ports[i]),
        });
        let tls = if self.tls { "  tls: {ca: ca.crt, cert: own.crt, key: own.key}\n" } else { "" };
        let loopback = |port| format!("127.0.0.1:{port}");
        let (listen, target) = match self.circle {
            Some(ports) => (loopback(ports[own]), loopback(ports[(own + 1) % 3])),
            None => (loopback(0), app.address().to_string()),
        };
        let yaml = format!(
            "node: {}\ndata_dir: data\nshutdown_timeout: 10s\nadmin: {{listen: 127.0.0.1:0}}\n\
             litefs: {{engine: embedded, mount: mount}}\n\
             cluster:\n  election: static\n  primary: {}\n  listen: 127.0.0.1:{}\n  peers: {{{}}}\n{tls}{}\
             proxy:\n  listen: {listen}\n  target: {target}\n  db: db.sqlite3\n{}",
            NAMES[own],
            NAMES[PRIMARY],
            ports[own],
            peers.collect::<Vec<_>>().join(", "),
            self.cluster,
            self.proxy
        );
        let file = dir.path().join("litepilot.yml");
        Config::from_yaml(&file.to_string_lossy(), yaml.as_bytes(), &|_| None).unwrap()
    }
}

impl Cluster {
    /// A new connection to a node.
    pub async fn client(&self, node: usize) -> Client {
        Client::connect(self.address(node)).await
    }

    /// Where clients connect to a node that runs.
    pub fn address(&self, node: usize) -> SocketAddr {
        self.members[node].running().proxy_address()
    }

    /// The admin port of a node that runs.
    pub fn admin_address(&self, node: usize) -> SocketAddr {
        self.members[node].running().admin_address()
    }

    /// Where other nodes connect to a node.
    pub fn peer_address(&self, node: usize) -> SocketAddr {
        self.members[node].config.cluster.listen
    }

    /// The way from a replica to the primary.
    pub fn link(&self, from: usize) -> &PeerLink {
        self.links[from].as_ref().unwrap()
    }

    /// An answer of a node's admin port.
    pub async fn admin(&self, node: usize, path: &str) -> Message {
        let mut admin = Client::connect(self.admin_address(node)).await;
        admin
            .send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
            .await;
        admin.response().await
    }

    /// What a node says of the cluster.
    pub async fn status(&self, node: usize) -> Value {
        serde_json::from_slice(&self.admin(node, "/status").await.body).unwrap()
    }

    /// The number behind a line of a node's `/metrics`; 0 if it is not there.
    pub async fn metric(&self, node: usize, line: &str) -> u64 {
        let metrics = self.admin(node, "/metrics").await;
        let mut lines = metrics.text().lines();
        let found = lines.find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
        found.map_or(0, |number| number.parse().unwrap())
    }

    /// Returns once every node that runs hears a primary, and its application answers.
    pub async fn settled(&self) {
        for (i, member) in self.members.iter().enumerate() {
            if member.node.is_some() {
                until(&format!("{} to hear a primary", NAMES[i]), || async {
                    let status = self.status(i).await;
                    status["primary"].is_object() && status["app"]["state"] == "up"
                })
                .await;
            }
        }
    }

    /// Returns once a node hears no primary.
    pub async fn without_primary(&self, node: usize) {
        until("the primary to be missed", || async {
            self.status(node).await["primary"].is_null()
        })
        .await;
    }

    /// Returns once there is a database, and every replica that runs holds what the primary holds.
    pub async fn level(&self) {
        let position = |node| async move { self.status(node).await["position"].clone() };
        until("a database", || async { position(PRIMARY).await["txid"] != "0000000000000000" })
            .await;
        let goal = position(PRIMARY).await;
        for i in REPLICAS.into_iter().filter(|i| self.members[*i].node.is_some()) {
            let what = format!("{} to hold {goal}", NAMES[i]);
            until(&what, || async { position(i).await == goal }).await;
        }
    }

    /// Stops a node in good order. Its application stays.
    pub async fn stop(&mut self, node: usize) {
        let running = self.members[node].node.take().unwrap();
        running.stop(Urgency::Graceful);
        soon("the node to stop", running.stopped()).await;
        running.wait();
    }

    /// Ends a node at once.
    pub fn kill(&mut self, node: usize) {
        drop(self.members[node].node.take().unwrap());
    }

    /// Starts a node that was stopped; its port for clients is another one.
    pub fn start(&mut self, node: usize) {
        let member = &mut self.members[node];
        assert!(member.node.is_none());
        member.node = Some(Node::start_with(member.config.clone(), member.tuning.clone()).unwrap());
    }
}

impl Member {
    /// The application, to be killed and restarted; dropped it ends.
    pub fn take_app(&mut self) -> App {
        self.app.take().unwrap()
    }

    fn running(&self) -> &Node {
        self.node.as_ref().expect("the node was stopped")
    }

    /// Its copy of the database.
    pub fn database(&self) -> PathBuf {
        self.dir.path().join("mount/db.sqlite3")
    }

    /// A file of the node's own directory.
    pub fn data(&self, name: &str) -> PathBuf {
        self.dir.path().join("data").join(name)
    }

    /// A file beside the database.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join("mount").join(name)
    }
}

/// An authority, and in each directory what it issues to that node.
fn certificates(dirs: &[TempDir; 3]) {
    let from = SystemTime::now() - Duration::from_secs(60);
    let validity = Validity { from, until: from + Duration::from_secs(24 * 60 * 60) };
    let authority = Authority::create(validity).unwrap();
    for (name, dir) in NAMES.iter().zip(dirs) {
        let issued = authority.issue(&name.parse().unwrap(), &[], validity).unwrap();
        let write = |file, text: &str| std::fs::write(dir.path().join(file), text).unwrap();
        write("ca.crt", authority.certificate());
        write("own.crt", &issued.certificate);
        write("own.key", &issued.key);
    }
}
