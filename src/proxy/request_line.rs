//! Finds the request lines in what a client sends, to bring odd targets into the form that hyper takes
//! ([`target`]), and to be able to say which byte of one was not acceptable.
//!
//! hyper alone decides where a message ends. So a line is touched only where it is certain that a message
//! begins: what comes behind a head is kept from hyper until that has said what the head announces. Where
//! it is not certain, all else passes as it is, to be refused if it is odd.

use memchr::{memchr, memchr_iter};

use super::chunk_walk::{ChunkWalk, Walked};
use crate::rules::target;

const END_OF_HEAD: &[u8] = b"\r\n\r\n";
/// For a few odd bytes, which take more room than they had.
const ROOM: usize = 64;
const LENGTH: &[u8] = b"content-length:";

/// The body that a head announced, as far as hyper has read the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Announced {
    /// No head was read since this was last asked.
    Nothing,
    Length(u64),
    /// It ends where its chunks do.
    Chunked,
}

/// What hyper is to be given now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    /// So many of the bytes that came; the others when it asks again.
    pub(crate) taken: usize,
    /// What stands for them, if not they themselves.
    pub(crate) plain: Option<Vec<u8>>,
}

/// Where in the client's messages the next byte stands.
#[derive(Debug)]
enum Place {
    /// In a request line, of which something has come or not; the last byte of that was a CR.
    Line {
        begun: bool,
        cr: bool,
    },
    /// In a line of the fields, of which nothing has come, but for a CR perhaps; the last byte was a CR.
    Fields {
        empty: bool,
        cr: bool,
    },
    /// So many bytes behind a head.
    Behind(u64),
    /// So many bytes of a body are to come.
    Body(u64),
    Chunks(ChunkWalk),
    Unknown,
}

/// A request begins.
const START: Place = Place::Line { begun: false, cr: false };

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
            Place::Fields { .. } | Place::Behind(_) | Place::Body(_) | Place::Chunks(_) => false,
        }
    }

    /// Takes note of what came, some byte at least, and says what hyper is to be given of it. `announced`
    /// is asked at most once.
    pub(crate) fn pass(&mut self, came: &[u8], announced: impl FnOnce() -> Announced) -> Passed {
        self.look_behind(announced);
        self.ends = came.ends_with(END_OF_HEAD);
        match self.place {
            Place::Unknown | Place::Behind(_) => Passed { taken: came.len(), plain: None },
            Place::Line { begun, cr } => self.line(came, begun, cr),
            Place::Fields { empty, cr } => {
                Passed { taken: self.fields(came, 0, empty, cr), plain: None }
            }
            Place::Body(left) => {
                let here = usize::try_from(left).map_or(came.len(), |left| left.min(came.len()));
                let left = left - here as u64;
                self.place = if left == 0 { START } else { Place::Body(left) };
                Passed { taken: here, plain: None }
            }
            Place::Chunks(walk) => Passed { taken: self.chunks(came, walk), plain: None },
        }
    }

    /// Learns what the last head has announced.
    fn look_behind(&mut self, announced: impl FnOnce() -> Announced) {
        if let Place::Behind(bytes) = self.place {
            self.place = match announced() {
                Announced::Length(length) if length == bytes => START,
                Announced::Length(length) if length > bytes => Place::Body(length - bytes),
                Announced::Chunked if bytes == 0 => Place::Chunks(ChunkWalk::START),
                _ => Place::Unknown,
            };
        }
    }

    fn line(&mut self, came: &[u8], begun: bool, cr: bool) -> Passed {
        // Empty lines before a request are passed over (RFC 9112, 2.2).
        let empty = match begun {
            true => 0,
            false => came.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count(),
        };
        let end = memchr(b'\n', &came[empty..]).map_or(came.len(), |end| empty + end);
        let line = &came[empty..end];
        self.note_fault(line);
        let cr = if line.is_empty() { cr } else { line.ends_with(b"\r") };
        let taken = match end == came.len() {
            true => {
                self.place = Place::Line { begun: begun || !line.is_empty(), cr };
                end
            }
            false if cr => self.fields(came, end + 1, true, false),
            false => self.lose(came),
        };
        let plain = line.iter().any(|byte| target::is_odd(*byte)).then(|| {
            let mut plain = Vec::with_capacity(taken + ROOM);
            plain.extend_from_slice(&came[..empty]);
            target::write(line, &mut plain);
            plain.extend_from_slice(&came[end..taken]);
            plain
        });
        Passed { taken, plain }
    }

    fn note_fault(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut spaces = 0;
        self.fault = line.iter().copied().find(|byte| {
            spaces += u32::from(*byte == b' ');
            byte.is_ascii_control() || spaces > 2
        });
    }

    /// Looks for the end of the head from `from` on. How much of what came may be passed on.
    ///
    /// A line that ends with LF alone is one to hyper, and to others not.
    fn fields(&mut self, came: &[u8], from: usize, mut empty: bool, mut cr: bool) -> usize {
        let mut at = from;
        while let Some(length) = memchr(b'\n', &came[at..]) {
            let line = &came[at..at + length];
            at += length + 1;
            let (ends_well, ends_head) = match line {
                b"" => (cr, empty),
                b"\r" => (true, empty && !cr),
                _ => (line.ends_with(b"\r"), false),
            };
            if !ends_well {
                return self.lose(came);
            }
            if ends_head {
                return self.behind(came, at);
            }
            (empty, cr) = (true, false);
        }
        if let rest @ [.., last] = &came[at..] {
            empty &= !cr && rest == b"\r";
            cr = *last == b'\r';
        }
        self.place = Place::Fields { empty, cr };
        came.len()
    }

    /// A head ends there.
    fn behind(&mut self, came: &[u8], end: usize) -> usize {
        let (head, behind) = came.split_at(end);
        // An upload is not copied for that. If this is mistaken, nothing is certain any more.
        let all_body = !behind.is_empty() && length_in(head) >= behind.len() as u64;
        let behind = if all_body { behind.len() } else { 0 };
        self.place = Place::Behind(behind as u64);
        end + behind
    }

    fn lose(&mut self, came: &[u8]) -> usize {
        self.place = Place::Unknown;
        came.len()
    }

    fn chunks(&mut self, came: &[u8], walk: ChunkWalk) -> usize {
        match walk.over(came) {
            Walked::Inside(walk) => {
                self.place = Place::Chunks(walk);
                came.len()
            }
            Walked::ToEnd(end) => {
                self.place = START;
                end
            }
            Walked::Lost => self.lose(came),
        }
    }
}

/// The length that a head seems to announce; 0 if none.
fn length_in(head: &[u8]) -> u64 {
    let fields = memchr_iter(b'\n', head).map(|end| &head[end + 1..]);
    let mut lengths = fields.filter_map(|field| {
        let (name, value) = field.split_at_checked(LENGTH.len())?;
        name.eq_ignore_ascii_case(LENGTH).then_some(value)
    });
    let Some(value) = lengths.next() else { return 0 };
    let digits = value.trim_ascii_start().iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0u64, |length, digit| {
        length.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What hyper is given of what came, piece by piece, while it says that of its heads.
    fn pass(lines: &mut RequestLines, came: &str, announced: Announced) -> String {
        pass_all(lines, came, std::iter::repeat(announced))
    }

    fn pass_all(
        lines: &mut RequestLines,
        came: &str,
        mut announced: impl Iterator<Item = Announced>,
    ) -> String {
        let (mut rest, mut given) = (came.as_bytes(), Vec::new());
        while !rest.is_empty() {
            let Passed { taken, plain } = lines.pass(rest, || announced.next().unwrap());
            given.extend(plain.unwrap_or_else(|| rest[..taken].to_owned()));
            rest = &rest[taken..];
        }
        String::from_utf8(given).unwrap()
    }

    const ODD: &str = "GET /` HTTP/1.1\r\nHost: a\r\n\r\n";

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
    fn so_are_those_that_come_without_waiting_or_after_chunks() {
        for (first, announced) in [
            ("GET / HTTP/1.1\r\n\r\n", Announced::Length(0)),
            ("POST / HTTP/1.1\r\n\r\n<<", Announced::Length(2)),
            ("POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n<<", Announced::Length(2)),
            ("POST / HTTP/1.1\r\n\r\n3\r\n<\r\n\r\n0\r\n\r\n", Announced::Chunked),
            ("\r\n\r\nGET / HTTP/1.1\r\n\r\n", Announced::Length(0)),
        ] {
            let mut lines = RequestLines::default();
            let came = [first, ODD, "\n", ODD].concat();
            let announced = [announced, Announced::Length(0)].into_iter();
            let given = pass_all(&mut lines, &came, announced);
            let expected = came.len() + 2 * 3;
            assert_eq!(given.len(), expected, "{given}");
        }
    }

    #[test]
    fn what_comes_behind_a_head_waits_for_what_that_announces() {
        let passed =
            |came: &str| RequestLines::default().pass(came.as_bytes(), || Announced::Nothing);
        let head = "POST / HTTP/1.1\r\ncontent-LENGTH: 3\r\n\r\n";
        for (behind, taken) in [("", 0), ("ab", 2), ("abc", 3), ("abcd", 0)] {
            let came = [head, behind].concat();
            let expected = Passed { taken: head.len() + taken, plain: None };
            assert_eq!(passed(&came), expected, "{behind}");
        }
    }

    #[test]
    fn heads_may_come_in_any_pieces() {
        for split in 1..ODD.len() {
            let mut lines = RequestLines::default();
            pass(&mut lines, &ODD[..split], Announced::Nothing);
            pass(&mut lines, &ODD[split..], Announced::Nothing);
            assert_ne!(pass(&mut lines, ODD, Announced::Length(0)), ODD, "split at {split}");
        }
        let mut lines = RequestLines::default();
        for byte in ODD.chars() {
            pass(&mut lines, &byte.to_string(), Announced::Nothing);
        }
        assert_ne!(pass(&mut lines, ODD, Announced::Length(0)), ODD);
    }

    #[test]
    fn nothing_is_touched_once_it_is_not_certain_what_it_is() {
        for (first, announced) in [
            ("POST / HTTP/1.1\r\n\r\n1;x=y\r\n", Announced::Chunked),
            ("POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n1\r\n", Announced::Chunked),
            ("POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n<<", Announced::Length(1)),
            ("GET / HTTP/1.1\r\n\r\n", Announced::Nothing),
            ("GET / HTTP/1.1\n\r\n", Announced::Length(0)),
            ("GET / HTTP/1.1\r\nA: b\n\r\n", Announced::Length(0)),
            ("GET / HTTP/1.1\r\n\n", Announced::Length(0)),
            ("GET / HTTP/1.1\r\nA: b\r\n\n", Announced::Length(0)),
        ] {
            let mut lines = RequestLines::default();
            pass(&mut lines, first, announced);
            assert_eq!(pass(&mut lines, ODD, announced), ODD, "{first:?}");
            assert_eq!(pass(&mut lines, ODD, Announced::Length(0)), ODD, "{first:?}");
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
            pass(&mut lines, came, announced);
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
