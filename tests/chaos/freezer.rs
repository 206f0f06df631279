//! Machines that stand still: all processes of a node, its guards and its application among them, by the
//! freezer of control groups. Clocks go on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Pid;

use crate::need;

/// Where processes can be frozen: a control group that this process may make groups in.
pub struct Freezer {
    parent: PathBuf,
    /// The file that freezes a group, and what is written there for that, and for the contrary.
    file: &'static str,
    words: [&'static str; 2],
}

/// Processes that stand still until it is dropped.
pub struct Frozen<'a> {
    freezer: &'a Freezer,
    group: PathBuf,
}

impl Freezer {
    /// That of version 2, or of version 1. If there is none, that is said.
    pub fn find() -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let kinds = [
            ("cgroup2", "", "cgroup.freeze", ["1", "0"]),
            ("cgroup", "freezer", "freezer.state", ["FROZEN", "THAWED"]),
        ];
        let found = kinds.into_iter().find_map(|(kind, option, file, words)| {
            let parent = mounted(&mounts, kind, option)?.join(place(&own, option)?);
            let freezer = Self { parent, file, words };
            freezer.works().then_some(freezer)
        });
        if found.is_none() {
            need::skip(
                "no machine is frozen: no control groups can be made (as root, /sys/fs/cgroup)",
            );
        }
        found
    }

    fn works(&self) -> bool {
        let group = self.new_group();
        let works = fs::create_dir(&group).is_ok() && group.join(self.file).exists();
        let _ = fs::remove_dir(group);
        works
    }

    /// One that is not there yet.
    fn new_group(&self) -> PathBuf {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.parent.join(format!("litepilot-chaos-{}-{number}", process::id()))
    }

    /// Freezes all that `processes` lists, and what these start meanwhile.
    pub fn freeze(&self, processes: impl Fn() -> Vec<Pid>) -> Frozen<'_> {
        let group = self.new_group();
        fs::create_dir(&group).unwrap();
        let frozen = Frozen { freezer: self, group };
        let mut known = 0;
        // Who was started by one that is in the group already is in it, too.
        while processes().len() != known {
            let found = processes();
            known = found.len();
            found.into_iter().for_each(|pid| put(pid, &frozen.group));
        }
        fs::write(frozen.group.join(self.file), self.words[0]).unwrap();
        frozen
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let Freezer { parent, file, words } = self.freezer;
        fs::write(self.group.join(file), words[1]).unwrap();
        // Some end meanwhile, or have children.
        while fs::remove_dir(&self.group).is_err_and(|why| why.kind() != io::ErrorKind::NotFound) {
            let left = fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
            left.lines().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).for_each(|pid| {
                put(pid, parent);
            });
        }
    }
}

/// Moves a process, if it is still there.
fn put(pid: Pid, group: &Path) {
    let _ = fs::write(group.join("cgroup.procs"), pid.as_raw_nonzero().to_string());
}

/// Where control groups are mounted: proc_mounts(5).
fn mounted(mounts: &str, kind: &str, option: &str) -> Option<PathBuf> {
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mut fitting = fields.filter(|fields| {
        fields[2] == kind && (option.is_empty() || fields[3].split(',').any(|it| it == option))
    });
    fitting.next().map(|fields| fields[1].into())
}

/// This process's group, in the hierarchy with that controller: cgroups(7).
fn place(own: &str, controller: &str) -> Option<PathBuf> {
    own.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let fits = controllers.split(',').any(|it| it == controller);
        fits.then(|| path.trim_start_matches('/').into())
    })
}

#[test]
fn a_process_stands_still_until_it_is_thawed() {
    use std::process::{Command, Stdio};
    let Some(freezer) = Freezer::find() else { return };
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_raw(child.id() as i32).unwrap();
    let frozen = freezer.freeze(|| vec![pid]);
    let group = frozen.group.clone();
    drop(child.stdin.take());
    let listed = fs::read_to_string(group.join("cgroup.procs")).unwrap();
    assert_eq!(listed.trim(), child.id().to_string());
    assert!(child.try_wait().unwrap().is_none(), "it does not see that its input ends");
    drop(frozen);
    assert!(child.wait().unwrap().success() && !group.exists());
}
