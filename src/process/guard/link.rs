//! Our end of one guard.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::set_socket_send_buffer_size;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::Guard;
use super::wire::{QUEUE, Report, lines, next_line, receive};
use crate::lines::Lines;
use crate::process::running::End;

/// How long a guard may take to say how a program that was killed has ended.
const LAST_REPORT: Duration = Duration::from_secs(1);
/// How long it may take to end, by itself: it waits until nobody of the program's group is left.
const ENDS: Duration = Duration::from_secs(3);

/// A guard, and what it reports. Dropping it ends the guard, which kills the program's group.
#[derive(Debug)]
pub(crate) struct GuardLink {
    /// Closed when this is dropped: the shared deadline holds it weakly.
    socket: Arc<UnixStream>,
    lines: Lines,
    /// Not killed on drop: if it has just started the program, only it knows.
    guard: Child,
    late: bool,
    end: Option<End>,
}

impl GuardLink {
    /// Starts a guard, with the deadline as it is. `command` is that of [`super::Guard::command`];
    /// its standard input becomes our socket.
    pub(crate) fn new(mut command: Command, of: &Guard) -> io::Result<GuardLink> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        set_socket_send_buffer_size(&ours, QUEUE)?;
        let socket = Arc::new(UnixStream::from_std(ours)?);
        let guard = command.stdin(OwnedFd::from(theirs)).spawn()?;
        if of.tally.as_ref().is_some_and(|tally| !tally.lend(&*socket)) {
            // What it would start would not be counted. It ends with the socket.
            return Err(io::Error::other("it cannot be counted"));
        }
        of.shared_deadline.hold(&socket);
        Ok(GuardLink { socket, lines: lines(), guard, late: false, end: None })
    }

    pub(crate) fn guard(&mut self) -> &mut Child {
        &mut self.guard
    }

    /// What it reports first: whether the program has been started.
    pub(crate) async fn started(&mut self) -> io::Result<Report> {
        self.next().await
    }

    /// Returns when the program has ended. May be dropped and called again.
    pub(crate) async fn ended(&mut self) -> io::Result<End> {
        loop {
            if let Some(end) = self.end {
                return Ok(end);
            }
            match self.next().await? {
                Report::Late => self.late = true,
                Report::Ended(_) if self.late => self.end = Some(End::Late),
                Report::Ended(status) => self.end = Some(End::Exited(status)),
                report => return Err(io::Error::other(format!("its guard reports {report:?}"))),
            }
        }
    }

    /// Ends the guard; the program's group has been killed.
    pub(crate) async fn end(mut self) -> io::Result<End> {
        let silent = |_| Err(io::Error::other("its guard does not say how it ended"));
        let end = timeout(LAST_REPORT, self.ended()).await.unwrap_or_else(silent);
        let GuardLink { socket, mut guard, .. } = self;
        // The shared deadline is not to miss a guard that we end.
        drop(socket);
        if timeout(ENDS, guard.wait()).await.is_err() {
            // It hangs, or something of the program cannot be killed.
            let _ = guard.kill().await;
        }
        end
    }

    async fn next(&mut self) -> io::Result<Report> {
        loop {
            if let Some(line) = next_line(&mut self.lines) {
                return Report::parse(&line);
            }
            match receive(&self.socket, &mut self.lines).await {
                Ok(true) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error),
                // Also if it left without having read all that we told it.
                Ok(false) | Err(_) => {
                    let status = self.guard.wait().await?;
                    return Err(io::Error::other(format!("its guard has ended: {status}")));
                }
            }
        }
    }
}
