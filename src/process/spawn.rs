//! Spawning one program: as whom, in a group of its own, its output in our log.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::group::Group;
use super::guard::Guard;
use super::guard::link::GuardLink;
use super::guard::wire::{Report, Step};
use super::output::{LogLine, Output};
use super::running::{Parent, Process};
use super::service_manager;
use super::user::{self, Identity, UserError};

/// How long a guard may take to start a program. Reached only by one that hangs.
const GUARD_STARTS: Duration = Duration::from_secs(30);

/// What to run.
#[derive(Clone, Debug)]
pub struct Launch {
    /// What the log calls it, e.g. `app`.
    pub name: Arc<str>,
    /// The configuration key of `command`, for messages, e.g. `app.command`.
    pub key: &'static str,
    /// The program (looked up in `PATH` if it has no slash) and its arguments.
    pub command: Vec<String>,
    /// A user name or number; `None`: as whom we run.
    pub user: Option<String>,
    /// Added to our own environment, which the program inherits. With `user`, `HOME`, `USER` and
    /// `LOGNAME` are that user's, unless they are given here.
    pub env: Vec<(String, String)>,
    /// Where its output goes.
    pub log: LogLine,
    /// Who kills it when we cannot; `None`: nobody, it is our own child.
    pub guard: Option<Guard>,
}

/// Why a program could not be started, and what to do about it.
#[derive(Debug)]
pub enum SpawnError {
    /// There is no command.
    Empty { key: &'static str },
    /// There is no such user.
    User(UserError),
    /// We may not become that user.
    Switch {
        /// The user, as configured.
        user: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The program does not run.
    Program {
        key: &'static str,
        /// The program, as configured.
        program: String,
        /// What the system said.
        cause: io::Error,
    },
    /// Its guard does not do its work.
    Guard(io::Error),
    /// The deadline passed before it was known to run.
    Late,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpawnError::Empty { key } => write!(f, "{key} is empty: give a program to run"),
            SpawnError::User(error) => error.fmt(f),
            SpawnError::Switch { user, cause } => write!(
                f,
                "cannot switch to user {user:?} ({cause}): run litepilot as root, or as that user, \
                 or leave the user out"
            ),
            SpawnError::Program { key, program, cause } => {
                write!(f, "cannot start {program:?} ({cause}): {}", remedy(key, program, cause))
            }
            SpawnError::Guard(cause) => write!(
                f,
                "cannot start its guard, another process of litepilot ({cause}): it needs /proc, \
                 and the system a process and memory to spare"
            ),
            SpawnError::Late => f.write_str(
                "called off by its guard while it was starting: the claim's deadline had passed",
            ),
        }
    }
}

impl std::error::Error for SpawnError {}

fn remedy(key: &str, program: &str, cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::NotFound if !program.contains('/') => {
            format!("it is not in PATH; install it, or give its full path in {key}")
        }
        // The kernel says "not found" of the interpreter, too: usual with a moved virtualenv.
        io::ErrorKind::NotFound if Path::new(program).exists() => {
            "it is there, but the interpreter in its first line (#!) or its loader is not".into()
        }
        io::ErrorKind::NotFound => format!("there is no such file; correct {key}"),
        io::ErrorKind::PermissionDenied => format!(
            "the user it runs as may not execute it; make it executable (chmod +x) and its \
             directories accessible, or correct {key}"
        ),
        io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory => {
            "the system has no process or memory to spare; raise its limits".into()
        }
        _ if cause.raw_os_error() == Some(Errno::NOEXEC.raw_os_error()) => {
            "it is neither a program for this machine nor a script with a first line (#!)".into()
        }
        _ => format!("correct {key}"),
    }
}

/// Starts a program on the current runtime: standard input empty, output to the log, leader of a
/// new process group.
pub(crate) async fn spawn(launch: &Launch) -> Result<Process, SpawnError> {
    let Some((program, arguments)) = launch.command.split_first() else {
        return Err(SpawnError::Empty { key: launch.key });
    };
    let identity = launch.user.as_deref().map(user::resolve).transpose();
    let identity = identity.map_err(SpawnError::User)?;
    let account = identity.as_ref().and_then(|identity| identity.account.clone());
    let switch = identity.filter(|identity| !identity.is_ours());
    let mut command = match &launch.guard {
        Some(guard) => guard.command(switch.as_ref(), &launch.command),
        None => {
            let mut command = Command::new(program);
            command.args(arguments).kill_on_drop(true);
            command
        }
    };
    command.process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(account) = account {
        command.env("HOME", &account.home);
        command.env("USER", &account.name).env("LOGNAME", &account.name);
    }
    for name in service_manager::VARIABLES {
        command.env_remove(name);
    }
    command.envs(launch.env.iter().map(|(name, value)| (name, value)));
    match (&launch.guard, switch) {
        (Some(guard), _) => spawn_guarded(guard, command, launch).await,
        (None, Some(identity)) => adopt(spawn_as(identity, command, launch).await?, launch),
        (None, None) => adopt(command.spawn().map_err(|cause| launch.refused(cause))?, launch),
    }
}

/// Spawns a guard, which spawns the program.
async fn spawn_guarded(
    guard: &Guard,
    command: Command,
    launch: &Launch,
) -> Result<Process, SpawnError> {
    let mut link = GuardLink::new(command, guard).map_err(SpawnError::Guard)?;
    let output = read_output(link.guard(), launch);
    let hangs = |_| Err(io::ErrorKind::TimedOut.into());
    let report = timeout(GUARD_STARTS, link.started()).await.unwrap_or_else(hangs);
    let refusal = match report {
        Ok(Report::Started(pid)) => match Group::led_by(pid) {
            Some(group) => {
                return Ok(Process { group, pid, parent: Parent::Guard(link), output });
            }
            None => SpawnError::Guard(io::ErrorKind::InvalidData.into()),
        },
        Ok(Report::Refused(Step::Switch, errno)) => {
            launch.switch_refused(io::Error::from_raw_os_error(errno))
        }
        Ok(Report::Refused(Step::Start, errno)) => {
            launch.refused(io::Error::from_raw_os_error(errno))
        }
        Ok(Report::Late) => SpawnError::Late,
        Ok(Report::Ended(status)) => SpawnError::Guard(io::Error::other(status.to_string())),
        Err(cause) => SpawnError::Guard(cause),
    };
    // Ends the guard, which may have said why it fails.
    drop(link);
    output.finish().await;
    Err(refusal)
}

/// Spawns on a thread of its own, which takes the identity with it into its grave.
async fn spawn_as(
    identity: Identity,
    mut command: Command,
    launch: &Launch,
) -> Result<Child, SpawnError> {
    let runtime = Handle::current();
    let (sender, receiver) = oneshot::channel();
    let spawning = move || {
        let _context = runtime.enter();
        // If nobody waits any more, the child comes back with the error and is killed on drop.
        let _ = sender.send(identity.assume_on_this_thread().map(|()| command.spawn()));
    };
    thread::Builder::new()
        .name(format!("spawn-{}", launch.name))
        .spawn(spawning)
        .map_err(|cause| launch.refused(cause))?;
    match receiver.await {
        Ok(Ok(spawned)) => spawned.map_err(|cause| launch.refused(cause)),
        Ok(Err(cause)) => Err(launch.switch_refused(cause)),
        Err(_) => Err(launch.refused(io::Error::other("the spawning thread died"))),
    }
}

/// Takes charge of a child: its group and its output.
fn adopt(mut child: Child, launch: &Launch) -> Result<Process, SpawnError> {
    let leader = child.id().and_then(|pid| Some((pid, Group::led_by(pid)?)));
    let Some((pid, group)) = leader else {
        return Err(launch.refused(io::Error::other("it has no process id")));
    };
    let output = read_output(&mut child, launch);
    Ok(Process { group, pid, parent: Parent::Ourselves(child), output })
}

fn read_output(child: &mut Child, launch: &Launch) -> Output {
    let mut output = Output::none();
    if let Some(stdout) = child.stdout.take() {
        output.read(stdout, launch.name.clone(), "stdout", launch.log.clone());
    }
    if let Some(stderr) = child.stderr.take() {
        output.read(stderr, launch.name.clone(), "stderr", launch.log.clone());
    }
    output
}

impl Launch {
    fn refused(&self, cause: io::Error) -> SpawnError {
        let program = self.command.first().cloned().unwrap_or_default();
        SpawnError::Program { key: self.key, program, cause }
    }

    fn switch_refused(&self, cause: io::Error) -> SpawnError {
        SpawnError::Switch { user: self.user.clone().unwrap_or_default(), cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

    fn launch(command: &[&str]) -> Launch {
        Launch {
            name: "app".into(),
            key: "app.command",
            command: command.iter().map(|s| (*s).to_owned()).collect(),
            user: None,
            env: Vec::new(),
            log: (|_: &str, _: &str, line: &str| SEEN.lock().unwrap().push(line.to_owned())).into(),
            guard: None,
        }
    }

    async fn error(command: &[&str]) -> String {
        spawn(&launch(command)).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn every_refusal_names_what_is_wrong_and_what_helps() {
        let dir = tempfile::tempdir().unwrap();
        // Written by another process: while another test forks, a descriptor of ours that is open
        // for writing would make the program "busy".
        let file = |name: &str, text: &str, mode: &str| {
            let path = dir.path().join(name);
            let write = r#"printf %s "$1" > "$0" && chmod "$2" "$0""#;
            let mut sh = std::process::Command::new("sh");
            let written = sh.args(["-c", write]).arg(&path).args([text, mode]).status().unwrap();
            assert!(written.success());
            path.to_str().unwrap().to_owned()
        };
        let missing = error(&["litepilot-no-such-program"]).await;
        assert!(missing.contains("\"litepilot-no-such-program\"") && missing.contains("PATH"));
        assert!(missing.contains("app.command"), "{missing}");
        let moved = error(&[&file("moved", "#!/no/such/python\n", "755")]).await;
        assert!(moved.contains("interpreter"), "{moved}");
        let gone = error(&["/no/such/program"]).await;
        assert!(gone.contains("no such file"), "{gone}");
        let plain = error(&[&file("plain", "#!/bin/sh\n", "644")]).await;
        assert!(plain.contains("chmod +x"), "{plain}");
        let text = error(&[&file("text", "not a program", "755")]).await;
        assert!(text.contains("#!"), "{text}");
        assert!(error(&[]).await.contains("app.command is empty"));
        let stranger = Launch { user: Some("no-such-user".into()), ..launch(&["true"]) };
        let stranger = spawn(&stranger).await.unwrap_err().to_string();
        assert!(stranger.contains("\"no-such-user\"") && stranger.contains("/etc/passwd"));
    }

    /// Uses a made-up group, since no user of a bare system is in several.
    #[tokio::test]
    async fn a_switch_takes_user_group_and_supplementary_groups() {
        if !rustix::process::getuid().is_root() {
            eprintln!("skipped: only root can switch users");
            return;
        }
        let identity =
            Identity { uid: 65534, gid: 65533, groups: vec![65533, 64242], account: None };
        let mut command = Command::new("sh");
        command.args(["-c", "id -u; id -g; id -G"]).process_group(0).stdout(Stdio::piped());
        let launch = launch(&["sh"]);
        let child = spawn_as(identity, command, &launch).await.unwrap();
        let mut process = adopt(child, &launch).unwrap();
        process.wait().await.unwrap();
        process.end().await.unwrap();
        let seen = SEEN.lock().unwrap().clone();
        assert_eq!(seen, ["65534", "65533", "65533 64242"]);
        assert!(rustix::process::getuid().is_root(), "the switch must not reach us");
    }
}
