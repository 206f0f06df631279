//! What clients send: see [`crate::fuzz`].

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{COOKIE, HeaderMap, HeaderName, HeaderValue, SET_COOKIE};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::{Activity, ConnectionLimits};
use super::client_body::ClientBody;
use super::client_io::ClientIo;
use super::headers::{self, Trust};
use super::replay::ReplayRequest;
use super::token::{self, Setter};
use super::upstream::{self, RawHeaders, RequestLimits};
use super::{forwarded, proxy_protocol, request, trace};
use crate::cluster::Epoch;
use crate::config::{Cookie, Trusted};
use crate::fuzz::{at_once, pieces};
use crate::rules::target;
use crate::txid::{EpochTxid, Txid};

const LIMIT: Duration = Duration::from_secs(3600);
/// As many as hyper takes, and what is added to them.
const FIELDS: usize = 100;
const OURS: usize = 16;
const LIMITS: ConnectionLimits = ConnectionLimits { head: LIMIT, idle: LIMIT, piece: LIMIT };

/// What a request was read as, with an `x` for each odd byte.
type Seen = (Vec<u8>, Vec<u8>, Vec<u8>);

/// A client's socket: all that it sends, then its end. What it is sent is dropped.
struct Script(VecDeque<Vec<u8>>);

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(piece) = self.0.front_mut() {
            let rest = piece.split_off(piece.len().min(buf.remaining()));
            buf.put_slice(piece);
            *piece = rest;
            if piece.is_empty() {
                self.0.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The requests of a connection are those that hyper would read if odd bytes were none.
pub(crate) fn connection(data: &[u8]) {
    let (pieces, all) = pieces(data);
    let (ours, theirs) = (RefCell::default(), RefCell::default());
    let script = Script(pieces.map(<[u8]>::to_vec).collect());
    let activity = Arc::new(Activity::new(LIMITS));
    let io = ClientIo::new(script, activity.clone(), Arc::from("n1"), false);
    serve(io, Some(activity), &ours);
    serve(Script(VecDeque::from([plain(all)])), None, &theirs);
    for (ours, theirs) in ours.take().iter().zip(theirs.take()) {
        assert_eq!(*ours, theirs);
    }
}

fn serve<T>(io: T, activity: Option<Arc<Activity>>, seen: &RefCell<Vec<Seen>>)
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let activity = activity.clone();
        let (head, body) = request.into_parts();
        if let Some(activity) = &activity {
            activity.busy(body.size_hint().exact());
        }
        let body = ClientBody::new(body, activity.clone());
        async move {
            let body = body.collect().await?.to_bytes();
            let path = target::bytes(head.uri.path_and_query().map_or("", |path| path.as_str()));
            let method = plain(head.method.as_str().as_bytes());
            seen.borrow_mut().push((method, plain(&path), plain(&body)));
            activity.inspect(|activity| activity.idle(tokio::time::Instant::now()));
            Ok::<_, hyper::Error>(Response::new(Empty::<Bytes>::new()))
        }
    });
    // Whatever is no HTTP ends it.
    let _ = at_once(http1::Builder::new().serve_connection(TokioIo::new(io), service));
}

fn plain(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| if target::is_odd(*byte) { b'x' } else { *byte }).collect()
}

/// A head that is accepted is one to the next parser, too, and says the same to it.
pub(crate) fn request_head(data: &[u8]) {
    let Some(mut head) = parsed(data, FIELDS) else { return };
    if request::check(&mut head).is_err() {
        return;
    }
    let _ = trace::name(&mut head.headers, &trace::Numbers::default());
    let carried = token::find(&head.headers, headers::speak_to_us(&head.headers));
    headers::clean(&mut head.headers, Trust::Nobody, &[]);
    let mut added = RawHeaders::with_capacity(64);
    carried.strip(&mut head.headers, &mut added);
    let limits = RequestLimits { piece: LIMIT, response: LIMIT };
    let (method, uri) = (head.method.clone(), head.uri.clone());
    let request = upstream::Request::new(method, uri, head.headers, added, false, limits);
    let written = upstream::fuzz::head_of(&request);
    let Some(again) = parsed(&written, FIELDS + OURS) else {
        unreachable!("no head: {}", written.escape_ascii())
    };
    assert_eq!((again.method, &again.uri), (head.method, &head.uri));
    assert!(!headers::speak_to_us(&again.headers), "only we say what is ours");
    for (name, value) in &again.headers {
        let from_us = name == COOKIE;
        let passed = request.headers().get_all(name).iter().any(|passed| passed == value);
        assert!(passed || from_us, "{name} was not sent");
    }
}

/// A head of at most so many fields, as hyper reads it.
fn parsed(data: &[u8], most: usize) -> Option<http::request::Parts> {
    let empty = data.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let data = &data[empty..];
    let end = data.iter().position(|byte| *byte == b'\n')?;
    let mut bytes = Vec::new();
    target::write(&data[..end], &mut bytes);
    bytes.extend_from_slice(&data[end..]);
    let mut fields = vec![httparse::EMPTY_HEADER; most];
    let mut parsed = httparse::Request::new(&mut fields);
    if !parsed.parse(&bytes).ok()?.is_complete() {
        return None;
    }
    let mut request = Request::builder().method(parsed.method?).uri(parsed.path?.as_bytes());
    if parsed.version == Some(0) {
        request = request.version(http::Version::HTTP_10);
    }
    for field in parsed.headers {
        request = request.header(field.name, field.value);
    }
    Some(request.body(()).ok()?.into_parts().0)
}

/// The highest token of a request counts, none of our cookies reaches the application and all others do.
/// What we set is what we find.
pub(crate) fn token(data: &[u8]) {
    let mut fields = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let (name, line) = match line {
            [b'T', line @ ..] => (token::TXID_HEADER, line),
            [b'E', line @ ..] => (token::EPOCH_HEADER, line),
            line => (COOKIE, line),
        };
        if let Ok(value) = HeaderValue::from_bytes(line) {
            fields.append(name, value);
        }
    }
    let carried = token::find(&fields, true);
    let mut added = RawHeaders::with_capacity(64);
    carried.strip(&mut fields, &mut added);
    let kept = added.as_bytes();
    fields.remove(COOKIE);
    fields.extend(kept.strip_prefix(b"cookie: ").and_then(|line| {
        let line = line.strip_suffix(b"\r\n")?;
        Some((COOKIE, HeaderValue::from_bytes(line).ok()?))
    }));
    let none = token::find(&fields, false);
    assert_eq!(none.token, None, "a token of ours is left: {fields:?}");
    give_and_take(carried.token.unwrap_or(EpochTxid { epoch: Epoch(7), txid: Txid(1) }), &carried);
}

fn give_and_take(given: EpochTxid, carried: &token::Carried) {
    let mut answer = HeaderMap::new();
    Setter::new(&Cookie::default()).set(given, true, &carried.marks, &mut answer);
    let mut next = HeaderMap::new();
    for line in answer.get_all(SET_COOKIE) {
        let Ok(text) = line.to_str() else { unreachable!("cookies are ASCII") };
        if !text.contains("Max-Age=0") {
            let pair = text.split(';').next().unwrap_or_default();
            next.extend(HeaderValue::from_str(pair).ok().map(|pair| (COOKIE, pair)));
        }
    }
    assert_eq!(token::find(&next, false).token, Some(given));
}

/// What asks for a replay is taken off the answer, and its state comes back as it was.
pub(crate) fn fly_replay(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let name = HeaderName::from_static("fly-replay");
    let mut answer: HeaderMap = [(name.clone(), value)].into_iter().collect();
    let asked = ReplayRequest::take(&mut answer);
    assert!(!answer.contains_key(&name));
    if let Some(asked) = asked {
        let source = asked.source("n1");
        assert!(source.to_str().is_ok_and(|source| source.starts_with("instance=n1;")));
    }
}

/// No byte behind the header is taken, and addresses are read as they are written.
pub(crate) fn proxy_protocol(data: &[u8]) {
    let mut rest = data;
    let said = at_once(proxy_protocol::read(&mut rest, LIMIT));
    assert!(data.len() - rest.len() <= 16 + 4096);
    let Ok(Some(said)) = said else { return };
    let family = if said.client.is_ipv4() { "TCP4" } else { "TCP6" };
    let line = format!(
        "PROXY {family} {} {} {} {}\r\n",
        said.client.ip(),
        said.server.ip(),
        said.client.port(),
        said.server.port()
    );
    let again = at_once(proxy_protocol::read(&mut line.as_bytes(), LIMIT));
    assert_eq!(again.ok().flatten(), Some(said));
}

/// An address that a trusted proxy names is one.
pub(crate) fn forwarded(data: &[u8]) {
    let mut fields = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            fields.append(COOKIE, value);
        }
    }
    if let Some(client) = forwarded::client_of(fields.get_all(COOKIE), &Trusted::loopback()) {
        let address = client.to_str().ok().and_then(|text| text.parse::<std::net::IpAddr>().ok());
        assert_eq!(address.map(|address| address.to_string()).as_deref(), client.to_str().ok());
    }
    if let Some(first) = fields.get(COOKIE) {
        let _ = forwarded::port_of(Some(first), &HeaderValue::from_static("https"));
        let _ = forwarded::port_of(None, first);
    }
    let _ = fields.get(COOKIE).and_then(|uri| Uri::try_from(uri.as_bytes()).ok());
}
