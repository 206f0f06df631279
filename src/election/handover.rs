//! A planned change of primary: new writes are held, those under way are finished, the copy is fenced,
//! the successor reaches it, and only then the claim passes. Nobody sees an error.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::timeout;

use super::error::ElectionError;
use super::failure::is_primary;
use super::keep_alive::KeepAlive;
use super::rpc::{Fitness, Request, Response};
use super::table::{Applied, Command, Holder};
use super::tenure::{Order, Patience, Tenure};
use crate::cluster::{Epoch, NodeId};
use crate::txid::Position;

/// How long the application's own writers may take to end.
const FENCE: Duration = Duration::from_secs(3);
/// How long the successor may take from then on; after that there is an ordinary election.
const YIELDING: Duration = Duration::from_secs(1);
/// How long a question to the successor may take.
const QUESTION: Duration = Duration::from_millis(500);
/// How often a copy is compared although its engine has not said that it got as far: its position may
/// lag behind what it holds.
const RECHECK: Duration = Duration::from_millis(50);

/// To whom this node yields.
#[derive(Default)]
pub(crate) struct HandOver(Mutex<Option<Yielding>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Yielding {
    epoch: Epoch,
    to: NodeId,
    /// It has asked for it: the claim is over.
    done: bool,
}

impl HandOver {
    fn set(&self, yielding: Option<Yielding>) {
        *self.0.lock() = yielding;
    }

    /// Whether the claim has passed.
    fn is_done(&self) -> bool {
        let yielding = self.0.lock();
        yielding.as_ref().is_some_and(|yielding| yielding.done)
    }

    /// `from` asks for the claim of `epoch`.
    fn take(&self, from: &NodeId, epoch: Epoch) -> bool {
        let mut yielding = self.0.lock();
        match yielding.as_mut().filter(|y| y.epoch == epoch && y.to == *from) {
            Some(yielding) => {
                yielding.done = true;
                true
            }
            None => false,
        }
    }
}

impl Tenure {
    /// Carries an order out; says whether the claim has passed. If not, everything is as before.
    pub(super) async fn hand_over(
        &self,
        holder: &Holder,
        order: Order,
        keep_alive: &mut KeepAlive,
    ) -> bool {
        let Order { to, patience, reply } = order;
        let passing = self.pass(holder, &to, patience);
        let kept = async {
            keep_alive.keep().await;
            if self.handover.is_done() {
                // It is over because it has passed.
                std::future::pending::<()>().await;
            }
        };
        let passed = tokio::select! {
            biased;
            passed = passing => passed,
            () = kept => Err(ElectionError::ClaimEnded),
        };
        let yielded = self.handover.is_done();
        self.handover.set(None);
        if passed.is_err() && !yielded {
            if let Err(why) = self.context.engine.lift_fence().await {
                tracing::error!(%why, "the application cannot write: the fence stays");
            }
            self.set_open(true);
            if is_primary(&self.context, &self.own().borrow()) {
                self.context.callbacks.wind_up();
            }
        }
        if yielded && passed.is_err() {
            // The successor has the claim and not the lease: an ordinary election follows.
            let release = Command::Release { epoch: holder.epoch };
            drop(self.context.propose(release, self.context.times.ttl).await);
        }
        if let Err(why) = &passed {
            let text = format!("{holder} was not handed over to {to}: {why}");
            self.context.callbacks.event("handoff-failed", text);
        }
        drop(reply.send(passed.clone()));
        yielded
    }

    async fn pass(
        &self,
        holder: &Holder,
        to: &NodeId,
        patience: Patience,
    ) -> Result<(), ElectionError> {
        self.is_fit(to).await?;
        self.context.callbacks.event("handoff", format!("{holder} hands over to {to}"));
        if !patience.services.is_zero() {
            self.context.callbacks.wind_down(patience.services).await;
        }
        self.set_open(false);
        let done = timeout(patience.writes, self.context.callbacks.writes_done()).await;
        done.map_err(|_| ElectionError::WritesUnderWay(patience.writes))?;
        let at = self.context.engine.fence(FENCE).await;
        let at = at.map_err(|why| ElectionError::NotFenced(why.to_string()))?;
        let yielding = Yielding { epoch: holder.epoch, to: to.clone(), done: false };
        self.handover.set(Some(yielding));
        let request = Request::TakeOver { epoch: holder.epoch, at };
        match self.context.transport.call(to.clone(), request, YIELDING).await {
            Ok(Response::Done) => Ok(()),
            Ok(Response::Refused(why)) => Err(ElectionError::Refused(why)),
            Ok(_) => Err(ElectionError::UnexpectedResponse),
            Err(why) => Err(why.into()),
        }
    }

    async fn is_fit(&self, to: &NodeId) -> Result<(), ElectionError> {
        let answer = self.context.transport.call(to.clone(), Request::Fitness, QUESTION).await;
        match answer? {
            Response::Fitness(Fitness { candidate: false, .. }) => {
                Err(ElectionError::Refused("it is no candidate".to_owned()))
            }
            Response::Fitness(Fitness { unfit: Some(why), .. }) => Err(ElectionError::Refused(why)),
            Response::Fitness(_) => Ok(()),
            Response::Refused(why) => Err(ElectionError::Refused(why)),
            _ => Err(ElectionError::UnexpectedResponse),
        }
    }

    /// As the successor: waits until this copy is as far as the holder's, takes the claim over, and
    /// has it agreed upon.
    pub(crate) async fn take_over(&self, from: NodeId, epoch: Epoch, at: Position) -> Response {
        if timeout(QUESTION, self.reached(at)).await.is_err() {
            return Response::Refused("its copy is too far behind".to_owned());
        }
        let Response::Fitness(fitness) = self.fitness().await else {
            return Response::Refused("its copy cannot be read".to_owned());
        };
        let next = fitness.holder(self.context.own.clone(), Epoch(epoch.0.saturating_add(1)));
        let asked = self.context.transport.call(from, Request::Yield { epoch }, QUESTION).await;
        if !matches!(asked, Ok(Response::Done)) {
            return Response::Refused("the primary did not yield".to_owned());
        }
        let hand_over = Command::HandOver(next.clone());
        match self.context.propose(hand_over, YIELDING).await {
            Ok(Applied::Done) => {
                self.granted(next);
                Response::Done
            }
            Ok(Applied::Rejected(why)) | Err(why) => Response::Refused(why),
        }
    }

    /// Waits until this copy holds exactly what the holder's does.
    async fn reached(&self, at: Position) {
        let engine = &self.context.engine;
        let mut told = false;
        loop {
            tokio::select! {
                biased;
                () = engine.position().wait(at.at), if !told => told = true,
                () = self.context.clock.sleep(RECHECK) => {}
            }
            if engine.held().await.is_ok_and(|held| held.position == at) {
                return;
            }
        }
    }

    /// As the holder: ends the claim for the successor that was chosen, and for nobody else.
    pub(crate) fn yield_to(&self, from: &NodeId, epoch: Epoch) -> Response {
        if !self.handover.take(from, epoch) {
            return Response::Refused("this node hands nothing over to that one".to_owned());
        }
        self.end_claim();
        Response::Done
    }
}
