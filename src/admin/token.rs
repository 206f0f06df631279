//! The secret for anything that changes state through the admin port.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::str::FromStr;

use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use crate::config::Config;

/// Its file in `data_dir`.
pub const FILE: &str = "admin.token";
/// Bytes; a longer file is no token.
const LONGEST: u64 = 4096;

/// The secret. Never shown: its `Debug` form says nothing.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Whether these headers carry exactly one `Authorization: Bearer` with this token. The time
    /// that takes does not depend on where a wrong token differs.
    pub fn allows(&self, headers: &HeaderMap) -> bool {
        let mut sent = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (sent.next(), sent.next()) else { return false };
        let Some((scheme, token)) = value.as_bytes().split_at_checked("Bearer ".len()) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"Bearer ") && same(token, self.0.as_bytes())
    }

    /// What [`Token::allows`] wants, to be sent as `Authorization`.
    pub fn bearer(&self) -> HeaderValue {
        // A token has visible ASCII only, which every header takes.
        let value = HeaderValue::try_from(format!("Bearer {}", self.0));
        let mut value = value.unwrap_or(HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }
}

impl FromStr for Token {
    type Err = &'static str;

    /// Takes what a header can carry and nobody guesses at once.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if visible && (16..=LONGEST as usize).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err("a token is 16 to 4096 visible ASCII characters: give it such a one")
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

fn same(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0, |differing, (a, b)| black_box(differing | (a ^ b)));
    a.len() == b.len() && differing == 0
}

/// The token from the configuration, or from `data_dir/admin.token`, which is made if it is not
/// there.
///
/// # Errors
///
/// When the file cannot be read or made, is empty, or can be read by others. The text says what to
/// do about it and never contains the token.
pub fn load_or_create(config: &Config) -> io::Result<Token> {
    if let Some(token) = &config.admin.token {
        return token.parse().map_err(|why| invalid(format!("admin.token: {why}")));
    }
    let path = config.data_dir.join(FILE);
    match load(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create(&path).map_err(|error| at(&path, &error))
        }
        loaded => loaded,
    }
}

/// The token kept in a file.
///
/// # Errors
///
/// As for [`load_or_create`].
pub fn load(path: &Path) -> io::Result<Token> {
    let file = File::open(path).map_err(|error| at(path, &error))?;
    let mode = file.metadata().map_err(|error| at(path, &error))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(invalid(format!(
            "{path}: others may read this token (mode {mode:03o}): run `chmod 600 {path}`, and if they may have read it, delete it so that a new one is made",
            path = path.display(),
        )));
    }
    let mut text = String::new();
    file.take(LONGEST + 1).read_to_string(&mut text).map_err(|error| at(path, &error))?;
    text.trim()
        .parse()
        .map_err(|why: &str| invalid(format!("{}: {why}, or delete the file", path.display())))
}

/// Makes the file, for the owner alone. Whoever finds it finds a whole token, be it a command that
/// waits for this node to start.
fn create(path: &Path) -> io::Result<Token> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let token = random_hex::<32>()?;
    let new = path.with_extension("new");
    // Left behind by a crash, with whatever rights.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    writeln!(file, "{token}").and_then(|()| file.sync_all())?;
    fs::rename(&new, path)?;
    Ok(Token(token))
}

/// So many random bytes of the system, in hex.
pub(super) fn random_hex<const N: usize>() -> io::Result<String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use std::os::unix::fs::PermissionsExt;

    fn bearing(value: &str) -> HeaderMap {
        [(AUTHORIZATION, HeaderValue::from_str(value).unwrap())].into_iter().collect()
    }

    #[test]
    fn is_made_once_for_the_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep").join(FILE);
        let made = create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(made.0.len(), 64);
        assert_eq!(load(&path).unwrap().0, made.0);
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "nothing else is left"
        );
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
        assert_eq!(named.0, "0123456789abcdef-named");
        assert!(!dir.path().join("data").exists(), "no file is made that nobody needs");
        let made = load_or_create(&config("")).unwrap();
        assert_eq!(load_or_create(&config("")).unwrap().0, made.0, "kept for the next start");
    }

    #[test]
    fn a_file_open_to_others_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let secret = create(&path).unwrap().0;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600") && !error.contains(&secret), "{error}");
    }

    #[test]
    fn an_empty_or_strange_file_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        create(&path).unwrap();
        for content in ["", "\n", "short", "two words of some length", "äöüäöüäöüäöüäöü"]
        {
            fs::write(&path, content).unwrap();
            let error = load(&path).unwrap_err().to_string();
            assert!(error.contains("delete the file"), "{error}");
        }
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
        assert_eq!(format!("{token:?} {:?}", token.bearer()), "Token(…) Sensitive");
    }
}
