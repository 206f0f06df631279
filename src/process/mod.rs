//! Child processes: spawned in a group of their own, watched over, ended with everything they
//! started; and what PID 1 owes its orphans.
//!
//! | module | subject |
//! | --- | --- |
//! | [`child`], `supervisor` | one program kept running: restarts, back-off, resting, stopping, its published state |
//! | [`app`], [`service`] | the application, and what runs beside it, as such children |
//! | [`hints`] | what their output tells us to tell users |
//! | [`hook`] | a program that runs once, within a time |
//! | [`guard`] | a process between us and a program, which kills it when we cannot |
//! | [`health`], [`probe`] | whether the application answers |
//! | [`openers`] | which processes have a file open |
//! | [`init`] | our duties when we are PID 1 |
//! | [`service_manager`] | what systemd hands over and is told |
//! | [`file_limit`] | how many files we may have open, and what we start |
//! | [`spawn`], [`running`], [`user`], [`group`], [`output`], `traceback`, [`backoff`] | the parts of the above |
//!
//! Nothing here knows requests, nodes or elections.

pub mod app;
pub mod backoff;
pub mod child;
pub(crate) mod file_limit;
pub(crate) mod group;
pub mod guard;
pub mod health;
pub(crate) mod hints;
pub mod hook;
pub mod init;
pub mod openers;
pub mod output;
pub(crate) mod probe;
pub(crate) mod running;
pub(crate) mod service;
pub mod service_manager;
pub mod spawn;
mod supervisor;
mod traceback;
pub(crate) mod user;
