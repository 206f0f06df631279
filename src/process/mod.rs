//! Child processes: spawned in a group of their own, watched over, ended with everything they
//! started; and what PID 1 owes its orphans.
//!
//! | module | subject |
//! | --- | --- |
//! | [`child`] | one program kept running: restarts, back-off, stopping, its published state |
//! | [`app`] | the application as such a child |
//! | [`hook`] | a program that runs once, within a time |
//! | [`guard`] | a process between us and a program, which kills it when we cannot |
//! | [`health`], [`probe`] | whether the application answers |
//! | [`openers`] | which processes have a file open |
//! | [`init`] | our duties when we are PID 1 |
//! | [`service_manager`] | what systemd hands over and is told |
//! | [`file_limit`] | how many files we may have open, and what we start |
//! | [`spawn`], [`running`], [`user`], [`group`], [`output`], [`backoff`] | the parts of the above |
//!
//! Nothing here knows requests, nodes or elections.

pub mod app;
pub mod backoff;
pub mod child;
pub(crate) mod file_limit;
pub(crate) mod group;
pub mod guard;
pub mod health;
pub mod hook;
pub mod init;
pub mod openers;
pub mod output;
pub(crate) mod probe;
pub(crate) mod running;
pub mod service_manager;
pub mod spawn;
pub(crate) mod user;
