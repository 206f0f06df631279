//! The configuration as a user meets it: the reference, bad files, and `litepilot check`.

mod bad;
mod check;
#[path = "../edge/files.rs"]
#[allow(dead_code)]
mod files;
mod good;

use litepilot::config::Config;
use litepilot::yaml::Problem;

/// The variables that the tests set.
fn env(name: &str) -> Option<String> {
    let value = match name {
        "LITEPILOT_NODE" => "node-1",
        "N" => "8",
        "YES" => "true",
        "EMPTY" => "",
        _ => return None,
    };
    Some(value.to_owned())
}

fn parse(text: impl AsRef<[u8]>) -> Result<Config, Vec<Problem>> {
    Config::from_yaml("litepilot.yml", text.as_ref(), &env)
}

/// The required keys, on one line, before `more`.
fn minimal(more: &str) -> String {
    format!("proxy: {{target: '127.0.0.1:8000', db: db.sqlite3}}\n{more}")
}

/// The block of `docs/configuration.md`: every key with its default.
fn reference() -> &'static str {
    let page = include_str!("../../docs/configuration.md");
    let (_, section) = page.split_once("\n## Every key\n").unwrap();
    let (_, block) = section.split_once("\n```yaml\n").unwrap();
    block.split_once("```\n").unwrap().0
}
