//! Whether a request at the primary's application has written: the database is read before and after it,
//! and an advance is the request's own only if no other request was there. To know costs two readings:
//! each worker allows itself a number of them. Few answers wait for one, and few requests.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::header::HOST;
use http::{HeaderMap, Method};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::at_app::{Alone, Visit};
use super::upstream::Request;
use super::worker::Worker;
use crate::rules::{RuleSet, WriteRoute, target};
use crate::txid::EpochTxid;

/// Looks that a worker allows itself until its budget is renewed, four times a second.
pub(crate) const LOOKS: u32 = 32;
/// So many of these have requests wait until the position before them is known, beside those that probably write.
const EXACT: u32 = 8;
/// For so long at most: LiteFS may hang.
const AHEAD: Duration = Duration::from_millis(10);
/// Who called a request a read that a peer passed on.
const ELSEWHERE: &str = "another node's rules";

/// Why it is not known whether a request writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Doubt {
    /// The rules call it a read.
    Read,
    /// It wrote before, and may have ceased to.
    Learned,
    /// As a read it has failed on a replica.
    Failed,
    /// On a replica its application has said that it writes.
    Refused,
}

/// A look at a request.
pub(crate) struct Look {
    doubt: Doubt,
    /// That it was alone, and the position then; `None` where there is nothing to be seen.
    before: Option<(Alone, Reading)>,
    subject: Subject,
}

/// The request, as people and rules name it.
pub(crate) struct Subject {
    pub(crate) method: Method,
    pub(crate) path: String,
    host: Vec<u8>,
    rules: Arc<RuleSet>,
    /// `None`: a peer decided.
    rule: Option<usize>,
}

/// The position, once it has been read. Of one that is under way it is not known whether it is that before
/// or after a request that was sent meanwhile.
struct Reading(Started<Option<EpochTxid>>);

/// Work that was begun.
enum Started<T> {
    Done(T),
    UnderWay(JoinHandle<T>),
}

/// What a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// The database is there now.
    Wrote(EpochTxid),
    Nothing,
    /// It may have been somebody else's, or seen too late.
    Unclear,
}

impl Subject {
    pub(crate) fn new(worker: &Worker, request: &Request, rule: Option<usize>) -> Self {
        Self {
            method: request.method().clone(),
            path: target::shown(request.target().path()).into_owned(),
            host: host_of(request.headers()).to_vec(),
            rules: worker.rules(),
            rule,
        }
    }

    /// One that another node called a read.
    #[cfg(test)]
    pub(crate) fn of(method: Method, path: &str) -> Self {
        let rules = Arc::new(RuleSet::load(&[]).unwrap_or_else(|why| panic!("{why:?}")));
        Self { method, path: path.to_owned(), host: Vec::new(), rules, rule: None }
    }

    /// The rule that called it a read.
    pub(crate) fn place(&self) -> &str {
        self.rule.map_or(ELSEWHERE, |rule| self.rules.place(rule))
    }

    pub(crate) fn route(&self) -> Option<WriteRoute> {
        WriteRoute::of(&self.method, &self.host, &self.path)
    }
}

/// The host that a request names, with its port.
pub(crate) fn host_of(fields: &HeaderMap) -> &[u8] {
    fields.get(HOST).map_or(&[], |host| host.as_bytes())
}

impl Look {
    /// Looks at a request that is about to go to the application of the primary, if that can tell
    /// anything.
    pub(crate) async fn begin(
        worker: &Rc<Worker>,
        request: &Request,
        doubt: Doubt,
        rule: Option<usize>,
        visit: &Visit,
    ) -> Option<Self> {
        // What an application says of itself needs no proof.
        let before = match doubt {
            Doubt::Refused => None,
            Doubt::Read | Doubt::Learned | Doubt::Failed => {
                let alone = visit.alone()?;
                let left = worker.looks.get().checked_sub(1)?;
                worker.looks.set(left);
                let mut before = Reading::begin(worker);
                if doubt != Doubt::Read || left >= LOOKS - EXACT {
                    before.settle().await;
                }
                Some((alone, before))
            }
        };
        Some(Self { doubt, before, subject: Subject::new(worker, request, rule) })
    }

    /// The application has answered. The answer does not wait for what comes of that.
    pub(crate) fn end(self, worker: &Rc<Worker>, visit: Visit) {
        let worker = worker.clone();
        Started::begin(async move { self.conclude(&worker, &visit).await });
    }

    /// Likewise, for an answer that says it: whether the request is one that writes.
    pub(crate) async fn conclude(self, worker: &Rc<Worker>, visit: &Visit) -> bool {
        let shared = &worker.shared;
        let found = match self.before {
            Some((alone, before)) => before.then(worker, alone, visit).await,
            None => Found::Unclear,
        };
        let subject = self.subject;
        let writes = match (self.doubt, found) {
            (Doubt::Refused, _) => true,
            (Doubt::Read, Found::Wrote(after)) => is_blamed_again(worker, after, &subject),
            (Doubt::Learned | Doubt::Failed, Found::Wrote(_)) => {
                shared.suspects.others_leave_certain()
            }
            (Doubt::Learned, Found::Nothing) => {
                subject.route().inspect(|route| shared.learned.idled(route));
                false
            }
            _ => false,
        };
        if writes
            && shared.learns()
            && let Some(route) = subject.route()
        {
            shared.learned.wrote(route);
        }
        writes
    }
}

/// Once may be by chance, since nothing else than the advance speaks for it.
fn is_blamed_again(worker: &Worker, after: EpochTxid, subject: &Subject) -> bool {
    let often = worker.shared.suspects.blame(after, subject);
    if often.is_some() {
        worker.metrics.suspected_write(subject.place());
    }
    often.is_some_and(|count| count > 1)
}

impl Reading {
    fn begin(worker: &Worker) -> Self {
        let engine = worker.shared.engine.clone();
        Self(Started::begin(async move { engine.read_position().await.ok() }))
    }

    /// Waits for it, though not for long.
    async fn settle(&mut self) {
        if let Started::UnderWay(task) = &mut self.0
            && let Ok(read) = timeout(AHEAD, task).await
        {
            self.0 = Started::Done(read.ok().flatten());
        }
    }

    async fn done(self) -> Option<EpochTxid> {
        match self.0 {
            Started::Done(position) => position,
            Started::UnderWay(task) => task.await.ok().flatten(),
        }
    }

    /// What has come of a request that was the only one when this was read, if it still is.
    async fn then(self, worker: &Rc<Worker>, alone: Alone, visit: &Visit) -> Found {
        let settled = matches!(self.0, Started::Done(_));
        let after = Self::begin(worker).done().await;
        let (Some(before), Some(after)) = (self.done().await, after) else {
            return Found::Unclear;
        };
        if visit.alone() != Some(alone) || before.epoch != after.epoch {
            return Found::Unclear;
        }
        worker.shared.suspects.was_alone(alone, settled.then_some(before), after);
        match after.txid > before.txid {
            true => Found::Wrote(after),
            false if settled => Found::Nothing,
            false => Found::Unclear,
        }
    }
}

impl<T: 'static> Started<T> {
    /// Runs as far as it comes at once; the rest is a task of this thread.
    fn begin(work: impl Future<Output = T> + 'static) -> Self {
        let mut work = Box::pin(work);
        match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => Self::Done(done),
            // A task is polled when it begins, and from then on by its own waker.
            Poll::Pending => Self::UnderWay(tokio::task::spawn_local(work)),
        }
    }
}
