//! Which LiteFS it is. Pure.

use std::cmp::Ordering;

/// The oldest that works: it has `/events`, and exits rather than lose a commit in silence.
const OLDEST: Version = Version { major: 0, minor: 5, patch: 7 };
/// The last that was tried.
const NEWEST: Version = Version { major: 0, minor: 5, patch: u32::MAX };

/// `v0.5.14`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

/// Whether a LiteFS can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Good,
    /// Perhaps: why that is not known.
    Unknown(String),
    /// No, and what to do.
    TooOld(String),
}

/// Judges by what `litefs version` prints: `LiteFS v0.5.14, commit=…`, or no version for one that
/// somebody has built.
pub(crate) fn judge(printed: &str) -> Verdict {
    let line = printed.lines().next().unwrap_or_default().trim();
    let shown = crate::yaml::shorten(line);
    let Some(version) = line.strip_prefix("LiteFS ").and_then(parse) else {
        return Verdict::Unknown(format!("it calls itself {shown:?}, which is no release"));
    };
    if version < OLDEST {
        return Verdict::TooOld(format!(
            "it is {shown:?}, which may lose what was committed: install LiteFS v0.5.7 or a later v0.5"
        ));
    }
    match version.cmp(&NEWEST) {
        Ordering::Greater => {
            Verdict::Unknown(format!("it is {shown:?}, with which Litepilot was not tried"))
        }
        _ => Verdict::Good,
    }
}

/// `v0.5.14`, with whatever follows.
fn parse(text: &str) -> Option<Version> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let mut numbers = text[..end].split('.').map(|number| number.parse().ok());
    let version =
        Version { major: numbers.next()??, minor: numbers.next()??, patch: numbers.next()?? };
    numbers.next().is_none().then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_known_by_their_number() {
        for good in ["LiteFS v0.5.14, commit=a51e72d", "LiteFS v0.5.7, commit=x\n", "LiteFS 0.5.99"]
        {
            assert_eq!(judge(good), Verdict::Good, "{good}");
        }
        for unknown in [
            "LiteFS development build",
            "LiteFS commit=a51e72d",
            "LiteFS v0.6.0, commit=x",
            "LiteFS v1.0.0",
            "LiteFS v0.5",
            "",
            "bash: no",
        ] {
            assert!(matches!(judge(unknown), Verdict::Unknown(_)), "{unknown}");
        }
        for old in ["LiteFS v0.5.6, commit=x", "LiteFS v0.4.12"] {
            let Verdict::TooOld(why) = judge(old) else { panic!("{old}") };
            assert!(why.contains("install LiteFS v0.5.7"), "{why}");
        }
    }
}
