//! What this copy holds: read, heard of, and told others.

use std::io;

use super::databases::Databases;
use super::engine::{Duty, Litefs, READING, lock};
use super::sole::Sole;
use crate::cluster::Epoch;
use crate::engine::Held;
use crate::txid::{EpochTxid, Position};

/// How far this copy is, as far as known. On the primary these databases make up exactly that seq.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) at: EpochTxid,
    pub(super) databases: Databases,
}

fn warn_of(noted: io::Result<()>) {
    if let Err(why) = noted {
        tracing::warn!(%why, "the name of a new database is not noted");
    }
}

impl Litefs {
    /// What the copy holds now.
    pub(super) async fn content(&self) -> io::Result<Databases> {
        if !self.watch.seen().borrow().live {
            let why = self.trouble().unwrap_or_else(|| "LiteFS does not answer".to_owned());
            return Err(io::Error::new(io::ErrorKind::NotConnected, why));
        }
        self.read_content().await
    }

    pub(super) async fn read_content(&self) -> io::Result<Databases> {
        let read = self.positions.read(READING).await?;
        let content = match self.duty() {
            Duty::Primary(_) => self.note_content(&read),
            Duty::Replica => {
                lock(&self.holds).clone_from(&read);
                read
            }
        };
        self.note_names(&content, None).await;
        Ok(content)
    }

    /// On disk, as there are new ones.
    pub(super) async fn note_names(&self, databases: &Databases, sole: Option<Sole>) {
        if self.store().knows(databases, sole.as_ref()) {
            return;
        }
        let databases = databases.clone();
        warn_of(self.remember(move |store| store.name(&databases, sole)).await);
    }

    /// The primary of `epoch` has named these.
    pub(super) async fn note_named(&self, epoch: Epoch, databases: &Databases, sole: Option<Sole>) {
        let known = {
            let store = self.store();
            let first = sole.clone().or_else(|| store.first_of(epoch, databases));
            store.knows(databases, first.as_ref())
        };
        if !known {
            let databases = databases.clone();
            warn_of(self.remember(move |store| store.named(epoch, &databases, sole)).await);
        }
    }

    /// The copy holds this of some databases, as read or heard of: all that it holds then.
    pub(super) fn note_content(&self, news: &Databases) -> Databases {
        let mut holds = lock(&self.holds);
        match self.duty() {
            Duty::Primary(_) => holds.advance(news),
            Duty::Replica => holds.replace(news),
        }
        holds.clone()
    }

    /// What the copy was last known to hold.
    pub(super) fn holds(&self) -> Databases {
        lock(&self.holds).clone()
    }

    pub(super) async fn what_is_held(&self) -> io::Result<Held> {
        let content = self.content().await?;
        let position = match self.duty() {
            Duty::Primary(_) => Position { at: self.label(&content), checksum: content.checksum() },
            Duty::Replica => {
                let seen = self.watch.seen().borrow().clone();
                self.adopt(&seen, &content).await;
                self.store().held(&content)
            }
        };
        let sole_until = self.store().sole_until();
        Ok(Held { position, empty: content.is_empty(), sole_until })
    }

    pub(super) fn db_name(&self) -> String {
        self.db.to_string_lossy().into_owned()
    }

    /// The position of a copy with this content.
    pub(super) fn label(&self, content: &Databases) -> EpochTxid {
        match self.duty() {
            Duty::Primary(epoch) => EpochTxid { epoch, txid: content.seq() },
            Duty::Replica => self.store().position(content).at,
        }
    }

    /// This copy is that far, with this content.
    pub(super) async fn publish(&self, label: EpochTxid, content: &Databases) {
        self.position.advance(label);
        self.tell_others(label, content, false).await;
    }

    /// This copy is that far, and was perhaps further in another history.
    pub(super) async fn publish_anew(&self, label: EpochTxid, content: &Databases) {
        self.position.reset(label);
        self.tell_others(label, content, true).await;
    }

    async fn tell_others(&self, at: EpochTxid, content: &Databases, anew: bool) {
        if matches!(self.duty(), Duty::Primary(_)) {
            let sole = Sole::between(&self.told.borrow(), at, content);
            if sole.is_some() {
                self.note_names(content, sole).await;
            }
        }
        self.told.send_if_modified(|told| {
            let news = Told { at, databases: content.clone() };
            let changes = *told != news && (anew || at >= told.at);
            if changes {
                *told = news;
            }
            changes
        });
        self.note_level();
    }
}
