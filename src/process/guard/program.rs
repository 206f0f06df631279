//! The guard itself: `litepilot guard`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use super::tally::{self, Place, TALLY};
use super::timer::Timer;
use super::wire::{Report, lines, next_line, parse_deadline, receive, tell};
use super::{Deadline, THIS_PROGRAM, pass_on};
use crate::lines::Lines;
use crate::process::group::Group;
use crate::process::user::Identity;

/// Longer than any [`Report`].
const MAX_REFUSAL: usize = 64;
/// How long the group may take to be gone once it is killed: a system call under way may hold it up.
const GONE: Duration = Duration::from_secs(2);

/// Guards `command`, run as `identity` if that is given, until standard input ends: a socket, see
/// [`super::wire`]. When this returns, the program and its group are killed.
pub(crate) fn main(identity: Option<&Identity>, command: &[String]) -> ExitCode {
    // How it is listed; else it would be `exe`.
    let _ = rustix::thread::set_name(c"litepilot-guard");
    // A panic would kill the program all the same, but only after its message has been written, for
    // which a Litepilot that is stopped may leave no room.
    std::panic::set_hook(Box::new(|_| {}));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let guarded =
        runtime.and_then(|runtime| runtime.block_on(async { guard(identity, command).await }));
    match guarded {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("litepilot guard: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn guard(identity: Option<&Identity>, command: &[String]) -> io::Result<()> {
    let _deaf = be_deaf()?;
    let mut control = Control::on_stdin().map_err(not_started_by_us)?;
    let place = control.tally().await.map_err(not_started_by_us)?;
    let place = place.map(Place::take).transpose()?;
    let mut app = None;
    let guarded = watch(&mut control, &mut app, identity, command).await;
    let gone = match app {
        Some(app) => timeout(GONE, app.gone()).await.is_ok(),
        None => true,
    };
    if let Some(place) = place.filter(|_| gone) {
        place.done();
    }
    guarded
}

fn not_started_by_us(why: io::Error) -> io::Error {
    io::Error::other(format!("{why}: it is litepilot run that starts this, with a socket"))
}

/// Runs the program until it is told no more.
async fn watch(
    control: &mut Control,
    app: &mut Option<App>,
    identity: Option<&Identity>,
    command: &[String],
) -> io::Result<()> {
    let timer = Timer::new()?;
    let Some(mut deadline) = control.newest().await? else { return Ok(()) };
    timer.set(deadline)?;
    let mut late = false;
    loop {
        if deadline.is_past() && !late {
            late = true;
            app.iter_mut().for_each(App::kill);
            control.report(Report::Late);
        }
        if app.is_none() && !late {
            *app = Some(App::start(identity, command)?);
        }
        tokio::select! {
            // First what we are told: the deadline may have been moved while we did not run.
            biased;
            news = control.newest() => match news? {
                Some(newest) => {
                    deadline = newest;
                    timer.set(deadline)?;
                }
                None => return Ok(()),
            },
            gone_off = timer.gone_off() => gone_off?,
            report = next(app) => control.report(report?),
        }
    }
}

/// What there is to report of the program, if there is one.
async fn next(app: &mut Option<App>) -> io::Result<Report> {
    match app {
        Some(app) => app.next().await,
        None => std::future::pending().await,
    }
}

/// Installs handlers that do nothing. To ignore these signals would be inherited by the program.
pub(crate) fn be_deaf() -> io::Result<[tokio::signal::unix::Signal; 6]> {
    Ok([
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        signal(SignalKind::hangup())?,
        signal(SignalKind::quit())?,
        signal(SignalKind::user_defined1())?,
        signal(SignalKind::user_defined2())?,
    ])
}

struct Control {
    socket: UnixStream,
    lines: Lines,
}

impl Control {
    fn on_stdin() -> io::Result<Control> {
        let socket = StdStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        socket.set_nonblocking(true)?;
        Ok(Control { socket: UnixStream::from_std(socket)?, lines: lines() })
    }

    /// The tally that this guard is to take part in, which is the first that it is told, if anything
    /// of that kind.
    async fn tally(&mut self) -> io::Result<Option<OwnedFd>> {
        let mut piece = [0; 4 * TALLY.len()];
        let read = || tally::receive(&self.socket, &mut piece);
        let (length, pipe) = self.socket.async_io(Interest::READABLE, read).await?;
        self.lines.push(&piece[..length])?;
        if pipe.is_some() && next_line(&mut self.lines).as_deref() != Some(TALLY) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(pipe)
    }

    /// The deadline that was sent last; `None` if whoever sent it is gone.
    async fn newest(&mut self) -> io::Result<Option<Deadline>> {
        loop {
            let mut newest = None;
            while let Some(line) = next_line(&mut self.lines) {
                newest = Some(parse_deadline(&line)?);
            }
            if newest.is_some() {
                return Ok(newest);
            }
            match receive(&self.socket, &mut self.lines).await {
                Ok(true) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error),
                // Also if it left without having read all that we told it.
                Ok(false) | Err(_) => return Ok(None),
            }
        }
    }

    fn report(&self, report: Report) {
        // There are few, and they have room. If nobody is there, we learn that by reading.
        tell(&self.socket, &report.line());
    }
}

/// The program. Dropping it kills its group.
struct App {
    /// `None` once nobody is left in it: its number may then be somebody else's.
    group: Option<Group>,
    child: Child,
    pid: u32,
    /// Until we know whether it became the program; see [`super::exec`].
    refusal: Option<pipe::Receiver>,
    ended: bool,
}

impl App {
    fn start(identity: Option<&Identity>, command: &[String]) -> io::Result<App> {
        let (refusal, theirs) = io::pipe()?;
        let mut exec = Command::new(THIS_PROGRAM);
        exec.arg0("litepilot").args(["guarded", "--by", &std::process::id().to_string()]);
        pass_on(&mut exec, identity, command);
        exec.stdin(theirs).process_group(0).kill_on_drop(true);
        let child = exec.spawn()?;
        let leader = child.id().and_then(|pid| Some((pid, Group::led_by(pid)?)));
        let (pid, group) = leader.ok_or_else(|| io::Error::other("it has no process id"))?;
        let refusal = Some(pipe::Receiver::from_owned_fd(refusal.into())?);
        Ok(App { group: Some(group), child, pid, refusal, ended: false })
    }

    /// What there is to report next. May be dropped and called again.
    async fn next(&mut self) -> io::Result<Report> {
        let App { group, child, pid, refusal, ended } = self;
        if let Some(pipe) = refusal {
            let report = refused(pipe).await?.unwrap_or(Report::Started(*pid));
            *refusal = None;
            return Ok(report);
        }
        if !*ended {
            let status = child.wait().await?;
            *ended = true;
            return Ok(Report::Ended(status));
        }
        if let Some(others) = group {
            others.emptied().await;
            *group = None;
        }
        std::future::pending().await
    }

    fn kill(&mut self) {
        if let Some(group) = &self.group {
            group.signal(Signal::KILL);
        }
    }

    /// Kills the group, and returns once nobody is left in it.
    async fn gone(mut self) {
        self.kill();
        // An error means that it was waited for before.
        let _ = self.child.wait().await;
        if let Some(group) = &self.group {
            group.emptied().await;
        }
    }
}

/// What it writes if it cannot become the program; `None` if the pipe was closed instead.
async fn refused(pipe: &mut pipe::Receiver) -> io::Result<Option<Report>> {
    let mut piece = [0; MAX_REFUSAL];
    // It is written, hence read, at once.
    let length = pipe.read(&mut piece).await?;
    let line = String::from_utf8_lossy(&piece[..length]);
    if line.is_empty() { Ok(None) } else { Report::parse(line.trim_end()).map(Some) }
}
