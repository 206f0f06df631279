//! The data plane.

pub mod activity;
pub mod body;
pub mod client_io;
pub mod dial;
pub mod headers;
pub mod problem;
pub mod request;
pub mod route;
pub mod token;
pub mod upstream;
