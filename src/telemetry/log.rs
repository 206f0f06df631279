//! Logs on stderr: text for people, JSON for machines.
//!
//! A thread of its own writes them. Whoever reads stderr may stall (a full pipe, a slow disk); then
//! lines are dropped and counted, and no request waits.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::beginning;
use crate::config::{Log, LogFormat};

/// Lines waiting to be written; with the longest lines, some 32 MiB.
const QUEUE: usize = 4096;
/// Bytes; the rest of a longer line is cut off.
const LONGEST_LINE: usize = 8 * 1024;

static DROPPED: AtomicU64 = AtomicU64::new(0);
static QUEUED: OnceLock<SyncSender<Job>> = OnceLock::new();

enum Job {
    Line(Vec<u8>),
    /// Answered once all earlier lines are written.
    Flush(Sender<()>),
}

/// Starts logging. A second call changes nothing: tests build many nodes in one process.
///
/// # Errors
///
/// When the writing thread cannot be started.
pub fn init(config: &Log) -> io::Result<()> {
    if QUEUED.get().is_some() {
        return Ok(());
    }
    let (sender, receiver) = sync_channel(QUEUE);
    thread::Builder::new().name("log".into()).spawn(|| write_all(receiver))?;
    if QUEUED.set(sender.clone()).is_err() {
        // Another thread was faster; the writing thread ends with its last sender, dropped here.
        return Ok(());
    }
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter(config.level)).with_writer(Queue(sender));
    // An error means that somebody else (a test) has set a subscriber before: it stays.
    let _ = match config.format {
        LogFormat::Text => tracing::subscriber::set_global_default(
            subscriber.with_target(false).with_ansi(io::stderr().is_terminal()).finish(),
        ),
        LogFormat::Json => {
            tracing::subscriber::set_global_default(subscriber.json().flatten_event(true).finish())
        }
    };
    Ok(())
}

/// Our own targets.
const OURS: [&str; 4] = ["litepilot", "app", "litefs", "access"];

/// Libraries log for their authors, and some as often as a client likes (h2 has a line for each
/// unexpected acknowledgement of a PING): what concerns an operator we report ourselves.
fn filter(level: Level) -> EnvFilter {
    let others = if level == Level::TRACE { "trace" } else { "off" };
    let ours = OURS.map(|target| format!("{target}={level}")).join(",");
    EnvFilter::new(format!("{others},{ours}"))
}

/// Waits until everything logged so far is written, or for `at_most`. For the end of the process.
pub fn flush(at_most: Duration) {
    let Some(queue) = QUEUED.get() else { return };
    let (done, written) = channel();
    // Full means that nobody reads: then there is no point in waiting.
    if queue.try_send(Job::Flush(done)).is_ok() {
        let _ = written.recv_timeout(at_most);
    }
}

/// How many lines were dropped because they could not be written fast enough, or at all.
pub fn dropped_lines() -> u64 {
    DROPPED.load(Relaxed)
}

fn write_all(jobs: Receiver<Job>) {
    for job in jobs {
        match job {
            Job::Line(line) => {
                if io::stderr().write_all(&line).is_err() {
                    DROPPED.fetch_add(1, Relaxed);
                }
            }
            Job::Flush(done) => {
                let _ = done.send(());
            }
        }
    }
}

/// Hands lines to the writing thread, or drops them.
struct Queue(SyncSender<Job>);

/// Takes one line: the formatter writes each event at once.
struct Line<'a>(&'a SyncSender<Job>);

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.try_send(Job::Line(one_line(line))).is_err() {
            DROPPED.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One event on one line, so that no text within it can pass for an event of its own.
fn one_line(event: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(event);
    let text = text.trim_end_matches('\n');
    let line = beginning(text, LONGEST_LINE);
    let cut = if line.len() < text.len() { "…" } else { "" };
    let line = line.replace('\n', "\\n");
    format!("{line}{cut}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stalled_reader_costs_lines_and_not_time() {
        let (sender, receiver) = sync_channel(2);
        let before = dropped_lines();
        let queue = Queue(sender);
        for _ in 0..5 {
            queue.make_writer().write_all(b"a line\n").unwrap();
        }
        assert_eq!(dropped_lines() - before, 3);
        assert_eq!(receiver.try_iter().count(), 2);
    }

    #[test]
    fn an_event_is_one_line_cut_between_characters() {
        let long = format!("x{}", "é".repeat(LONGEST_LINE));
        let line = String::from_utf8(one_line(long.as_bytes())).unwrap();
        assert!(line.ends_with("é…\n") && line.len() < LONGEST_LINE + 8);
        assert_eq!(one_line(b"short\n"), b"short\n");
        assert_eq!(one_line(b"two\nlines\n"), b"two\\nlines\n");
    }
}
