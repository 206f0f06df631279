//! One client connection that speaks HTTP/2 (RFC 9113): hyper's state machine with limits against
//! floods, and a watchdog beside it.
//!
//! h2 refuses what HTTP/2 forbids in heads (connection-specific fields, `TE` but for `trailers`,
//! names in upper case, CR, LF and NUL, lengths that do not fit), and [`request`](super::request) what
//! could be read in two ways. So nothing of it reaches an application, to which everything is
//! written anew.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use http::header::{ACCEPT, COOKIE, HeaderValue};
use http::{HeaderMap, Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::client::{self, Client};
use super::exchange::{self, Exchange};
use super::finish::Finish;
use super::gathered_io::GatheredIo;
use super::lazy_timer::LazyTimer;
use super::observed_io::ObservedIo;
use super::problem::{Problem, ProblemKind};
use super::response_body::ResponseBody;
use super::streams::{Paced, Spawner, Streams};
use super::worker::Worker;

/// Requests that a connection may have under way at once.
const MAX_STREAMS: u32 = 100;
/// Bytes of a head, each field counted with 32 more (RFC 9113, 6.5.2). Beyond it h2 says 431, far
/// beyond it it closes the connection; so it does after too many CONTINUATION frames.
const MAX_HEAD: u32 = 64 * 1024;
/// Fields of a head, as with HTTP/1.
const MAX_FIELDS: usize = 100;
/// Bytes of a body, and of all bodies of a connection, that a client may send before they are passed on.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of one response that wait for their client.
const MAX_UNSENT: usize = 64 * 1024;
/// Streams that were reset before we looked at them, and that we reset for their faults: more is an
/// attack (CVE-2023-44487, CVE-2025-8671).
const MAX_RESET_UNSEEN: usize = 20;
const MAX_FAULTS: usize = 100;
/// A client silent for `ASK_AFTER` is pinged, and has `ANSWER_WITHIN` to answer.
const ASK_AFTER: Duration = Duration::from_secs(30);
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Serves a client until either side is done.
pub(crate) async fn serve<T>(worker: Rc<Worker>, stream: T, client: Client)
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let client = Rc::new(client);
    let streams = Streams::new(client::limits(&worker.shared.config));
    let io = GatheredIo::new(ObservedIo { socket: stream, clock: streams.clone() });
    let service = service_fn(|request| answer(worker.clone(), client.clone(), request));
    let connection = builder(&streams).serve_connection(TokioIo::new(io.clone()), service);
    let mut connection = pin!(connection);
    let mut timer = LazyTimer::default();
    let mut leaving: Option<Instant> = None;
    let mut presence = None;
    poll_fn(|cx| {
        if worker.is_draining() && leaving.is_none() {
            // Unlike with HTTP/1.1, what is on its way already is served (RFC 9113, 6.8).
            leaving = Some(Instant::now());
            connection.as_mut().graceful_shutdown();
        }
        loop {
            if connection.as_mut().poll(cx).is_ready()
                || streams.is_abused()
                || matches!(io.poll_send(cx), Poll::Ready(Err(_)))
            {
                return Poll::Ready(());
            }
            presence.get_or_insert_with(|| {
                streams.watched_by(cx.waker().clone());
                worker.enter(cx.waker().clone())
            });
            let deadline = streams.deadline(leaving, worker.impatient_since());
            let Some(deadline) = deadline else { return Poll::Pending };
            ready!(timer.poll_passed(deadline, cx));
            if leaving.is_some() || streams.is_stalled() {
                return Poll::Ready(());
            }
            leaving = Some(Instant::now());
            connection.as_mut().graceful_shutdown();
        }
    })
    .await;
}

fn builder(streams: &Rc<Streams>) -> Builder<Spawner> {
    let mut builder = Builder::new(Spawner(streams.clone()));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(MAX_UNSENT)
        .max_pending_accept_reset_streams(MAX_RESET_UNSEEN)
        .max_local_error_reset_streams(MAX_FAULTS)
        .keep_alive_interval(ASK_AFTER)
        .keep_alive_timeout(ANSWER_WITHIN);
    builder
}

type Answered = Result<Response<Paced<ResponseBody<Finish>>>, std::convert::Infallible>;

async fn answer(
    worker: Rc<Worker>,
    client: Rc<Client>,
    mut request: Request<Incoming>,
) -> Answered {
    let head_only = request.method() == Method::HEAD;
    join_cookies(request.headers_mut());
    let response = if request.headers().len() > MAX_FIELDS {
        let problem =
            Problem::new(ProblemKind::HeadersTooLarge, "the request has more than 100 fields");
        Exchange::unread(worker, client, Instant::now())
            .refuse(&problem, request.headers().get(ACCEPT))
    } else {
        exchange::serve(worker, client, request).await?
    };
    Ok(response.map(|body| Paced::new(body, head_only)))
}

/// Clients may split cookies for the sake of compression; applications want them in one line
/// (RFC 9113, 8.2.3).
fn join_cookies(fields: &mut HeaderMap) {
    let mut crumbs = fields.get_all(COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = fields.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // What was put together from valid values with what is valid in one is valid.
    if let Ok(cookies) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        fields.insert(COOKIE, cookies);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookie_crumbs_become_one_line() {
        let mut fields = HeaderMap::new();
        join_cookies(&mut fields);
        assert!(fields.is_empty());
        for crumb in ["a=1", "b=\"2\"", "c=3; d=4"] {
            fields.append(COOKIE, HeaderValue::from_static(crumb));
        }
        join_cookies(&mut fields);
        let all: Vec<_> = fields.get_all(COOKIE).iter().collect();
        assert_eq!(all, ["a=1; b=\"2\"; c=3; d=4"]);
    }
}
