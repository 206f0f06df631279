//! A guard of our own, and looks at processes.

use std::io::{BufRead, BufReader, IoSlice, PipeReader, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use litepilot::process::guard::Deadline;
use litepilot::process::guard::wire::deadline_line;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, Signal, kill_process};

pub const LITEPILOT: &str = env!("CARGO_BIN_EXE_litepilot");

/// Far beyond what anything here takes: reached only by a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A guard whose Litepilot we are.
pub struct Guard {
    pub process: Child,
    control: Option<UnixStream>,
    reports: BufReader<UnixStream>,
}

impl Guard {
    /// Has it run a shell script, once it has been told a deadline.
    pub fn of(script: &str) -> Guard {
        Guard::with(&["--", "sh", "-c", script])
    }

    pub fn with(arguments: &[&str]) -> Guard {
        Guard::wrapped(&[], arguments)
    }

    /// Started by another program.
    pub fn wrapped(wrapper: &[&str], arguments: &[&str]) -> Guard {
        let (control, theirs) = UnixStream::pair().unwrap();
        let command = [wrapper, &[LITEPILOT, "guard"], arguments].concat();
        let process = Command::new(command[0])
            .args(&command[1..])
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        control.set_read_timeout(Some(PATIENCE)).unwrap();
        let reports = BufReader::new(control.try_clone().unwrap());
        Guard { process, control: Some(control), reports }
    }

    /// Has it run a shell script at once, with this deadline; its process id.
    pub fn running(script: &str, deadline: Deadline) -> (Guard, u32) {
        let mut guard = Guard::of(script);
        guard.tell(deadline);
        let pid = guard.started();
        (guard, pid)
    }

    /// Has it count in a pipe; what is written there is complete once it ends.
    pub fn counted(&self) -> PipeReader {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        let pipe = [writer.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&pipe)));
        let line = [IoSlice::new(b"tally\n")];
        let socket = self.control.as_ref().unwrap();
        sendmsg(socket, &line, &mut control, SendFlags::empty()).unwrap();
        reader
    }

    pub fn tell(&self, deadline: Deadline) {
        self.send(deadline_line(deadline).as_bytes());
    }

    pub fn send(&self, bytes: &[u8]) {
        self.control.as_ref().unwrap().write_all(bytes).unwrap();
    }

    /// What it reports next; empty if it has ended.
    pub fn report(&mut self) -> String {
        let mut line = String::new();
        self.reports.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub fn started(&mut self) -> u32 {
        let report = self.report();
        report.strip_prefix("started ").unwrap_or_else(|| panic!("{report:?}")).parse().unwrap()
    }

    /// Closes the socket, as the end of a Litepilot does.
    pub fn leave(&mut self) {
        let control = self.control.take().unwrap();
        control.shutdown(std::net::Shutdown::Both).unwrap();
    }

    /// Returns once it has ended; how, and what it or its program said to standard error.
    pub fn ended(&mut self) -> (ExitStatus, String) {
        until("the guard ends", || self.process.try_wait().unwrap().is_some());
        let mut said = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.process.wait().unwrap(), said)
    }
}

/// Ends it, and so its program.
impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.control.take());
        let _ = self.reports.get_ref().shutdown(std::net::Shutdown::Both);
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(PAUSE);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const PAUSE: Duration = Duration::from_millis(5);

pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain waited until {what}");
        std::thread::sleep(PAUSE);
    }
}

/// A process counts as gone when it is a zombie, too: then only its parent has to notice.
pub fn lives(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"))
}

pub fn parent_of(pid: u32) -> u32 {
    field(pid, "PPid").parse().unwrap()
}

/// A line of its status, see proc_pid_status(5).
pub fn field(pid: u32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    line.unwrap().to_owned()
}

pub fn send(signal: Signal, pid: u32) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

/// The whole lines of a file, once there are so many.
pub fn lines(file: &Path, number: usize) -> Vec<String> {
    let mut lines = Vec::new();
    until(&format!("{} has {number} lines", file.display()), || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        lines = text
            .split_inclusive('\n')
            .filter_map(|l| l.strip_suffix('\n'))
            .map(str::to_owned)
            .collect();
        lines.len() >= number
    });
    lines
}

pub fn pid_in(file: &Path) -> u32 {
    lines(file, 1)[0].parse().unwrap()
}
