//! Where backups are kept. Whole files in and out, by names that are written once: nothing that is kept is
//! ever replaced, whoever else may be writing.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::engine::BoxFuture;

#[cfg(feature = "cloud")]
mod bucket;
mod directory;
#[cfg(feature = "cloud")]
mod explain;
mod place;

pub(crate) use directory::Directory;
pub(crate) use place::{Place, Scheme};

/// Something that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) size: u64,
    /// When it was written, by the store's clock, in milliseconds since 1970.
    pub(crate) modified: u64,
}

/// Why a store did not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreError {
    /// There is no such thing.
    NotThere(String),
    /// The store does not let us.
    Refused(String),
    /// The store does not take requests of our time.
    #[cfg_attr(not(feature = "cloud"), allow(dead_code, reason = "buckets alone look"))]
    ClockOff(String),
    /// Away, full, broken: it may be otherwise in a moment.
    Failed(String),
}

/// Whether it was new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    Made,
    /// There is one of that name already, which stays.
    Exists,
}

pub(crate) trait Store: Send + Sync {
    /// Keeps the content of a file. It is safe when this returns.
    fn put<'a>(&'a self, key: &'a str, from: &'a Path) -> BoxFuture<'a, Result<Put, StoreError>>;

    /// Writes what is kept into a file, which is made or replaced.
    fn get<'a>(&'a self, key: &'a str, to: &'a Path) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Everything whose key begins so.
    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Entry>, StoreError>>;

    /// One that is not there is no error.
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), StoreError>>;
}

/// The store at a place.
///
/// # Errors
///
/// When this build cannot reach it, or what it takes is not in the environment.
pub(crate) fn open(place: &Place) -> Result<Arc<dyn Store>, StoreError> {
    match &place.scheme {
        Scheme::File(path) => Ok(Arc::new(Directory::new(path.clone()))),
        #[cfg(feature = "cloud")]
        Scheme::Bucket => Ok(Arc::new(bucket::Bucket::open(place)?)),
        #[cfg(not(feature = "cloud"))]
        Scheme::Bucket => Err(StoreError::Refused(NO_CLOUD.to_owned())),
    }
}

/// Why buckets cannot be used, if so.
pub(crate) const NO_CLOUD: &str = "this build knows directories only: install the wheel or the image, or build \
     with `cargo install --locked --profile dist --features aws-lc-rs,cloud --path .`";

/// Whether this build can reach buckets.
pub(crate) fn has_cloud() -> bool {
    cfg!(feature = "cloud")
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotThere(what) => write!(f, "{what} is not there"),
            Self::Refused(why) | Self::ClockOff(why) | Self::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for StoreError {}
