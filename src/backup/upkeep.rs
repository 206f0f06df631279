//! What is done with what is kept: old transactions become one, snapshots are made, what nobody needs is
//! removed. By the primary alone, of what it finds in the store; LiteFS and the application notice nothing.
//!
//! A file is removed only once what stands for it is kept, and nothing is replaced: so a deposed primary that
//! goes on for a moment does no harm.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::catalog;
use super::history::Generations;
use super::keeper::Keeper;
use super::merge::Merge;
use super::object::Object;
use super::plan::{self, Schedule, Step};
use super::refusal::Refusal;
use super::spool::{Spooled, room};
use super::store::Put;
use crate::cluster::{Epoch, Role};
use crate::files::on_disk;

/// After this node has become the primary, and between two times.
const FIRST: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(10 * 60);
/// Files that are made, and removed, at one time; the rest is for the next.
const MOST: usize = 64;
const MOST_REMOVED: usize = 4096;

/// Ends with the node.
pub(crate) async fn run(keeper: Arc<Keeper>, schedule: Schedule) {
    let mut view = keeper.view.clone();
    while view.wait_for(|view| view.role == Role::Primary).await.is_ok() {
        sleep(FIRST).await;
        while let Ok(epoch) = keeper.epoch() {
            let upkeep = Upkeep { keeper: &keeper, schedule, epoch };
            match upkeep.once().await {
                Ok(()) => keeper.progress.kept_up(None),
                Err(why) if why.is_usual() => {}
                Err(why) => keeper.progress.kept_up(Some(why.to_string())),
            }
            sleep(AGAIN).await;
        }
    }
}

pub(crate) struct Upkeep<'a> {
    pub(crate) keeper: &'a Keeper,
    pub(crate) schedule: Schedule,
    pub(crate) epoch: Epoch,
}

impl Upkeep<'_> {
    /// # Errors
    ///
    /// What did not work; all else was done.
    pub(crate) async fn once(&self) -> Result<(), Refusal> {
        if !self.keeper.owns(self.epoch).await {
            // It may be another cluster's.
            return Err(Refusal::NotPrimary);
        }
        let mut trouble = None;
        for db in catalog::list(&*self.keeper.store).await?.into_keys() {
            if let Err(why) = self.keep_up(&db).await {
                trouble.get_or_insert(why);
            }
        }
        trouble.map_or(Ok(()), Err)
    }

    async fn keep_up(&self, db: &str) -> Result<(), Refusal> {
        let expired = self.plan(db, |schedule, kept, now| schedule.expired(kept, now)).await?;
        for object in expired.iter().take(MOST_REMOVED) {
            self.remove(object).await?;
        }
        for _ in 0..MOST {
            match self.plan(db, |schedule, kept, now| schedule.next(kept, now)).await? {
                Step::Snapshot(files) => self.snapshot(db, &files).await?,
                Step::Merge(files) => {
                    self.make(&files).await?;
                    for file in &files {
                        self.remove(file).await?;
                    }
                }
                Step::Nothing => break,
            }
        }
        Ok(())
    }

    /// What is to be done with a database, as it is kept now. Of months that takes a while, which this thread
    /// does not have.
    async fn plan<T: Default + Send + 'static>(
        &self,
        db: &str,
        plan: fn(&Schedule, &Generations, u64) -> T,
    ) -> Result<T, Refusal> {
        let catalog = catalog::list(&*self.keeper.store).await?;
        let (schedule, db) = (self.schedule, db.to_owned());
        let planned = on_disk(move || {
            let now = plan::now(catalog.values().flat_map(|db| db.values().flatten()));
            catalog.get(&db).map(|generations| plan(&schedule, generations, now))
        });
        Ok(planned.await?.unwrap_or_default())
    }

    async fn snapshot(&self, db: &str, files: &[Object]) -> Result<(), Refusal> {
        let made = self.make(files).await;
        if let Err(Refusal::Damaged(_)) = &made {
            // Nothing after the damage can be restored: begin anew, with what LiteFS has.
            drop(self.keeper.never_restore(db).await);
        }
        made
    }

    /// One of several in a row.
    async fn make(&self, files: &[Object]) -> Result<(), Refusal> {
        let Some(last) = files.last() else { return Ok(()) };
        let keeper = self.keeper;
        let mut merge = Merge::new(keeper.spool.dir())?;
        for file in files {
            self.is_primary()?;
            merge = self.add(merge, file).await?;
        }
        let to = keeper.spool.file()?;
        let path = to.path().to_owned();
        let facts = on_disk(move || merge.write_ltx(File::create(path)?)).await??;
        self.is_primary()?;
        // Of the same epoch as the last: it is no news, and whoever else makes it makes the same.
        let made = Object::new(&last.db, last.generation, last.epoch, &facts);
        match keeper.store.put(&made.key(), to.path()).await? {
            Put::Made => Ok(()),
            // It is to stand for others: not before it was looked at.
            Put::Exists => self.add(Merge::new(keeper.spool.dir())?, &made).await.map(drop),
        }
    }

    async fn add(&self, mut merge: Merge, file: &Object) -> Result<Merge, Refusal> {
        let spool = &self.keeper.spool;
        room(spool.dir())?;
        let copy: Spooled = spool.file()?;
        let key = file.key();
        self.keeper.store.get(&key, copy.path()).await?;
        let path = copy.path().to_owned();
        let object = file.clone();
        let added = on_disk(move || merge.add_object(&path, &object).map(|()| merge)).await?;
        added.map_err(|why| damaged(&key, &why))
    }

    /// A deposed primary is to leave off.
    fn is_primary(&self) -> Result<(), Refusal> {
        match self.keeper.epoch()? == self.epoch {
            true => Ok(()),
            false => Err(Refusal::NotPrimary),
        }
    }

    async fn remove(&self, file: &Object) -> Result<(), Refusal> {
        self.is_primary()?;
        Ok(self.keeper.store.delete(&file.key()).await?)
    }
}

/// An object that is not what its name says.
fn damaged(key: &str, why: &std::io::Error) -> Refusal {
    Refusal::Damaged(format!(
        "{key}: {why}; `litepilot backup verify` says what can still be restored"
    ))
}
