//! Frames: see [`crate::fuzz`].

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame::{Answered, Question, Unknown, decode, encode, read};
use crate::fuzz::at_once;

pub(crate) fn frames(data: &[u8]) {
    if let Ok(json) = at_once(read(&mut &data[..])) {
        assert!(json.len() <= data.len());
        let _ = decode::<Unknown>(&json);
    }
    again::<Question>(data);
    again::<Answered>(data);
}

fn again<T: Serialize + DeserializeOwned>(json: &[u8]) {
    let Ok(once) = decode::<T>(json) else { return };
    let first = encode(&once).unwrap_or_default();
    let json = at_once(read(&mut &first[..])).unwrap_or_default();
    let twice = decode::<T>(&json).ok().and_then(|twice| encode(&twice).ok());
    assert_eq!(twice, Some(first));
}
