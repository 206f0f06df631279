//! Which processes have files of a directory open, as `/proc` says: that touches none of the files, whose
//! file system may hang.

use std::fs;
use std::path::Path;

/// More are not told apart.
const MOST: usize = 16;
/// Characters of a command line.
const LONGEST: usize = 120;
/// Parents of parents: more than there are but in a chain that changes while it is read.
const ANCESTORS: usize = 64;

/// A process that has a file open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opener {
    /// Its process id.
    pub pid: u32,
    /// Its command line, or what it is called.
    pub command: String,
    /// Litepilot has started it, or what it comes from.
    pub ours: bool,
}

/// The processes that have a file open in `dir`, a path as the kernel has it, whose name `counts`, but `except`. Blocks for some
/// milliseconds. Without the right to look into a process it is not seen.
pub(crate) fn of(dir: &Path, counts: fn(&str) -> bool, except: Option<u32>) -> Vec<Opener> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let own = std::process::id();
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| Some(*pid) != except && has_open(*pid, dir, counts))
        .take(MOST)
        .map(|pid| Opener { pid, command: command(pid), ours: descends(pid, own) })
        .collect()
}

fn has_open(pid: u32, dir: &Path, counts: fn(&str) -> bool) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).any(|file| {
        let name = file.file_name().and_then(|name| name.to_str());
        file.parent() == Some(dir) && name.is_some_and(counts)
    })
}

fn command(pid: u32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = words.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let line = line.collect::<Vec<_>>().join(" ");
    match line.trim() {
        "" => fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned(),
        line => line.chars().take(LONGEST).collect(),
    }
}

/// Whether a process comes from another.
fn descends(pid: u32, from: u32) -> bool {
    std::iter::successors(parent(pid), |pid| parent(*pid)).take(ANCESTORS).any(|pid| pid == from)
}

fn parent(pid: u32) -> Option<u32> {
    Stat::of(pid)?.number(4).and_then(|parent| u32::try_from(parent).ok()).filter(|pid| *pid != 0)
}

/// `/proc/PID/stat`, proc_pid_stat(5).
pub(crate) struct Stat(String);

impl Stat {
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Self::read(Path::new(&format!("/proc/{pid}")))
    }

    /// Of a process, or of one of its threads.
    pub(crate) fn read(place: &Path) -> Option<Self> {
        let text = fs::read(place.join("stat")).ok()?;
        let text = String::from_utf8_lossy(&text);
        // The second field is a name, in parentheses, and may hold anything.
        text.rsplit_once(')').map(|(_, rest)| Self(rest.trim_start().to_owned()))
    }

    /// One letter: `R`, `S`, `D`, `T`, `Z`, …
    pub(crate) fn state(&self) -> Option<char> {
        self.0.chars().next()
    }

    /// A field by its number in the manual, from 4 on.
    pub(crate) fn number(&self, field: usize) -> Option<u64> {
        self.0.split(' ').nth(field.checked_sub(3)?)?.parse().ok()
    }
}

/// For people: `pid 17 (python3 report.py)`.
pub(crate) fn describe(openers: &[Opener]) -> String {
    let one = |opener: &Opener| format!("pid {} ({})", opener.pid, opener.command);
    openers.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn those_who_have_a_file_open_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let place = fs::canonicalize(dir.path()).unwrap();
        let file = fs::File::create(place.join("app.db")).unwrap();
        // Nobody else has it: the command is gone once it is spawned.
        let mut reader =
            Command::new("sleep").arg("1000").stdin(Stdio::from(file)).spawn().unwrap();
        let find = || of(&place, |name| name == "app.db", None);
        // Before it has become that program it still is this one.
        let ours = loop {
            match &find()[..] {
                [only] if only.command == "sleep 1000" => break only.clone(),
                _ => std::thread::yield_now(),
            }
        };
        assert_eq!((ours.pid, ours.ours), (reader.id(), true));
        assert_eq!(describe(&[ours]), format!("pid {} (sleep 1000)", reader.id()));
        assert!(of(&place, |name| name != "app.db", None).is_empty());
        assert!(of(&place, |_| true, Some(reader.id())).is_empty());
        reader.kill().unwrap();
        reader.wait().unwrap();
        assert!(find().is_empty());
        let own = fs::File::open(place.join("app.db")).unwrap();
        assert!(!find()[0].ours, "nobody comes from himself");
        drop(own);
    }

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("stat"), "17 (a) R (b) S 3 17 17 0 -1 4194560 1 2 3 4 50 60 0\n")
            .unwrap();
        let stat = Stat::read(dir.path()).unwrap();
        assert_eq!((stat.state(), stat.number(4), stat.number(14)), (Some('S'), Some(3), Some(50)));
        assert_eq!(stat.number(15), Some(60));
        assert_eq!(stat.number(99), None);
    }
}
