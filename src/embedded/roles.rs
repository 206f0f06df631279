//! The engine's thread, where the copy changes hands: reigns begin and end, promises are made.

use std::io;
use std::mem;

use super::checksum::{Checksum, Position};
use super::image::Image;
use super::observe::Observer;
use super::primary::Primary;
use super::replica::Replica;
use super::store::{Found, Store};
use super::worker::{CopyOf, Reply, Worker, not};
use super::{Duty, Options, Standing, lock};
use crate::cluster::{Epoch, NodeId};
use crate::engine::Held;

impl Worker {
    /// What the copy holds.
    pub(super) fn held(&mut self) -> io::Result<Held> {
        if let CopyOf::Replica(replica) = &mut self.copy {
            let exists = replica.look(&mut self.store)?;
            return Ok(Held { position: replica.have(), empty: !exists });
        }
        match self.ship() {
            Ok(shipped) => {
                Ok(Held { position: shipped.position(), empty: shipped.image.is_empty() })
            }
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                let position = self.look()?;
                let position = Position { at: position, checksum: Checksum::UNKNOWN };
                Ok(Held { position, empty: false })
            }
            Err(error) => Err(error),
        }
    }

    /// Begins to reign in `epoch`, or goes on doing so. Returns what the copy held before.
    pub(super) fn become_primary(&mut self, epoch: Epoch) -> io::Result<Position> {
        if self.standing().duty == Duty::Primary(epoch) {
            return self.store.began(epoch);
        }
        let held = match self.held() {
            Ok(held) => Some(held.position),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => None,
            Err(error) => return Err(error),
        };
        let (held, start) = self.store.begin(epoch, held)?;
        let followed = matches!(self.copy, CopyOf::Replica(_));
        // What the old role has open is closed with it, and nothing was opened yet.
        self.copy = CopyOf::Primary(Box::new(Primary::new(self.options.database(), start)));
        if let Err(error) = self.look()
            && followed
        {
            // An application must not find a database that it can write on a replica, nor one that it
            // cannot write on the primary: the next look sees to that.
            self.copy = CopyOf::replica(&self.options);
            self.publish_standing();
            return Err(error);
        }
        self.took_up(None)?;
        Ok(held)
    }

    /// Ends this node's reign, if it has one.
    pub(super) fn become_replica(&mut self, primary: Option<&NodeId>) -> io::Result<()> {
        if let CopyOf::Primary(_) = self.copy {
            self.close()?;
            self.took_up(primary)?;
        } else if let Some(files) = &self.files {
            files.set_primary(primary)?;
        }
        Ok(())
    }

    /// Listens to no primary of an epoch before `epoch` any more.
    pub(super) fn promise(&mut self, epoch: Epoch) -> io::Result<Held> {
        self.store.promise(epoch)?;
        self.publish_standing();
        if matches!(self.standing().duty, Duty::Primary(own) if own < epoch) {
            self.become_replica(None)?;
        }
        self.held()
    }

    /// Keeps everybody from writing, and answers what the copy holds from then on.
    pub(super) fn fence(&mut self, reply: Reply<Position>) {
        let mut raised = false;
        let fenced = self.raise_fence(&mut raised);
        let failed = fenced.is_err();
        // Nobody would lift it of whom we do not know that he knows of it.
        if (reply.send(fenced).is_err() || failed) && raised {
            let _ = self.lift_fence();
        }
    }

    fn raise_fence(&mut self, raised: &mut bool) -> io::Result<Position> {
        let CopyOf::Primary(primary) = &mut self.copy else { return Err(not("the primary")) };
        *raised = primary.fence(&mut self.store, &self.shared.position)?;
        Ok(self.held()?.position)
    }

    pub(super) fn lift_fence(&mut self) -> io::Result<()> {
        if let CopyOf::Primary(primary) = &mut self.copy {
            primary.lift_fence();
        }
        Ok(())
    }

    /// Makes the primary's copy a replica's: nobody can write it any more, and what it holds is
    /// remembered. If that fails nothing has changed.
    fn close(&mut self) -> io::Result<()> {
        let mut raised = false;
        let closed = self.raise_fence(&mut raised).and_then(|have| {
            let CopyOf::Primary(primary) = &mut self.copy else { return Err(not("the primary")) };
            primary.close().map(|()| have)
        });
        match closed {
            Ok(have) => {
                self.copy = CopyOf::replica(&self.options);
                if let Err(error) = self.store.closed(Found { position: have, certain: true }) {
                    // It is found out again at the next look.
                    tracing::warn!(%error, "the end of this node's reign is not yet on disk");
                }
                Ok(())
            }
            Err(error) => {
                if raised {
                    self.lift_fence()?;
                }
                Err(error)
            }
        }
    }

    /// The copy has a new role. A name is the primary's, for applications.
    fn took_up(&mut self, primary: Option<&NodeId>) -> io::Result<()> {
        *lock(&self.shared.level_at) = None;
        self.shared.set_refusal(None);
        self.publish_standing();
        tracing::info!(duty = ?self.standing().duty, "this node's copy has a new role");
        // Publishes the position, too. What fails is in `state`.
        let _ = self.look();
        match &self.files {
            Some(files) => files.set_primary(primary),
            None => Ok(()),
        }
    }

    fn standing(&self) -> Standing {
        let duty = match &self.copy {
            CopyOf::Primary(primary) => Duty::Primary(primary.position().epoch),
            CopyOf::Replica(_) => Duty::Replica,
        };
        Standing { duty, floor: self.store.floor() }
    }

    /// Links that it leaves behind end.
    pub(super) fn publish_standing(&self) {
        let standing = self.standing();
        self.shared.standing.send_if_modified(|now| mem::replace(now, standing) != standing);
    }
}

impl CopyOf {
    pub(super) fn replica(options: &Options) -> Self {
        Self::Replica(Box::new(Replica::new(options.database(), options.data_dir.clone())))
    }

    /// A primary's that is one from the start.
    pub(super) fn primary_at_start(
        options: &Options,
        epoch: Epoch,
        store: &mut Store,
    ) -> io::Result<Self> {
        // A node on its own compares its copy with nobody's.
        let held = options.replicated.then(|| read(options, store)).flatten();
        let (_, start) = store.begin(epoch, held)?;
        Ok(Self::Primary(Box::new(Primary::new(options.database(), start))))
    }
}

/// What the copy holds that the application may be writing; `None` if that cannot be read now.
fn read(options: &Options, store: &Store) -> Option<Position> {
    let path = options.database();
    let mut observer = Observer::new(path.clone());
    if !observer.look().ok()?.exists {
        return Some(store.find(Checksum::default()).position);
    }
    let image = Image::read(observer.connection()?, &path, &Image::default()).ok()?;
    Some(store.find(image.checksum()).position)
}
