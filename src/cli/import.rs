//! `litepilot import`

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::config::import::{Imported, RULES, import};
use crate::config::litefs_yml::LitefsYml;
use crate::yaml::{self, Place, Problem};

/// The arguments of `litepilot import`.
#[derive(Args)]
pub(crate) struct ImportArgs {
    /// LiteFS' configuration
    #[arg(value_name = "LITEFS.YML")]
    file: PathBuf,
    /// Write its rules, passthrough and always-forward, into this new file instead of printing them
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
}

/// Runs it.
pub(crate) fn main(args: &ImportArgs) -> ExitCode {
    let imported = match read(args) {
        Ok(imported) => imported,
        Err(problems) => return super::refuse(&problems, &mut io::stderr()),
    };
    let Imported { mut config, rules } = imported;
    if let Some(rules) = rules {
        match &args.rules {
            Some(to) => {
                if let Err(why) = std::fs::File::create_new(to)
                    .and_then(|mut file| file.write_all(rules.as_bytes()))
                {
                    eprintln!("litepilot: cannot write {}: {why}", to.display());
                    return ExitCode::FAILURE;
                }
                let name = serde_json::Value::from(to.display().to_string()).to_string();
                config = config.replacen(&format!("./{RULES}"), &name, 1);
            }
            None => {
                config += &format!(
                    "\n# Save these lines, without the first #, as {RULES} beside this file:\n"
                );
                rules.lines().for_each(|line| config += &format!("#{line}\n"));
            }
        }
    }
    match io::stdout().write_all(config.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn read(args: &ImportArgs) -> Result<Imported, Vec<Problem>> {
    let file = args.file.display().to_string();
    let text = yaml::read(&args.file).map_err(|error| {
        vec![Problem::new(&file, Place::START, format!("cannot be read: {error}"))]
    })?;
    let (litefs, variables) = LitefsYml::parse(&file, &text)?;
    Ok(import(&litefs, &variables))
}
