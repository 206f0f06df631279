//! What LiteFS asks. Pure.

use http::Method;
use serde::Deserialize;

use super::{KEY, Session};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Primary,
    /// Which cluster is this?
    ClusterId,
    /// It is this one.
    SetClusterId(String),
    Create(Terms),
    /// Make me the primary.
    Acquire(Session),
    /// I still am the primary.
    Renew(Session),
    /// I am the primary no more.
    Release(Session),
    /// I need that session no more.
    Destroy(Session),
}

/// Of a session, in Consul's own forms. LiteFS wants to read them again.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Terms {
    /// How long it lasts without a renewal.
    #[serde(rename = "TTL")]
    pub(crate) ttl: String,
    /// What LiteFS calls it.
    pub(crate) name: String,
}

/// The longest session, cluster ID and so on that is taken, in bytes. LiteFS' have 36 and 20.
const LONGEST: usize = 256;

impl Ask {
    /// Understands a request; `None` if LiteFS asks no such thing.
    pub(crate) fn read(
        method: &Method,
        path: &str,
        query: Option<&str>,
        body: &[u8],
    ) -> Option<Self> {
        let path = path.strip_prefix("/v1/")?;
        if let Some(key) = path.strip_prefix("kv/") {
            return Self::of_key(method, key, query, body);
        }
        if method != Method::PUT {
            return None;
        }
        if path == "session/create" {
            return serde_json::from_slice(body).ok().map(Self::Create);
        }
        if let Some(id) = path.strip_prefix("session/renew/") {
            return session(id).map(Self::Renew);
        }
        session(path.strip_prefix("session/destroy/")?).map(Self::Destroy)
    }

    fn of_key(method: &Method, key: &str, query: Option<&str>, body: &[u8]) -> Option<Self> {
        let is_id = key.strip_prefix(KEY).map(|rest| match rest {
            "" => Some(false),
            "/clusterid" => Some(true),
            _ => None,
        })??;
        match (method, is_id) {
            (&Method::GET, false) => Some(Self::Primary),
            (&Method::GET, true) => Some(Self::ClusterId),
            (&Method::PUT, true) => cluster_id(body).map(Self::SetClusterId),
            (&Method::PUT, false) => {
                // Consul's client may add others, such as a namespace.
                query?.split('&').filter_map(|pair| pair.split_once('=')).find_map(
                    |pair| match pair {
                        ("acquire", id) => session(id).map(Self::Acquire),
                        ("release", id) => session(id).map(Self::Release),
                        _ => None,
                    },
                )
            }
            _ => None,
        }
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self { ttl: "1s".to_owned(), name: "litefs".to_owned() }
    }
}

/// Ours are plain words, so there is nothing to decode.
fn session(id: &str) -> Option<Session> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    let fits = (1..=LONGEST).contains(&id.len()) && id.bytes().all(plain);
    fits.then(|| Session(id.to_owned()))
}

fn cluster_id(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let fits = (1..=LONGEST).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    fits.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(line: &str, body: &str) -> Option<Ask> {
        let (method, target) = line.split_once(' ').unwrap();
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        Ask::read(&method.parse().unwrap(), path, query, body.as_bytes())
    }

    #[test]
    fn only_litefs_own_questions_are_understood() {
        let id = || Session("a.1-b".to_owned());
        for (line, expected) in [
            ("GET /v1/kv/litefs/primary", Ask::Primary),
            ("GET /v1/kv/litefs/primary/clusterid", Ask::ClusterId),
            ("PUT /v1/kv/litefs/primary/clusterid", Ask::SetClusterId("X".to_owned())),
            ("PUT /v1/kv/litefs/primary?acquire=a.1-b", Ask::Acquire(id())),
            ("PUT /v1/kv/litefs/primary?release=a.1-b", Ask::Release(id())),
            ("PUT /v1/kv/litefs/primary?ns=x&release=a.1-b", Ask::Release(id())),
            ("PUT /v1/session/renew/a.1-b", Ask::Renew(id())),
            ("PUT /v1/session/destroy/a.1-b", Ask::Destroy(id())),
        ] {
            assert_eq!(read(line, "X"), Some(expected), "{line}");
        }
        for line in [
            "GET /v1/kv/litefs/other",
            "GET /v1/kv/litefs/primaryx",
            "GET /v1/kv/litefs/primary/clusterid/",
            "DELETE /v1/kv/litefs/primary",
            "PUT /v1/kv/litefs/primary",
            "PUT /v1/kv/litefs/primary?cas=0",
            "PUT /v1/kv/litefs/primary?acquire=",
            "PUT /v1/kv/litefs/primary?acquire=%61",
            "GET /v1/session/renew/a",
            "PUT /v1/session/renew/",
            "PUT /v1/session/renew/a/b",
            "PUT /v1/catalog/register",
            "GET /v1/agent/self",
            "GET /",
        ] {
            assert_eq!(read(line, "X"), None, "{line}");
        }
        assert_eq!(read("PUT /v1/kv/litefs/primary/clusterid", ""), None);
        assert_eq!(read("PUT /v1/kv/litefs/primary/clusterid", "a b"), None);
        assert_eq!(read("PUT /v1/session/create", "no json"), None);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(path: String, query: Option<String>, body: Vec<u8>) {
            for method in [Method::GET, Method::PUT] {
                let path = format!("/v1/{path}");
                let _ = Ask::read(&method, &path, query.as_deref(), &body);
            }
        }
    }
}
