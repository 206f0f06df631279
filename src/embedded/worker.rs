//! The engine's thread: the only one that touches SQLite.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::checksum::{Checksum, Position};
use super::image::Update;
use super::posfile::PosFiles;
use super::primary::{Primary, Shipped};
use super::replica::Replica;
use super::store::Store;
use super::tenure::Tenure;
use super::{Duty, Options, Shared, State};
use crate::cluster::{Epoch, NodeId};
use crate::engine::Held;
use crate::txid::EpochTxid;

/// How often the database is looked at while nobody asks, for commits made past the proxy.
const IDLE_LOOK: Duration = Duration::from_millis(100);

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<io::Result<T>>;

/// What others ask of the thread.
pub(crate) enum Command {
    EpochTxid(Reply<EpochTxid>),
    /// What the copy holds now.
    Held(Reply<Held>),
    /// On the primary: its reign.
    Tenure(Reply<Tenure>),
    /// On the primary: the database now, for replicas.
    Ship(Reply<Shipped>),
    /// On a replica: whether the primary of this reign may be followed.
    Follow(Arc<Tenure>, Reply<()>),
    /// On a replica: apply what the primary of this reign sent.
    Apply(Arc<Update>, Arc<Tenure>, Reply<Position>),
    /// On a replica: this copy equals that of the primary of this reign, which is there.
    Level(Position, Arc<Tenure>, Reply<Position>),
    /// Become the primary, in this epoch. Answers what the copy held before.
    BecomePrimary(Epoch, Reply<Position>),
    /// Become a replica; the name is the primary's, for applications.
    BecomeReplica(Option<NodeId>, Reply<()>),
    /// Let go of every primary of an epoch before this.
    LetGo(Epoch, Reply<Held>),
    /// On the primary: keep everybody from writing.
    Fence(Reply<Position>),
    /// Let them write again.
    LiftFence(Reply<()>),
}

/// What the thread owns.
pub(crate) struct Worker {
    pub(super) options: Options,
    pub(super) store: Store,
    pub(super) files: Option<PosFiles>,
    pub(super) copy: CopyOf,
    /// What `<db>-pos` says.
    published: Option<Position>,
    pub(super) shared: Arc<Shared>,
}

/// This node's copy of the database: whose it is.
pub(super) enum CopyOf {
    Primary(Box<Primary>),
    Replica(Box<Replica>),
}

impl Worker {
    /// Takes up where the saved state ends, and looks at the database once.
    pub(crate) fn new(options: Options, shared: Arc<Shared>) -> io::Result<Self> {
        let database = options.database();
        let mut store = Store::open(&options.data_dir, &database)?;
        let files = match options.replicated {
            true => Some(PosFiles::new(&options.mount, &database)?),
            false => None,
        };
        let copy = match options.duty {
            Duty::Replica => CopyOf::replica(&options),
            Duty::Primary(epoch) => CopyOf::primary_at_start(&options, epoch, &mut store)?,
        };
        let mut worker = Self { options, store, files, copy, published: None, shared };
        worker.publish_standing();
        if let (Some(files), Duty::Primary(_)) = (&worker.files, worker.options.duty) {
            files.set_primary(None)?;
        }
        // A database that cannot be read now may be later; `state` says so.
        let _ = worker.look();
        Ok(worker)
    }

    /// Serves requests until nobody is left to ask.
    pub(crate) fn run(&mut self, queue: &Receiver<Command>) {
        let mut asked = Vec::new();
        loop {
            let mut next = match queue.recv_timeout(IDLE_LOOK) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => {
                    self.idle();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // One look serves everybody who asked before it began.
            while let Some(Command::EpochTxid(reply)) = next {
                asked.push(reply);
                next = queue.try_recv().ok();
            }
            self.answer(&mut asked);
            if let Some(command) = next {
                self.obey(command);
            }
        }
    }

    fn answer(&mut self, asked: &mut Vec<Reply<EpochTxid>>) {
        if asked.is_empty() {
            return;
        }
        let found = self.look();
        for reply in asked.drain(..) {
            // Whoever gave up meanwhile does not need the answer.
            let _ = reply.send(match &found {
                Ok(position) => Ok(*position),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            });
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::EpochTxid(reply) => self.answer(&mut vec![reply]),
            Command::Held(reply) => drop(reply.send(self.held())),
            Command::Tenure(reply) => drop(reply.send(self.reign())),
            Command::Ship(reply) => drop(reply.send(self.ship())),
            Command::Follow(reign, reply) => drop(reply.send(self.follows(&reign).map(drop))),
            Command::Apply(update, reign, reply) => {
                drop(reply.send(self.apply(&update, &reign)));
            }
            Command::Level(position, reign, reply) => {
                drop(reply.send(self.level(position, &reign)))
            }
            Command::BecomePrimary(epoch, reply) => drop(reply.send(self.become_primary(epoch))),
            Command::BecomeReplica(primary, reply) => {
                drop(reply.send(self.become_replica(primary.as_ref())));
            }
            Command::LetGo(epoch, reply) => drop(reply.send(self.promise(epoch))),
            Command::Fence(reply) => self.fence(reply),
            Command::LiftFence(reply) => drop(reply.send(self.lift_fence())),
        }
    }

    /// Looks for what happened while nobody asked.
    fn idle(&mut self) {
        let moved = self.look().is_ok() && matches!(&self.copy, CopyOf::Primary(p) if p.moved());
        if moved && self.files.is_some() {
            // For `<db>-pos`. What fails is in `state`.
            let _ = self.ship();
        }
    }

    /// Looks at the database and publishes what it found.
    pub(super) fn look(&mut self) -> io::Result<EpochTxid> {
        let found = match &mut self.copy {
            CopyOf::Primary(primary) => primary
                .look(&mut self.store, &self.shared.position)
                .map(|exists| (exists, primary.position())),
            CopyOf::Replica(replica) => {
                replica.look(&mut self.store).map(|exists| (exists, replica.have().at))
            }
        };
        if let CopyOf::Replica(replica) = &self.copy {
            let have = replica.have();
            self.copy_holds(have);
        }
        let state = match &found {
            Ok((true, _)) => State::Running,
            Ok((false, _)) => State::Waiting,
            Err(error) => State::Failed(error.to_string()),
        };
        self.shared.set_state(state);
        found.map(|(_, position)| position)
    }

    pub(super) fn ship(&mut self) -> io::Result<Shipped> {
        self.look()?;
        let CopyOf::Primary(primary) = &mut self.copy else { return Err(not("the primary")) };
        let shipped = primary.ship(&mut self.store);
        match &shipped {
            Ok(shipped) => {
                self.shared.set_refusal(None);
                self.publish(shipped.position());
            }
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                self.shared.set_refusal(Some(error.to_string()));
            }
            // Passing; `state` says it after the next look.
            Err(_) => {}
        }
        shipped
    }

    fn reign(&self) -> io::Result<Tenure> {
        let reign = self.store.reign().filter(|_| matches!(self.copy, CopyOf::Primary(_)));
        reign.ok_or_else(|| not("the primary"))
    }

    /// This node's copy, if the primary of `reign` may have a say in it.
    fn follows(&mut self, reign: &Tenure) -> io::Result<(&mut Replica, &mut Store)> {
        let floor = self.store.floor();
        if reign.epoch() < floor {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "the primary reigns in epoch {}, this node has let go of all before {floor}",
                    reign.epoch()
                ),
            ));
        }
        match &mut self.copy {
            CopyOf::Replica(replica) => Ok((replica, &mut self.store)),
            CopyOf::Primary(_) => Err(not("a replica")),
        }
    }

    fn apply(&mut self, update: &Update, reign: &Tenure) -> io::Result<Position> {
        let (replica, store) = self.follows(reign)?;
        let applied = replica.apply(update, reign, store);
        if let Some(saved) = replica.saved().map(Into::into) {
            self.shared.diverged.send_if_modified(|known| {
                let news = known.as_ref() != Some(&saved);
                *known = Some(saved);
                news
            });
        }
        let have = applied?;
        self.shared.set_state(State::Running);
        self.shared.set_refusal(None);
        self.copy_holds(have);
        Ok(have)
    }

    fn level(&mut self, position: Position, reign: &Tenure) -> io::Result<Position> {
        let (replica, store) = self.follows(reign)?;
        replica.level(position, reign, store)?;
        self.shared.set_refusal(None);
        self.copy_holds(position);
        Ok(position)
    }

    /// Publishes what a replica's copy holds.
    fn copy_holds(&mut self, have: Position) {
        // What it holds may be of a later epoch than before.
        self.publish_standing();
        let cell = &self.shared.position;
        match have.at < cell.get() {
            true => cell.reset(have.at),
            false => cell.advance(have.at),
        }
        self.publish(have);
    }

    fn publish(&mut self, position: Position) {
        // LiteFS has no such file for a database that does not exist.
        let nothing = position.at == EpochTxid::default();
        if nothing || position.checksum == Checksum::default() || self.published == Some(position) {
            return;
        }
        let Some(files) = &self.files else { return };
        match files.set_position(&position) {
            Ok(()) => self.published = Some(position),
            Err(error) => tracing::warn!(%error, "the position cannot be published"),
        }
    }
}

pub(super) fn not(role: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("this node is not {role}"))
}
