//! `litepilot certs`

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use crate::cluster::NodeId;
use crate::telemetry::clock::rfc3339;
use crate::tls::Validity;
use crate::tls::authority::Authority;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// An authority is replaced by hand, on every node.
const CA_DAYS: u32 = 3650;
/// A node's certificate is replaced by a copy and a SIGHUP.
const NODE_DAYS: u32 = 730;
/// Valid from earlier on: clocks differ, by hours where a time zone was mistaken.
const EARLIER: Duration = Duration::from_secs(24 * 60 * 60);
const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// The arguments of `litepilot certs`.
#[derive(Args)]
pub(crate) struct CertsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the cluster's authority: DIR/ca.crt and DIR/ca.key
    Init {
        /// Made if it is not there
        dir: PathBuf,
    },
    /// Issue a node's certificate and key: DIR/NODE.crt and DIR/NODE.key
    Issue {
        /// Where the authority is
        dir: PathBuf,
        /// The node's name, as in its configuration
        node: NodeId,
        /// Also valid for this host name or address. Litepilot itself goes by the node's name
        #[arg(long = "host", value_name = "NAME")]
        hosts: Vec<String>,
    },
}

/// Runs it.
pub(crate) fn main(args: &CertsArgs) -> ExitCode {
    let done = match &args.command {
        Command::Init { dir } => init(dir),
        Command::Issue { dir, node, hosts } => issue(dir, node, hosts),
    };
    super::finish(done.map(|text| {
        // The files are there, whoever reads this.
        let _ = io::stdout().write_all(text.as_bytes());
        ExitCode::SUCCESS
    }))
}

fn init(dir: &Path) -> anyhow::Result<String> {
    let (cert, key) = pair(dir, "ca")?;
    let authority = Authority::create(validity(CA_DAYS))?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("{}: cannot be made", dir.display()))?;
    create_both((&cert, authority.certificate()), (&key, &authority.key()))?;
    Ok(format!(
        "made {} and {}, valid until {}\n\n\
         Whoever has ca.key can make nodes of this cluster: keep it, and keep it off the nodes.\n\
         Next, for each node: litepilot certs issue {} NODE\n",
        cert.display(),
        key.display(),
        date(authority.validity().until),
        dir.display()
    ))
}

fn issue(dir: &Path, node: &NodeId, hosts: &[String]) -> anyhow::Result<String> {
    let (ca, ca_key) = (dir.join("ca.crt"), dir.join("ca.key"));
    if !ca.exists() {
        let dir = dir.display();
        bail!("there is no {dir}/ca.crt: make it with litepilot certs init {dir}");
    }
    let (cert, key) = pair(dir, node.as_str())?;
    let authority = Authority::read(&ca, &ca_key)?;
    let issued = authority.issue(node, hosts, validity(NODE_DAYS))?;
    create_both((&cert, &issued.certificate), (&key, &issued.key))?;
    Ok(format!(
        "made {} and {}, valid until {}\n\n\
         Copy these two and ca.crt, not ca.key, to {node}, and write in its litepilot.yml\n\
         (relative paths start at that file):\n\n\
         cluster:\n  tls: {{ca: ca.crt, cert: {node}.crt, key: {node}.key}}\n",
        cert.display(),
        key.display(),
        date(issued.validity.until)
    ))
}

fn validity(days: u32) -> Validity {
    let now = SystemTime::now();
    Validity { from: now - EARLIER, until: now + DAY * days }
}

fn date(at: SystemTime) -> String {
    rfc3339(at).split('T').next().unwrap_or_default().to_owned()
}

/// The paths of a certificate and its key, neither of which is there.
fn pair(dir: &Path, name: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
    let (cert, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
    for path in [&cert, &key] {
        if path.symlink_metadata().is_ok() {
            bail!(
                "{} is there already and is never overwritten: move it away first, or name \
                 another directory",
                path.display()
            );
        }
    }
    Ok((cert, key))
}

/// Both or neither. The key first: a certificate without it is of no use.
fn create_both(cert: (&Path, &str), key: (&Path, &str)) -> anyhow::Result<()> {
    create(key.0, key.1, PRIVATE)?;
    create(cert.0, cert.1, PUBLIC).inspect_err(|_| drop(fs::remove_file(key.0)))
}

/// Fails if the file is there, even if it came a moment ago.
fn create(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let failed = || format!("{}: cannot be written", path.display());
    let mut file =
        File::options().write(true).create_new(true).mode(mode).open(path).with_context(failed)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.with_context(failed).inspect_err(|_| drop(fs::remove_file(path)))
}
