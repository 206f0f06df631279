//! The application of the demo: a guestbook on SQLite, as ordinary as an application can be. All
//! that it knows of Litepilot is who answered, to show it.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::json;

use self::store::{Entry, Store, StoreError};
use crate::rules::path::decode;

mod page;
mod server;
mod store;

pub(crate) use server::run;

/// Bytes of a request's body.
const MAX_BODY: usize = 64 * 1024;
/// Characters of an entry.
const LONGEST_TEXT: usize = 2000;
/// Entries on the page.
const SHOWN: u32 = 100;
/// Entries in the list.
const LISTED: u32 = 10_000;
/// The page loads nothing and runs nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";

type Reply = Response<Full<Bytes>>;

/// The guestbook of one node.
struct Guestbook {
    node: String,
    store: Store,
}

/// Where a request is answered.
struct Place<'a> {
    node: &'a str,
    role: &'a str,
}

/// Why a request is not done.
#[derive(Debug)]
enum GuestbookError {
    /// It is for the primary's application: Litepilot is to send it there.
    ForPrimary,
    /// It is wrong, or cannot be done now.
    Status(StatusCode, String),
    /// There is no such method on this path.
    Method(&'static str),
}

impl Guestbook {
    fn new(node: String, db: &Path) -> Arc<Self> {
        Arc::new(Self { node, store: Store::new(db) })
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Reply {
        self.serve(request).await.unwrap_or_else(refused)
    }

    async fn serve(self: Arc<Self>, request: Request<Incoming>) -> Result<Reply, GuestbookError> {
        let (head, body) = request.into_parts();
        let role = role(&head.headers).to_owned();
        let place = Place { node: &self.node, role: &role };
        let reads = matches!(head.method, Method::GET | Method::HEAD);
        match (head.uri.path(), reads, head.method == Method::POST) {
            ("/", true, _) => {
                let entries = self.newest(SHOWN).await?;
                Ok(html(page::render(&place, &entries)))
            }
            ("/", _, true) => {
                let body = read(body).await?;
                self.add(form_text(&body)?, &place).await?;
                Ok(see_other("/"))
            }
            ("/api/entries", true, _) => Ok(json(StatusCode::OK, &self.newest(LISTED).await?)),
            ("/api/entries", _, true) => {
                let body = read(body).await?;
                Ok(json(StatusCode::CREATED, &self.add(json_text(&body)?, &place).await?))
            }
            ("/api/node", true, _) => {
                Ok(json(StatusCode::OK, &json!({"node": place.node, "role": place.role})))
            }
            ("/health", true, _) => Ok(json(StatusCode::OK, &json!({"healthy": true}))),
            ("/" | "/api/entries", ..) => Err(GuestbookError::Method("GET, HEAD, POST")),
            ("/api/node" | "/health", ..) => Err(GuestbookError::Method("GET, HEAD")),
            _ => Err(GuestbookError::Status(
                StatusCode::NOT_FOUND,
                "there is nothing here".to_owned(),
            )),
        }
    }

    async fn newest(self: &Arc<Self>, most: u32) -> Result<Vec<Entry>, GuestbookError> {
        let book = self.clone();
        apart(move || book.store.newest(most)).await
    }

    async fn add(
        self: &Arc<Self>,
        text: String,
        place: &Place<'_>,
    ) -> Result<Entry, GuestbookError> {
        let length = text.chars().count();
        if text.trim().is_empty() || length > LONGEST_TEXT {
            let detail = format!("text must have 1 to {LONGEST_TEXT} characters, it has {length}");
            return Err(GuestbookError::Status(StatusCode::BAD_REQUEST, detail));
        }
        // A replica without a database would make one of its own.
        if place.role == "replica" {
            return Err(GuestbookError::ForPrimary);
        }
        let book = self.clone();
        apart(move || book.store.add(&text, &book.node)).await
    }
}

/// Does what blocks on a thread for that.
async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, GuestbookError> {
    let failed = |why: &dyn std::fmt::Display| {
        GuestbookError::Status(StatusCode::SERVICE_UNAVAILABLE, why.to_string())
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(StoreError::ReadOnly)) => Err(GuestbookError::ForPrimary),
        Ok(Err(StoreError::Sqlite(error))) => Err(failed(&error)),
        Err(error) => Err(failed(&error)),
    }
}

/// As Litepilot says; `alone` if there is none in front.
fn role(headers: &HeaderMap) -> &str {
    headers.get("litepilot-role").and_then(|role| role.to_str().ok()).unwrap_or("alone")
}

async fn read(body: Incoming) -> Result<Bytes, GuestbookError> {
    let read = Limited::new(body, MAX_BODY).collect().await;
    read.map(|body| body.to_bytes()).map_err(|error| match error.is::<LengthLimitError>() {
        true => GuestbookError::Status(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is longer than {MAX_BODY} bytes"),
        ),
        false => {
            GuestbookError::Status(StatusCode::BAD_REQUEST, format!("no whole body came: {error}"))
        }
    })
}

/// The text of `{"text": …}`.
fn json_text(body: &[u8]) -> Result<String, GuestbookError> {
    let body = serde_json::from_slice::<serde_json::Value>(body);
    let text = body.ok().and_then(|body| body.get("text")?.as_str().map(str::to_owned));
    text.ok_or_else(|| {
        let detail = "the body must be JSON like {\"text\": \"hello\"}".to_owned();
        GuestbookError::Status(StatusCode::BAD_REQUEST, detail)
    })
}

/// The field `text` of a form (`application/x-www-form-urlencoded`).
fn form_text(body: &[u8]) -> Result<String, GuestbookError> {
    let mut fields = body.split(|byte| *byte == b'&');
    let text = fields.find_map(|field| field.strip_prefix(b"text="));
    let text = text.ok_or_else(|| {
        let detail = "the form must have a field named text".to_owned();
        GuestbookError::Status(StatusCode::BAD_REQUEST, detail)
    })?;
    let spaced: Vec<u8> =
        text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Ok(String::from_utf8_lossy(&decode(&spaced)).into_owned())
}

fn refused(refusal: GuestbookError) -> Reply {
    match refusal {
        GuestbookError::ForPrimary => {
            let detail = json!({"error": "only the primary takes writes"});
            let mut reply = json(StatusCode::SERVICE_UNAVAILABLE, &detail);
            reply.headers_mut().insert("litepilot-replay", HeaderValue::from_static("primary"));
            reply
        }
        GuestbookError::Status(status, detail) => json(status, &json!({ "error": detail })),
        GuestbookError::Method(allowed) => {
            let detail = json!({"error": format!("this path takes {allowed}")});
            let mut reply = json(StatusCode::METHOD_NOT_ALLOWED, &detail);
            reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            reply
        }
    }
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Reply {
    // Nothing that is sent here can fail to become JSON.
    let text = serde_json::to_string(value).unwrap_or_default();
    reply(status, "application/json", text)
}

fn html(page: String) -> Reply {
    let mut reply = reply(StatusCode::OK, "text/html; charset=utf-8", page);
    reply.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    reply
}

fn see_other(place: &'static str) -> Reply {
    let mut reply = reply(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", "done\n".into());
    reply.headers_mut().insert(LOCATION, HeaderValue::from_static(place));
    reply
}

fn reply(status: StatusCode, kind: &'static str, body: String) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(body)));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_decoded() {
        let text = |form: &str| form_text(form.as_bytes()).ok();
        assert_eq!(text("a=b&text=caf%C3%A9+%26+t%2Bea%").as_deref(), Some("café & t+ea%"));
        assert_eq!(text("text=").as_deref(), Some(""));
        assert_eq!(text("context=1"), None);
    }

    #[test]
    fn json_needs_a_text() {
        assert_eq!(json_text(br#"{"text": "a\u0020b", "x": 1}"#).unwrap(), "a b");
        for bad in ["", "[]", "{}", r#"{"text": 1}"#, "{\"text\": \"a\""] {
            assert!(json_text(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
