//! The backup's port: what LiteFS asks of LiteFS Cloud. Loopback only, a token required, everything bounded.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::keeper::Keeper;
use super::refusal::Refusal;
use crate::accept;
use crate::secret::Secret;

/// Connections at once. A LiteFS needs one.
const CONNECTIONS: usize = 8;
/// An idle connection is kept this long; LiteFS keeps its own for 90 s.
const IDLE: Duration = Duration::from_secs(100);
/// Bytes of a request's head, and of what is read of a body at once.
const BUFFER: usize = 64 * 1024;
/// Bytes of a database's name, or of the cluster's; a file name has at most 255.
const LONGEST: usize = 256;

pub(crate) struct BackupServer {
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) secret: Secret,
}

/// A status, what is beside it in the head, and a JSON body.
struct Answer(StatusCode, Option<(&'static str, String)>, serde_json::Value);

impl BackupServer {
    /// Serves whoever connects. Never ends.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let server = Arc::new(self);
        let mut connections = JoinSet::new();
        let serve = |stream, from| server.clone().connection(stream, from);
        accept::serve_each(&listener, "the backup's port", CONNECTIONS, &mut connections, serve)
            .await;
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, from: SocketAddr) {
        if stream.set_nodelay(true).is_err() || !from.ip().to_canonical().is_loopback() {
            return;
        }
        let service = service_fn(|request| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(reply(server.answer(request).await)) }
        });
        // What breaks a connection is LiteFS' end, or is seen there.
        let _ = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        if !self.knows_the_secret(&head.headers) {
            let text = "Permission denied";
            return Answer(StatusCode::FORBIDDEN, None, json!({"code": "EAUTH", "error": text}));
        }
        let cluster = cluster(&head.headers);
        let db = head.uri.query().and_then(db);
        let answered = match (&head.method, head.uri.path(), cluster, db) {
            (&Method::GET, "/pos", Some(cluster), _) => self.positions(&cluster).await,
            (&Method::POST, "/db/tx", Some(cluster), Some(db)) => {
                self.take(&cluster, &db, body).await
            }
            (&Method::GET, "/db/snapshot", _, Some(db)) => {
                Err(self.keeper.never_restore(&db).await)
            }
            _ => {
                let text = "nothing that LiteFS asks";
                return Answer(
                    StatusCode::NOT_FOUND,
                    None,
                    json!({"code": "ENOENT", "error": text}),
                );
            }
        };
        answered.unwrap_or_else(|why| {
            self.keeper.progress.failed(&why);
            Answer(why.status(), None, json!({"code": why.code(), "error": why.to_string()}))
        })
    }

    async fn positions(&self, cluster: &str) -> Result<Answer, Refusal> {
        let positions = self.keeper.positions(cluster).await?;
        let one = |(db, at): (String, super::ltx::Pos)| {
            let at = json!({"TXID": at.txid, "PostApplyChecksum": at.checksum});
            (db, at)
        };
        let body: serde_json::Map<_, _> = positions.into_iter().map(one).collect();
        Ok(Answer(StatusCode::OK, None, body.into()))
    }

    async fn take(&self, cluster: &str, db: &str, body: Incoming) -> Result<Answer, Refusal> {
        // Before all of a database is read for nothing.
        self.keeper.epoch()?;
        let (file, facts) = self.keeper.spool.take(body).await?;
        let kept = self.keeper.take(cluster, db, &file, &facts).await?;
        Ok(Answer(StatusCode::OK, Some(("litefs-hwm", kept.to_string())), json!({})))
    }

    fn knows_the_secret(&self, headers: &HeaderMap) -> bool {
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let (given, other) = (given.next(), given.next());
        other.is_none() && given.is_some_and(|token| self.secret.is(token.as_bytes()))
    }
}

/// LiteFS' ID of the cluster, which it sends with each request.
fn cluster(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("litefs-cluster-id")?.to_str().ok()?;
    let fits = (1..=LONGEST).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
    fits.then(|| id.to_owned())
}

/// The database that a query names, as Go's `url.Values` encodes it.
fn db(query: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("db="))?;
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((byte, more)) = rest.split_first() {
        rest = more;
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let (digits, more) = rest.split_at_checked(2)?;
                bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
                rest = more;
            }
            byte => bytes.push(*byte),
        }
    }
    let name = String::from_utf8(bytes).ok()?;
    let fits = (1..=LONGEST).contains(&name.len()) && !name.contains(['/', '\0']);
    fits.then_some(name)
}

fn reply(Answer(status, header, body): Answer) -> Response<Full<Bytes>> {
    let mut reply = Response::new(Full::new(Bytes::from(body.to_string())));
    *reply.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    reply.headers_mut().insert(http::header::CONTENT_TYPE, json);
    if let Some((name, value)) = header
        && let Ok(value) = HeaderValue::try_from(value)
    {
        reply.headers_mut().insert(name, value);
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_named_as_go_encodes_it() {
        for (query, name) in [
            ("db=app.db", Some("app.db")),
            ("cluster=x&db=a+b%C3%A4", Some("a bä")),
            ("db=", None),
            ("db=%2Fx", None),
            ("db=%FF", None),
            ("db=%4", None),
            ("d=x", None),
        ] {
            assert_eq!(db(query).as_deref(), name, "{query}");
        }
    }
}
