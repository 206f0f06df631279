//! What fails a primary, and handing over for as long as it does.

use std::future::Future;

use super::Election;
use super::context::ElectionContext;
use super::tenure::{Own, come};

/// Who would do better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relief {
    /// A node whose application answers.
    OtherApp,
    /// Whoever is fit.
    AnyNode,
}

/// Something that fails this node as the primary, and not every node.
pub trait Failure: Send {
    /// What is said once another node has taken over: the kind of event, and its text.
    const EVENT: (&'static str, &'static str);
    const RELIEF: Relief;

    /// Ready once it has lasted for long enough to hand over.
    fn lasts(&mut self) -> impl Future<Output = ()> + Send;

    /// Ready once there is reason to look again, after an attempt to hand over.
    fn may_last(&mut self) -> impl Future<Output = ()> + Send;
}

/// Hands over whenever this node is the primary and that fails it. Never ends.
pub async fn hand_over_on<F: Failure>(election: Election, mut failure: F) {
    let context = election.context().clone();
    let own = election.own();
    loop {
        failure.lasts().await;
        if is_primary(&context, &own.borrow()) {
            hand_over::<F>(&election).await;
        }
        failure.may_last().await;
    }
}

async fn hand_over<F: Failure>(election: &Election) {
    let (kind, text) = F::EVENT;
    let done = match F::RELIEF {
        Relief::OtherApp => election.pass_to_app().await,
        Relief::AnyNode => election.resign(super::HASTE).await,
    };
    match done {
        Ok(()) => election.context().callbacks.event(kind, text.to_owned()),
        Err(why) => tracing::warn!(%why, kind, "this node goes on as the primary all the same"),
    }
}

/// Whether this node takes writes.
pub(super) fn is_primary(context: &ElectionContext, own: &Own) -> bool {
    own.open && own.claim.is_valid_at(context.clock.now())
}

/// Ready once it does.
pub(super) async fn until_primary(election: &Election) {
    let context = election.context();
    come(&mut election.own(), |own| is_primary(context, own)).await;
}
