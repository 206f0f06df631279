//! What LiteFS is told, in Consul's forms. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::{Value, json};

use super::request::Terms;
use super::{KEY, PrimaryInfo, Session};

/// An answer: its status and its body.
pub(crate) type Answer = (StatusCode, String);

/// There is no such thing: no primary, no cluster ID, no such session any more.
pub(crate) fn nothing() -> Answer {
    (StatusCode::NOT_FOUND, String::new())
}

pub(crate) fn truth(is_so: bool) -> Answer {
    (StatusCode::OK, is_so.to_string())
}

/// It could not be done, and why.
pub(crate) fn failure(why: &str) -> Answer {
    (StatusCode::INTERNAL_SERVER_ERROR, why.to_owned())
}

pub(crate) fn created(session: &Session) -> Answer {
    ok(&json!({ "ID": session }))
}

/// A session that goes on. Consul's client insists on a whole number of nanoseconds as `LockDelay`:
/// to LiteFS, anything else is a failed renewal.
pub(crate) fn renewed(session: &Session, terms: &Terms) -> Answer {
    ok(&json!([{
        "ID": session,
        "Name": terms.name,
        "Node": "",
        "LockDelay": 1_000_000,
        "Behavior": "delete",
        "TTL": terms.ttl,
    }]))
}

/// The primary, if there is one.
pub(crate) fn primary(primary: Option<PrimaryInfo>) -> Answer {
    let value = primary.and_then(|primary| serde_json::to_string(&primary).ok());
    value.map_or_else(nothing, |value| pair(KEY, &value))
}

/// The cluster ID, if there is one.
pub(crate) fn cluster_id(id: Option<String>) -> Answer {
    id.map_or_else(nothing, |id| pair(&format!("{KEY}/clusterid"), &id))
}

fn pair(key: &str, value: &str) -> Answer {
    ok(&json!([{
        "LockIndex": 1,
        "Key": key,
        "Flags": 0,
        "Value": STANDARD.encode(value),
        "Session": "",
        "CreateIndex": 1,
        "ModifyIndex": 1,
    }]))
}

fn ok(body: &Value) -> Answer {
    (StatusCode::OK, body.to_string())
}
