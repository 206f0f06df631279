//! Patterns of rules, compiled so that most of them compare literals.

use globset::GlobBuilder;
use regex::bytes::{Regex, RegexBuilder};

use crate::yaml::value::ValueError;

/// The most memory that one compiled pattern may take, in bytes.
const COMPILED_LIMIT: usize = 1 << 20;

/// Characters that are not literal in a glob.
const SPECIAL: [char; 5] = ['*', '?', '[', '{', '\\'];

/// A glob, anchored at both ends.
#[derive(Clone, Debug)]
pub(crate) enum Glob {
    Exact(Vec<u8>),
    /// No wildcard, upper and lower case are one.
    ExactAnyCase(Vec<u8>),
    /// A literal that ends in `/`, then `**`.
    Tree(Vec<u8>),
    /// Anything else; the literal prefix is compared first, for speed.
    Other(Vec<u8>, Regex),
}

impl Glob {
    /// A glob over a path: `*` and `?` within a segment, `**` across segments, `[…]`, `{…,…}`.
    ///
    /// # Errors
    ///
    /// What is wrong, and what would be right.
    pub(crate) fn path(text: &str) -> Result<Self, ValueError> {
        check_path(text)?;
        let prefix = literal_prefix(text);
        if prefix.len() == text.len() {
            return Ok(Self::Exact(prefix.into()));
        }
        if &text[prefix.len()..] == "**" && prefix.ends_with('/') {
            return Ok(Self::Tree(prefix.into()));
        }
        let glob = GlobBuilder::new(text).literal_separator(true).empty_alternates(true).build();
        compile_glob(glob, prefix)
    }

    /// A glob over the value of a header or of a query's parameter: `*` stands for anything.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(crate) fn value(text: &str) -> Result<Self, ValueError> {
        let prefix = literal_prefix(text);
        if prefix.len() == text.len() {
            return Ok(Self::Exact(prefix.into()));
        }
        compile_glob(GlobBuilder::new(text).empty_alternates(true).build(), prefix)
    }

    /// The same for names that have no case: hosts, media types, protocols.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(crate) fn any_case(text: &str) -> Result<Self, ValueError> {
        if !text.contains(SPECIAL) {
            return Ok(Self::ExactAnyCase(text.into()));
        }
        let glob = GlobBuilder::new(text).case_insensitive(true).empty_alternates(true).build();
        compile_glob(glob, "")
    }

    /// What every text that matches begins with, if capitals count.
    pub(crate) fn prefix(&self) -> &[u8] {
        match self {
            Self::Exact(prefix) | Self::Tree(prefix) | Self::Other(prefix, _) => prefix,
            Self::ExactAnyCase(_) => b"",
        }
    }

    /// Whether the whole text matches.
    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(literal) => text == literal,
            Self::ExactAnyCase(literal) => text.eq_ignore_ascii_case(literal),
            Self::Tree(prefix) => text.starts_with(prefix),
            Self::Other(prefix, regex) => text.starts_with(prefix) && regex.is_match(text),
        }
    }
}

/// Compiles an expression over bytes, in time linear in the text.
///
/// `.` and `[^/]` match every byte, also a newline and what is no UTF-8: otherwise an encoded
/// `%0A` or `%FF` would slip past a rule.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn regex(expression: &str) -> Result<Regex, ValueError> {
    if expression.is_empty() {
        return Err("an empty expression is found in every path; remove the key".into());
    }
    RegexBuilder::new(expression)
        .unicode(false)
        .dot_matches_new_line(true)
        .size_limit(COMPILED_LIMIT)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(limit) => {
                format!("takes more than {limit} bytes compiled; say it in a simpler way").into()
            }
            other => other.to_string().into(),
        })
}

fn compile_glob(
    glob: Result<globset::Glob, globset::Error>,
    prefix: &str,
) -> Result<Glob, ValueError> {
    let glob = glob.map_err(|error| error.kind().to_string())?;
    Ok(Glob::Other(prefix.into(), regex(glob.regex())?))
}

fn literal_prefix(text: &str) -> &str {
    text.find(SPECIAL).map_or(text, |end| &text[..end])
}

/// Refuses globs that would never match what they seem to say.
pub(super) fn check_path(text: &str) -> Result<(), ValueError> {
    if !text.starts_with(['/', '*', '{', '[']) {
        return Err(format!("a path begins with `/`: `/{text}`").into());
    }
    let decoded = super::path::decode(text.as_bytes());
    if decoded != text.as_bytes() {
        let decoded = String::from_utf8_lossy(&decoded);
        return Err(format!("paths are written here as they read once decoded: `{decoded}`").into());
    }
    for segment in text.split('/') {
        if segment == "." || segment == ".." {
            return Err("paths are written here without `.` and `..` segments".into());
        }
        if segment.contains("**") && segment != "**" {
            return Err("`**` stands between slashes, as in `/files/**/*.pdf`; \
                 within a segment it is `*`"
                .into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(glob: &str, path: &str) -> bool {
        Glob::path(glob).unwrap().matches(path.as_bytes())
    }

    #[test]
    fn a_star_stays_within_its_segment() {
        assert!(matches("/a/*/c", "/a/b/c"));
        assert!(!matches("/a/*/c", "/a/b/b/c"));
        assert!(matches("/a/*.css", "/a/.css"));
        assert!(!matches("/a/?", "/a//"));
    }

    #[test]
    fn two_stars_cross_segments() {
        assert!(matches("/static/**", "/static/"));
        assert!(matches("/static/**", "/static/a/b"));
        assert!(!matches("/static/**", "/static"));
        assert!(!matches("/static/**", "/statics/a"));
        assert!(matches("/a/**/c", "/a/c"));
        assert!(matches("/a/**/c", "/a/b/b/c"));
        assert!(matches("/**/c", "/c"));
        assert!(matches("**", "/c/d"));
        assert!(matches("/**", "/"));
    }

    #[test]
    fn globs_cover_the_whole_path() {
        assert!(!matches("/a", "/a/"));
        assert!(!matches("/a", "/b/a"));
        assert!(!matches("/*.css", "/a.css/b"));
    }

    #[test]
    fn alternatives_may_be_empty() {
        assert!(matches("/logout{,/}", "/logout"));
        assert!(matches("/logout{,/}", "/logout/"));
        assert!(matches("/{a,b}/c", "/b/c"));
    }

    #[test]
    fn any_byte_matches_a_wildcard() {
        let glob = Glob::path("/a*/**/b").unwrap();
        assert!(glob.matches(b"/a\n\xff/\n/\xff/b"));
        assert!(regex("^/a.*[^/]b$").unwrap().is_match(b"/a\n\xffb"));
    }

    #[test]
    fn names_without_case() {
        assert!(Glob::any_case("Multipart/*").unwrap().matches(b"multipart/form-data"));
        assert!(Glob::any_case("Example.com").unwrap().matches(b"eXample.com"));
        assert!(Glob::any_case("*.example.com").unwrap().matches(b"A.B.Example.com"));
        assert!(!Glob::any_case("*.example.com").unwrap().matches(b"example.com"));
    }

    #[test]
    fn mistakes_come_with_a_remedy() {
        for (glob, remedy) in [
            ("static/**", "begins with `/`: `/static/**`"),
            ("/caf%C3%A9/*", "`/caf\u{e9}/*`"),
            ("/a/../b", "without `.` and `..`"),
            ("/files/**.pdf", "/files/**/*.pdf"),
            ("/a/[b", "unclosed"),
            ("/a/{b", "unclosed"),
        ] {
            let error = Glob::path(glob).unwrap_err();
            assert!(error.to_string().contains(remedy), "{glob}: {error}");
        }
        assert!(regex("(").unwrap_err().to_string().contains("unclosed"));
        assert!(regex(".{1000}{1000}").unwrap_err().to_string().contains("simpler"));
    }
}
