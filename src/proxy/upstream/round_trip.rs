//! One request and the head of its response on one connection, in the future of the request itself:
//! there is no task of its own that would have to be woken.

use std::future::poll_fn;
use std::io;
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use tokio::time::Instant;

use super::body::{Body, Continuing};
use super::request::Request;
use super::response::{self, Head, MAX_HEAD, ParsedHead};
use super::upload::{Stopped, Upload};
use super::wire::{Buffers, Wire};
use super::{Failure, Origin};
use crate::proxy::lazy_timer::LazyTimer;
use crate::proxy::request_body::{ReadError, UploadProgress};

/// A connection on which no request is under way; dropping it closes it.
pub(crate) struct Connection {
    pub(crate) wire: Wire,
    timer: LazyTimer,
}

impl Connection {
    pub(crate) fn new(wire: Wire) -> Self {
        Self { wire, timer: LazyTimer::default() }
    }

    /// Ready once it cannot be used: the origin has closed it, or has said something unasked.
    pub(crate) fn poll_ended(&self, buffers: &Buffers, cx: &mut Context<'_>) -> Poll<io::Error> {
        let came = ready!(buffers.poll_read(&self.wire, cx, <[u8]>::len));
        Poll::Ready(match came {
            Ok(0) => io::ErrorKind::UnexpectedEof.into(),
            Ok(_) => io::Error::new(io::ErrorKind::InvalidData, "it spoke without being asked"),
            Err(why) => why,
        })
    }

    /// Sends a request and waits for the head of its response.
    pub(crate) async fn send(
        self,
        origin: &Rc<Origin>,
        request: &Request,
    ) -> Result<Response<Body>, Failure> {
        let ended = poll_fn(|cx| Poll::Ready(self.poll_ended(&origin.buffers, cx))).await;
        if let Poll::Ready(why) = ended {
            return Err(Failure::Unreached(why));
        }
        let mut trip = RoundTrip::new(origin, self, request);
        let head = poll_fn(|cx| trip.poll(cx)).await?;
        Ok(trip.finish(head))
    }
}

struct RoundTrip<'a> {
    origin: &'a Rc<Origin>,
    connection: Connection,
    request: &'a Request,
    begun: Instant,
    /// What is still to be sent.
    upload: Option<Upload>,
    /// The origin took no more of the request. It may have answered nevertheless.
    refused: Option<io::Error>,
    progress: Option<Rc<UploadProgress>>,
    first: bool,
    came: BytesMut,
    /// As much of what came holds no head.
    looked: usize,
}

impl<'a> RoundTrip<'a> {
    fn new(origin: &'a Rc<Origin>, connection: Connection, request: &'a Request) -> Self {
        let begun = Instant::now();
        let progress = request.body().progress();
        if let Some(progress) = &progress {
            progress.begin();
        }
        let upload = Upload::new(origin.buffers.take_write(), request, origin.dial.is_peer());
        let upload = Some(upload);
        Self {
            origin,
            connection,
            request,
            begun,
            upload,
            refused: None,
            progress,
            first: true,
            came: BytesMut::new(),
            looked: 0,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, Failure>> {
        self.poll_upload(cx)?;
        // Nothing had come a moment ago, and whatever comes wakes us.
        let just_sent = mem::take(&mut self.first) && self.upload.is_none();
        if !just_sent && let Poll::Ready(head) = self.poll_head(cx) {
            return Poll::Ready(head);
        }
        ready!(self.connection.timer.poll_passed(self.deadline(), cx));
        Poll::Ready(Err(match &self.progress {
            Some(progress) if progress.starved() && !progress.sent() => {
                Failure::Client(ReadError::Timeout)
            }
            _ => Failure::Timeout,
        }))
    }

    /// The head of the response proper.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, Failure>> {
        loop {
            match ready!(self.poll_start(cx)) {
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                // It may have been the word to go ahead.
                Ok(None) => self.poll_upload(cx)?,
                Err(why) => {
                    return Poll::Ready(Err(Failure::Broken(self.refused.take().unwrap_or(why))));
                }
            }
        }
    }

    /// Until the body has gone out each piece has its limit, then the response has.
    fn deadline(&self) -> Instant {
        let limits = self.request.limits();
        match &self.progress {
            Some(progress) if !progress.sent() => progress.last() + limits.piece,
            Some(progress) => progress.last() + limits.response,
            None => self.begun + limits.response,
        }
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let Some(mut upload) = self.upload.take() else { return Ok(()) };
        match upload.poll(&self.connection.wire, cx) {
            Poll::Pending => self.upload = Some(upload),
            Poll::Ready(Ok(())) => self.origin.buffers.give_write(upload.into_buffer()),
            Poll::Ready(Err(Stopped::Wire(why))) => self.refused = Some(why),
            Poll::Ready(Err(Stopped::Source)) => {
                let why = self.progress.as_ref().and_then(|progress| progress.failed());
                return Err(Failure::Client(why.unwrap_or(ReadError::Broken)));
            }
        }
        Ok(())
    }

    /// The head of the response; `None`: an interim one, which concerns only us.
    fn poll_start(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Head>>> {
        loop {
            if self.came.len() > self.looked
                && (self.looked == 0 || response::may_end(&self.came, self.looked))
            {
                let came = mem::take(&mut self.came).freeze();
                match response::parse(&came, self.request.method())? {
                    ParsedHead::Final(head) => return Poll::Ready(Ok(Some(head))),
                    ParsedHead::Interim(status, rest) => {
                        self.interim(status, rest);
                        return Poll::Ready(Ok(None));
                    }
                    ParsedHead::Partial => self.came = came.into(),
                }
            }
            self.looked = self.came.len();
            if self.looked >= MAX_HEAD {
                return Poll::Ready(Err(response::too_large()));
            }
            let came = &mut self.came;
            let n = ready!(self.origin.buffers.poll_read(&self.connection.wire, cx, |data| {
                came.extend_from_slice(data);
                data.len()
            }))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    fn interim(&mut self, status: StatusCode, rest: Bytes) {
        self.came = rest.into();
        self.looked = 0;
        if status == StatusCode::CONTINUE
            && let Some(upload) = &mut self.upload
        {
            upload.go_ahead();
        }
    }

    fn finish(self, mut head: Head) -> Response<Body> {
        // After a request that did not go out whole, another one would be taken for its rest.
        head.keep &= self.upload.is_none() && self.refused.is_none();
        let upload = self.upload.filter(|upload| !upload.is_held());
        let wire = &self.connection.wire;
        let piece = self.request.limits().piece;
        let upload = upload.map(|upload| proceed(upload, wire.clone(), piece));
        let response = mem::take(&mut head.response);
        let body = Body::new(head, self.connection, self.origin, upload);
        response.map(|()| body)
    }
}

/// Sends on what is left of a request whose response has begun to come: the origin may want all of
/// it, and a client that sends before it reads must not block forever. Ends when nothing moves for
/// as long as `limit`.
fn proceed(mut upload: Upload, wire: Wire, limit: Duration) -> Continuing {
    let mut timer = LazyTimer::default();
    let mut deadline = Instant::now() + limit;
    Continuing::new(tokio::task::spawn_local(async move {
        let sent = poll_fn(|cx| {
            if let Poll::Ready(sent) = upload.poll(&wire, cx) {
                return Poll::Ready(sent.is_ok());
            }
            if upload.has_moved() {
                deadline = Instant::now() + limit;
            }
            timer.poll_passed(deadline, cx).map(|()| false)
        });
        if !sent.await {
            // The origin must not wait for the rest.
            let _ = poll_fn(|cx| wire.poll_shutdown(cx)).await;
        }
    }))
}
