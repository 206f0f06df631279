//! `${VAR}` and `${VAR:-default}` in the text of a scalar. `$${` is a literal `${`.

/// The longest text a scalar may expand to, in bytes: the longest a variable can be on Linux.
const MAX_EXPANDED: usize = 128 << 10;

/// Why a text cannot be expanded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unexpanded<'a> {
    /// The reference that cannot be expanded, to the end of the text if it is not closed.
    pub(crate) reference: &'a str,
    /// What is wrong, and what would be right.
    pub(crate) message: String,
}

/// Expands every reference. As in a shell, `:-` also stands in for a variable that is set but empty.
///
/// # Errors
///
/// Everything that cannot be expanded.
pub(crate) fn expand<'a>(
    text: &'a str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<String, Vec<Unexpanded<'a>>> {
    let mut expanded = String::new();
    let mut wrong = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            rest = &reference[2..];
            continue;
        }
        expanded.push_str(before);
        let (reference, behind) = match reference.find('}') {
            Some(end) => reference.split_at(end + 1),
            None => (reference, ""),
        };
        match value(reference, env) {
            Ok(value) => expanded.push_str(&value),
            Err(message) => wrong.push(Unexpanded { reference, message }),
        }
        rest = behind;
        if expanded.len() > MAX_EXPANDED {
            let message = format!("expands to more than {} KiB", MAX_EXPANDED >> 10);
            wrong.push(Unexpanded { reference, message });
            break;
        }
    }
    expanded.push_str(rest);
    if wrong.is_empty() { Ok(expanded) } else { Err(wrong) }
}

/// The value of one `${…}`, or what is wrong with it.
fn value(reference: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let inner = reference.strip_prefix("${").unwrap_or(reference);
    let Some(inner) = inner.strip_suffix('}') else {
        return Err(format!(
            "{:?} is not closed: write ${{NAME}}, or $${{ for a literal ${{",
            super::shorten(reference)
        ));
    };
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    if !is_name(name) {
        return Err(format!(
            "{:?} names no variable: write ${{NAME}} or ${{NAME:-default}}, or $${{ for a literal ${{",
            super::shorten(reference)
        ));
    }
    match (env(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!(
            "the variable {name} is not set: set it in the environment, or write ${{{name}:-default}}"
        )),
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "A" => Some("1".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${A}".to_owned()),
            "LONG" => Some("x".repeat(MAX_EXPANDED / 2 + 1)),
            _ => None,
        }
    }

    #[test]
    fn references_are_expanded_once() {
        for (text, expected) in [
            ("", ""),
            ("plain $ and $$ and $A", "plain $ and $$ and $A"),
            ("x${A}y${A}", "x1y1"),
            ("${A:-2}", "1"),
            ("${B:-2}", "2"),
            ("${B:-}", ""),
            ("${B:-a:-b}", "a:-b"),
            ("${EMPTY}", ""),
            ("${EMPTY:-2}", "2"),
            ("$${A}", "${A}"),
            ("$${A}${A}", "${A}1"),
            ("${NESTED}", "${A}"),
            ("é${A}é", "é1é"),
        ] {
            assert_eq!(expand(text, &env).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn every_bad_reference_is_named() {
        for (text, references) in [
            ("${B} ${C}", vec!["${B}", "${C}"]),
            ("a${", vec!["${"]),
            ("a${A", vec!["${A"]),
            ("${}", vec!["${}"]),
            ("${1A}", vec!["${1A}"]),
            ("${A-x}", vec!["${A-x}"]),
            ("${LONG}${LONG}${LONG}", vec!["${LONG}"]),
        ] {
            let wrong = expand(text, &env).unwrap_err();
            assert_eq!(wrong.iter().map(|w| w.reference).collect::<Vec<_>>(), references, "{text}");
        }
    }
}
