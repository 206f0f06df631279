//! `litepilot classify`

use std::fmt::{Display, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use crate::rules::{RuleSet, Verdict};
use crate::yaml::Problem;

/// Exit code for wrong usage, as clap's own.
const EXIT_USAGE: u8 = 2;

/// The arguments of `litepilot classify`.
#[derive(Args)]
pub struct ClassifyArgs {
    /// The request's method, e.g. GET; case-sensitive, as in HTTP
    #[arg(value_parser = method)]
    method: Method,
    /// The request's target, e.g. /admin/?q=1 or http://example.com/admin/
    #[arg(value_parser = target)]
    url: Uri,
    /// A header field of the request; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    #[command(flatten)]
    config: super::ConfigArgs,
}

/// Prints the class, the rule that gave it, and what else the rule sets; separated by two spaces.
pub fn main(args: ClassifyArgs) -> ExitCode {
    let rules = match load(args.config.config.as_deref()) {
        Ok(rules) => rules,
        Err(problems) => {
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            return ExitCode::from(super::EXIT_CONFIG);
        }
    };
    let headers: HeaderMap = args.headers.into_iter().collect();
    match rules.classify(&args.method, &args.url, &headers) {
        Ok(verdict) => {
            println!("{}", describe(&verdict, rules.place(verdict.rule)));
            ExitCode::SUCCESS
        }
        Err(bad) => {
            eprintln!("error: {bad}; such a request is answered with 400");
            ExitCode::from(EXIT_USAGE)
        }
    }
}
