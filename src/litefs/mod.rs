//! The engine over LiteFS, a file system that replicates SQLite.
//!
//! An unmodified LiteFS gets a rendered configuration, is started and watched as our child, and takes its
//! lease from [`crate::lease`]. What it does was observed, not read: where its documents say otherwise,
//! the comments here are right.
//!
//! | module | subject |
//! | --- | --- |
//! | [`engine`], [`tenure`], [`follow`] | [`crate::engine::Engine`] over the parts below: its roles and how they change |
//! | [`lease_state`], [`agreement`] | what its lease says; what the cluster has agreed upon |
//! | [`databases`], [`announced`] | several databases as one number, and who has reached it. Pure |
//! | [`lineage`], [`joining`], [`origins`] | what of a copy diverges; when it counts as one of its primary's, and what it is worth before. Pure |
//! | [`sole`] | until when there was one database. Pure |
//! | [`content`] | what this copy holds: read, heard of, and told others |
//! | [`store`], [`reached_file`], [`on_disk`] | what is remembered across restarts |
//! | [`watch`], [`events`], [`position`], [`api`] | what it is seen to be; what it tells, and answers |
//! | [`readers`], [`pulse`] | open transactions that hold it up; whether it answers |
//! | [`fence`], [`hold`] | keeping writers out while it changes its role |
//! | [`tunnel`], [`positions_link`], [`told`] | the way to the primary's LiteFS; what its stream does not carry; for whom it is |
//! | [`supervise`], [`output`], [`version`] | it as our child: its output, which one it is |
//! | [`preflight`], [`mount`] | what keeps it from starting; its mount, dead or alive |
//! | [`render`] | the `litefs.yml` that it runs with |

pub mod agreement;
pub mod announced;
pub mod api;
mod bare_mount;
mod content;
pub mod databases;
pub mod engine;
pub(crate) mod events;
pub mod fence;
mod follow;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
pub(crate) mod hold;
pub mod joining;
pub(crate) mod lease_state;
pub mod lineage;
#[cfg(test)]
mod model;
pub mod mount;
mod on_disk;
pub(crate) mod origins;
pub(crate) mod output;
pub mod position;
pub(crate) mod positions_link;
pub mod preflight;
mod pulse;
pub(crate) mod reached_file;
mod readers;
pub mod render;
pub mod sole;
pub mod store;
pub mod supervise;
mod tenure;
mod told;
pub(crate) mod tunnel;
pub(crate) mod version;
pub(crate) mod watch;
