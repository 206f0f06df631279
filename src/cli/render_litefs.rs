//! `litepilot render-litefs`

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;

use crate::config::EngineKind;
use crate::lease::SECRET_FILE;
use crate::litefs::render;
use crate::secret::Secret;

/// The arguments of `litepilot render-litefs`.
#[derive(Args)]
pub(crate) struct RenderArgs {
    #[command(flatten)]
    config: super::ConfigArgs,
}

/// Runs it. The secret is made if no node has run yet, so that what is printed stays valid.
pub(crate) fn main(args: &RenderArgs) -> ExitCode {
    let config = match args.config.load() {
        Ok(config) => config,
        Err(code) => return code,
    };
    if config.litefs.engine == EngineKind::Embedded {
        eprintln!("litepilot: litefs.engine is embedded: there is no LiteFS");
        return ExitCode::FAILURE;
    }
    let secret = match Secret::load_or_create(&config.data_dir.join(SECRET_FILE)) {
        Ok(secret) => secret,
        Err(why) => {
            eprintln!("litepilot: the secret of LiteFS' lease: {why}");
            return ExitCode::FAILURE;
        }
    };
    match io::stdout().write_all(render::render(&config, &secret).as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
