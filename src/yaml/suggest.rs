//! "Did you mean …?"

/// The candidate that a mistyped word most likely meant: one letter off, or two in a longer word.
pub(crate) fn closest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    // Nobody mistypes a key into this; comparing takes the product of the lengths.
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    let most = ((word.chars().count() + 1) / 3).clamp(1, 2);
    candidates
        .iter()
        .map(|candidate| (strsim::osa_distance(word, candidate), *candidate))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, candidate)| candidate)
}

/// What to say to a key that is none of those known.
pub(crate) fn among(key: &str, known: &[&str]) -> String {
    match closest(key, known) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("known here: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_slips_are_recognized() {
        let keys = ["listen", "target", "tls", "read_wait", "write_hold"];
        for (word, expected) in [
            ("lisen", Some("listen")),
            ("targte", Some("target")),
            ("readwait", Some("read_wait")),
            ("tsl", Some("tls")),
            ("tl", Some("tls")),
            ("stl", None),
            ("color", None),
            ("", None),
        ] {
            assert_eq!(closest(word, &keys), expected, "{word}");
        }
        assert_eq!(closest(&"x".repeat(100_000), &keys), None);
    }
}
