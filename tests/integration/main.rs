//! Whole nodes and real applications, in one test binary.

mod apps_selftest;
mod support;
