//! A child's output in our log, line by line, in constant memory; a traceback as one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::traceback::Joined;

/// Bytes; a longer line is logged in pieces.
pub const MAX_LINE: usize = 16 * 1024;

/// How long the last lines may take to arrive after the child is gone: a process that left its
/// group may hold the pipe open forever.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Writes one line of a child's output to the log, or the lines of one traceback.
#[derive(Clone)]
pub struct LogLine(Arc<Write>);

/// The child's name, `stdout` or `stderr`, the line.
type Write = dyn Fn(&str, &str, &str) + Send + Sync;

impl<F: Fn(&str, &str, &str) + Send + Sync + 'static> From<F> for LogLine {
    fn from(write: F) -> Self {
        Self(Arc::new(write))
    }
}

impl fmt::Debug for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogLine")
    }
}

/// The tasks that read a child's output. They always read, whatever the log does with it, so that
/// no child ever waits for us.
#[derive(Debug)]
pub(crate) struct Output(Vec<JoinHandle<()>>);

impl Output {
    /// Output that nobody has begun to read.
    pub(crate) fn none() -> Output {
        Output(Vec::new())
    }

    /// Starts to read one stream, on the current runtime.
    pub(crate) fn read<R>(&mut self, from: R, name: Arc<str>, stream: &'static str, log: LogLine)
    where
        R: AsyncRead + Unpin + Send + 'static,
    {
        self.0.push(tokio::spawn(async move {
            let mut each = |text: &str| log.0(&name, stream, text);
            let mut joined = Joined::default();
            lines(from, |line| joined.take(line, &mut each)).await;
            joined.end(&mut each);
        }));
    }

    /// Waits a moment for what a child that has ended still had to say.
    pub(crate) async fn finish(mut self) {
        let all = async {
            for reader in &mut self.0 {
                let _ = reader.await;
            }
        };
        let _ = timeout(LAST_LINES, all).await;
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// Calls `each` with every line that is not empty, invalid UTF-8 replaced. Ends with the stream.
async fn lines(from: impl AsyncRead + Unpin, mut each: impl FnMut(&str)) {
    let mut from = BufReader::with_capacity(MAX_LINE, from);
    let mut line = Vec::new();
    // A read error on a pipe is its end, as far as a log is concerned.
    while let Ok(chunk) = from.fill_buf().await {
        if chunk.is_empty() {
            break;
        }
        let piece = &chunk[..chunk.len().min(MAX_LINE - line.len())];
        let end = piece.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(piece.len());
        line.extend_from_slice(&piece[..taken]);
        from.consume(taken + usize::from(end.is_some()));
        if end.is_some() {
            emit(&line, &mut each);
            line.clear();
        } else if line.len() == MAX_LINE {
            let whole = whole_characters(&line);
            emit(&line[..whole], &mut each);
            line.drain(..whole);
        }
    }
    emit(&line, &mut each);
}

fn emit(line: &[u8], each: &mut impl FnMut(&str)) {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if !line.is_empty() {
        each(&String::from_utf8_lossy(line));
    }
}

/// How many bytes there are without a character cut off at the end.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => error.valid_up_to(),
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn logged(input: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        lines(input, |line| found.push(line.to_owned())).await;
        found
    }

    #[tokio::test]
    async fn lines_come_one_by_one() {
        assert_eq!(logged(b"one\r\n\ntwo\nno end").await, ["one", "two", "no end"]);
    }

    #[tokio::test]
    async fn a_long_line_comes_in_bounded_pieces_and_whole() {
        let long = "\u{e9}".repeat(MAX_LINE);
        let found = logged(format!("a{long}\nnext\n").as_bytes()).await;
        assert!(found.iter().all(|piece| piece.len() <= MAX_LINE));
        assert_eq!(found.concat(), format!("a{long}next"));
        assert_eq!(found.last().map(String::as_str), Some("next"));
    }

    #[tokio::test]
    async fn a_line_of_just_the_limit_is_one() {
        let full = "x".repeat(MAX_LINE);
        assert_eq!(logged(format!("{full}\nnext\n").as_bytes()).await, [full.as_str(), "next"]);
    }

    #[tokio::test]
    async fn bytes_that_are_no_text_are_shown_as_such() {
        assert_eq!(logged(b"a\xffb\n").await, ["a\u{fffd}b"]);
    }
}
