//! The backup's port: what LiteFS asks of LiteFS Cloud. Loopback only, a token required, everything bounded.

use std::sync::Arc;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::json;
use tokio::net::TcpListener;

use super::escape::unescape;
use super::keeper::Keeper;
use super::refusal::Refusal;
use crate::local_http::LocalPort;
use crate::secret::Secret;

/// Connections at once. A LiteFS needs one.
const CONNECTIONS: usize = 8;
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
        let port = LocalPort {
            name: "the backup's port",
            connections: CONNECTIONS,
            buffer: BUFFER,
            key: (AUTHORIZATION.as_str(), self.secret.clone()),
        };
        let server = Arc::new(self);
        let answer = move |request, knows| {
            let server = server.clone();
            async move { reply(server.answer(request, knows).await) }
        };
        port.serve(listener, answer).await;
    }

    async fn answer(&self, request: Request<Incoming>, knows_the_secret: bool) -> Answer {
        let (head, body) = request.into_parts();
        if !knows_the_secret {
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
}

/// LiteFS' ID of the cluster, which it sends with each request.
pub(super) fn cluster(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("litefs-cluster-id")?.to_str().ok()?;
    let fits = (1..=LONGEST).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
    fits.then(|| id.to_owned())
}

/// The database that a query names, as Go's `url.Values` encodes it.
pub(super) fn db(query: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("db="))?;
    let name = unescape(&value.replace('+', " "), b'%')?;
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
            ("db=%+f", None),
            ("d=x", None),
        ] {
            assert_eq!(db(query).as_deref(), name, "{query}");
        }
    }
}
