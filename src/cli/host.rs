//! What of a configuration is not so on this machine: directories, users and programs that it names. Touches
//! nothing in a mount, whose LiteFS may hang.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::backup::store::{self, Place, Scheme};
use crate::config::Config;
use crate::litefs::mount;
use crate::process::user;

/// A key, and what is wrong with it.
pub(super) type Wrong = (&'static str, String);

/// Everything that is wrong here.
pub(super) fn problems(config: &Config) -> Vec<Wrong> {
    let mut wrong: Vec<Wrong> = Vec::new();
    wrong.extend(writable("data_dir", &config.data_dir));
    if config.is_witness() {
        return wrong;
    }
    wrong.extend(mount_directory(&config.litefs.mount));
    wrong.extend(config.backup.as_ref().and_then(|backup| backup_place(&backup.place)));
    let app = &config.app;
    let services = &config.services;
    let users = services.iter().map(|service| ("services", service.user.as_deref()));
    for (key, user) in users.chain([("app.user", app.user.as_deref())]) {
        wrong.extend(user.and_then(|name| Some((key, user::resolve(name).err()?.to_string()))));
    }
    let hooks = [
        ("app.command", &*app.command),
        ("app.on_promote", app.on_promote.command()),
        ("app.on_demote", &app.on_demote),
        ("app.on_quorum_lost", &app.on_quorum_lost),
    ];
    let commands = services.iter().map(|service| ("services", &*service.command));
    for (key, command) in commands.chain(hooks) {
        wrong.extend(command.first().and_then(|program| program_of(key, program)));
    }
    wrong
}

/// A bucket is not asked: what it says depends on the environment of the service, not of this shell.
fn backup_place(place: &Place) -> Option<Wrong> {
    match &place.scheme {
        Scheme::File(dir) => writable("backup.url", dir),
        Scheme::Bucket if store::has_cloud() => None,
        Scheme::Bucket => Some(("backup.url", store::NO_CLOUD.to_owned())),
    }
}

/// One that is mounted is there, whatever becomes of whoever looks into it.
fn mount_directory(dir: &Path) -> Option<Wrong> {
    if mount::is_mounted(dir).unwrap_or(false) {
        return None;
    }
    let text = match fs::metadata(dir) {
        Ok(found) if found.is_dir() => return None,
        Ok(_) => format!("{} is no directory: write one", dir.display()),
        Err(why) if why.kind() == io::ErrorKind::NotFound => format!(
            "there is no {}: make it (mkdir), or write the directory in which the application has its database",
            dir.display()
        ),
        Err(why) => format!("{} cannot be examined: {why}", dir.display()),
    };
    Some(("litefs.mount", text))
}

/// A directory that is not there is made at the start, in the nearest one that is.
fn writable(key: &'static str, dir: &Path) -> Option<Wrong> {
    let there = dir.ancestors().find(|dir| dir.as_os_str().is_empty() || dir.exists());
    let there = there.filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !there.is_dir() {
        // Which is said of the key already.
        return None;
    }
    let why = access(there, Access::WRITE_OK | Access::EXEC_OK).err()?;
    let name = dir.display();
    Some((
        key,
        format!(
            "{name} cannot be written ({why}): give it to the user that Litepilot runs as, or write another"
        ),
    ))
}

fn program_of(key: &'static str, program: &str) -> Option<Wrong> {
    let runs = |place: PathBuf| place.is_file() && access(&place, Access::EXEC_OK).is_ok();
    let found = match program.contains('/') {
        true => runs(program.into()),
        false => env::split_paths(&env::var_os("PATH").unwrap_or_default())
            .any(|dir| runs(dir.join(program))),
    };
    let text = match program.contains('/') {
        true => {
            format!("{program} is not there, or cannot be executed: correct the path, or chmod +x")
        }
        false => format!("{program} is not in PATH: install it, or write its whole path"),
    };
    (!found).then_some((key, text))
}
