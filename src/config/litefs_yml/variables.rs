//! Variables in a `litefs.yml`. LiteFS expands them in the text of the file, before it is YAML: `$NAME`,
//! `${NAME}`, and comparisons such as `${FLY_REGION == "ams"}`, which give `true` or `false`.
//!
//! To keep what was written, each is taken out of the text, and one character of Unicode's private use
//! area stands in its place.

const FIRST: u32 = 0xF_0000;
/// The most stand-ins; there are no more than 65,534 such characters.
const MOST: u32 = 10_000;

/// The variables of one file, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Variables(Vec<Variable>);

/// What stands between `${` and `}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Variable {
    /// The value of a variable; nothing if it is not set.
    Value(String),
    /// Anything else, such as a comparison: as it was written.
    Expression(String),
}

impl Variables {
    /// The text with stand-ins. `None` if there are too many, or stand-ins in it already.
    pub(crate) fn take_out(text: &str) -> Option<(String, Self)> {
        let mut out = String::with_capacity(text.len());
        let mut variables = Self::default();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            let (before, reference) = rest.split_at(at);
            out.push_str(before);
            let (variable, length) = reference_at(reference);
            rest = &reference[length..];
            match variable {
                Some(variable) => out.push(variables.add(variable)?),
                // Go's os.Expand: nothing for what is no name, and a lone `$` stays.
                None if length == 1 => out.push('$'),
                None => {}
            }
        }
        out.push_str(rest);
        let stand_ins = out.chars().filter(|c| variables.index(*c).is_some()).count();
        (stand_ins == variables.0.len()).then_some((out, variables))
    }

    fn add(&mut self, variable: Variable) -> Option<char> {
        let index = u32::try_from(self.0.len()).ok().filter(|index| *index < MOST)?;
        self.0.push(variable);
        char::from_u32(FIRST + index)
    }

    fn index(&self, c: char) -> Option<usize> {
        let index = usize::try_from(u32::from(c).checked_sub(FIRST)?).ok()?;
        (index < self.0.len()).then_some(index)
    }

    /// The variables in a value.
    pub(crate) fn of<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a Variable> {
        text.chars().filter_map(|c| self.index(c)).filter_map(|index| self.0.get(index))
    }

    /// A value with each variable as `show` writes it, and everything else as `literal` does.
    pub(crate) fn show(
        &self,
        text: &str,
        show: impl Fn(&Variable) -> String,
        literal: impl Fn(char) -> String,
    ) -> String {
        let variable = |c| self.index(c).and_then(|index| self.0.get(index));
        text.chars().map(|c| variable(c).map_or_else(|| literal(c), &show)).collect()
    }

    /// A value as it was written, for a comment.
    pub(crate) fn as_written(&self, text: &str) -> String {
        let show = |variable: &Variable| match variable {
            Variable::Value(name) | Variable::Expression(name) => format!("${{{name}}}"),
        };
        self.show(text, show, String::from)
    }
}

/// Whether a text has a stand-in, of whatever file.
pub(crate) fn has_variable(text: &str) -> bool {
    text.chars().any(|c| (FIRST..FIRST + MOST).contains(&u32::from(c)))
}

/// The reference that a text begins with, and its length in bytes, as Go's `os.Expand` sees it.
fn reference_at(text: &str) -> (Option<Variable>, usize) {
    let Some(behind) = text.get(1..) else { return (None, text.len()) };
    if let Some(inner) = behind.strip_prefix('{') {
        return match inner.find('}') {
            // `${}` and an unclosed `${` are eaten.
            None => (None, 2),
            Some(0) => (None, 3),
            Some(end) => (Some(variable(inner[..end].trim())), end + 3),
        };
    }
    if behind.starts_with(|c: char| "*#$@!?-".contains(c) || c.is_ascii_digit()) {
        // One of the shell's own variables, which no environment has: nothing.
        return (None, 2);
    }
    let name = behind.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    match name {
        0 => (None, 1),
        length => (Some(Variable::Value(behind[..length].to_owned())), length + 1),
    }
}

fn variable(inner: &str) -> Variable {
    let name = inner.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let begins = inner.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    match name && begins {
        true => Variable::Value(inner.to_owned()),
        false => Variable::Expression(inner.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of a text, with each variable in brackets.
    fn taken(text: &str) -> String {
        let (text, variables) = Variables::take_out(text).unwrap();
        let show = |variable: &Variable| match variable {
            Variable::Value(name) => format!("[{name}]"),
            Variable::Expression(text) => format!("<{text}>"),
        };
        variables.show(&text, show, String::from)
    }

    #[test]
    fn references_are_what_go_takes_for_one() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("a: $A-${B}", "a: [A]-[B]"),
            ("${ A }", "[A]"),
            ("$A_1x.y", "[A_1x].y"),
            ("${A == B}", "<A == B>"),
            ("${FLY_REGION == \"ams\"}", "<FLY_REGION == \"ams\">"),
            ("a $ b", "a $ b"),
            ("$", "$"),
            ("a$", "a$"),
            ("${}x", "x"),
            ("${A", "A"),
            ("$$A", "A"),
            ("$1x", "x"),
            ("é$A é", "é[A] é"),
        ] {
            assert_eq!(taken(text), expected, "{text}");
        }
    }

    #[test]
    fn a_file_with_stand_ins_of_its_own_is_refused() {
        assert!(Variables::take_out("a: \u{F0000} $X").is_none());
        assert!(Variables::take_out(&"$A ".repeat(10_001)).is_none());
    }
}
