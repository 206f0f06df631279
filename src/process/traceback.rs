//! A Python traceback is one event, not a line for each of its frames.

/// How one begins.
const BEGINS: &str = "Traceback (most recent call last):";
/// Bytes; the rest of a longer one comes line by line.
const LONGEST: usize = 6 * 1024;

/// Whether this is one.
pub(super) fn is_one(text: &str) -> bool {
    text.starts_with(BEGINS)
}

/// Lines of one stream, of which those of a traceback are joined. It ends with the first that is not
/// indented, which says what was raised.
#[derive(Default)]
pub(super) struct Joined(Option<String>);

impl Joined {
    /// The next line, after which `each` gets what is whole.
    pub(super) fn take(&mut self, line: &str, each: &mut impl FnMut(&str)) {
        match self.0.take() {
            Some(begun) if begun.len() + line.len() < LONGEST => {
                let text = format!("{begun}\n{line}");
                match line.starts_with(' ') {
                    true => self.0 = Some(text),
                    false => each(&text),
                }
            }
            Some(begun) => {
                each(&begun);
                each(line);
            }
            None if is_one(line) => self.0 = Some(line.to_owned()),
            None => each(line),
        }
    }

    /// The stream has ended.
    pub(super) fn end(self, each: &mut impl FnMut(&str)) {
        if let Some(begun) = self.0 {
            each(&begun);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(lines: &[&str]) -> Vec<String> {
        let (mut found, mut joined) = (Vec::new(), Joined::default());
        let mut each = |text: &str| found.push(text.to_owned());
        lines.iter().for_each(|line| joined.take(line, &mut each));
        joined.end(&mut each);
        found
    }

    #[test]
    fn a_traceback_is_one_and_nothing_else_is_joined() {
        let lines = [
            "before",
            " indented",
            BEGINS,
            "  File \"a.py\"",
            "    boom()",
            "ValueError: no",
            "after",
        ];
        let whole = format!("{BEGINS}\n  File \"a.py\"\n    boom()\nValueError: no");
        assert_eq!(joined(&lines), ["before", " indented", &whole, "after"]);
        assert!(is_one(&whole) && !is_one("ValueError: no"));
    }

    #[test]
    fn one_that_breaks_off_or_is_too_long_loses_nothing() {
        assert_eq!(joined(&[BEGINS, "  File"]), [format!("{BEGINS}\n  File")]);
        let frame = format!("  {}", "x".repeat(LONGEST / 2));
        assert_eq!(
            joined(&[BEGINS, &frame, &frame, "E"]).concat().matches('x').count(),
            LONGEST / 2 * 2
        );
    }
}
