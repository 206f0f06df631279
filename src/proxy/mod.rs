//! The data plane.

pub mod route;
