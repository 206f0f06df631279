//! The lines between us and a guard.
//!
//! To the guard: `deadline N`, in nanoseconds of [`BootTime`], or `deadline none`.
//! From it: see [`Report`].

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::net::{SendFlags, send};
use tokio::net::UnixStream;

use super::Deadline;
use crate::claim::BootTime;
use crate::lines::Lines;

/// Bytes, without the end; the longest proper line is half of that.
const MAX_LINE: usize = 64;

/// Bytes that are taken at once: more than a socket holds whose sender has only [`QUEUE`].
const PIECE: usize = 16 * 1024;

/// Bytes that may wait to be read by a guard, as the kernel counts: some ten lines. What a guard
/// takes at once is then all there is, and the last line is the newest.
pub(crate) const QUEUE: usize = 4096;

/// What a guard reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// `started PID`: the program runs.
    Started(u32),
    /// `refused switch ERRNO`, `refused start ERRNO`: it does not, and why.
    Refused(Step, i32),
    /// `late`: the deadline has passed; the program's group is killed, or was never started.
    Late,
    /// `ended STATUS`: the program has ended, with this status of wait(2).
    Ended(ExitStatus),
}

/// On the way to a running program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Switch,
    Start,
}

impl Step {
    /// A refusal at this step. An error that the system did not number is its own fault.
    pub(crate) fn refused(self, cause: &io::Error) -> Report {
        let invalid = rustix::io::Errno::INVAL.raw_os_error();
        Report::Refused(self, cause.raw_os_error().unwrap_or(invalid))
    }
}

impl Report {
    /// As it is sent.
    pub(crate) fn line(self) -> String {
        match self {
            Report::Started(pid) => format!("started {pid}\n"),
            Report::Refused(Step::Switch, errno) => format!("refused switch {errno}\n"),
            Report::Refused(Step::Start, errno) => format!("refused start {errno}\n"),
            Report::Late => "late\n".to_owned(),
            Report::Ended(status) => format!("ended {}\n", status.into_raw()),
        }
    }

    /// Read from a line without its end.
    pub(crate) fn parse(line: &str) -> io::Result<Report> {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap_or_default();
        let report = match word() {
            "started" => word().parse().ok().map(Report::Started),
            "refused" => match word() {
                "switch" => word().parse().ok().map(|errno| Report::Refused(Step::Switch, errno)),
                "start" => word().parse().ok().map(|errno| Report::Refused(Step::Start, errno)),
                _ => None,
            },
            "late" => Some(Report::Late),
            "ended" => word().parse().ok().map(ExitStatus::from_raw).map(Report::Ended),
            _ => None,
        };
        report.filter(|_| word().is_empty()).ok_or_else(|| unreadable(line))
    }
}

/// A deadline, as it is sent.
pub fn deadline_line(deadline: Deadline) -> String {
    match deadline {
        Deadline::None => "deadline none\n".to_owned(),
        Deadline::At(BootTime(nanos)) => format!("deadline {nanos}\n"),
    }
}

/// A deadline, read from a line without its end.
pub(crate) fn parse_deadline(line: &str) -> io::Result<Deadline> {
    let deadline = match line.strip_prefix("deadline ") {
        Some("none") => Some(Deadline::None),
        Some(time) => time.parse().ok().map(|nanos| Deadline::At(BootTime(nanos))),
        None => None,
    };
    deadline.ok_or_else(|| unreadable(line))
}

fn unreadable(line: &str) -> io::Error {
    let line: String = line.chars().take(MAX_LINE).collect();
    io::Error::new(io::ErrorKind::InvalidData, format!("a line that cannot be: {line:?}"))
}

/// For what comes from the other end.
pub(crate) const fn lines() -> Lines {
    Lines::of_at_most(MAX_LINE)
}

/// The next whole line.
pub(crate) fn next_line(lines: &mut Lines) -> Option<String> {
    lines.take().map(|line| String::from_utf8_lossy(&line).into_owned())
}

/// Waits for something to come, and adds it; `false` at the end. May be dropped and called again.
///
/// # Errors
///
/// When nothing more can come, or a line gets too long ([`io::ErrorKind::InvalidData`]).
pub(crate) async fn receive(from: &UnixStream, lines: &mut Lines) -> io::Result<bool> {
    let mut piece = vec![0; PIECE];
    loop {
        from.readable().await?;
        match from.try_read(&mut piece) {
            Ok(0) => return Ok(false),
            Ok(length) => return lines.push(&piece[..length]).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sends a line at once or not at all, and says whether it did. Never blocks.
pub(crate) fn tell(to: &UnixStream, line: &str) -> bool {
    // Not through tokio, which would first have to hear that the socket takes anything.
    send(to, line.as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL) == Ok(line.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_is_read() {
        for report in [
            Report::Started(1),
            Report::Started(u32::MAX),
            Report::Refused(Step::Switch, 1),
            Report::Refused(Step::Start, 2),
            Report::Late,
            Report::Ended(ExitStatus::from_raw(7 << 8)),
            Report::Ended(ExitStatus::from_raw(9)),
        ] {
            assert_eq!(Report::parse(report.line().trim_end()).unwrap(), report);
        }
        for deadline in
            [Deadline::None, Deadline::At(BootTime(0)), Deadline::At(BootTime(u64::MAX))]
        {
            let line = deadline_line(deadline);
            assert_eq!(parse_deadline(line.trim_end()).unwrap(), deadline);
            assert!(line.len() <= MAX_LINE / 2, "{line:?}");
        }
    }

    #[test]
    fn what_is_neither_is_an_error() {
        for line in ["", "deadline", "deadline ", "deadline -1", "deadline 1.5", "deadline None"] {
            assert!(parse_deadline(line).is_err(), "{line:?}");
            assert!(Report::parse(line).is_err(), "{line:?}");
        }
        for line in ["late 1", "started", "started x", "started 1 2", "refused 1", "ended none"] {
            assert!(Report::parse(line).is_err(), "{line:?}");
        }
    }

    #[tokio::test]
    async fn a_socket_that_nobody_reads_takes_a_few_lines_and_never_blocks() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        rustix::net::sockopt::set_socket_send_buffer_size(&ours, QUEUE).unwrap();
        let mut sent = 0;
        while tell(&ours, &deadline_line(Deadline::At(BootTime(sent)))) {
            sent += 1;
        }
        assert!(sent > 0);
        // All that waited is taken at once, the newest last.
        let mut lines = lines();
        assert!(receive(&theirs, &mut lines).await.unwrap());
        let last = std::iter::from_fn(|| next_line(&mut lines)).last().unwrap();
        assert_eq!(parse_deadline(&last).unwrap(), Deadline::At(BootTime(sent - 1)));
        assert!(tell(&ours, &deadline_line(Deadline::None)), "it takes the next one again");
    }
}
