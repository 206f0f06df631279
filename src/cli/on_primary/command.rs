//! The command, run here: our standard streams and environment, our signals passed on.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{self, SignalKind};

/// SIGTERM and SIGINT, which would end us.
pub(crate) struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
}

impl Signals {
    /// From now on they are ours.
    ///
    /// # Errors
    ///
    /// When the system does not give them to us.
    pub(crate) fn take() -> io::Result<Self> {
        let terminate = unix::signal(SignalKind::terminate())?;
        let interrupt = unix::signal(SignalKind::interrupt())?;
        Ok(Self { terminate, interrupt })
    }

    /// The next one. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.interrupt.recv() => Signal::INT,
        }
    }
}

/// The command as a child.
pub(crate) struct Running {
    child: Child,
    pid: Option<Pid>,
}

impl Running {
    /// Starts it. There is at least a program.
    ///
    /// # Errors
    ///
    /// When there is no such program, or it cannot be run.
    pub(crate) fn start(command: &[OsString]) -> anyhow::Result<Self> {
        let (program, arguments) = command.split_first().context("there is no command")?;
        let child = Command::new(program)
            .args(arguments)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        Ok(Self { child, pid })
    }

    /// Its end. Until then signals are passed on.
    ///
    /// # Errors
    ///
    /// When that cannot be learned.
    pub(crate) async fn end(&mut self, signals: &mut Signals) -> io::Result<ExitStatus> {
        loop {
            tokio::select! {
                ended = self.child.wait() => return ended,
                signal = signals.next() => self.pass_on(signal),
            }
        }
    }

    /// Ctrl-C on a terminal has reached the command already; twice may mean something else to it.
    fn pass_on(&self, signal: Signal) {
        let terminal = io::stdin().is_terminal() || io::stderr().is_terminal();
        if let Some(pid) = self.pid.filter(|_| signal != Signal::INT || !terminal) {
            // One that has just ended needs no signal.
            let _ = kill_process(pid, signal);
        }
    }
}

/// As a shell says it: 128 and the signal's number, if it ended by one.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_a_shells() {
        // As wait(2) gives them: the code in the second byte, or the signal in the first.
        for (status, code) in [(0, 0), (3 << 8, 3), (255 << 8, 255), (15, 143), (9, 137)] {
            assert_eq!(exit_code(ExitStatus::from_raw(status)), code);
        }
    }
}
