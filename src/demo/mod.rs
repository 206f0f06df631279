//! `litepilot demo`: a whole cluster on this machine, each node a process of its own, and the
//! guestbook that it serves.
//!
//! | module | subject |
//! | --- | --- |
//! | [`plan`] | which node listens where, and its configuration. Pure |
//! | [`reserve`] | ports that nobody else gets while the cluster runs |
//! | [`scratch`] | the temporary directory with everything the nodes write |
//! | [`cluster`] | the nodes' processes: started, watched, ended |
//! | [`ready`] | whether the cluster serves |
//! | [`guestbook`] | the application |
//!
//! # What always holds
//!
//! * When the demo ends, told to or not, no process that it started goes on.
//! * When it is told to end, its directory is gone too.

pub(crate) mod cluster;
pub(crate) mod guestbook;
pub(crate) mod plan;
pub(crate) mod ready;
pub mod reserve;
pub(crate) mod scratch;
