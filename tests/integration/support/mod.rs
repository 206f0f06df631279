//! What the tests share.

pub mod node;
pub mod python;
pub mod raw;
pub mod recorder;
pub mod stage;
pub mod visitor;
pub mod wire;
