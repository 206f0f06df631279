//! "Did you mean …?"

/// The candidate that a mistyped word most likely meant: at most two letters off, and at most a
/// third of the word.
pub fn closest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let most = (word.chars().count() / 3).clamp(1, 2);
    candidates
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance. Words longer than a key can be are infinitely far from it.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    if a.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
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
            ("tsl", None),
            ("tl", Some("tls")),
            ("color", None),
            ("", None),
        ] {
            assert_eq!(closest(word, &keys), expected, "{word}");
        }
        assert_eq!(closest(&"x".repeat(100_000), &keys), None);
    }
}
