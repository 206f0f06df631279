//! The engine over LiteFS, a file system that replicates SQLite.
//!
//! An unmodified LiteFS gets a rendered configuration, is started and watched as our child, and takes its
//! lease from [`crate::lease`]. What it does was observed, not read: where its documents say otherwise,
//! the comments here are right.
//!
//! | module | subject |
//! | --- | --- |
//! | [`render`] | the `litefs.yml` that it runs with |
//! | [`supervise`], [`output`], [`version`] | it as our child: its output, which one it is |
//! | [`preflight`], [`mount`] | what keeps it from starting; its mount, dead or alive |
//! | [`api`], [`events`], [`position`] | what it is asked, what it tells, how far its database is |
//! | [`desk`], [`cluster`] | what its lease says; the cluster behind that |
//! | [`fence`] | keeping writers out while it changes its role |

pub mod api;
pub mod cluster;
pub mod desk;
pub mod events;
pub mod fence;
pub mod mount;
pub mod output;
pub mod position;
pub mod preflight;
pub mod render;
pub mod supervise;
pub mod version;
