//! Which node listens where, and the configuration that says so. Pure.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::cluster::NodeId;
use crate::config::Target;

/// The admin port of a node is this far from its public one.
pub(crate) const ADMIN_OFFSET: u16 = 1000;
/// More nodes than anybody wants to look at on one machine.
pub(crate) const MOST_NODES: u16 = 15;
/// The highest `--port`, so that every node's admin port is one.
pub(crate) const HIGHEST_PORT: u16 = u16::MAX - ADMIN_OFFSET - MOST_NODES + 1;

/// A node to be started.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) node: NodeId,
    pub(crate) proxy: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// Where the other nodes connect.
    pub(crate) peer: SocketAddr,
    /// Everything that is its own: configuration, log, `data_dir`.
    pub(crate) dir: PathBuf,
    /// What it is in front of.
    pub(crate) app: App,
    /// What keeps its database.
    pub(crate) engine: Engine,
}

/// What keeps the databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Embedded,
    Litefs {
        binary: PathBuf,
        http: SocketAddr,
        /// Where it gets its lease.
        lease: SocketAddr,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum App {
    /// The guestbook of this program, which is to be found there.
    Guestbook(PathBuf),
    /// One that already runs.
    Running {
        target: Target,
        /// The directory of its database.
        mount: PathBuf,
        /// The database in it.
        db: PathBuf,
    },
}

/// A path that cannot be written into a configuration.
#[derive(Debug)]
pub(crate) struct NotUtf8(PathBuf);

impl fmt::Display for NotUtf8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not UTF-8: use a path that is", self.0.display())
    }
}

impl std::error::Error for NotUtf8 {}

/// The name of the n-th node, from 1.
pub(crate) fn name(number: u16) -> String {
    format!("node-{number}")
}

impl Plan {
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join("litepilot.yml")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("node.log")
    }

    /// The directory of its database.
    pub(crate) fn mount(&self) -> PathBuf {
        match &self.app {
            App::Guestbook(_) => self.dir.join("db"),
            App::Running { mount, .. } => mount.clone(),
        }
    }

    /// The text of its configuration, as one of `nodes`.
    ///
    /// # Errors
    ///
    /// When a path cannot be written there.
    pub(crate) fn yaml(&self, nodes: &[Plan]) -> Result<String, NotUtf8> {
        let peers: Vec<_> =
            nodes.iter().map(|plan| format!("{}: \"{}\"", plan.node, plan.peer)).collect();
        let (target, db, app) = self.app_yaml()?;
        // Short times: nobody waits long for a demo to end.
        Ok(format!(
            "node: {node}\n\
             data_dir: {dir}\n\
             shutdown_timeout: 5s\n\
             proxy: {{listen: \"{proxy}\", target: {target}, db: {db}}}\n\
             cluster:\n  \
               listen: \"{peer}\"\n  \
               peers: {{{peers}}}\n\
             litefs: {{{engine}, mount: {mount}}}\n\
             {app}\
             admin: {{listen: \"{admin}\"}}\n",
            node = self.node,
            dir = quoted(&self.dir)?,
            proxy = self.proxy,
            peer = self.peer,
            peers = peers.join(", "),
            engine = self.engine_yaml()?,
            mount = quoted(&self.mount())?,
            admin = self.admin,
        ))
    }

    fn engine_yaml(&self) -> Result<String, NotUtf8> {
        match &self.engine {
            Engine::Embedded => Ok("engine: embedded".to_owned()),
            Engine::Litefs { binary, http, lease } => Ok(format!(
                "engine: litefs, binary: {}, data: {}, http: \"{http}\", lease_listen: \"{lease}\"",
                quoted(binary)?,
                quoted(&self.dir.join("litefs"))?,
            )),
        }
    }

    /// `proxy.target`, `proxy.db` and the section `app`.
    fn app_yaml(&self) -> Result<(String, String, String), NotUtf8> {
        let program = match &self.app {
            App::Guestbook(program) => program,
            App::Running { target: Target::Unix(socket), db, .. } => {
                return Ok((socket_target(socket)?, quoted(db)?, String::new()));
            }
            App::Running { target: Target::Tcp(address), db, .. } => {
                return Ok((format!("\"{address}\""), quoted(db)?, String::new()));
            }
        };
        let socket = self.dir.join("app.sock");
        let db = Path::new("guestbook.sqlite3");
        let app = format!(
            "app:\n  command: [{program}, demo-app, --socket, {socket}, --db, {path}]\n  \
             health: /health\n  grace: 3s\n",
            program = quoted(program)?,
            socket = quoted(&socket)?,
            path = quoted(&self.mount().join(db))?,
        );
        Ok((socket_target(&socket)?, quoted(db)?, app))
    }
}

fn socket_target(path: &Path) -> Result<String, NotUtf8> {
    let mut target = PathBuf::from("unix:").into_os_string();
    target.push(path);
    quoted(Path::new(&target))
}

/// A path in YAML's double quotes, which take JSON's; `${` is no variable there.
fn quoted(path: &Path) -> Result<String, NotUtf8> {
    let text = path.to_str().ok_or_else(|| NotUtf8(path.to_owned()))?;
    Ok(serde_json::Value::from(text.replace("${", "$${")).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Election, EngineKind};

    fn plans(app: impl Fn(u16) -> App) -> Vec<Plan> {
        let plan = |i: u16| Plan {
            node: name(i).parse().unwrap(),
            proxy: ([127, 0, 0, 1], 8080 + i - 1).into(),
            admin: ([127, 0, 0, 1], 9080 + i - 1).into(),
            peer: ([127, 0, 0, 1], 40_000 + i).into(),
            dir: PathBuf::from(format!("/tmp/od'd \"${{x}}\": #/node-{i}")),
            app: app(i),
            engine: Engine::Embedded,
        };
        (1..=3).map(plan).collect()
    }

    fn read(plan: &Plan, all: &[Plan]) -> Config {
        let yaml = plan.yaml(all).unwrap();
        Config::from_yaml("litepilot.yml", yaml.as_bytes(), &|_| None)
            .unwrap_or_else(|problems| panic!("{yaml}\n{problems:?}"))
    }

    #[test]
    fn a_guestbook_node_runs_this_program_whatever_the_directory_is_called() {
        let plans = plans(|_| App::Guestbook("/opt/${a}/litepilot".into()));
        let config = read(&plans[1], &plans);
        assert_eq!(config.node.as_str(), "node-2");
        assert_eq!(config.data_dir, plans[1].dir);
        assert_eq!((config.proxy.listen, config.admin.listen), (plans[1].proxy, plans[1].admin));
        assert_eq!(config.cluster.election, Election::Raft);
        assert_eq!(config.cluster.listen, plans[1].peer);
        assert_eq!(config.cluster.peers.len(), 3);
        assert_eq!(config.litefs.engine, EngineKind::Embedded);
        let socket = plans[1].dir.join("app.sock");
        assert_eq!(config.proxy.target, Target::Unix(socket.clone()));
        let db = config.litefs.mount.join(&config.proxy.db);
        let command =
            ["/opt/${a}/litepilot", "demo-app", "--socket", socket.to_str().unwrap(), "--db"];
        assert_eq!(config.app.command[..5], command);
        assert_eq!(config.app.command[5..], [db.to_str().unwrap()]);
    }

    #[test]
    fn a_running_application_is_left_alone() {
        let plans = plans(|i| App::Running {
            target: format!("127.0.0.1:{}", 8000 + i).parse().unwrap(),
            mount: format!("/srv/{i}").into(),
            db: "app.db".into(),
        });
        let config = read(&plans[2], &plans);
        assert_eq!(config.proxy.target.to_string(), "127.0.0.1:8003");
        assert_eq!((config.litefs.mount, config.proxy.db), ("/srv/3".into(), "app.db".into()));
        assert!(config.app.command.is_empty());
    }

    #[test]
    fn a_node_with_litefs_has_its_own_directory_and_ports_for_it() {
        let mut plans = plans(|_| App::Guestbook("/opt/litepilot".into()));
        plans[0].engine = Engine::Litefs {
            binary: "/opt/a b/litefs".into(),
            http: ([127, 0, 0, 1], 40_100).into(),
            lease: ([127, 0, 0, 1], 40_200).into(),
        };
        let litefs = read(&plans[0], &plans).litefs;
        assert_eq!((litefs.engine, litefs.binary), (EngineKind::Litefs, "/opt/a b/litefs".into()));
        assert_eq!((litefs.http.port(), litefs.lease_listen.port()), (40_100, 40_200));
        assert_eq!(litefs.data, plans[0].dir.join("litefs"));
        assert_eq!(litefs.mount, plans[0].dir.join("db"));
    }

    #[test]
    fn the_highest_port_is_the_last_that_fits() {
        assert_eq!(HIGHEST_PORT + MOST_NODES - 1 + ADMIN_OFFSET, u16::MAX);
    }
}
