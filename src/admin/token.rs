//! The secret for anything that changes state through the admin port.

use std::io;
use std::path::Path;
use std::str::FromStr;

use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use crate::config::Config;
use crate::secret::Secret;

/// Its file in `data_dir`.
pub(crate) const FILE: &str = "admin.token";

/// The secret. Never shown: its `Debug` form says nothing.
#[derive(Clone, Debug)]
pub struct Token(Secret);

impl Token {
    /// Whether these headers carry exactly one `Authorization: Bearer` with this token. The time
    /// that takes does not depend on where a wrong token differs.
    pub(crate) fn allows(&self, headers: &HeaderMap) -> bool {
        let mut sent = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (sent.next(), sent.next()) else { return false };
        let Some((scheme, token)) = value.as_bytes().split_at_checked("Bearer ".len()) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"Bearer ") && self.0.is(token)
    }

    /// What [`Token::allows`] wants, to be sent as `Authorization`.
    pub(crate) fn bearer(&self) -> HeaderValue {
        // A token has visible ASCII only, which every header takes.
        let value = HeaderValue::try_from(format!("Bearer {}", self.0.reveal()));
        let mut value = value.unwrap_or(HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }
}

impl FromStr for Token {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// The token from the configuration, or from `data_dir/admin.token`, which is made if it is not
/// there.
pub(crate) fn load_or_create(config: &Config) -> io::Result<Token> {
    match &config.admin.token {
        Some(token) => token.parse().map_err(|why| {
            io::Error::new(io::ErrorKind::InvalidData, format!("admin.token: {why}"))
        }),
        None => Secret::load_or_create(&config.data_dir.join(FILE)).map(Token),
    }
}

/// The token kept in a file.
pub(crate) fn load(path: &Path) -> io::Result<Token> {
    Secret::load(path).map(Token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn bearing(value: &str) -> HeaderMap {
        [(AUTHORIZATION, HeaderValue::from_str(value).unwrap())].into_iter().collect()
    }

    #[test]
    fn the_configuration_comes_before_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("litepilot.yml");
        let config = |admin: &str| {
            let data = dir.path().join("data");
            let yaml = format!(
                "node: n\ndata_dir: {}\nproxy: {{target: 127.0.0.1:1, db: db}}\nadmin: {{{admin}}}\n",
                data.display()
            );
            fs::write(&file, yaml).unwrap();
            crate::config::load(Some(&file)).unwrap()
        };
        let named = load_or_create(&config("token: 0123456789abcdef-named")).unwrap();
        assert!(named.0.is(b"0123456789abcdef-named"));
        assert!(!dir.path().join("data").exists(), "no file is made that nobody needs");
        let made = load_or_create(&config("")).unwrap();
        let again = load_or_create(&config("")).unwrap();
        assert_eq!(again.0.reveal(), made.0.reveal(), "kept for the next start");
    }

    #[test]
    fn only_the_whole_token_is_allowed() {
        let token = Token::from_str("0123456789abcdef").unwrap();
        assert!(token.allows(&bearing("Bearer 0123456789abcdef")));
        assert!(token.allows(&bearing("bearer 0123456789abcdef")), "RFC 9110: any case");
        for bad in [
            "",
            "Bearer ",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Bearer 0123456789abcdeX",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
        ] {
            assert!(!token.allows(&bearing(bad)), "{bad:?}");
        }
        assert!(!token.allows(&HeaderMap::new()));
        let mut twice = bearing("Bearer 0123456789abcdef");
        twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer other"));
        assert!(!token.allows(&twice));
        assert!(token.allows(&[(AUTHORIZATION, token.bearer())].into_iter().collect()));
        assert_eq!(format!("{token:?} {:?}", token.bearer()), "Token(Secret(…)) Sensitive");
    }
}
