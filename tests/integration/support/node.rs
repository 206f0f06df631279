//! A whole node, with ports of the system's choice and directories of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use litepilot::config::Config;
use litepilot::node::Node;
use litepilot::shutdown::Urgency;
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::raw::Client;
use super::recorder::Recorder;
use super::wire::soon;

/// Between two looks at something that is about to change.
const PAUSE: Duration = Duration::from_millis(5);

/// A node about to be started.
pub struct Launch {
    dir: TempDir,
    target: String,
    mount: PathBuf,
    top: String,
    proxy: String,
}

/// A running node. Dropping it stops it at once.
pub struct TestNode {
    node: Node,
    config: Config,
    dir: TempDir,
}

impl Launch {
    /// In front of what listens at `target`.
    pub fn before(target: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mount = dir.path().to_owned();
        let (top, proxy) = Default::default();
        Self { dir, target: target.to_owned(), mount, top, proxy }
    }

    /// The database is in this directory.
    pub fn mount(mut self, dir: &Path) -> Self {
        self.mount = dir.to_owned();
        self
    }

    /// Sets a key of `proxy:`, as YAML.
    pub fn proxy(mut self, line: &str) -> Self {
        self.proxy += &format!("  {line}\n");
        self
    }

    /// Sets a key of the whole, as YAML.
    pub fn key(mut self, line: &str) -> Self {
        self.top += &format!("{line}\n");
        self
    }

    /// Gives it a rule file, as YAML.
    pub fn rules(self, rules: &str) -> Self {
        std::fs::write(self.dir.path().join("rules.yml"), rules).unwrap();
        self.proxy("rules: [rules.yml]")
    }

    /// Starts it. It need not find its application up.
    pub fn start(self) -> TestNode {
        let yaml = format!(
            "node: test\ndata_dir: data\nadmin: {{listen: 127.0.0.1:0}}\n\
             litefs: {{engine: embedded, mount: {}}}\n{}\
             proxy:\n  listen: 127.0.0.1:0\n  target: {}\n  db: db.sqlite3\n{}",
            self.mount.display(),
            self.top,
            self.target,
            self.proxy
        );
        let file = self.dir.path().join("litepilot.yml");
        let config = Config::from_yaml(&file.to_string_lossy(), yaml.as_bytes(), &|_| None);
        TestNode::with(config.unwrap(), self.dir)
    }
}

impl TestNode {
    /// With default settings.
    pub fn before(app: &Recorder) -> Self {
        Launch::before(app.target()).start()
    }

    fn with(config: Config, dir: TempDir) -> Self {
        let node = Node::start(config.clone()).unwrap();
        // Until it takes writes it treats requests as ones that may have to go elsewhere.
        while !is_primary(node.admin_address()) {
            std::thread::sleep(PAUSE);
        }
        Self { node, config, dir }
    }

    /// A new connection to it.
    pub async fn client(&self) -> Client {
        Client::connect(self.node.proxy_address()).await
    }

    /// Likewise; it is reset when it is dropped.
    pub async fn abrupt_client(&self) -> Client {
        Client::abrupt(self.node.proxy_address()).await
    }

    /// The port that clients connect to.
    pub fn port(&self) -> u16 {
        self.node.proxy_address().port()
    }

    /// A new connection to its admin port.
    pub async fn admin(&self) -> Client {
        Client::connect(self.node.admin_address()).await
    }

    /// Its rule file.
    pub fn rule_file(&self) -> PathBuf {
        self.dir.path().join("rules.yml")
    }

    /// Reads its rules anew.
    pub fn reload(&self) {
        self.node.reload();
    }

    /// Begins to stop it.
    pub fn stop(&self) {
        self.node.stop(Urgency::Graceful);
    }

    /// Stops it without waiting for anything.
    pub fn stop_at_once(&self) {
        self.node.stop(Urgency::AtOnce);
    }

    /// Returns once nobody can connect any more.
    pub async fn refuses_connections(&self) {
        let refused = async {
            while TcpStream::connect(self.node.proxy_address()).await.is_ok() {
                tokio::time::sleep(PAUSE).await;
            }
        };
        soon("connections to be refused", refused).await;
    }

    /// How many events say so. The newest one need not be the one that a test caused: the node has
    /// events of its own, as when its application first answers.
    pub fn events_with(&self, text: &str) -> usize {
        self.node.events().latest().iter().filter(|event| event.text.contains(text)).count()
    }

    /// Returns once it has stopped.
    pub async fn stopped(&self) {
        soon("the node to stop", self.node.stopped()).await;
    }

    /// Stops it and starts it anew with the same files, at other ports.
    pub async fn restarted(self) -> Self {
        self.stop();
        self.stopped().await;
        let Self { node, config, dir } = self;
        node.wait();
        Self::with(config, dir)
    }

    /// Returns once the number behind a line of `/metrics` is `value`.
    pub async fn metric_becomes(&self, line: &str, value: &str) {
        let become_so = async {
            while self.metric(line).await.as_deref() != Some(value) {
                tokio::time::sleep(PAUSE).await;
            }
        };
        soon(&format!("{line} {value}"), become_so).await;
    }

    /// The number behind a line of `/metrics`.
    pub async fn metric(&self, line: &str) -> Option<String> {
        let mut admin = self.admin().await;
        admin.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        let metrics = admin.response().await;
        let lines = metrics.text().lines();
        lines.filter_map(|l| l.strip_prefix(line)?.strip_prefix(' ')).next().map(str::to_owned)
    }
}

/// Blocks, as starting a node does.
fn is_primary(admin: SocketAddr) -> bool {
    use std::io::{Read, Write};
    let mut connection = std::net::TcpStream::connect(admin).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let request = "GET /primary HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer.starts_with("HTTP/1.1 200 ")
}
