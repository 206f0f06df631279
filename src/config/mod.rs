//! The one file that users write, checked.
//!
//! `raw YAML → tree with places (crate::yaml) → checked Config`. Every problem of a file is reported
//! at once, each with its place and its remedy. Nothing outside this module sees unchecked values.
//! The names and defaults are the contract of `docs/configuration.md`.
//!
//! One file per section holds its type, its defaults and how it is read; `reader` walks the tree and
//! collects problems, `value` and `address` know the forms of single values. Relative paths are
//! relative to the configuration file's directory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cluster::NodeId;
use crate::yaml::{self, Node, Place, Problem, Value, value};
use reader::{Reader, Section};

mod address;
mod admin;
mod app;
mod backup;
mod cluster;
mod conflicts;
mod cookie;
mod error_pages;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
pub(crate) mod import;
mod litefs;
pub mod litefs_yml;
mod log;
mod proxy;
mod reader;
mod stop_signal;
mod tls;
mod trusted;

pub use crate::guarantee::{Ack, Consistency};
pub use address::{HostPort, Target};
pub(crate) use admin::Admin;
pub use app::{App, OnPromote, RunOn, Service};
pub use backup::Backup;
pub use cluster::{Cluster, Election};
pub use cookie::{Cookie, SameSite, Secure};
pub(crate) use error_pages::Answers;
pub use error_pages::ErrorPages;
pub use litefs::{EngineKind, Litefs};
pub use log::{Access, Log, LogFormat};
pub use proxy::Proxy;
pub use stop_signal::StopSignal;
pub use tls::{CertKey, EdgeTls, PeerTls};
pub(crate) use trusted::Trusted;

/// Where a configuration is looked for, in this order.
const PLACES: [&str; 2] = ["./litepilot.yml", "/etc/litepilot.yml"];
/// The variables that name this node, in this order, before the host name.
const NODE_VARIABLES: [&str; 2] = ["LITEPILOT_NODE", "LITEFS_NODE_ID"];
const DATA_DIR: &str = "/var/lib/litepilot";
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(45);
const SHUTDOWN_DELAY: Duration = Duration::ZERO;

/// A whole, checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// This node's name.
    pub node: NodeId,
    /// Where this node keeps its own state.
    pub data_dir: PathBuf,
    /// How long handing off and draining may take.
    pub shutdown_timeout: Duration,
    /// How long a node that is to stop only says so in its health checks before it begins.
    pub(crate) shutdown_delay: Duration,
    /// The public port.
    pub proxy: Proxy,
    /// The other nodes.
    pub cluster: Cluster,
    /// The engine that keeps the database.
    pub litefs: Litefs,
    /// Where the databases' history is kept, if anywhere.
    pub backup: Option<Backup>,
    /// The application.
    pub app: App,
    /// What runs beside it.
    pub services: Vec<Service>,
    /// The admin port.
    pub admin: Admin,
    /// What is logged.
    pub log: Log,
}

/// A configuration file: a tree, not yet checked.
#[derive(Debug)]
pub(crate) struct Source {
    /// The file as the user named it.
    pub(crate) file: String,
    root: Node,
}

/// Loads and checks the named file, or else `./litepilot.yml`, or else `/etc/litepilot.yml`, with the
/// variables of the environment.
///
/// # Errors
///
/// Every problem found, in the order of the file.
pub(crate) fn load(path: Option<&Path>) -> Result<Config, Vec<Problem>> {
    Source::open(path)?.check(&environment)
}

/// A variable of the environment; one that is not UTF-8 counts as not set.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Source {
    /// Reads and parses a file, or the first that exists where one is looked for.
    ///
    /// # Errors
    ///
    /// When there is none, or it cannot be read or parsed.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Vec<Problem>> {
        let path = match path {
            Some(path) => path,
            None => find().ok_or_else(|| {
                let message = format!(
                    "there is no configuration: write {}, or name a file with -c FILE",
                    PLACES.join(" or ")
                );
                vec![Problem::new(PLACES[0], Place::START, message)]
            })?,
        };
        let file = path.display().to_string();
        let text = yaml::read(path).map_err(|error| {
            let message = format!("cannot be read: {error}: name a readable file with -c FILE");
            vec![Problem::new(&file, Place::START, message)]
        })?;
        Self::parse(&file, &text, &environment)
    }

    /// Parses the text of a file.
    ///
    /// # Errors
    ///
    /// When it is not YAML within bounds.
    pub(crate) fn parse(
        file: &str,
        text: &[u8],
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<Problem>> {
        Ok(Self { file: file.to_owned(), root: yaml::parse(file, text, env)? })
    }

    /// Checks every key.
    ///
    /// # Errors
    ///
    /// Every problem found, in the order of the file.
    pub(crate) fn check(
        &self,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Config, Vec<Problem>> {
        let reader = Reader::new(&self.file);
        let config = reader.root(&self.root, |root| read(root, env));
        let mut problems = reader.into_problems();
        for (key, message) in config.iter().flat_map(conflicts::find) {
            problems.push(Problem::new(&self.file, self.place(key), format!("{key}: {message}")));
        }
        problems.sort();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(problems),
        }
    }

    /// The keys whose values are others in `newer`.
    pub(crate) fn changed_in(&self, newer: &Self) -> Vec<String> {
        yaml::diff::keys(&self.root, &newer.root)
    }

    /// Where the value of a key like `proxy.tls.cert` stands, or as much of it as is there.
    pub(crate) fn place(&self, key: &str) -> Place {
        let mut node = &self.root;
        for name in key.split('.') {
            let Value::Map(entries) = &node.value else { break };
            let Some((_, value)) = entries.iter().find(|(key, _)| key.text == name) else { break };
            node = value;
        }
        node.place
    }
}

impl Config {
    /// Whether this node votes but holds no data and runs no proxy.
    pub(crate) fn is_witness(&self) -> bool {
        self.cluster.witnesses.contains(&self.node)
    }

    /// Parses and checks the text of a file. `env` gives the values of variables.
    ///
    /// # Errors
    ///
    /// Every problem found, in the order of the file.
    pub fn from_yaml(
        file: &str,
        text: &[u8],
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<Problem>> {
        Source::parse(file, text, env)?.check(env)
    }
}

/// The first configuration that exists. One that exists but cannot be read is not passed over.
pub(crate) fn find() -> Option<&'static Path> {
    PLACES.iter().map(Path::new).find(|path| path.symlink_metadata().is_ok())
}

fn read(root: &Section<'_>, env: &dyn Fn(&str) -> Option<String>) -> Option<Config> {
    let node = read_node(root, env);
    let data_dir = root.path("data_dir").unwrap_or_else(|| DATA_DIR.into());
    let shutdown_timeout =
        root.get("shutdown_timeout", value::duration).unwrap_or(SHUTDOWN_TIMEOUT);
    let shutdown_delay =
        root.get("shutdown_delay", value::duration_or_zero).unwrap_or(SHUTDOWN_DELAY);
    // Read before `cluster`, which depends on the engine; problems are sorted by place anyway.
    let litefs = root.section("litefs", litefs::read);
    let cluster =
        root.section("cluster", |section| cluster::read(section, node.as_ref(), litefs.engine));
    let witness = cluster.as_ref().zip(node.as_ref()).is_some_and(|(c, n)| c.witnesses.contains(n));
    let proxy = root.section("proxy", |section| proxy::read(section, witness));
    let backup = root.optional("backup", |section| backup::read(section, litefs.engine));
    let app = root.section("app", app::read);
    let services = app::read_services(root);
    let admin = root.section("admin", admin::read);
    let log = root.section("log", log::read);
    Some(Config {
        node: node?,
        data_dir,
        shutdown_timeout,
        shutdown_delay,
        proxy: proxy?,
        cluster: cluster?,
        litefs,
        backup,
        app,
        services,
        admin,
        log,
    })
}

/// This node's name: as written, or from the environment, or the host name.
fn read_node(root: &Section<'_>, env: &dyn Fn(&str) -> Option<String>) -> Option<NodeId> {
    if root.is_given("node") {
        return root.get("node", cluster::node_id);
    }
    let variable = |name: &&str| Some((format!("${name}"), env(name).filter(|v| !v.is_empty())?));
    let (origin, name) = NODE_VARIABLES
        .iter()
        .find_map(variable)
        .unwrap_or_else(|| ("the host name".to_owned(), host_name()));
    match name.parse() {
        Ok(node) => Some(node),
        Err(error) => {
            root.wrong("node", format!("from {origin}: {error}; or write the key"));
            None
        }
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
