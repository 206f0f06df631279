//! What keeps LiteFS from starting, found before it is tried: LiteFS' own words for most of it are
//! `fusermount: exit status 1`.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::{bare_mount, mount};
use crate::config::Litefs;

const DEVICE: &str = "/dev/fuse";
/// LiteFS mounts with its help, as root too.
const HELPER: &str = "fusermount3";
/// The bit of CAP_SYS_ADMIN, capabilities(7).
const SYS_ADMIN: u32 = 21;

/// What to do if a mount is refused although nothing was found that would keep LiteFS from it.
pub(crate) const MAY_NOT_MOUNT: &str = "FUSE could not mount. For another user than root, litefs.allow_other needs user_allow_other in \
     /etc/fuse.conf, and litefs.mount has to be that user's; in a container add: --device /dev/fuse \
     --cap-add SYS_ADMIN --security-opt apparmor=unconfined (or --privileged)";
/// What a container needs.
const CONTAINER: &str = "in a container add: --device /dev/fuse --cap-add SYS_ADMIN \
                         --security-opt apparmor=unconfined (or --privileged)";

/// Why LiteFS cannot start, and what to do about it.
#[derive(Debug)]
pub enum Trouble {
    /// There is no LiteFS of that name.
    NoLitefs(PathBuf),
    /// There is no `/dev/fuse`.
    NoDevice,
    /// `/dev/fuse` cannot be opened.
    Device(io::Error),
    /// FUSE's helper is not installed.
    NoHelper,
    /// Nobody in this container may mount.
    MayNotMount,
    /// The mount directory cannot be made, or is none.
    Mount(PathBuf, io::Error),
    /// There is something in it, which the mount would hide.
    NotEmpty(PathBuf, String),
    /// A former mount cannot be removed, or is alive.
    Stuck(io::Error),
    /// The data directory cannot be made or written.
    Data(PathBuf, io::Error),
    /// The port is taken.
    Port(SocketAddr, io::Error),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLitefs(binary) => write!(
                f,
                "{} is not there, or cannot be executed: install LiteFS, or name its file",
                binary.display()
            ),
            Self::NoDevice => write!(
                f,
                "there is no {DEVICE}, which LiteFS needs: load the kernel's module (modprobe fuse); {CONTAINER}"
            ),
            Self::Device(error) => write!(
                f,
                "{DEVICE} cannot be opened ({error}): run Litepilot as a user who may; {CONTAINER}"
            ),
            Self::NoHelper => write!(
                f,
                "{HELPER} is not in PATH, with which LiteFS mounts: install the package fuse3"
            ),
            Self::MayNotMount => {
                write!(f, "nobody may mount file systems here (no CAP_SYS_ADMIN): {CONTAINER}")
            }
            Self::Mount(dir, error) => write!(
                f,
                "litefs.mount: {} cannot be used ({error}): make it an empty directory of the user \
                 that Litepilot runs as",
                dir.display()
            ),
            Self::NotEmpty(dir, found) => write!(
                f,
                "litefs.mount: {} is not empty: the mount would hide {found}. Move it away; a \
                 database gets into LiteFS with `litefs import`",
                dir.display()
            ),
            Self::Stuck(error) => write!(f, "litefs.mount: {error}"),
            Self::Data(dir, error) => write!(
                f,
                "litefs.data: {} cannot be used ({error}): make it a directory that the user that \
                 Litepilot runs as can write",
                dir.display()
            ),
            Self::Port(address, error) => write!(
                f,
                "litefs.http: {address} cannot be listened on ({error}): does another LiteFS run? \
                 Stop it, or write another port"
            ),
        }
    }
}

impl std::error::Error for Trouble {}

/// The LiteFS named so, if this machine can run it: a path, or a name looked up in `PATH`.
pub(crate) fn available(binary: &Path) -> Result<PathBuf, Trouble> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let named = binary.components().count() > 1;
    let places = match named {
        true => vec![std::path::absolute(binary).unwrap_or_else(|_| binary.to_owned())],
        false => std::env::split_paths(&path).map(|dir| dir.join(binary)).collect(),
    };
    let runs = |place: &PathBuf| place.is_file() && access(place, Access::EXEC_OK).is_ok();
    let found = places.into_iter().find(runs);
    let found = found.ok_or_else(|| Trouble::NoLitefs(binary.to_owned()))?;
    system()?;
    Ok(found)
}

/// Removes what an earlier LiteFS left mounted, sets aside what was written there since, makes the
/// directories, and looks for what would keep LiteFS from starting. Touches no live mount; blocks for
/// moments only.
///
/// # Errors
///
/// The first trouble found.
pub fn check(litefs: &Litefs) -> Result<(), Trouble> {
    match mount::clear_dead(&litefs.mount) {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "removed mounts of a LiteFS that has ended"),
        Err(error) => return Err(Trouble::Stuck(error)),
    }
    system()?;
    match bare_mount::set_aside(&litefs.mount, &litefs.data) {
        Ok(None) => {}
        Ok(Some(aside)) => tracing::warn!(
            aside = %aside.display(),
            "something was written into litefs.mount while LiteFS was not there; it is no part of the \
             database, and was moved away"
        ),
        Err(why) => tracing::warn!(%why, "what lies in litefs.mount cannot be moved away"),
    }
    mount_directory(&litefs.mount)?;
    data_directory(&litefs.data)?;
    port(litefs.http)
}

/// Whether this machine, and this user, can mount at all.
fn system() -> Result<(), Trouble> {
    device(Path::new(DEVICE))?;
    helper(std::env::var_os("PATH").as_deref())?;
    may_mount(&fs::read_to_string("/proc/self/status").unwrap_or_default())
}

fn device(path: &Path) -> Result<(), Trouble> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Trouble::NoDevice),
        // As another user than root it is the helper, root by its mode, that opens it.
        Err(_) if !rustix::process::geteuid().is_root() && path.exists() => Ok(()),
        Err(error) => Err(Trouble::Device(error)),
    }
}

fn helper(path: Option<&std::ffi::OsStr>) -> Result<(), Trouble> {
    let runs = |dir: PathBuf| access(dir.join(HELPER), Access::EXEC_OK).is_ok();
    match std::env::split_paths(path.unwrap_or_default()).any(runs) {
        true => Ok(()),
        false => Err(Trouble::NoHelper),
    }
}

/// By what no process here can get beyond: the helper is root by its mode, but for that.
fn may_mount(status: &str) -> Result<(), Trouble> {
    let bounds = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bounds = bounds.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    match bounds {
        Some(bits) if bits >> SYS_ADMIN & 1 == 0 => Err(Trouble::MayNotMount),
        _ => Ok(()),
    }
}

fn mount_directory(dir: &Path) -> Result<(), Trouble> {
    let trouble = |error| Trouble::Mount(dir.to_owned(), error);
    fs::create_dir_all(dir).map_err(trouble)?;
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(trouble)?.take(3) {
        found.push(entry.map_err(trouble)?.file_name().to_string_lossy().into_owned());
    }
    if found.is_empty() {
        return Ok(());
    }
    Err(Trouble::NotEmpty(dir.to_owned(), found.join(", ")))
}

fn data_directory(dir: &Path) -> Result<(), Trouble> {
    let trouble = |error| Trouble::Data(dir.to_owned(), error);
    fs::create_dir_all(dir).map_err(trouble)?;
    access(dir, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| trouble(error.into()))
}

fn port(address: SocketAddr) -> Result<(), Trouble> {
    TcpListener::bind(address).map(drop).map_err(|error| Trouble::Port(address, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<T: fmt::Debug>(found: Result<T, Trouble>) -> String {
        found.unwrap_err().to_string()
    }

    #[test]
    fn without_the_device_containers_are_told_their_flags() {
        let dir = tempfile::tempdir().unwrap();
        let missing = text(device(&dir.path().join("fuse")));
        assert!(missing.contains("modprobe fuse") && missing.contains("--device /dev/fuse"));
    }

    #[test]
    fn without_the_helper_its_package_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let found = text(helper(Some(dir.path().as_os_str())));
        assert!(found.contains("fuse3"), "{found}");
        fs::write(dir.path().join(HELPER), "").unwrap();
        assert!(helper(Some(dir.path().as_os_str())).is_err(), "it is not executable");
    }

    #[test]
    fn a_container_without_the_capability_is_recognized() {
        let docker = "Name:\tlitepilot\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\n";
        assert!(text(may_mount(docker)).contains("--cap-add SYS_ADMIN"));
        assert!(may_mount("CapBnd:\t000001ffffffffff\n").is_ok());
        assert!(may_mount("").is_ok(), "unknown: LiteFS will say");
    }

    #[test]
    fn the_mount_directory_is_made_and_has_to_be_empty() {
        let dir = tempfile::tempdir().unwrap();
        let mount = dir.path().join("deep/mount");
        mount_directory(&mount).unwrap();
        mount_directory(&mount).unwrap();
        fs::write(mount.join("db.sqlite3"), "").unwrap();
        let found = text(mount_directory(&mount));
        assert!(found.contains("hide db.sqlite3") && found.contains("litefs import"), "{found}");
        let file = text(mount_directory(&mount.join("db.sqlite3")));
        assert!(file.contains("litefs.mount") && file.contains("empty directory"), "{file}");
    }

    #[test]
    fn the_data_directory_has_to_be_writable() {
        let dir = tempfile::tempdir().unwrap();
        data_directory(&dir.path().join("deep/data")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let found = text(data_directory(&dir.path().join("file/data")));
        assert!(found.contains("litefs.data"), "{found}");
    }

    #[test]
    fn a_port_in_use_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = text(port(taken.local_addr().unwrap()));
        assert!(found.contains("litefs.http") && found.contains("another LiteFS"), "{found}");
    }
}
