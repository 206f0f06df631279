//! Builds one running node from a configuration. The only place that knows every part.
//!
//! A node has its data-plane threads ([`crate::proxy`]) and one control thread, on which everything
//! else runs: load on the data plane cannot delay it, and nothing that it does delays a request.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Signal;
use tokio::sync::watch;

use crate::admin::token;
use crate::cluster::Epoch;
use crate::config::Config;
use crate::files;
use crate::process::child::{self, ChildState};
use crate::process::service_manager::Sockets;
use crate::proxy::error_pages::ErrorPages;
use crate::rules::RuleSet;
use crate::shutdown::Urgency;
use crate::telemetry::events::Events;
use crate::yaml::Problem;

mod agreement;
mod app_judge;
mod backup;
mod certificates;
mod commands;
mod context;
mod control_thread;
mod disk;
mod edge;
mod elected;
mod engines;
mod epoch_position;
mod event_recorder;
mod first_start;
mod fixed;
mod hooks;
mod learning;
mod membership;
mod null_engine;
mod open_transactions;
mod peers;
mod permanent;
mod ports;
mod primary_file;
mod program_events;
mod programs;
pub(crate) mod recovery;
pub(crate) mod refusals;
mod reload;
mod replication;
mod single;
mod start;
mod status;
mod steering;
mod stop;
mod will;

use certificates::Certificates;
use control_thread::ControlThread;
use edge::EdgeCertificates;
use ports::{Addresses, Ports};
use reload::{Files, Reloadable};
use start::Start;

/// The epoch of a node on its own, which never ends.
const SINGLE_EPOCH: Epoch = Epoch(1);

pub(crate) use reload::KEYS as RELOADED;

/// A running node. Dropping it stops it at once.
pub struct Node {
    addresses: Addresses,
    urgency: watch::Sender<Urgency>,
    reloadable: Reloadable,
    app: Option<watch::Receiver<ChildState>>,
    events: Arc<Events>,
    control: Option<JoinHandle<()>>,
    /// Its sender goes when the control thread ends.
    alive: watch::Receiver<()>,
}

/// What no configuration can set.
#[derive(Clone, Debug, Default)]
pub struct Tuning {
    /// The `litepilot` that guards what this node starts ([`crate::process::guard`]): the program
    /// itself, if we run in it. `None`: what a killed node has started runs on.
    pub guard: Option<PathBuf>,
    /// Sockets that the service manager has opened.
    pub sockets: Sockets,
    /// LiteFS is a stand-in that mounts no file system. For tests.
    pub without_fuse: bool,
    /// The embedded engine of a replica applies what it receives this much later. For tests.
    pub apply_delay: Duration,
}

/// Why a node cannot start.
#[derive(Debug)]
pub enum StartError {
    /// The configuration or a rule file is bad.
    Config(Vec<Problem>),
    /// Something that the configuration names cannot be had; the text says what to do.
    Io(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(problems) => {
                let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
            Self::Io(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for StartError {}

impl Node {
    /// Starts a node. When this returns its ports are open.
    ///
    /// # Errors
    ///
    /// When a port, a directory or a file that the configuration names cannot be had.
    pub fn start(config: Config) -> Result<Self, StartError> {
        Self::start_with(config, Tuning::default())
    }

    /// Starts a node that behaves a little differently.
    ///
    /// # Errors
    ///
    /// See [`Node::start`].
    pub fn start_with(config: Config, tuning: Tuning) -> Result<Self, StartError> {
        let rules = RuleSet::load(&config.proxy.rules).map_err(StartError::Config)?;
        check_and_log(&config, &rules)?;
        let error_pages =
            ErrorPages::load(&config.proxy.error_pages).map_err(StartError::Config)?;
        let certificates = Certificates::load(&config).map_err(StartError::Config)?.map(Arc::new);
        let edge = EdgeCertificates::load(&config).map_err(StartError::Config)?.map(Arc::new);
        make_data_dir(&config)?;
        let token =
            token::load_or_create(&config).map_err(|why| StartError::Io(why.to_string()))?;
        let ports = Ports::bind(&config, &tuning.sockets)?;
        let addresses = ports.addresses(&config)?;
        announce(&config, addresses, edge.is_some());
        let events = Arc::new(Events::default());
        let (urgency, stopping) = watch::channel(Urgency::None);
        let (rules, rules_in_force) = watch::channel(Arc::new(rules));
        let (error_pages, pages_in_force) = watch::channel(Arc::new(error_pages));
        let reloadable = Reloadable {
            files: Mutex::new(Files::of(&config)),
            rules,
            error_pages,
            certificates: certificates.clone(),
            edge: edge.clone(),
            events: events.clone(),
        };
        let start = Start {
            config,
            tuning,
            token,
            events: events.clone(),
            rules: rules_in_force,
            error_pages: pages_in_force,
            certificates,
            edge,
            stopping,
        };
        let ControlThread { thread, alive, app } = ControlThread::spawn(start, ports)
            .map_err(|why| StartError::Io(format!("cannot start: {why}")))?;
        Ok(Self { addresses, urgency, reloadable, app, events, control: Some(thread), alive })
    }

    /// Where clients connect; on a witness nobody listens there.
    pub fn proxy_address(&self) -> SocketAddr {
        self.addresses.proxy
    }

    /// Where the admin port is.
    pub fn admin_address(&self) -> SocketAddr {
        self.addresses.admin
    }

    /// What happened lately.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Loads rules, error pages and certificates anew. What is bad is refused and logged, and the old one
    /// stays.
    pub fn reload(&self) {
        self.reloadable.reload();
    }

    /// Likewise, with the files that this configuration names. Nothing else of it takes effect.
    pub(crate) fn reload_as(&self, config: &Config) {
        self.reloadable.adopt(config);
        self.reloadable.reload();
    }

    /// Says that a configuration was refused, and why.
    pub(crate) fn refuse(&self, problems: &[Problem]) {
        self.reloadable.tell("configuration", Err(problems.to_vec()));
    }

    /// Passes a signal on to the application, if it is ours and runs.
    pub(crate) fn signal_app(&self, signal: Signal) {
        if let Some(app) = &self.app {
            child::signal(app, signal);
        }
    }

    /// Begins to stop: hand off, drain, stop the application. Called again, it gets more urgent.
    pub fn stop(&self, urgency: Urgency) {
        self.urgency.send_if_modified(|now| {
            let more = urgency > *now;
            if more {
                *now = urgency;
            }
            more
        });
    }

    /// Returns once the node has stopped.
    pub fn wait(mut self) {
        self.join();
    }

    /// Ready once the node has stopped.
    pub async fn stopped(&self) {
        while self.alive.clone().changed().await.is_ok() {}
    }

    fn join(&mut self) {
        if self.control.take().is_some_and(|control| control.join().is_err()) {
            tracing::error!("the control thread had panicked");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop(Urgency::AtOnce);
        self.join();
    }
}

fn check_and_log(config: &Config, rules: &RuleSet) -> Result<(), StartError> {
    refusals::check(config).map_err(StartError::Io)?;
    for surprise in refusals::surprises(config, rules) {
        tracing::warn!("{surprise}");
    }
    Ok(())
}

fn make_data_dir(config: &Config) -> Result<(), StartError> {
    let dir = &config.data_dir;
    std::fs::create_dir_all(dir).map_err(|why| {
        let why = files::at(dir, why);
        StartError::Io(format!(
            "cannot make data_dir {why}. It has to be a directory that this user may write to"
        ))
    })
}

fn announce(config: &Config, at: Addresses, tls: bool) {
    let Addresses { proxy, admin } = at;
    match config.is_witness() {
        false => tracing::info!(
            "node {} listens at {}://{proxy}, admin port at {admin}",
            config.node,
            if tls { "https" } else { "http" },
        ),
        true => tracing::info!(
            "node {} is a witness: it votes and serves nothing, admin port at {admin}",
            config.node,
        ),
    }
}
