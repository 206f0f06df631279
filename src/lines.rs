//! Lines that processes and nodes send each other, never longer than their reader allows.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// A value as a line of JSON.
///
/// # Errors
///
/// When JSON has no such value: a map whose keys are no text.
pub(crate) fn json_line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// Puts lines together that come in pieces.
#[derive(Debug)]
pub(crate) struct Lines {
    longest: usize,
    rest: Vec<u8>,
}

impl Lines {
    /// None is longer than that many bytes, without its end.
    pub(crate) const fn of_at_most(longest: usize) -> Self {
        Self { longest, rest: Vec::new() }
    }

    /// Adds what has come. The whole lines in it are to be taken before more comes.
    ///
    /// # Errors
    ///
    /// When the line that has begun is too long already.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.rest.extend_from_slice(bytes);
        let begun = self.rest.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        match begun.len() > self.longest {
            true => Err(too_long(self.longest)),
            false => Ok(()),
        }
    }

    /// The next whole line, without its end.
    pub(crate) fn take(&mut self) -> Option<Vec<u8>> {
        let end = self.rest.iter().position(|byte| *byte == b'\n')?;
        let mut line: Vec<u8> = self.rest.drain(..=end).collect();
        line.truncate(end);
        Some(line)
    }

    /// Whether no line has begun.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Reads values, each a line of JSON.
pub(crate) struct JsonLines<R> {
    from: R,
    longest: usize,
}

impl<R: AsyncBufRead + Unpin> JsonLines<R> {
    /// None is longer than that many bytes, with its end.
    pub(crate) const fn of_at_most(longest: usize, from: R) -> Self {
        Self { from, longest }
    }

    /// The next value; `None` at the end. What was read of a line is lost if this is dropped.
    ///
    /// # Errors
    ///
    /// When the line is too long, is cut off, or is another value.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let mut line = Vec::new();
        (&mut self.from).take(self.longest as u64).read_until(b'\n', &mut line).await?;
        match line.last() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(serde_json::from_slice(&line)?)),
            Some(_) if line.len() == self.longest => Err(too_long(self.longest)),
            Some(_) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the line is cut off")),
        }
    }

    /// The next value, where the end would come too early.
    ///
    /// # Errors
    ///
    /// As [`JsonLines::next`], and at the end.
    pub(crate) async fn more<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        self.next().await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

fn too_long(longest: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a line that cannot be: it has more than {longest} bytes"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lines_come_in_any_pieces(
            texts in proptest::collection::vec("[a-z]{0,9}", 0..9),
            cut in 1usize..9,
        ) {
            let text: String = texts.iter().map(|line| format!("{line}\n")).collect();
            let mut found = Vec::new();
            let mut lines = Lines::of_at_most(9);
            for piece in text.as_bytes().chunks(cut) {
                lines.push(piece).unwrap();
                found.extend(std::iter::from_fn(|| lines.take()));
            }
            let expected: Vec<_> = texts.into_iter().map(String::into_bytes).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn pieces_become_lines() {
        let mut lines = Lines::of_at_most(4);
        lines.push(b"one\ntw").unwrap();
        assert_eq!(lines.take().unwrap(), b"one");
        assert_eq!(lines.take(), None);
        lines.push(b"o\n\n").unwrap();
        assert_eq!(lines.take().unwrap(), b"two");
        assert_eq!(lines.take().unwrap(), b"");
        assert!(lines.is_empty());
        lines.push(b"four").unwrap();
        assert!(lines.push(b"5").is_err());
    }

    #[tokio::test]
    async fn values_are_read_until_one_is_too_long_or_cut_off() {
        async fn second(text: &[u8]) -> io::Result<Option<u64>> {
            let mut lines = JsonLines::of_at_most(4, text);
            assert_eq!(lines.more::<u64>().await.unwrap(), 1);
            lines.next().await
        }
        assert_eq!(second(b"1\n234\n").await.unwrap(), Some(234));
        assert_eq!(second(b"1\n").await.unwrap(), None);
        let kind = |result: io::Result<_>| result.unwrap_err().kind();
        assert_eq!(kind(second(b"1\n2345\n").await), io::ErrorKind::InvalidData);
        assert_eq!(kind(second(b"1\n23").await), io::ErrorKind::UnexpectedEof);
        assert_eq!(kind(second(b"1\nx\n").await), io::ErrorKind::InvalidData);
    }
}
