//! `litepilot classify`

use std::io;
use std::process::ExitCode;

use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use crate::config::{self, Ack, Consistency};
use crate::rules::{RuleSet, Verdict};
use crate::yaml::Problem;

/// The arguments of `litepilot classify`.
#[derive(Args)]
pub(crate) struct ClassifyArgs {
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

/// Prints the class, the rule that gave it and what else that rule sets, two spaces between them.
pub(crate) fn main(args: ClassifyArgs) -> ExitCode {
    let rules = match load(&args.config) {
        Ok(rules) => rules,
        Err(problems) => return super::refuse(&problems, &mut io::stderr()),
    };
    let headers: HeaderMap = args.headers.into_iter().collect();
    match rules.classify(&args.method, &args.url, &headers) {
        Ok(verdict) => {
            println!("{}", describe(&verdict, rules.place(verdict.rule)));
            ExitCode::SUCCESS
        }
        Err(bad) => {
            eprintln!("error: {bad}; such a request is answered with 400");
            ExitCode::from(super::EXIT_USAGE)
        }
    }
}

/// The rules of the configuration; without one the default set.
fn load(args: &super::ConfigArgs) -> Result<RuleSet, Vec<Problem>> {
    let sources = match args.config.as_deref().or_else(|| config::find()) {
        Some(file) => config::load(Some(file))?.proxy.rules,
        None => Vec::new(),
    };
    RuleSet::load(&sources)
}

fn describe(verdict: &Verdict, place: &str) -> String {
    let settings = [
        ("consistency", verdict.consistency.map(|level| consistency(level).to_owned())),
        ("read_wait", verdict.read_wait.map(|time| format!("{time:?}"))),
        ("write_hold", verdict.write_hold.map(|time| format!("{time:?}"))),
        ("ack", verdict.ack.map(|ack| acknowledged(ack).to_owned())),
        ("response_timeout", verdict.response_timeout.map(|time| format!("{time:?}"))),
        ("body_timeout", verdict.body_timeout.map(|time| format!("{time:?}"))),
        ("replay", verdict.replay.map(|replay| replay.as_str().to_owned())),
    ];
    let settings =
        settings.into_iter().filter_map(|(key, value)| Some(format!("{key}: {}", value?)));
    let settings: Vec<String> = settings.collect();
    let line = format!("{}  {place}", verdict.class.as_str());
    if settings.is_empty() { line } else { format!("{line}  ({})", settings.join(", ")) }
}

fn consistency(level: Consistency) -> &'static str {
    match level {
        Consistency::Eventual => "eventual",
        Consistency::ReadYourWrites => "read-your-writes",
        Consistency::Monotonic => "monotonic",
        Consistency::Strong => "strong",
    }
}

fn acknowledged(ack: Ack) -> &'static str {
    match ack {
        Ack::Primary => "primary",
        Ack::One => "one",
        Ack::Majority => "majority",
    }
}

fn method(text: &str) -> Result<Method, String> {
    text.parse().map_err(|_| "a method is one word of letters, like GET or POST".into())
}

fn target(text: &str) -> Result<Uri, String> {
    const FORM: &str = "write a path or a URL, like /admin/?q=1 or http://example.com/admin/, \
                        anything unusual percent-encoded";
    let uri: Uri = text.parse().map_err(|error| format!("{error}: {FORM}"))?;
    if uri.path().is_empty() { Err(format!("there is no path: {FORM}")) } else { Ok(uri) }
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write 'Name: value'")?;
    let name = name.parse().map_err(
        |_| "a header's name is letters, digits and hyphens, without a space before the colon",
    )?;
    let value = value.trim().parse().map_err(|_| "a header's value is one line of text")?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rules::Class;

    #[test]
    fn the_line_says_class_rule_and_settings() {
        let mut verdict = Verdict::of(Class::Write);
        assert_eq!(describe(&verdict, "django.yml:12"), "write  django.yml:12");
        verdict.write_hold = Some(Duration::from_millis(2500));
        verdict.ack = Some(Ack::Majority);
        let line = describe(&verdict, "a/b.yml:3");
        assert_eq!(line, "write  a/b.yml:3  (write_hold: 2.5s, ack: majority)");
    }

    #[test]
    fn arguments_are_a_request() {
        assert_eq!(method("PURGE").unwrap().as_str(), "PURGE");
        assert_eq!(target("/a?b#c").unwrap(), "/a?b");
        assert_eq!(target("https://example.com").unwrap().path(), "/");
        assert_eq!(target("*").unwrap().path(), "*");
        let (name, value) = header("X-Fresh:  a: b ").unwrap();
        assert_eq!((name.as_str(), value.as_bytes()), ("x-fresh", &b"a: b"[..]));
        assert_eq!(header("X:").unwrap().1, "");
    }

    #[test]
    fn bad_arguments_are_told_what_is_right() {
        assert!(method("G T").unwrap_err().contains("like GET"));
        for bad in ["", "a b", "/a b", "example.com", "a/b", "http:///"] {
            assert!(target(bad).unwrap_err().contains("like /admin/"), "{bad}");
        }
        for bad in ["X", "X Y: z", "X : z", ": z", "X: a\nb"] {
            assert!(header(bad).is_err(), "{bad}");
        }
    }
}
