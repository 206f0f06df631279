//! The engine's thread: the only one that touches SQLite.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::image::{Image, Update};
use super::lineage::Lineage;
use super::posfile::PosFiles;
use super::primary::Primary;
use super::replica::Replica;
use super::store::Store;
use super::{CopyRole, DatabaseState, Options, Published, not};
use crate::txid::{Checksum, EpochTxid, Position};

/// How often the database is looked at while nobody asks, for commits made past the proxy.
const IDLE_LOOK: Duration = Duration::from_millis(100);

/// Where the answer to a look goes.
pub(super) type PositionReply = oneshot::Sender<io::Result<EpochTxid>>;

/// What others ask of the thread.
pub(super) enum Request {
    Position(PositionReply),
    Job(Box<dyn FnOnce(&mut Worker) + Send>),
}

/// What the thread owns.
pub(super) struct Worker {
    pub(super) options: Options,
    pub(super) store: Store,
    pub(super) files: Option<PosFiles>,
    pub(super) copy: LocalCopy,
    /// What `<db>-pos` says.
    published_position: Option<Position>,
    pub(super) published: Arc<Published>,
}

/// This node's copy of the database.
pub(super) enum LocalCopy {
    Primary(Box<Primary>),
    Replica(Box<Replica>),
}

impl Worker {
    /// Takes up where the saved state ends, and looks at the database once.
    pub(super) fn new(options: Options, published: Arc<Published>) -> io::Result<Self> {
        let database = options.database();
        let mut store = Store::open(&options.data_dir, &database)?;
        let files = options.replicated.then(|| PosFiles::new(&options.mount, &database));
        let files = files.transpose()?;
        let copy = match options.role {
            CopyRole::Replica => LocalCopy::Replica(Box::new(Replica::new(&options))),
            CopyRole::Primary(epoch) => LocalCopy::primary_at_start(&options, epoch, &mut store)?,
        };
        let mut worker = Self { options, store, files, copy, published_position: None, published };
        worker.publish_standing();
        if let (Some(files), LocalCopy::Primary(_)) = (&worker.files, &worker.copy) {
            files.set_primary(None)?;
        }
        // A database that cannot be read now may be later; `state` says so.
        let _ = worker.look();
        Ok(worker)
    }

    /// Serves requests until nobody is left to ask.
    pub(super) fn run(&mut self, queue: &Receiver<Request>) {
        loop {
            let mut next = match queue.recv_timeout(IDLE_LOOK) {
                Ok(request) => Some(request),
                Err(RecvTimeoutError::Timeout) => {
                    self.idle();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // One look serves everybody who asked before it began.
            let mut asked = Vec::new();
            while let Some(Request::Position(reply)) = next {
                asked.push(reply);
                next = queue.try_recv().ok();
            }
            if !asked.is_empty() {
                self.answer(asked);
            }
            if let Some(Request::Job(job)) = next {
                job(self);
            }
        }
    }

    fn answer(&mut self, asked: Vec<PositionReply>) {
        let found = self.look();
        for reply in asked {
            let found = found.as_ref().copied();
            // Whoever gave up meanwhile does not need the answer.
            let _ = reply.send(found.map_err(|e| io::Error::new(e.kind(), e.to_string())));
        }
    }

    /// Looks for what happened while nobody asked.
    fn idle(&mut self) {
        let moved = self.look().is_ok() && matches!(&self.copy, LocalCopy::Primary(p) if p.moved());
        if moved && self.files.is_some() {
            // For `<db>-pos`. What fails is in `state`.
            let _ = self.ship();
        }
    }

    /// Looks at the database and publishes what it found.
    pub(super) fn look(&mut self) -> io::Result<EpochTxid> {
        let (exists, at) = match &mut self.copy {
            LocalCopy::Primary(primary) => {
                let exists = primary.look(&mut self.store);
                if exists.is_ok() {
                    self.published.position.advance(primary.position());
                }
                (exists, primary.position())
            }
            LocalCopy::Replica(replica) => {
                let exists = replica.look(&mut self.store);
                let have = replica.have();
                self.copy_holds(have);
                (exists, have.at)
            }
        };
        self.published.set_state(match &exists {
            Ok(true) => DatabaseState::Running,
            Ok(false) => DatabaseState::Waiting,
            Err(error) => DatabaseState::Failed(error.to_string()),
        });
        exists.map(|_| at)
    }

    /// On the primary: the database now, for replicas.
    pub(super) fn ship(&mut self) -> io::Result<Arc<Image>> {
        self.look()?;
        let LocalCopy::Primary(primary) = &mut self.copy else { return Err(not("the primary")) };
        let shipped = primary.ship(&mut self.store);
        match &shipped {
            Ok(image) => {
                self.published.set_refusal(None);
                self.publish(image.position());
            }
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                self.published.set_refusal(Some(error.to_string()));
            }
            // Passing; `state` says it after the next look.
            Err(_) => {}
        }
        shipped
    }

    /// On the primary: the history that it continues.
    pub(super) fn lineage(&self) -> io::Result<Lineage> {
        let lineage = self.store.lineage();
        let lineage = lineage.filter(|_| matches!(self.copy, LocalCopy::Primary(_)));
        lineage.ok_or_else(|| not("the primary"))
    }

    /// This node's copy, if it may follow the primary that continues `lineage`.
    pub(super) fn follows(&mut self, lineage: &Lineage) -> io::Result<(&mut Replica, &mut Store)> {
        let (floor, epoch) = (self.store.floor(), lineage.epoch());
        if epoch < floor {
            let what = format!("the primary is of epoch {epoch}, this node has promised {floor}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        match &mut self.copy {
            LocalCopy::Replica(replica) => Ok((replica, &mut self.store)),
            LocalCopy::Primary(_) => Err(not("a replica")),
        }
    }

    /// On a replica: applies what the primary sent.
    pub(super) fn apply(&mut self, update: &Update, lineage: &Lineage) -> io::Result<Position> {
        let (replica, store) = self.follows(lineage)?;
        let have = replica.apply(update, lineage, store)?;
        self.published.set_state(DatabaseState::Running);
        self.is_level(have);
        Ok(have)
    }

    /// On a replica: this copy equals the primary's.
    pub(super) fn level(&mut self, position: Position, lineage: &Lineage) -> io::Result<Position> {
        let (replica, store) = self.follows(lineage)?;
        replica.level(position, lineage, store)?;
        self.is_level(position);
        Ok(position)
    }

    fn is_level(&mut self, have: Position) {
        self.published.set_refusal(None);
        self.copy_holds(have);
    }

    /// Publishes what a replica's copy holds.
    fn copy_holds(&mut self, have: Position) {
        // What it holds may be of a later epoch than before.
        self.publish_standing();
        let cell = &self.published.position;
        match have.at < cell.get() {
            true => cell.reset(have.at),
            false => cell.advance(have.at),
        }
        self.publish(have);
    }

    fn publish(&mut self, position: Position) {
        // LiteFS has no such file for a database that does not exist.
        let nothing =
            position.at == EpochTxid::default() || position.checksum == Checksum::default();
        let Some(files) = self.files.as_ref().filter(|_| !nothing) else { return };
        if self.published_position == Some(position) {
            return;
        }
        match files.set_position(&position) {
            Ok(()) => self.published_position = Some(position),
            Err(error) => tracing::warn!(%error, "the position cannot be published"),
        }
    }
}
