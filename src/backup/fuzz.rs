//! What LiteFS sends to be kept, and what lies in a store: see [`crate::fuzz`].

use http::{HeaderMap, HeaderValue};

use super::ltx::{Decoder, HEADER, Header};
use super::object::Object;
use super::server;

/// A file is whole or refused.
pub(crate) fn ltx(data: &[u8]) {
    if let Ok(facts) = Decoder::new(data).and_then(Decoder::verify) {
        assert!(facts.header.min <= facts.header.max);
    }
}

/// A header is written as it was read.
pub(crate) fn header(data: &[u8]) {
    let Some(bytes) = data.first_chunk::<HEADER>() else { return };
    if let Ok(header) = Header::parse(bytes) {
        let again = header.to_bytes();
        assert_eq!(Header::parse(&again).ok(), Some(header));
        assert!(header.lock_page() > 1);
    }
}

/// A database that a request names can be the name of a file, and what is kept of it has a name that says
/// so.
pub(crate) fn request(data: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(data) {
        let fields: HeaderMap = [("litefs-cluster-id".parse().ok(), value)]
            .into_iter()
            .filter_map(|(name, value)| Some((name?, value)))
            .collect();
        assert!(server::cluster(&fields).is_none_or(|id| id.as_bytes() == data));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(db) = server::db(text) {
        assert!(!db.is_empty() && !db.contains(['/', '\0']));
    }
    if let Some(object) = Object::parse(text) {
        assert_eq!(object.key(), text);
    }
}
