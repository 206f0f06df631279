//! What may stand behind a key: each function takes a value and says what would be right instead.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Key, Node, Value, suggest};

/// The longest duration that makes sense; beyond it sums of times could overflow.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// The largest size of anything that is kept in memory, in bytes.
const LARGEST: usize = 1 << 30;
/// The most of anything that is counted.
const MOST: usize = 1_000_000;

/// Why a value is not taken: what it is, and what would be right. Whoever reads it knows where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueError(String);

impl From<String> for ValueError {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for ValueError {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ValueError {}

/// Text. A number in its place must be in quotes.
pub(crate) fn text(node: &Node) -> Result<&str, ValueError> {
    match &node.value {
        Value::Text(text) if text.contains('\0') => Err("a NUL in a text: remove it".into()),
        Value::Text(text) if !text.is_empty() => Ok(text),
        Value::Text(_) => Err("an empty text: write something, or remove the key".into()),
        Value::List(_) | Value::Map(_) | Value::Null => {
            Err(format!("{} where text is expected", node.describe()).into())
        }
        _ => Err(format!("{} where text is expected: put it in quotes", node.describe()).into()),
    }
}

/// A word: text, or a number or boolean as it is written (`user: 1000`, `[sleep, 1]`).
pub(crate) fn word(node: &Node) -> Result<String, ValueError> {
    match node.word() {
        Some(word) if word.contains('\0') => Err("a NUL in a text: remove it".into()),
        Some(word) => Ok(word.to_owned()),
        None => Err(format!("{} where text is expected", node.describe()).into()),
    }
}

/// A word that is not empty.
pub(crate) fn name(node: &Node) -> Result<String, ValueError> {
    match word(node)? {
        word if word.is_empty() => Err("an empty text: write a name, or remove the key".into()),
        word => Ok(word),
    }
}

/// `true` or `false`.
pub(crate) fn boolean(node: &Node) -> Result<bool, ValueError> {
    match node.value {
        Value::Bool(value) => Ok(value),
        _ => Err(format!("{} where true or false is expected", node.describe()).into()),
    }
}

/// How many, from 0.
pub(crate) fn count(node: &Node) -> Result<usize, ValueError> {
    number(node, MOST).ok_or_else(|| {
        format!("{} where a whole number from 0 to {MOST} is expected", node.describe()).into()
    })
}

/// How many, from 1.
pub(crate) fn positive(node: &Node) -> Result<usize, ValueError> {
    number(node, MOST).filter(|number| *number > 0).ok_or_else(|| {
        format!("{} where a whole number from 1 to {MOST} is expected", node.describe()).into()
    })
}

fn number(node: &Node, most: usize) -> Option<usize> {
    match node.value {
        Value::Int(number) => usize::try_from(number).ok().filter(|number| *number <= most),
        _ => None,
    }
}

/// A size in bytes: `64KiB`, `1MiB`, or a number.
pub(crate) fn size(node: &Node) -> Result<usize, ValueError> {
    let bytes = match &node.value {
        Value::Int(_) => number(node, LARGEST),
        Value::Text(text) => {
            let (number, unit) = split_unit(text);
            let unit = match unit {
                "B" => Some(1),
                "KiB" => Some(1 << 10),
                "MiB" => Some(1 << 20),
                "GiB" => Some(1 << 30),
                _ => None,
            };
            unit.and_then(|unit: usize| number.parse::<usize>().ok()?.checked_mul(unit))
                .filter(|bytes| *bytes <= LARGEST)
        }
        _ => None,
    };
    bytes.ok_or_else(|| {
        format!("{} is no size: write bytes, or 64KiB, 1MiB; at most 1GiB", node.describe()).into()
    })
}

/// A duration longer than nothing: `250ms`, `5s`, `1m`, `1h`.
pub(crate) fn duration(node: &Node) -> Result<Duration, ValueError> {
    let duration = duration_or_zero(node)?;
    if duration.is_zero() {
        return Err(format!("{} makes no sense here: write more than zero", node.describe()).into());
    }
    Ok(duration)
}

/// A duration, `0s` allowed: not at all.
pub(crate) fn duration_or_zero(node: &Node) -> Result<Duration, ValueError> {
    match &node.value {
        Value::Text(text) => parse_duration(text),
        _ => Err(no_duration(&node.describe())),
    }
}

/// A whole number with one of the units `ms`, `s`, `m`, `h`; at most a year.
///
/// # Errors
///
/// What is wrong, and what would be right.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, ValueError> {
    let (number, unit) = split_unit(text);
    let unit = match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60 * 1000),
        "h" => Some(60 * 60 * 1000),
        _ => None,
    };
    let (Some(unit), Ok(number)) = (unit, number.parse::<u64>()) else {
        return Err(no_duration(&format!("the text {:?}", super::shorten(text))));
    };
    let duration = Duration::from_millis(number.saturating_mul(unit));
    if duration > LONGEST {
        return Err(format!("{text:?} is too long: write at most 8784h, a year").into());
    }
    Ok(duration)
}

fn no_duration(found: &str) -> ValueError {
    format!("{found} is no duration: write a whole number and a unit, like 250ms, 5s, 1m or 1h")
        .into()
}

fn split_unit(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text.split_at(digits)
}

/// One of several names.
pub(crate) fn one_of<T: Clone>(
    names: &[(&'static str, T)],
) -> impl Fn(&Node) -> Result<T, ValueError> {
    move |node| {
        let word = node.word().unwrap_or_default();
        if let Some((_, value)) = names.iter().find(|(name, _)| *name == word) {
            return Ok(value.clone());
        }
        let names: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        let meant = suggest::closest(word, &names);
        let meant = meant.map(|name| format!(": did you mean {name}?")).unwrap_or_default();
        Err(format!("{} is not one of {}{meant}", node.describe(), names.join(", ")).into())
    }
}

/// A path in the file system.
pub(crate) fn path(node: &Node) -> Result<PathBuf, ValueError> {
    text(node).map(PathBuf::from)
}

/// A path below some directory: relative, and without `..`.
pub(crate) fn path_below(node: &Node) -> Result<PathBuf, ValueError> {
    let path = Path::new(text(node)?);
    let plain = |part| matches!(part, std::path::Component::Normal(_));
    if path.components().all(plain) {
        Ok(path.to_owned())
    } else {
        Err(format!("{} leads out of its directory: write a name like db.sqlite3", node.describe())
            .into())
    }
}

/// A path on a web server.
pub(crate) fn url_path(node: &Node) -> Result<String, ValueError> {
    let text = text(node)?;
    if text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        Ok(text.to_owned())
    } else {
        Err(format!("{} is no path: begin it with '/', like /healthz", node.describe()).into())
    }
}

pub(crate) fn list(node: &Node) -> Result<&[Node], ValueError> {
    match &node.value {
        Value::List(items) => Ok(items),
        _ => Err(format!("{} where a list is expected: write [a, b]", node.describe()).into()),
    }
}

pub(crate) fn map(node: &Node) -> Result<&[(Key, Node)], ValueError> {
    match &node.value {
        Value::Map(entries) => Ok(entries),
        _ => Err(format!("{} where a mapping is expected: write {{name: value}}", node.describe())
            .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of `v: …`.
    fn node(text: &str) -> Node {
        let tree = crate::yaml::parse("t", format!("v: {text}").as_bytes(), &|_| None).unwrap();
        match tree.value {
            Value::Map(mut entries) => entries.remove(0).1,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn durations_have_a_unit() {
        for (text, expected) in [
            ("250ms", Duration::from_millis(250)),
            ("5s", Duration::from_secs(5)),
            ("1m", Duration::from_secs(60)),
            ("\"1h\"", Duration::from_secs(3600)),
        ] {
            assert_eq!(duration(&node(text)).unwrap(), expected);
        }
        for text in [
            "5",
            "1.5s",
            "-1s",
            "5 s",
            "s",
            "1d",
            "1h30m",
            "true",
            "[5s]",
            "0s",
            "99999999h",
            "18446744073709551615h",
            "18446744073709551616s",
        ] {
            assert!(duration(&node(text)).is_err(), "{text}");
        }
        assert_eq!(duration_or_zero(&node("0s")).unwrap(), Duration::ZERO);
    }

    #[test]
    fn sizes_are_binary() {
        for (text, expected) in
            [("0", 0), ("512", 512), ("1B", 1), ("64KiB", 65536), ("1GiB", 1 << 30)]
        {
            assert_eq!(size(&node(text)).unwrap(), expected);
        }
        for text in
            ["-1", "1KB", "1.5MiB", "KiB", "2GiB", "99999999999999999999GiB", "true", "1 MiB"]
        {
            assert!(size(&node(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn the_database_stays_in_its_directory() {
        for good in ["db.sqlite3", "a/b.db", "..a"] {
            assert!(path_below(&node(good)).is_ok(), "{good}");
        }
        for bad in ["/db", "../db", "a/../../db", "./db", "'.'"] {
            assert!(path_below(&node(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wrong_name_is_told_the_right_ones() {
        let message = one_of(&[("raft", 1), ("static", 2)])(&node("statik")).unwrap_err();
        assert_eq!(
            message.to_string(),
            "the text \"statik\" is not one of raft, static: did you mean static?"
        );
    }
}
