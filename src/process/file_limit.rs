//! How many files a process may have open. We need many, and what we start gets what we were given.

use std::sync::OnceLock;

use rustix::process::{Resource, getrlimit, setrlimit};

/// As we were started.
static GIVEN: OnceLock<Option<u64>> = OnceLock::new();

/// Each client may need two files; the usual soft limit of 1,024 would end that early. Some programs
/// go over all numbers up to the limit, or use `select(2)`: hence [`given`] for them.
pub(crate) fn raise() {
    let mut limit = getrlimit(Resource::Nofile);
    GIVEN.get_or_init(|| limit.current);
    limit.current = limit.maximum;
    if let Err(why) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%why, "cannot raise the limit of open files");
    }
}

/// The soft limit before it was raised; `None` if it was not, or there was none.
pub(crate) fn given() -> Option<u64> {
    GIVEN.get().copied().flatten()
}

/// Sets the soft limit of this process, and of what it starts.
pub(crate) fn set(files: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(limit.maximum.map_or(files, |most| files.min(most)));
    // Whoever starts with more is no worse off.
    let _ = setrlimit(Resource::Nofile, limit);
}
