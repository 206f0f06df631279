//! A connection whose client asks nothing for a while. hyper keeps 16 KiB of buffers for each; of
//! those that only wait there may be thousands, so they give theirs back until a request comes.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::activity::Activity;
use super::client_io::ClientIo;
use super::lazy_timer::LazyTimer;
use super::worker::Worker;

/// As much of a request as is read before there is a buffer for it.
const FIRST: usize = 512;

/// Says whether a request begins, before the client leaves or its time is over.
pub(super) async fn until_a_request<T: AsyncRead + Unpin>(
    worker: &Rc<Worker>,
    activity: &Activity,
    io: &mut ClientIo<T>,
) -> bool {
    let mut timer = LazyTimer::default();
    let mut presence = None;
    poll_fn(|cx| {
        let mut first = [0; FIRST];
        let mut first = ReadBuf::new(&mut first);
        if let Poll::Ready(read) = Pin::new(&mut *io).poll_read(cx, &mut first) {
            io.put_back(first.filled());
            return Poll::Ready(read.is_ok() && !first.filled().is_empty());
        }
        presence.get_or_insert_with(|| worker.enter(cx.waker().clone()));
        let Some(deadline) = activity.deadline(worker.impatient_since()) else {
            return Poll::Pending;
        };
        ready!(timer.poll_passed(deadline, cx));
        Poll::Ready(false)
    })
    .await
}
