//! The application beside a node, and the guard that kills it: processes of their own, which go on
//! while the node's stands still.

use litepilot::claim::BootTime;
use litepilot::process::health::Report;
use tokio::sync::{oneshot, watch};

use super::engine::Copy;

/// The application and its guard.
#[derive(Default)]
pub struct App {
    /// After this the guard lets nothing run.
    deadline: Option<BootTime>,
    killed: bool,
    /// It does not answer, for a reason of its own.
    pub down: bool,
    /// It creates what it needs when it starts: until the database has that, it ends at once on a
    /// replica.
    pub writes_at_start: bool,
    /// `on_promote` fails.
    pub hook_fails: bool,
    jobs: Vec<Job>,
    /// Answers that the node has not taken yet.
    done: Vec<(oneshot::Sender<bool>, bool)>,
}

/// A request that writes.
struct Job {
    id: u64,
    /// In true ms from when it is first seen.
    takes: u64,
    due: Option<u64>,
    reply: oneshot::Sender<bool>,
}

impl App {
    pub fn new(writes_at_start: bool) -> Self {
        Self { writes_at_start, ..Self::default() }
    }

    /// The guard is told.
    pub fn set_deadline(&mut self, deadline: Option<BootTime>) {
        self.deadline = deadline;
        self.killed = false;
    }

    /// The application is asked to write; the answer says whether it did.
    pub fn write(&mut self, id: u64, takes: u64) -> oneshot::Receiver<bool> {
        let (reply, done) = oneshot::channel();
        self.jobs.push(Job { id, takes, due: None, reply });
        done
    }

    /// What a health check would find.
    pub fn check(&self, reports: &watch::Sender<Report>) {
        let down = self.down || self.writes_at_start;
        reports.send_if_modified(|report| {
            let changed = report.up == down;
            report.up = !down;
            report.down_since = down.then(std::time::Instant::now);
            changed
        });
    }

    /// The application tries to create what it needs.
    fn start(&mut self, copy: &Copy, id: impl FnOnce() -> u64) {
        if !self.writes_at_start || self.down {
            return;
        }
        let has_it = copy.state().head.is_some();
        if has_it || copy.commit(id(), "the start of the application").is_some() {
            self.writes_at_start = false;
        }
    }

    /// The node takes the answers.
    pub fn answer(&mut self) {
        for (reply, done) in self.done.drain(..) {
            // Whoever asked may be gone.
            let _ = reply.send(done);
        }
    }

    pub fn kill(&mut self) {
        self.killed = true;
        self.jobs.clear();
    }

    /// The guard acts, then the application. `now` is by this machine's clock, `at` the true time.
    /// Says whether the guard has killed.
    pub fn step(
        &mut self,
        copy: &Copy,
        now: BootTime,
        at: u64,
        by_itself: Option<u64>,
        id: impl FnOnce() -> u64,
    ) -> bool {
        let expired = self.deadline.is_some_and(|deadline| now >= deadline) && !self.killed;
        if expired {
            self.kill();
        }
        if self.killed {
            self.jobs.clear();
            return expired;
        }
        self.start(copy, id);
        if let Some(id) = by_itself.filter(|_| !self.down) {
            copy.commit(id, "the application by itself");
        }
        for mut job in std::mem::take(&mut self.jobs) {
            let due = *job.due.get_or_insert(at + job.takes);
            if due > at {
                self.jobs.push(job);
            } else {
                let done = copy.commit(job.id, "the application").is_some();
                self.done.push((job.reply, done));
            }
        }
        expired
    }
}
