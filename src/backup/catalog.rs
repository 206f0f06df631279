//! A store as a whole: whose backups it holds, and what of them.

use serde::{Deserialize, Serialize};

use super::history::{self, Catalog};
use super::object::{CLUSTER, DATABASES, Object, Stored};
use super::refusal::Refusal;
use super::spool::Spool;
use super::store::{Put, Store, StoreError};
use crate::files::on_disk;

/// Of what `cluster.json` holds.
const FORMAT: u32 = 1;
/// Bytes of it, at most.
const MAX_CLUSTER: u64 = 4096;

/// `cluster.json`
#[derive(Debug, Serialize, Deserialize)]
struct Owner {
    format: u32,
    /// LiteFS' ID of the cluster.
    cluster: String,
}

/// Makes the store this cluster's, if it is nobody's.
///
/// # Errors
///
/// When it is another's, or does not answer.
pub(crate) async fn claim(
    store: &dyn Store,
    spool: &Spool,
    place: &str,
    cluster: &str,
) -> Result<(), Refusal> {
    let theirs = match owner(store, spool).await? {
        Some(theirs) => theirs,
        None => {
            let file = spool.file()?;
            let ours = Owner { format: FORMAT, cluster: cluster.to_owned() };
            let text = serde_json::to_vec(&ours).map_err(std::io::Error::other)?;
            tokio::fs::write(file.path(), text).await?;
            match store.put(CLUSTER, file.path()).await? {
                Put::Made => return Ok(()),
                // Another node was faster.
                Put::Exists => owner(store, spool).await?.ok_or_else(comes_and_goes)?,
            }
        }
    };
    match theirs == cluster {
        true => Ok(()),
        false => {
            Err(Refusal::OtherCluster { place: place.to_owned(), theirs, ours: cluster.to_owned() })
        }
    }
}

fn comes_and_goes() -> Refusal {
    Refusal::Store(StoreError::Failed(format!("{CLUSTER} comes and goes")))
}

/// Whose backups these are.
///
/// # Errors
///
/// When the store does not answer, or holds what a later version has written.
pub(crate) async fn owner(store: &dyn Store, spool: &Spool) -> Result<Option<String>, Refusal> {
    let file = spool.file()?;
    match store.get(CLUSTER, file.path()).await {
        Err(StoreError::NotThere(_)) => return Ok(None),
        got => got?,
    }
    let fits = tokio::fs::metadata(file.path()).await?.len() <= MAX_CLUSTER;
    let text = if fits { tokio::fs::read(file.path()).await? } else { Vec::new() };
    let owner: Owner = serde_json::from_slice(&text).map_err(|why| {
        Refusal::Store(StoreError::Refused(format!(
            "{CLUSTER} is none of ours ({why}): choose another place for backups"
        )))
    })?;
    match owner.format {
        FORMAT => Ok(Some(owner.cluster)),
        later => Err(Refusal::Store(StoreError::Refused(format!(
            "{CLUSTER} is of a later version of Litepilot (format {later}): update this one"
        )))),
    }
}

/// Everything that is kept.
///
/// # Errors
///
/// When the store does not answer.
pub(crate) async fn list(store: &dyn Store) -> Result<Catalog, StoreError> {
    let entries = store.list(DATABASES).await?;
    let sorted = on_disk(move || {
        history::catalog(entries.into_iter().filter_map(|entry| {
            let object = Object::parse(&entry.key)?;
            Some(Stored { object, size: entry.size, modified: entry.modified })
        }))
    });
    sorted.await.map_err(|why| StoreError::Failed(why.to_string()))
}
