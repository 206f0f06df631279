//! A control that does what a test says, and keeps what it was asked for.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Semaphore;

use crate::cluster::{Epoch, NodeId};
use crate::control::{Control, ControlError, MemberChange, MemberStatus, OnceKey, Promoted};
use crate::engine::BoxFuture;

pub(crate) struct FakeControl {
    asked: Mutex<Vec<String>>,
    refusal: Mutex<Option<ControlError>>,
    keys: Mutex<HashSet<String>>,
    /// A change takes one before it is made.
    pub(crate) permits: Semaphore,
}

impl Default for FakeControl {
    fn default() -> Self {
        let permits = Semaphore::new(Semaphore::MAX_PERMITS);
        let (asked, refusal, keys) = Default::default();
        Self { asked, refusal, keys, permits }
    }
}

impl FakeControl {
    /// From now on everything is refused so, or nothing is.
    pub(crate) fn refuse(&self, refusal: Option<ControlError>) {
        *lock(&self.refusal) = refusal;
    }

    /// From now on changes wait for [`FakeControl::permits`].
    pub(crate) fn hold(&self) {
        self.permits.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// What it was asked for; keys looked up are not in there.
    pub(crate) fn asked(&self) -> Vec<String> {
        lock(&self.asked).clone()
    }

    pub(crate) fn remembers(&self, key: &str) -> bool {
        lock(&self.keys).contains(key)
    }

    async fn change(&self, what: String) -> Result<(), ControlError> {
        lock(&self.asked).push(what);
        self.permits.acquire().await.unwrap().forget();
        self.refused()
    }

    fn refused(&self) -> Result<(), ControlError> {
        lock(&self.refusal).clone().map_or(Ok(()), Err)
    }
}

impl Control for FakeControl {
    fn promote(
        &self,
        node: Option<NodeId>,
        force: bool,
    ) -> BoxFuture<'_, Result<Promoted, ControlError>> {
        Box::pin(async move {
            self.change(format!("promote {node:?} {force}")).await?;
            let here = || "node-1".parse().unwrap();
            Ok(Promoted { node: node.unwrap_or_else(here), epoch: Epoch(4) })
        })
    }

    fn members(&self) -> Result<Vec<MemberStatus>, ControlError> {
        Ok(vec![MemberStatus {
            node: "node-1".parse().unwrap(),
            address: "127.0.0.1:4321".parse().unwrap(),
            witness: false,
            voter: true,
            generation: 0,
        }])
    }

    fn change_members(&self, change: MemberChange) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(self.change(format!("{change:?}")))
    }

    fn was_done(&self, key: OnceKey) -> BoxFuture<'_, Result<bool, ControlError>> {
        Box::pin(async move { Ok(self.remembers(key.as_str())) })
    }

    fn remember(&self, key: OnceKey, epoch: Epoch) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            self.change(format!("remember {key} of {epoch}")).await?;
            lock(&self.keys).insert(key.to_string());
            Ok(())
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}
