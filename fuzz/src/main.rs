//! One program for all targets, since each would link all of Litepilot: `TARGET` names the one.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use litepilot::fuzz::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let named = std::env::var("TARGET").unwrap_or_default();
    let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    let found = TARGETS.iter().find(|(name, _)| *name == named).map(|(_, target)| *target);
    found.unwrap_or_else(|| panic!("TARGET is one of: {}", names.join(", ")))
});

fuzz_target!(|data: &[u8]| TARGET(data));
