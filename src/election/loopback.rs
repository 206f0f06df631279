//! Calls to this node's own name, answered here: no part of the election has to know whether it asks
//! itself or another node.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::timeout;

use super::rpc::{CallError, Request, Response, Service, Transport};
use crate::cluster::NodeId;
use crate::engine::BoxFuture;

/// A [`Transport`] that has calls to `own` answered by `local`. These never touch the network, so
/// nothing delays, repeats or reorders them.
pub(crate) struct Loopback {
    pub(crate) own: NodeId,
    /// Weak: whoever answers also calls through this.
    pub(crate) local: Weak<dyn Service>,
    pub(crate) remote: Arc<dyn Transport>,
}

impl Transport for Loopback {
    fn call(
        &self,
        to: NodeId,
        request: Request,
        limit: Duration,
    ) -> BoxFuture<'static, Result<Response, CallError>> {
        if to != self.own {
            return self.remote.call(to, request, limit);
        }
        let Some(local) = self.local.upgrade() else {
            let why = CallError::Unreachable("this node is stopping".to_owned());
            return Box::pin(std::future::ready(Err(why)));
        };
        Box::pin(async move {
            // In a task of its own: as with other nodes, what was asked is done completely even if
            // the caller gives up.
            let answering = tokio::spawn(local.answer(to, request));
            match timeout(limit, answering).await {
                Ok(Ok(response)) => Ok(response),
                Ok(Err(_)) => Err(CallError::Lost("this node is stopping".to_owned())),
                Err(_) => Err(CallError::Lost(format!("none within {} ms", limit.as_millis()))),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says who asked.
    struct Echo;

    impl Service for Echo {
        fn answer(&self, from: NodeId, request: Request) -> BoxFuture<'static, Response> {
            Box::pin(async move {
                if matches!(request, Request::Fitness) {
                    tokio::time::sleep(Duration::from_secs(9)).await;
                }
                Response::Refused(from.to_string())
            })
        }
    }

    struct Unreachable;

    impl Transport for Unreachable {
        fn call(
            &self,
            to: NodeId,
            _: Request,
            _: Duration,
        ) -> BoxFuture<'static, Result<Response, CallError>> {
            Box::pin(async move { Err(CallError::Unreachable(to.to_string())) })
        }
    }

    async fn call(loopback: &Loopback, to: &str, request: Request) -> String {
        let limit = Duration::from_secs(2);
        match loopback.call(to.parse().unwrap(), request, limit).await {
            Ok(Response::Refused(by)) => by,
            other => format!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_calls_to_oneself_are_answered_here_and_in_time() {
        let local: Arc<dyn Service> = Arc::new(Echo);
        let remote = Arc::new(Unreachable);
        let own = "a".parse().unwrap();
        let loopback = Loopback { own, local: Arc::downgrade(&local), remote };
        let give_way = || Request::Promote("b".parse().unwrap());
        assert_eq!(call(&loopback, "a", give_way()).await, "a");
        assert_eq!(call(&loopback, "b", give_way()).await, "Err(Unreachable(\"b\"))");
        let late = call(&loopback, "a", Request::Fitness).await;
        assert_eq!(late, "Err(Lost(\"none within 2000 ms\"))");
        drop(local);
        assert!(call(&loopback, "a", give_way()).await.contains("stopping"));
    }
}
