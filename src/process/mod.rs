//! Child processes: the application, its health, and what PID 1 owes its orphans.

pub mod app;
pub mod health;
pub mod init;
