//! `litepilot check`

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use crate::config::{Config, Source, environment};
use crate::node::refusals;
use crate::rules::RuleSet;
use crate::yaml::{MAX_BYTES, Problem};

/// The arguments of `litepilot check`.
#[derive(Args)]
pub struct CheckArgs {
    #[command(flatten)]
    config: super::ConfigArgs,
}

/// Runs it. The problems are the product, so they go to standard output.
pub fn main(args: CheckArgs) -> ExitCode {
    match check(args.config.config.as_deref()) {
        Ok(Fine { file, refusal, surprise }) => {
            let mut out = io::stdout();
            // A reader that has gone away is no failure of the check.
            let _ = writeln!(out, "{file}: configuration, rules and certificates are fine");
            if let Some(why) = refusal {
                let _ = writeln!(out, "{file}: but this version does not start with it: {why}");
            }
            if let Some(what) = surprise {
                let _ = writeln!(out, "{file}: note: {what}");
            }
            ExitCode::SUCCESS
        }
        Err(problems) => super::refuse(&problems, &mut io::stdout()),
    }
}

/// A configuration with nothing wrong.
struct Fine {
    file: String,
    /// What it asks for and this version does not do yet.
    refusal: Option<String>,
    /// What is worth a second look.
    surprise: Option<&'static str>,
}

/// The checked file, or everything that is wrong.
fn check(path: Option<&Path>) -> Result<Fine, Vec<Problem>> {
    let source = Source::open(path)?;
    let config = source.check(&environment)?;
    let mut problems = Vec::new();
    let files = Files { source: &source, problems: &mut problems };
    files.check(&config);
    let surprise = match RuleSet::load(&config.proxy.rules) {
        Ok(rules) => refusals::surprise(&config, &rules),
        Err(found) => {
            problems.extend(found);
            None
        }
    };
    if problems.is_empty() {
        let refusal = refusals::check(&config).err();
        Ok(Fine { file: source.file, refusal, surprise })
    } else {
        Err(problems)
    }
}

/// Checks the files and directories that the configuration names.
struct Files<'a> {
    source: &'a Source,
    problems: &'a mut Vec<Problem>,
}

impl Files<'_> {
    fn check(mut self, config: &Config) {
        for pair in config.proxy.tls.iter().flat_map(|tls| &tls.0) {
            self.pem("proxy.tls.cert", &pair.cert, CERTIFICATE);
            self.pem("proxy.tls.key", &pair.key, PRIVATE_KEY);
        }
        if let Some(tls) = &config.cluster.tls {
            self.pem("cluster.tls.ca", &tls.ca, CERTIFICATE);
            self.pem("cluster.tls.cert", &tls.cert, CERTIFICATE);
            self.pem("cluster.tls.key", &tls.key, PRIVATE_KEY);
        }
        self.directory("data_dir", &config.data_dir);
        self.directory("litefs.mount", &config.litefs.mount);
    }

    /// A PEM file that can be read and holds what is wanted.
    fn pem(&mut self, key: &str, path: &Path, wanted: &str) {
        let mut text = String::new();
        let read = fs::File::open(path)
            .and_then(|file| file.take(MAX_BYTES as u64).read_to_string(&mut text));
        match read {
            Err(error) => {
                self.wrong(key, format!("{} cannot be read: {error}", path.display()));
            }
            Ok(_) if !text.contains(wanted) => {
                let message = format!("{} holds no PEM block \"{wanted}\"", path.display());
                self.wrong(key, message);
            }
            Ok(_) => {}
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

    fn wrong(&mut self, key: &str, message: String) {
        let place = self.source.place(key);
        self.problems.push(Problem::new(&self.source.file, place, format!("{key}: {message}")));
    }
}

/// The end of a PEM block's label.
const CERTIFICATE: &str = "CERTIFICATE-----";
const PRIVATE_KEY: &str = "PRIVATE KEY-----";
