//! The names of things that are done once.

use std::fmt;
use std::str::FromStr;

const LONGEST: usize = 128;

/// Names something that is to be done once: 1 to 128 of `a-z A-Z 0-9 . _ : / @ + -`.
///
/// It travels in a URL, in files and in the log of the election, hence the narrow alphabet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OnceKey(String);

impl OnceKey {
    /// The key as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for OnceKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._:/@+-".contains(&b);
        if (1..=LONGEST).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(
                "a key is 1 to 128 letters, digits or . _ : / @ + - : take such a one, like the release's number",
            )
        }
    }
}

impl fmt::Display for OnceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_fits_into_a_url_as_it_is() {
        for good in
            ["1", "v1.2.3", "shop:2024-11-20", "registry/shop@sha256:0a+1", &"x".repeat(128)]
        {
            assert_eq!(good.parse::<OnceKey>().unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a&b", "a=b", "a%20b", "a#b", "é", "a\n", &"x".repeat(129)] {
            assert!(bad.parse::<OnceKey>().is_err(), "{bad:?}");
        }
    }
}
