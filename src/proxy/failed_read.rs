//! A read that fails on a replica is asked of the primary: what a replica's application cannot do it mostly
//! can, a write above all. The client sees the primary's answer, whatever it is. And what is made of such
//! requests: where it turns out that they write, the next one goes to the primary at once.
//!
//! An application may not know that it has failed: some drivers of SQLite do not say that a statement could
//! not be committed (docs/applications/sqlite.md). So a read has failed, too, whatever its answer, if the
//! engine has refused a write meanwhile.

use http::StatusCode;
use http::response::Parts;
use tokio::time::Instant;

use super::exchange::Exchange;
use super::facts::{Progress, RequestFacts};
use super::forward;
use super::look::{Doubt, Subject};
use super::problem::Problem;
use super::request::Upgrade;
use super::request_body::Outgoing;
use super::route;
use super::upstream::Request;
use crate::cluster::ClusterView;
use crate::guarantee::ReplayPolicy;
use crate::rules::Class;

/// Whether the answer to a request here may be dropped for that of the primary. Nothing of it was passed
/// on yet.
fn may_fail_over(facts: &RequestFacts, progress: &Progress, failed: bool, bodiless: bool) -> bool {
    failed
        && facts.replay == ReplayPolicy::FailedReads
        && progress.class(facts) == Class::Read
        && facts.upgrade == Upgrade::None
        && bodiless
}

impl Exchange {
    /// Whether what the application here has answered is dropped, and the primary asked. `refused` is what
    /// this replica had refused before the request; `None`: this node took writes.
    pub(super) fn asks_primary(
        &mut self,
        status: StatusCode,
        request: &Request,
        view: &ClusterView,
        refused: Option<u64>,
    ) -> bool {
        let Some(refused) = refused else { return false };
        if self.class() != Class::Read {
            return false;
        }
        self.worker.reads.set(self.worker.reads.get() + 1);
        let bodiless = matches!(request.body(), Outgoing::Empty);
        let failed =
            status.is_server_error() || self.worker.shared.engine.refused_writes() != refused;
        if !may_fail_over(&self.facts, &self.progress, failed, bodiless) || !can_be_asked(view) {
            return false;
        }
        self.worker.deposit_reads();
        let paid = self.worker.shared.replay_budget.lock().withdraw(Instant::now());
        if paid {
            self.progress.failed_here = Some(status);
        } else {
            self.worker.metrics.replay_refused();
        }
        paid
    }

    /// What a client is told whose read has failed here, and of whom the primary could not be asked.
    pub(super) fn after_failed_read(&self, problem: Problem) -> Problem {
        match self.progress.failed_here {
            None => problem,
            Some(status) => problem.preceded_by(&format!(
                "the application here answered {}, and the primary's could not be asked",
                status.as_u16()
            )),
        }
    }

    /// The application has answered: has the request written? The entry is told, if it could not do the
    /// request itself.
    pub(super) async fn end_look(&mut self, head: &mut Parts) {
        let (look, visit) = (self.progress.look.take(), self.progress.visit.take());
        let done = !head.status.is_server_error();
        let wrote = match (self.facts.doubt, look, visit) {
            (Some(Doubt::Failed | Doubt::Refused), Some(look), Some(visit)) => {
                done && Box::pin(look.conclude(&self.worker, &visit)).await
            }
            (_, Some(look), Some(visit)) => {
                look.end(&self.worker, visit);
                false
            }
            _ => false,
        };
        if wrote && self.facts.from_peer {
            head.headers.insert(forward::WROTE, http::HeaderValue::from_static("true"));
        }
    }

    /// The primary says that a request has written that could not be done here.
    pub(super) fn was_refused_here(&self, request: &Request) {
        let shared = &self.worker.shared;
        let subject = Subject::new(&self.worker, request, self.facts.rule);
        self.worker.metrics.refused_write(subject.place());
        shared.suspects.refused(&subject);
        if shared.learns()
            && let Some(route) = subject.route()
        {
            shared.learned.wrote(route);
        }
    }
}

/// Whether there is a primary elsewhere, or will be.
fn can_be_asked(view: &ClusterView) -> bool {
    route::is_primary_elsewhere(view) || view.primary.is_none() && view.elected && view.quorum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Consistency;
    use crate::proxy::replay::ReplayRequest;

    fn read() -> RequestFacts {
        RequestFacts::plain(Class::Read, Consistency::ReadYourWrites, None, Instant::now())
    }

    fn may(facts: &RequestFacts, progress: &Progress, failed: bool) -> bool {
        may_fail_over(facts, progress, failed, true)
    }

    #[test]
    fn only_a_read_that_failed_is_asked_again() {
        let fresh = Progress::default();
        assert!(may(&read(), &fresh, true) && !may(&read(), &fresh, false));
        assert!(!may_fail_over(&read(), &fresh, true, false), "with a body");
        let again = Progress { replay: Some(ReplayRequest::failed_read()), ..Progress::default() };
        assert!(!may(&read(), &again, true), "twice");
        for other in [
            RequestFacts { class: Class::Write, ..read() },
            RequestFacts { class: Class::Passthrough, ..read() },
            RequestFacts { upgrade: Upgrade::WebSocket, ..read() },
            RequestFacts { replay: ReplayPolicy::Asked, ..read() },
            RequestFacts { replay: ReplayPolicy::Never, ..read() },
        ] {
            assert!(!may(&other, &fresh, true), "{:?}, {:?}", other.class, other.replay);
        }
    }
}
