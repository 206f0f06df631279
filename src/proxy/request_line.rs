//! Finds the request lines in what a client sends, to bring odd targets into the form that hyper takes
//! ([`target`]), and to be able to say which byte of one was not acceptable.
//!
//! hyper alone decides where a message ends. So this only counts: a line is touched only where it is
//! certain that a message begins. After chunks, or requests sent before the one before was answered,
//! that is certain no more, and lines pass as they are, to be refused if they are odd.

use memchr::{memchr, memmem};

use crate::rules::target;

const END_OF_HEAD: &[u8] = b"\r\n\r\n";
/// For a few odd bytes, which take more room than they had.
const ROOM: usize = 64;

/// The body that a head announced, as far as hyper has read the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Announced {
    /// No head was read since this was last asked.
    Nothing,
    Length(u64),
    /// It ends where its chunks do.
    Chunked,
}

/// Where in the client's messages the next byte stands.
#[derive(Debug)]
enum Place {
    /// In a request line; the last byte that came of it was a CR.
    Line {
        cr: bool,
    },
    /// In the fields; so many bytes of the end of the head were the last that came.
    Fields(usize),
    /// So many bytes behind a head.
    Behind(u64),
    /// So many bytes of a body are to come.
    Body(u64),
    Unknown,
}

/// A request begins.
const START: Place = Place::Line { cr: false };

/// Follows what one client sends.
#[derive(Debug)]
pub(crate) struct RequestLines {
    place: Place,
    /// A byte of the last line that no target may have.
    fault: Option<u8>,
    /// What came last could be the end of a head or of chunks.
    ends: bool,
}

impl Default for RequestLines {
    fn default() -> Self {
        Self { place: START, fault: None, ends: false }
    }
}

impl RequestLines {
    /// A byte of the last request line that no target may have.
    pub(crate) fn fault(&self) -> Option<u8> {
        self.fault
    }

    /// Whether all that came is whole requests, as far as one can tell. `announced` as in
    /// [`pass`](Self::pass).
    pub(crate) fn are_whole(&mut self, announced: impl FnOnce() -> Announced) -> bool {
        self.look_behind(announced);
        match self.place {
            Place::Line { .. } => true,
            Place::Unknown => self.ends,
            Place::Fields(_) | Place::Behind(_) | Place::Body(_) => false,
        }
    }

    /// Takes note of what came; what hyper is to be given in its place, if not that. `announced` is
    /// asked at most once.
    pub(crate) fn pass(
        &mut self,
        came: &[u8],
        announced: impl FnOnce() -> Announced,
    ) -> Option<Vec<u8>> {
        self.look_behind(announced);
        self.ends = came.ends_with(END_OF_HEAD);
        match self.place {
            Place::Unknown | Place::Behind(_) => None,
            Place::Line { cr } => self.line(came, cr),
            Place::Fields(seen) => {
                self.fields(came, seen);
                None
            }
            Place::Body(left) => {
                self.place = match left.checked_sub(came.len() as u64) {
                    Some(0) => START,
                    Some(left) => Place::Body(left),
                    None => Place::Unknown,
                };
                None
            }
        }
    }

    /// Learns what the last head has announced.
    fn look_behind(&mut self, announced: impl FnOnce() -> Announced) {
        if let Place::Behind(bytes) = self.place {
            self.place = match announced() {
                Announced::Length(length) if length == bytes => START,
                Announced::Length(length) if length > bytes => Place::Body(length - bytes),
                _ => Place::Unknown,
            };
        }
    }

    fn line(&mut self, came: &[u8], cr: bool) -> Option<Vec<u8>> {
        let end = memchr(b'\n', came).unwrap_or(came.len());
        let (line, rest) = came.split_at(end);
        self.note_fault(line);
        // The line's own end may be a part of the head's.
        let cr = if line.is_empty() { cr } else { line.ends_with(b"\r") };
        match rest.is_empty() {
            true => self.place = Place::Line { cr },
            false => self.fields(rest, usize::from(cr)),
        }
        line.iter().any(|byte| target::is_odd(*byte)).then(|| {
            let mut plain = Vec::with_capacity(came.len() + ROOM);
            target::write(line, &mut plain);
            plain.extend_from_slice(rest);
            plain
        })
    }

    fn note_fault(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut spaces = 0;
        self.fault = line.iter().copied().find(|byte| {
            spaces += u32::from(*byte == b' ');
            byte.is_ascii_control() || spaces > 2
        });
    }

    /// `seen`: how much of the end of the head came last.
    fn fields(&mut self, came: &[u8], mut seen: usize) {
        let mut at = 0;
        while at < came.len() && (1..END_OF_HEAD.len()).contains(&seen) {
            seen = after(seen, came[at]);
            at += 1;
        }
        if seen == 0 {
            let rest = &came[at..];
            (seen, at) = match memmem::find(rest, END_OF_HEAD) {
                Some(found) => (END_OF_HEAD.len(), at + found + END_OF_HEAD.len()),
                None => {
                    let last = rest.len().saturating_sub(END_OF_HEAD.len() - 1);
                    (rest[last..].iter().fold(0, |seen, byte| after(seen, *byte)), came.len())
                }
            };
        }
        self.place = match seen == END_OF_HEAD.len() {
            true => Place::Behind((came.len() - at) as u64),
            false => Place::Fields(seen),
        };
    }
}

/// How much of the end of a head was there last, once this byte has come behind `seen` of it.
fn after(seen: usize, byte: u8) -> usize {
    match byte {
        _ if byte == END_OF_HEAD[seen] => seen + 1,
        b'\r' => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(lines: &mut RequestLines, came: &str, announced: Announced) -> String {
        let plain = lines.pass(came.as_bytes(), || announced);
        plain.map_or(came.to_owned(), |plain| String::from_utf8(plain).unwrap())
    }

    #[test]
    fn the_line_of_each_request_is_touched_and_nothing_else() {
        let mut lines = RequestLines::default();
        let odd = "GET /<é HTTP/1.1\r\nX: <\r\n\r\n";
        let plain = pass(&mut lines, odd, Announced::Nothing);
        assert_eq!(plain.len(), odd.len() + 3 * 3, "{plain}");
        assert!(plain.ends_with("X: <\r\n\r\n"));
        // With a body, that comes in pieces.
        let post = "POST / HTTP/1.1\r\nContent-Length: 6\r\n\r\n<";
        assert_eq!(pass(&mut lines, post, Announced::Length(0)), post);
        assert_eq!(pass(&mut lines, "<<<", Announced::Length(6)), "<<<");
        assert_eq!(pass(&mut lines, "\r\n", Announced::Nothing), "\r\n");
        assert_ne!(pass(&mut lines, odd, Announced::Nothing), odd);
    }

    #[test]
    fn heads_may_come_in_any_pieces() {
        let odd = "GET /` HTTP/1.1\r\nHost: a\r\n\r\n";
        for split in 1..odd.len() {
            let mut lines = RequestLines::default();
            pass(&mut lines, &odd[..split], Announced::Nothing);
            pass(&mut lines, &odd[split..], Announced::Nothing);
            assert_ne!(pass(&mut lines, odd, Announced::Length(0)), odd, "split at {split}");
        }
        let mut lines = RequestLines::default();
        for byte in odd.chars() {
            pass(&mut lines, &byte.to_string(), Announced::Nothing);
        }
        assert_ne!(pass(&mut lines, odd, Announced::Length(0)), odd);
    }

    #[test]
    fn nothing_is_touched_once_it_is_not_certain_what_it_is() {
        let odd = "GET /< HTTP/1.1\r\n\r\n";
        for (first, announced) in [
            ("GET / HTTP/1.1\r\n\r\nGET /b HT", Announced::Length(0)),
            ("POST / HTTP/1.1\r\n\r\n", Announced::Chunked),
            // hyper passes over empty lines, and has not read a head.
            ("\r\n\r\nGET / HTTP/1.1\r\n\r\n", Announced::Nothing),
        ] {
            let mut lines = RequestLines::default();
            pass(&mut lines, first, Announced::Nothing);
            assert_eq!(pass(&mut lines, odd, announced), odd, "{first}");
            assert_eq!(pass(&mut lines, odd, Announced::Length(0)), odd, "{first}");
        }
    }

    #[test]
    fn it_is_known_whether_a_request_came_whole() {
        for (came, announced, whole) in [
            ("GET / HTTP/1.1\r\n\r\n", Announced::Length(0), true),
            ("GET / HTTP/1.1\r\n", Announced::Nothing, false),
            ("POST / HTTP/1.1\r\n\r\nabc", Announced::Length(3), true),
            ("POST / HTTP/1.1\r\n\r\nab", Announced::Length(3), false),
            ("POST / HTTP/1.1\r\n\r\n1\r\na\r\n0\r\n\r\n", Announced::Chunked, true),
            ("POST / HTTP/1.1\r\n\r\n1\r\na\r\n", Announced::Chunked, false),
        ] {
            let mut lines = RequestLines::default();
            pass(&mut lines, came, Announced::Nothing);
            assert_eq!(lines.are_whole(|| announced), whole, "{came:?}");
        }
    }

    #[test]
    fn the_byte_that_no_target_may_have_is_found() {
        for (line, fault) in [
            ("GET /a HTTP/1.1\r\n", None),
            ("GET /a b HTTP/1.1\r\n", Some(b' ')),
            ("GET /a\tb HTTP/1.1\r\n", Some(b'\t')),
            ("GET /\x7f HTTP/1.1\r\n", Some(0x7f)),
        ] {
            let mut lines = RequestLines::default();
            pass(&mut lines, line, Announced::Nothing);
            assert_eq!(lines.fault(), fault, "{line:?}");
        }
    }
}
