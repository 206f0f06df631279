//! The engine's thread: the only one that touches SQLite.

use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::checksum::{Checksum, Stamp};
use super::image::Update;
use super::posfile::PosFiles;
use super::primary::{Primary, Shipped};
use super::replica::Replica;
use super::store::Store;
use super::{Duty, Options, Shared, State, lock};
use crate::cluster::NodeId;
use crate::txid::Position;

/// How often the database is looked at while nobody asks, for commits made past the proxy.
const IDLE_LOOK: Duration = Duration::from_millis(100);
/// How long a demotion waits for the application's writers.
const FENCE: Duration = Duration::from_secs(1);

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<io::Result<T>>;

/// What others ask of the thread.
pub enum Command {
    /// The position now.
    Position(Reply<Position>),
    /// The database now, for replicas.
    Ship(Reply<Shipped>),
    /// Apply what the primary sent.
    Apply(Arc<Update>, Reply<Stamp>),
    /// This copy equals the primary's, which is there.
    Level(Stamp, Reply<Stamp>),
    /// Change roles; the name is the primary's, for applications.
    Become(Duty, Option<NodeId>, Reply<Position>),
}

/// What the thread owns.
pub struct Worker {
    options: Options,
    store: Store,
    files: Option<PosFiles>,
    held: Held,
    /// What `<db>-pos` says.
    published: Option<Stamp>,
    shared: Arc<Shared>,
}

/// This node's copy of the database.
enum Held {
    Primary(Box<Primary>),
    Replica(Box<Replica>),
}

impl Worker {
    /// Takes up where the saved state ends, and looks at the database once.
    pub fn new(options: Options, shared: Arc<Shared>) -> io::Result<Self> {
        let database = options.database();
        let store = Store::open(&options.data_dir, &database)?;
        let files = match options.replicated {
            true => Some(PosFiles::new(&options.mount, &database)?),
            false => None,
        };
        let held = held_as(&options, options.duty, None, &store)?;
        let mut worker = Self { options, store, files, held, published: None, shared };
        if let (Some(files), Duty::Primary(_)) = (&worker.files, worker.options.duty) {
            files.set_primary(None)?;
        }
        // A database that cannot be read now may be later; `state` says so.
        let _ = worker.look();
        Ok(worker)
    }

    /// Serves requests until nobody is left to ask.
    pub fn run(&mut self, queue: &Receiver<Command>) {
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
            while let Some(Command::Position(reply)) = next {
                asked.push(reply);
                next = queue.try_recv().ok();
            }
            self.answer(&mut asked);
            if let Some(command) = next {
                self.obey(command);
            }
        }
    }

    fn answer(&mut self, asked: &mut Vec<Reply<Position>>) {
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
            Command::Position(reply) => self.answer(&mut vec![reply]),
            Command::Ship(reply) => drop(reply.send(self.ship())),
            Command::Apply(update, reply) => drop(reply.send(self.apply(&update))),
            Command::Level(stamp, reply) => drop(reply.send(self.level(stamp))),
            Command::Become(duty, primary, reply) => {
                drop(reply.send(self.become_(duty, primary.as_ref())));
            }
        }
    }

    /// Looks for what happened while nobody asked.
    fn idle(&mut self) {
        let moved =
            self.look().is_ok() && matches!(&self.held, Held::Primary(primary) if primary.moved());
        if moved && self.files.is_some() {
            // For `<db>-pos`. What fails is in `state`.
            let _ = self.ship();
        }
    }

    /// Looks at the database and publishes what it found.
    fn look(&mut self) -> io::Result<Position> {
        let found = match &mut self.held {
            Held::Primary(primary) => primary
                .look(&mut self.store, &self.shared.position)
                .map(|exists| (exists, primary.position())),
            Held::Replica(replica) => {
                replica.look(&self.store).map(|exists| (exists, replica.have().position))
            }
        };
        if let Held::Replica(replica) = &self.held {
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

    fn ship(&mut self) -> io::Result<Shipped> {
        let Held::Primary(primary) = &mut self.held else { return Err(not("the primary")) };
        let shipped = primary.ship(&mut self.store, &self.shared.position);
        match &shipped {
            Ok(shipped) => {
                self.shared.set_refusal(None);
                self.publish(shipped.stamp());
            }
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                self.shared.set_refusal(Some(error.to_string()));
            }
            // Passing; `state` says it after the next look.
            Err(_) => {}
        }
        shipped
    }

    fn apply(&mut self, update: &Update) -> io::Result<Stamp> {
        let Held::Replica(replica) = &mut self.held else { return Err(not("a replica")) };
        let have = replica.apply(update, &mut self.store)?;
        self.shared.set_state(State::Running);
        self.shared.set_refusal(None);
        self.copy_holds(have);
        Ok(have)
    }

    fn level(&mut self, stamp: Stamp) -> io::Result<Stamp> {
        let Held::Replica(replica) = &mut self.held else { return Err(not("a replica")) };
        replica.level(stamp, &mut self.store)?;
        self.shared.set_refusal(None);
        self.copy_holds(stamp);
        Ok(stamp)
    }

    /// Publishes what a replica's copy holds.
    fn copy_holds(&mut self, have: Stamp) {
        *lock(&self.shared.have) = have;
        let cell = &self.shared.position;
        match have.position < cell.get() {
            true => cell.reset(have.position),
            false => cell.advance(have.position),
        }
        self.publish(have);
    }

    fn publish(&mut self, stamp: Stamp) {
        // LiteFS has no such file for a database that does not exist.
        let nothing = stamp.position == Position::default();
        if nothing || stamp.checksum == Checksum::default() || self.published == Some(stamp) {
            return;
        }
        let Some(files) = &self.files else { return };
        match files.set_position(&stamp) {
            Ok(()) => self.published = Some(stamp),
            Err(error) => tracing::warn!(%error, "the position cannot be published"),
        }
    }

    /// Changes roles. Returns what this copy held when it took up the new one.
    fn become_(&mut self, duty: Duty, primary: Option<&NodeId>) -> io::Result<Position> {
        let before = *self.shared.duty.borrow();
        if duty != before {
            self.take_up(duty).inspect_err(|_| self.return_to(before))?;
            *lock(&self.shared.level_at) = None;
            self.shared.set_refusal(None);
            self.shared.duty.send_replace(duty);
            tracing::info!(?duty, "this node's copy has a new role");
        }
        if let Some(files) = &self.files {
            files.set_primary(primary)?;
        }
        Ok(match &self.held {
            Held::Primary(primary) => primary.start(),
            Held::Replica(replica) => replica.have().position,
        })
    }

    fn take_up(&mut self, duty: Duty) -> io::Result<()> {
        if duty == Duty::Replica {
            self.fence()?;
        }
        let held = Some(match &self.held {
            Held::Replica(replica) => replica.have().position,
            Held::Primary(primary) => primary.position(),
        });
        let next = held_as(&self.options, duty, held, &self.store)?;
        // Closes what the old role had open, before the new one opens it.
        drop(mem::replace(&mut self.held, next));
        self.look().map(drop)
    }

    /// An application must not find a database that it can write on a replica, nor one that it
    /// cannot write on the primary: the next look sees to that.
    fn return_to(&mut self, duty: Duty) {
        match (&mut self.held, duty) {
            (Held::Primary(primary), Duty::Primary(_)) => primary.lift_fence(),
            (Held::Replica(_), Duty::Replica) => {}
            (_, duty) => match held_as(&self.options, duty, None, &self.store) {
                Ok(held) => self.held = held,
                Err(error) => tracing::error!(%error, "the old role cannot be taken up again"),
            },
        }
    }

    /// Ends the reign of this copy: nobody can write it any more, and what it is, is remembered.
    fn fence(&mut self) -> io::Result<()> {
        let Held::Primary(primary) = &mut self.held else { return Ok(()) };
        let deadline = Instant::now() + FENCE;
        while let Err(error) = primary.fence() {
            if error.kind() != io::ErrorKind::ResourceBusy || Instant::now() > deadline {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        match primary.ship(&mut self.store, &self.shared.position) {
            Ok(shipped) => self.store.applying(shipped.stamp(), shipped.stamp()),
            // It will be taken for unknown, and replaced by the next primary's.
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn held_as(
    options: &Options,
    duty: Duty,
    held: Option<Position>,
    store: &Store,
) -> io::Result<Held> {
    let path = options.database();
    Ok(match duty {
        Duty::Primary(epoch) => Held::Primary(Box::new(Primary::new(path, epoch, held, store)?)),
        Duty::Replica => Held::Replica(Box::new(Replica::new(path, options.data_dir.clone()))),
    })
}

fn not(role: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("this node is not {role}"))
}
