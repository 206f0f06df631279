//! "Did you mean …?"

/// The candidate that a mistyped word most likely meant: one letter off, or two in a longer word.
pub(crate) fn closest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let most = ((word.chars().count() + 1) / 3).clamp(1, 2);
    candidates
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many letters to add, remove, replace or swap with their neighbor. Words longer than a key can
/// be are infinitely far from it.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 {
        return usize::MAX;
    }
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            if i == 0 || j == 0 {
                rows[i][j] = i + j;
                continue;
            }
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            rows[i][j] = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                rows[i][j] = rows[i][j].min(rows[i - 2][j - 2] + 1);
            }
        }
    }
    rows[a.len()][b.len()]
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
