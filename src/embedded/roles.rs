//! The engine's thread, where the copy changes hands: epochs begin and end, promises are made.

use std::io;
use std::mem;

use super::image::Image;
use super::observe::Observer;
use super::primary::Primary;
use super::replica::Replica;
use super::store::{Found, Store};
use super::worker::{LocalCopy, Worker};
use super::{CopyRole, Options, Standing, not};
use crate::cluster::{Epoch, NodeId};
use crate::engine::Held;
use crate::txid::{Checksum, Position};

impl Worker {
    /// What the copy holds.
    pub(super) fn held(&mut self) -> io::Result<Held> {
        if let LocalCopy::Replica(replica) = &mut self.copy {
            let exists = replica.look(&mut self.store)?;
            return Ok(Held { position: replica.have(), empty: !exists, sole_until: None });
        }
        match self.ship() {
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                let position = Position { at: self.look()?, checksum: Checksum::UNKNOWN };
                Ok(Held { position, empty: false, sole_until: None })
            }
            image => image.map(|i| Held {
                position: i.position(),
                empty: i.is_empty(),
                sole_until: None,
            }),
        }
    }

    /// Becomes the primary of `epoch`, or stays it. Returns what the copy held when that epoch began.
    pub(super) fn become_primary(&mut self, epoch: Epoch) -> io::Result<Position> {
        if self.standing().role == CopyRole::Primary(epoch) {
            return self.store.began(epoch);
        }
        let held = self.held()?.position;
        let (held, start) = self.store.begin(epoch, Some(held))?;
        let followed = matches!(self.copy, LocalCopy::Replica(_));
        // What the old role has open is closed with it, and nothing was opened yet.
        self.copy = LocalCopy::Primary(Box::new(Primary::new(self.options.database(), start)));
        if let Err(error) = self.look()
            && followed
        {
            // An application must not find a database that it can write on a replica, nor one that it
            // cannot write on the primary: the next look sees to that.
            self.copy = self.replica();
            self.publish_standing();
            return Err(error);
        }
        self.took_up(None)?;
        Ok(held)
    }

    /// Ends this node's epoch, if it is primary. A name is the primary's, for applications.
    pub(super) fn become_replica(&mut self, primary: Option<&NodeId>) -> io::Result<()> {
        if let LocalCopy::Primary(_) = self.copy {
            self.close()?;
            return self.took_up(primary);
        }
        self.files.as_ref().map_or(Ok(()), |files| files.set_primary(primary))
    }

    /// Follows no primary of an epoch before `epoch` any more.
    pub(super) fn promise(&mut self, epoch: Epoch) -> io::Result<Held> {
        self.store.promise(epoch)?;
        self.publish_standing();
        if matches!(self.standing().role, CopyRole::Primary(own) if own < epoch) {
            self.become_replica(None)?;
        }
        self.held()
    }

    /// Keeps everybody from writing. Returns whether that is new, and what the copy holds from then on.
    pub(super) fn fence(&mut self) -> io::Result<(bool, Position)> {
        let LocalCopy::Primary(primary) = &mut self.copy else { return Err(not("the primary")) };
        let new = primary.fence(&mut self.store)?;
        let held = self.held();
        if new && held.is_err() {
            self.lift_fence();
        }
        held.map(|held| (new, held.position))
    }

    pub(super) fn lift_fence(&mut self) {
        if let LocalCopy::Primary(primary) = &mut self.copy {
            primary.lift_fence();
        }
    }

    /// Makes the primary's copy a replica's: nobody can write it any more, and what it holds is
    /// remembered. If that fails nothing has changed.
    fn close(&mut self) -> io::Result<()> {
        let (new, position) = self.fence()?;
        let LocalCopy::Primary(primary) = &mut self.copy else { return Err(not("the primary")) };
        if let Err(error) = primary.close() {
            if new {
                self.lift_fence();
            }
            return Err(error);
        }
        self.copy = self.replica();
        if let Err(error) = self.store.closed(Found { position, certain: true }) {
            // It is found out again at the next look.
            tracing::warn!(%error, "the end of this node's epoch is not yet on disk");
        }
        Ok(())
    }

    /// The copy has a new role.
    fn took_up(&mut self, primary: Option<&NodeId>) -> io::Result<()> {
        *self.published.level_at.lock() = None;
        self.published.set_refusal(None);
        self.publish_standing();
        tracing::info!(role = ?self.standing().role, "this node's copy has a new role");
        // Publishes the position, too. What fails is in `state`.
        let _ = self.look();
        self.files.as_ref().map_or(Ok(()), |files| files.set_primary(primary))
    }

    fn replica(&self) -> LocalCopy {
        LocalCopy::Replica(Box::new(Replica::new(&self.options)))
    }

    fn standing(&self) -> Standing {
        let role = match &self.copy {
            LocalCopy::Primary(primary) => CopyRole::Primary(primary.position().epoch),
            LocalCopy::Replica(_) => CopyRole::Replica,
        };
        Standing { role, floor: self.store.floor() }
    }

    /// Ends the connections that it no longer allows.
    pub(super) fn publish_standing(&self) {
        let standing = self.standing();
        self.published.standing.send_if_modified(|now| mem::replace(now, standing) != standing);
    }
}

impl LocalCopy {
    /// That of a node which is primary from the start.
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
    let checksum = match observer.look().ok()?.exists {
        true => {
            Image::read(observer.connection()?, &path, &Image::default()).ok()?.position().checksum
        }
        false => Checksum::default(),
    };
    Some(store.find(checksum).position)
}
