//! Who writes the file: a thread of its own, so that a slow disk delays neither a heartbeat nor a
//! renewal; or whoever asks, where the disk is memory and time is simulated.

use std::io;
use std::thread;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::Contents;
use super::disk::{Change, Disk, Source};

/// Transactions that may wait for the disk; one more makes its sender wait.
const QUEUE: usize = 1024;

/// Called with the result of a transaction, on whatever thread wrote it; if nobody writes any more,
/// with that.
pub(crate) struct Done(Option<Box<dyn FnOnce(io::Result<()>) + Send>>);

pub(crate) enum Writer {
    Thread(mpsc::Sender<Job>),
    Inline(Mutex<Work>),
}

pub(crate) enum Job {
    Write {
        changes: Vec<Change>,
        durable: bool,
        done: Done,
    },
    /// Opens the file anew, after a failure.
    Reopen(oneshot::Sender<io::Result<Contents>>),
}

/// The file, and how to open it again.
pub(crate) struct Work {
    source: Source,
    /// If it could not be written: why.
    disk: Result<Disk, String>,
}

impl Done {
    pub(crate) fn new(done: impl FnOnce(io::Result<()>) + Send + 'static) -> Self {
        Self(Some(Box::new(done)))
    }

    fn call(mut self, result: io::Result<()>) {
        if let Some(done) = self.0.take() {
            done(result);
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(ended()));
        }
    }
}

pub(crate) fn ended() -> io::Error {
    io::Error::other("the thread that writes the store has ended: restart this node")
}

impl Writer {
    /// Opens the file, and reads it.
    ///
    /// # Errors
    ///
    /// As [`Disk::open`]; or when no thread can be started.
    pub(crate) fn open(source: Source, threaded: bool) -> io::Result<(Self, Contents)> {
        let (disk, contents) = Disk::open(&source).map_err(|error| source.named(error))?;
        let mut work = Work { source, disk: Ok(disk) };
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

    /// Jobs are done in the order in which they came.
    pub(crate) async fn run(&self, job: Job) {
        match self {
            // The thread ends with us, or by a panic: then a job's end says so.
            Self::Thread(jobs) => drop(jobs.send(job).await),
            Self::Inline(work) => work.lock().run(job),
        }
    }
}

impl Work {
    fn run(&mut self, job: Job) {
        match job {
            Job::Write { changes, durable, done } => done.call(self.write(&changes, durable)),
            // Whoever asked may be gone.
            Job::Reopen(reply) => drop(reply.send(self.reopen())),
        }
    }

    fn write(&mut self, changes: &[Change], durable: bool) -> io::Result<()> {
        let disk = self.disk.as_mut();
        let disk =
            disk.map_err(|why| io::Error::other(format!("an earlier write failed: {why}")))?;
        disk.write(changes, durable).map_err(|error| {
            let error = self.source.named(error);
            // What the file holds now is known only after it was read again.
            self.disk = Err(error.to_string());
            error
        })
    }

    fn reopen(&mut self) -> io::Result<Contents> {
        // One open file at a time: the old one holds the lock.
        self.disk = Err("it is not open".to_owned());
        let (disk, contents) =
            Disk::open(&self.source).map_err(|error| self.source.named(error))?;
        self.disk = Ok(disk);
        Ok(contents)
    }
}
