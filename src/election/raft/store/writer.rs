//! Who writes the file: a thread of its own, so that a slow disk delays neither a heartbeat nor a
//! renewal; or whoever asks, where the disk is memory and time is simulated.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread;

use tokio::sync::{mpsc, oneshot};

use super::Contents;
use super::disk::{Change, Disk, Source};

/// Transactions that may wait for the disk; one more makes its sender wait.
const QUEUE: usize = 1024;

/// Called with the result of a transaction, on whatever thread wrote it.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

pub enum Writer {
    Thread(mpsc::Sender<Job>),
    Inline(Mutex<Work>),
}

pub enum Job {
    Write {
        changes: Vec<Change>,
        durable: bool,
        done: Done,
    },
    /// Opens the file anew, after a failure.
    Reopen(oneshot::Sender<io::Result<Contents>>),
}

/// The file, and how to open it again.
pub struct Work {
    source: Source,
    disk: Option<Disk>,
}

impl Writer {
    /// Opens the file, and reads it.
    ///
    /// # Errors
    ///
    /// As [`Disk::open`]; or when no thread can be started.
    pub fn open(source: Source, threaded: bool) -> io::Result<(Self, Contents)> {
        let (disk, contents) = Disk::open(&source)?;
        let mut work = Work { source, disk: Some(disk) };
        if !threaded {
            return Ok((Self::Inline(Mutex::new(work)), contents));
        }
        let (sender, mut jobs) = mpsc::channel(QUEUE);
        thread::Builder::new().name("raft-store".to_owned()).spawn(move || {
            while let Some(job) = jobs.blocking_recv() {
                work.run(job);
            }
        })?;
        Ok((Self::Thread(sender), contents))
    }

    /// Jobs are done in the order in which they came. One that cannot be taken is dropped, and with
    /// it whoever is to be told.
    pub async fn run(&self, job: Job) {
        match self {
            // The thread ends only with us, or by a panic; then every later job fails by its drop.
            Self::Thread(jobs) => drop(jobs.send(job).await),
            Self::Inline(work) => work.lock().unwrap_or_else(PoisonError::into_inner).run(job),
        }
    }
}

impl Work {
    fn run(&mut self, job: Job) {
        match job {
            Job::Write { changes, durable, done } => done(self.write(&changes, durable)),
            // Whoever asked may be gone.
            Job::Reopen(reply) => drop(reply.send(self.reopen())),
        }
    }

    fn write(&mut self, changes: &[Change], durable: bool) -> io::Result<()> {
        let Some(disk) = &mut self.disk else {
            return Err(io::Error::other("an earlier write failed"));
        };
        let written = disk.write(changes, durable);
        if written.is_err() {
            // What the file holds now is known only after it was read again.
            self.disk = None;
        }
        written
    }

    fn reopen(&mut self) -> io::Result<Contents> {
        // One open file at a time: the old one holds the lock.
        self.disk = None;
        let (disk, contents) = Disk::open(&self.source)?;
        self.disk = Some(disk);
        Ok(contents)
    }
}
