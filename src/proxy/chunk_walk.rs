//! Walks over the chunks of a request (RFC 9112, 7.1) to where they end, in the one form that everybody
//! reads alike: a size in hex digits and nothing beside it, and no trailers. In any other form it gets
//! lost, and says so: only hyper reads chunks.

/// Digits of a size: more could be too large for somebody.
const DIGITS: u8 = 15;

/// Where in the chunks the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChunkWalk {
    /// So many digits of a size have come.
    Size {
        size: u64,
        digits: u8,
    },
    /// The LF behind a size.
    SizeEnd(u64),
    /// So many bytes are left of a chunk.
    Data(u64),
    /// The line end behind a chunk, or behind the last one's size: its CR, then its LF.
    Cr {
        last: bool,
    },
    Lf {
        last: bool,
    },
}

/// How far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walked {
    /// Over all there is.
    Inside(ChunkWalk),
    /// To the end, behind so many bytes.
    ToEnd(usize),
    Lost,
}

impl ChunkWalk {
    pub(super) const START: Self = Self::Size { size: 0, digits: 0 };

    /// Walks over what came.
    pub(super) fn over(mut self, came: &[u8]) -> Walked {
        let mut at = 0;
        while at < came.len() {
            if let Self::Data(left) = self {
                let here =
                    usize::try_from(left).map_or(came.len(), |left| left.min(came.len() - at));
                at += here;
                self = Self::after_data(left - here as u64);
                continue;
            }
            match self.step(came[at]) {
                None => return Walked::Lost,
                Some(Self::START) if self == (Self::Lf { last: true }) => {
                    return Walked::ToEnd(at + 1);
                }
                Some(next) => self = next,
            }
            at += 1;
        }
        Walked::Inside(self)
    }

    fn after_data(left: u64) -> Self {
        if left == 0 { Self::Cr { last: false } } else { Self::Data(left) }
    }

    fn step(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Size { size, digits }, _) if byte.is_ascii_hexdigit() && digits < DIGITS => {
                let digit = u64::from(char::from(byte).to_digit(16)?);
                Self::Size { size: size * 16 + digit, digits: digits + 1 }
            }
            (Self::Size { size, digits: 1.. }, b'\r') => Self::SizeEnd(size),
            (Self::SizeEnd(0), b'\n') => Self::Cr { last: true },
            (Self::SizeEnd(size), b'\n') => Self::Data(size),
            (Self::Cr { last }, b'\r') => Self::Lf { last },
            (Self::Lf { .. }, b'\n') => Self::START,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_however_the_bytes_come() {
        let chunks = b"5\r\nhel\r\n\r\n00A\r\n0\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n";
        let end = chunks.len();
        let all = [&chunks[..], b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(ChunkWalk::START.over(&all), Walked::ToEnd(end));
        for split in 1..end {
            let Walked::Inside(walk) = ChunkWalk::START.over(&all[..split]) else {
                panic!("lost at {split}")
            };
            assert_eq!(walk.over(&all[split..]), Walked::ToEnd(end - split), "split at {split}");
        }
    }

    #[test]
    fn what_somebody_could_read_otherwise_is_not_walked_over() {
        for odd in [
            "\r\n",
            "g\r\n",
            "1;x=y\r\n",
            "1 \r\n",
            "1\n",
            "1\r\na\n",
            "1\r\nab\r\n",
            "0\r\nA: b\r\n",
            "0\n\n",
            "+1\r\n",
            "0x1\r\n",
            "0000000000000001\r\n",
        ] {
            assert_eq!(ChunkWalk::START.over(odd.as_bytes()), Walked::Lost, "{odd:?}");
        }
    }
}
