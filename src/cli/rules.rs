//! `litepilot rules`

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;

use super::ask;
use crate::status::Status;

/// The arguments of `litepilot rules`.
#[derive(Args)]
pub(crate) struct RulesArgs {
    #[command(flatten)]
    node: super::AdminArgs,
    /// Print the requests that were found to write, as a rule file
    #[arg(long, required = true)]
    learned: bool,
}

/// Runs it.
pub(crate) fn main(args: RulesArgs) -> ExitCode {
    ask::run(&args.node, async |node| {
        let text = rule_file(&node.status().await?);
        // Whoever reads may have seen enough (`| head`).
        let _ = io::stdout().write_all(text.as_bytes());
        Ok(ExitCode::SUCCESS)
    })
}

fn rule_file(status: &Status) -> String {
    if status.learned_writes.is_empty() {
        return format!("# {} has found no request that writes.\nrules: []\n", status.node);
    }
    let mut text = format!("# Found to write, as {} knows.\nrules:\n", status.node);
    for learned in &status.learned_writes {
        text.push_str(&format!("  {}\n", learned.rule));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::RuleSet;
    use crate::status::{LearnedWrite, example};

    #[test]
    fn what_is_printed_is_a_rule_file() {
        let learned = |rule: &str| LearnedWrite {
            request: "GET /".into(),
            count: 1,
            last: "1970-01-01T00:00:00Z".into(),
            rule: rule.into(),
        };
        let rule = "- {match: {method: GET, path: /visits}, as: write}";
        for learned in [vec![], vec![learned(rule), learned(rule)]] {
            let text = rule_file(&Status { learned_writes: learned, ..example() });
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("learned.yml");
            std::fs::write(&file, &text).unwrap();
            let rules = RuleSet::load(&[file.display().to_string()]);
            assert!(rules.is_ok(), "{text}: {rules:?}");
        }
    }
}
