//! Targets with bytes that RFC 3986 wants percent-encoded, but that crawlers and old browsers send as
//! they are: `"`, `<`, `>`, a backtick, and everything from 0x80 on.
//!
//! `http::Uri` holds none of them, or not in every place. So each becomes a character of Unicode's last
//! private plane on its way in, and the byte again in what rules look at and in what goes out. No client
//! means such characters; one that sends them nevertheless means the byte, to rules and application
//! alike.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Stands for the byte 0.
const PLANE: u32 = 0xF_0000;
/// With what the characters of that plane begin in UTF-8.
const MARK: u8 = 0xF3;
/// How many bytes one takes.
const WIDTH: usize = 4;

/// Whether a byte cannot be in a `Uri`, although applications get such.
pub(crate) fn is_odd(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'`' | 0x80..)
}

/// Writes a target in the form that a `Uri` holds.
pub(crate) fn write(target: &[u8], to: &mut Vec<u8>) {
    for &byte in target {
        match char::from_u32(PLANE + u32::from(byte)).filter(|_| is_odd(byte)) {
            Some(stand_in) => {
                to.extend_from_slice(stand_in.encode_utf8(&mut [0; WIDTH]).as_bytes())
            }
            None => to.push(byte),
        }
    }
}

/// The bytes of a part of a `Uri`, as they came.
pub(crate) fn bytes(part: &str) -> Cow<'_, [u8]> {
    if memchr::memchr(MARK, part.as_bytes()).is_none() {
        return Cow::Borrowed(part.as_bytes());
    }
    let mut bytes = Vec::with_capacity(part.len());
    for character in part.chars() {
        match odd(character) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(character.encode_utf8(&mut [0; WIDTH]).as_bytes()),
        }
    }
    Cow::Owned(bytes)
}

/// A part of a `Uri` for people, odd bytes percent-encoded.
pub(crate) fn shown(part: &str) -> Cow<'_, str> {
    if memchr::memchr(MARK, part.as_bytes()).is_none() {
        return Cow::Borrowed(part);
    }
    let mut shown = String::with_capacity(part.len());
    for character in part.chars() {
        match odd(character) {
            Some(byte) => drop(write!(shown, "%{byte:02X}")),
            None => shown.push(character),
        }
    }
    Cow::Owned(shown)
}

/// The byte that a character stands for. Never one that could end a line or a target.
fn odd(character: char) -> Option<u8> {
    let byte = u8::try_from(u32::from(character).checked_sub(PLANE)?).ok()?;
    Some(byte).filter(|byte| is_odd(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Uri;

    #[test]
    fn every_odd_byte_is_held_and_comes_out_as_it_came() {
        let all: Vec<u8> = (0..=u8::MAX).filter(|byte| is_odd(*byte)).collect();
        let mut target = b"/a".to_vec();
        write(&all, &mut target);
        target.extend_from_slice(b"?q=");
        write(&all, &mut target);
        let uri = Uri::try_from(target).unwrap();
        assert_eq!(*bytes(uri.path()), [b"/a", &all[..]].concat());
        assert_eq!(*bytes(uri.query().unwrap()), [b"q=", &all[..]].concat());
        assert!(shown(uri.path()).starts_with("/a%22%3C%3E%60%80%81"));
    }

    #[test]
    fn no_character_becomes_a_byte_that_means_something_to_a_parser() {
        for byte in 0..=u8::MAX {
            let text = char::from_u32(PLANE + u32::from(byte)).unwrap().to_string();
            let as_is = bytes(&text).len() == 1;
            assert_eq!(as_is, is_odd(byte), "{byte:#x}");
        }
        assert_eq!(*bytes("/caf\u{e9}\u{10FFFF}"), *"/caf\u{e9}\u{10FFFF}".as_bytes());
    }
}
