//! What the tests share. HTTP on a connection and the applications are those of
//! `tests/integration`.

pub mod browser;
pub mod cluster;
pub mod link;
#[path = "../../support/port.rs"]
pub mod port;
#[path = "../../integration/support/python.rs"]
#[allow(dead_code)]
pub mod python;
#[path = "../../integration/support/raw.rs"]
#[allow(dead_code)]
pub mod raw;
#[path = "../../support/relay.rs"]
pub mod relay;
#[path = "../../integration/support/wire.rs"]
#[allow(dead_code)]
pub mod wire;

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use self::wire::soon;

/// Returns once `state` says so.
pub async fn until<F: Future<Output = bool>>(what: &str, mut state: impl FnMut() -> F) {
    let reached = async {
        while !state().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(what, reached).await;
}

/// Does all of it at the same time, in one task: the nodes have threads of their own.
pub async fn together<F: Future>(work: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = work.map(|future| (Some(Box::pin(future)), None)).collect();
    poll_fn(|cx| {
        for (future, done) in &mut pending {
            if let Some(Poll::Ready(value)) = future.as_mut().map(|f| f.as_mut().poll(cx)) {
                (*future, *done) = (None, Some(value));
            }
        }
        let over = pending.iter().all(|(future, _)| future.is_none());
        if over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    pending.into_iter().map(|(_, done)| done.unwrap()).collect()
}
