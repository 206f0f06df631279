//! PID 1: reaps orphans and forwards signals to the real program.
//!
//! In a container the first process inherits every orphan, and the kernel spares it signals that it
//! does not handle. So as PID 1 we start ourselves once more, as an ordinary process, and remain
//! here as nothing but its init. A process of its own, because `waitpid(-1)` would also take the
//! exit statuses of children that other parts of the program wait for.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// What is passed on. SIGINT and SIGQUIT, too: the child has a group of its own, so that a
/// terminal's Ctrl-C reaches it once, through us, and not twice (twice means "stop at once").
const FORWARDED: [Signal; 7] = [
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
];

/// How long those may take who end what the child has started, and tell other nodes that it has died:
/// they die with us.
const LINGER: Duration = Duration::from_secs(3);

/// As PID 1: runs this program once more with the same arguments, is its init until it ends, and
/// says with which code to exit (128 + n if signal n ended it). Otherwise: `None` at once.
///
/// To be called at the very start of `main`, before there are threads. If the init's work is not
/// possible, it says so on standard error, and the program runs without: `None`.
pub fn run_if_pid1() -> Option<ExitCode> {
    if !getpid().is_init() {
        return None;
    }
    match run() {
        Ok(code) => Some(ExitCode::from(code)),
        Err(error) => {
            eprintln!(
                "litepilot: cannot start itself as a child of PID 1 ({error}); goes on without. \
                 Orphans stay as zombies: use an init, e.g. docker run --init"
            );
            None
        }
    }
}

fn run() -> io::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before there is a child, so that neither its end nor a signal to it is missed.
        let mut ended = signal(SignalKind::child())?;
        let mut signals = forwarded()?;
        let child = spawn_self()?;
        loop {
            if let Some(code) = reap(child) {
                // Whoever stays longer is an orphan of the application's.
                let _ = timeout(LINGER, all_gone(&mut ended)).await;
                return Ok(code);
            }
            tokio::select! {
                _ = ended.recv() => {}
                Some(signal) = signals.recv() => {
                    // It fails only if the child is gone, which the next turn will find.
                    let _ = kill_process(child, signal);
                }
            }
        }
    })
}

/// All signals to forward, in one stream. As with signals themselves, equal ones that come faster
/// than they are taken may merge.
fn forwarded() -> io::Result<mpsc::Receiver<Signal>> {
    let (sender, receiver) = mpsc::channel(FORWARDED.len());
    for forward in FORWARDED {
        let mut source = signal(SignalKind::from_raw(forward.as_raw()))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while source.recv().await.is_some() && sender.send(forward).await.is_ok() {}
        });
    }
    Ok(receiver)
}

/// The child is not waited for here, but with all others in [`reap`].
fn spawn_self() -> io::Result<Pid> {
    let mut arguments = std::env::args_os();
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    let child = command.args(arguments).process_group(0).spawn()?;
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| Errno::SRCH.into())
}

/// Takes in everybody who has ended; the exit code if the child is among them.
fn reap(child: Pid) -> Option<u8> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == child => return Some(exit_code(status)),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return None,
            // No child at all: ours was lost to somebody who waited in our place.
            Err(_) => return Some(1),
        }
    }
}

/// Returns once there is no child left, ours or adopted.
async fn all_gone(ended: &mut tokio::signal::unix::Signal) {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => drop(ended.recv().await),
            Err(_) => return,
        }
    }
}

fn exit_code(status: WaitStatus) -> u8 {
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 1,
    };
    u8::try_from(code).unwrap_or(1)
}
