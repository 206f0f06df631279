//! `litepilot check`

use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;

use super::host;
use crate::config::{Cluster, Config, EngineKind, Source, environment};
use crate::litefs::preflight;
use crate::node::refusals;
use crate::rules::RuleSet;
use crate::tls::{self, Fault, Identity, Validity};
use crate::yaml::Problem;

/// What somebody who runs LiteFS himself has to know.
const EXTERNAL: &str = "run LiteFS with what `litepilot render-litefs` prints: its lease is Litepilot's, at \
     litefs.lease_listen. If LiteFS starts Litepilot through exec it needs skip-sync: true, which is there: it \
     cannot have its lease before Litepilot runs";

/// The arguments of `litepilot check`.
#[derive(Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    config: super::ConfigArgs,
    /// The file is another machine's: do not look here for the directories, user and programs that it names
    #[arg(long)]
    elsewhere: bool,
}

/// Runs it. The problems are the product, so they go to standard output.
pub(crate) fn main(args: CheckArgs) -> ExitCode {
    match check(args.config.config.as_deref(), !args.elsewhere) {
        Ok(Fine { file, notes }) => {
            let mut out = io::stdout();
            // A reader that has gone away is no failure of the check.
            let _ = writeln!(out, "{file}: configuration, rules and certificates are fine");
            for note in notes {
                let _ = writeln!(out, "{note}");
            }
            ExitCode::SUCCESS
        }
        Err(problems) => super::refuse(&problems, &mut io::stdout()),
    }
}

/// A configuration with nothing wrong.
struct Fine {
    file: String,
    /// What an operator should know nevertheless.
    notes: Vec<String>,
}

/// The checked file, or everything that is wrong.
fn check(path: Option<&Path>, here: bool) -> Result<Fine, Vec<Problem>> {
    let source = Source::open(path)?;
    let config = source.check(&environment)?;
    let mut files = Files { source: &source, problems: Vec::new(), notes: Vec::new() };
    files.check(&config);
    for (key, why) in here.then(|| host::problems(&config)).into_iter().flatten() {
        files.wrong(key, why);
    }
    let Files { mut problems, notes, .. } = files;
    let mut notes: Vec<_> = notes.iter().map(ToString::to_string).collect();
    let file = &source.file;
    match RuleSet::load(&config.proxy.rules) {
        Ok(rules) => {
            let surprise = refusals::surprise(&config, &rules);
            notes.extend(surprise.map(|what| format!("{file}: note: {what}")));
        }
        Err(found) => problems.extend(found),
    }
    if let Err(why) = refusals::check(&config) {
        notes.push(format!("{file}: but this version does not start with it: {why}"));
    }
    if problems.is_empty() { Ok(Fine { file: source.file, notes }) } else { Err(problems) }
}

/// Checks the files and directories that the configuration names.
struct Files<'a> {
    source: &'a Source,
    problems: Vec<Problem>,
    /// Not wrong, but to be known.
    notes: Vec<Problem>,
}

impl Files<'_> {
    fn check(&mut self, config: &Config) {
        for pair in config.proxy.tls.iter().flat_map(|tls| &tls.0) {
            let read = tls::read_pair(&pair.cert, &pair.key).map(|(_, validity)| {
                if let Some(remark) = tls::exposed(&pair.key) {
                    self.note("proxy.tls.key", remark);
                }
                validity
            });
            self.certificate("proxy.tls", read, &pair.cert);
        }
        if let Some(files) = &config.cluster.tls {
            let read = Identity::read(files, &config.node).map(|identity| {
                for remark in &identity.remarks {
                    self.note(&format!("cluster.tls.{}", remark.part.as_str()), remark);
                }
                identity.validity
            });
            self.certificate("cluster.tls", read, &files.cert);
        }
        self.insecure(&config.cluster);
        self.advertise(&config.cluster);
        self.directory("data_dir", &config.data_dir);
        match config.litefs.engine {
            EngineKind::Embedded => self.directory("litefs.mount", &config.litefs.mount),
            // Its directory may be a mount, dead or hanging: not to be touched.
            _ if config.is_witness() => {}
            EngineKind::Litefs => {
                if let Err(why) = preflight::available(&config.litefs.binary) {
                    self.note("litefs.binary", why);
                }
            }
            EngineKind::External => self.note("litefs.engine", EXTERNAL),
        }
    }

    /// What was found in the files of a section, and how long it is good for.
    fn certificate(&mut self, section: &str, read: Result<Validity, Vec<Fault>>, cert: &Path) {
        let validity = match read {
            Ok(validity) => validity,
            Err(faults) => {
                for fault in faults {
                    self.wrong(&format!("{section}.{}", fault.part.as_str()), &fault);
                }
                return;
            }
        };
        let Some(concern) = validity.concern(SystemTime::now()) else { return };
        let (key, text) =
            (format!("{section}.cert"), format!("{}: {}", cert.display(), concern.text));
        if concern.refused { self.wrong(&key, text) } else { self.note(&key, text) }
    }

    /// Whether nodes on several machines speak plain TCP, which the configuration then allows.
    fn insecure(&mut self, cluster: &Cluster) {
        if !cluster.insecure || cluster.peers.is_empty() {
            return;
        }
        self.note(
            "cluster.insecure",
            if cluster.tls.is_some() {
                "it has no effect beside tls, which is used: remove it"
            } else {
                "nodes speak plain TCP: whoever reaches their port can read along, and speak for a node"
            },
        );
    }

    /// The key is of a design in which nodes told each other their addresses.
    fn advertise(&mut self, cluster: &Cluster) {
        if cluster.advertise.is_some() {
            let what =
                "it has no effect: others reach this node at its entry in cluster.peers; remove it";
            self.note("cluster.advertise", what);
        }
    }

    /// A directory, or nothing yet: then it is made at the start.
    fn directory(&mut self, key: &str, path: &Path) {
        match fs::metadata(path) {
            Ok(found) if !found.is_dir() => {
                self.wrong(key, format!("{} is no directory: write one", path.display()));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.wrong(key, format!("{} cannot be examined: {error}", path.display()));
            }
            _ => {}
        }
    }

    fn wrong(&mut self, key: &str, message: impl Display) {
        let place = self.source.place(key);
        let problem = Problem::new(&self.source.file, place, format!("{key}: {message}"));
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn note(&mut self, key: &str, message: impl Display) {
        let (place, message) = (self.source.place(key), format!("note: {key}: {message}"));
        self.notes.push(Problem::new(&self.source.file, place, message));
    }
}
