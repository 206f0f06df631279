//! Litepilot: a reverse proxy in front of each node of a SQLite web application.
//!
//! # The map of this house
//!
//! How a cluster elects, and what that promises, is in `docs/election.md`; how LiteFS is driven in
//! `docs/litefs.md`; the whole in `docs/architecture.md`.
//!
//! | module | subject |
//! | --- | --- |
//! | [`cli`] | one short file per subcommand |
//! | [`node`] | builds one running node from a configuration; the only place that knows every part |
//! | [`config`], [`yaml`] | the one file that users write: tree with places → checked [`config::Config`] |
//! | [`rules`] | a request's class, and rule files |
//! | [`guarantee`] | what a client may count on: levels of consistency, acknowledgements |
//! | [`proxy`] | the data plane: one runtime per core, the life of a request, its problems |
//! | [`cluster`], [`txid`], [`position`] | plain data: node names, epochs, the view of the cluster, transaction ids; waiting for a position |
//! | [`claim`], [`acks`] | a primary's right to take writes; who holds what it has committed |
//! | [`election`] | `election: raft`: who is primary, by the embedded Raft and leases (`docs/election.md`) |
//! | [`fixed`] | `election: static`: the view when the primary never changes |
//! | [`peer`], [`net`] | the one port between nodes, gossip; dialing by name |
//! | [`tls`] | who does TLS' cryptography; certificates and keys as files, and how they are made |
//! | [`engine`] | what keeps the database: the interface |
//! | [`backup`] | continuous backup of what LiteFS replicates, and restoring it (`docs/backups.md`) |
//! | [`litefs`], [`lease`] | the engine over LiteFS, and the Consul lease by which LiteFS learns its role (`docs/litefs.md`) |
//! | [`embedded`] | the engine over plain directories, for demos and tests |
//! | [`copy`] | what the engines share: the state file, whether a copy diverges, copies set aside |
//! | [`last_will`] | what tells the others that this node's process has died |
//! | [`process`] | the application and its services as our children, the guard that kills it when we cannot, its health, PID 1 |
//! | [`admin`], [`status`] | the admin port: health, status, metrics, and what operators ask for |
//! | [`control`] | steering a cluster: the interface between who asks and who elects |
//! | [`telemetry`] | logs, metrics, events |
//! | [`demo`] | a whole cluster on this machine, and the guestbook that it serves |
//! | [`files`], [`secret`], [`html`], [`lines`] | files replaced whole; secrets in files; text in HTML; bounded lines |
//! | [`publish`], [`accept`], [`crowd`], [`local_http`] | telling others of a value that has changed; accepting connections within a bound, and who gives way there; ports for LiteFS |
//! | [`shutdown`] | phases of stopping, in order, with a deadline |
//!
//! # What always holds
//!
//! * A write reaches an application at most once, but for replay: it asks for that, or has failed a read
//!   on a replica, where it cannot have written.
//! * A 2xx comes from an application, never from us in its stead. After a write it is passed on only
//!   while this node is still the primary of the epoch in which the application was asked.
//! * A token that a client was given is never satisfied by a copy that lacks its write.
//! * What a node starts dies with it, however the node ends.
//! * A bad configuration, certificate or rule file never replaces a good one.
//! * Whatever the network sends: no panic, no unbounded memory, no endless wait.
//!
//! # Who may know whom
//!
//! * Only [`node`] sees every part. [`cli`] starts a node or asks one through its admin port; [`demo`]
//!   knows its nodes only as processes with configurations and ports.
//! * [`proxy`] sees a [`cluster::ClusterView`], an [`engine::Engine`] and [`peer`]'s dialer, never who
//!   elects, and never which engine it is.
//! * [`config`] names rule files and bundled rules; [`rules`] knows nothing of [`config`].
//! * [`peer`] knows no protocol but its own gossip: [`node`] registers the others by name.
//! * Classifying a request, `proxy::route` and the health checks of [`admin`] are pure: no I/O, no
//!   clock.
//! * Load on the data plane does not delay the control thread, which runs everything else.

// A panic in a worker takes every connection of that worker with it.
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub(crate) mod accept;
pub mod acks;
pub mod admin;
pub(crate) mod backup;
pub mod claim;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod control;
pub(crate) mod copy;
pub(crate) mod crowd;
pub mod demo;
pub mod election;
pub mod embedded;
pub mod engine;
pub(crate) mod files;
pub(crate) mod fixed;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
pub mod guarantee;
pub(crate) mod html;
pub(crate) mod last_will;
pub mod lease;
pub(crate) mod lines;
pub mod litefs;
pub(crate) mod local_http;
pub(crate) mod net;
pub mod node;
pub mod peer;
pub mod position;
pub mod process;
pub mod proxy;
pub(crate) mod publish;
pub mod rules;
pub mod secret;
pub mod shutdown;
pub mod status;
pub mod telemetry;
pub mod tls;
pub mod txid;
pub mod yaml;

#[cfg(test)]
#[path = "../tests/support/relay.rs"]
mod relay;
