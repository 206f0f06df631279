//! Secrets of ours that are kept in a file for the owner alone.

use std::fmt;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;

use crate::files::{self, at};

/// Bytes; a longer file holds no secret.
const LONGEST: u64 = 4096;

/// A secret. Never shown: its `Debug` form says nothing.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Whether this is it. The time that takes does not depend on where a wrong one differs.
    pub(crate) fn is(&self, given: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let differing =
            given.iter().zip(own).fold(0, |differing, (a, b)| black_box(differing | (a ^ b)));
        given.len() == own.len() && differing == 0
    }

    /// The text, for whoever has to know it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// The secret kept in a file, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or made, is empty, or can be read by others. The text says what to
    /// do about it and never contains the secret.
    pub(crate) fn load_or_create(path: &Path) -> io::Result<Self> {
        match Self::load(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self::create(path).map_err(|error| at(path, error))
            }
            loaded => loaded,
        }
    }

    /// The secret kept in a file.
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        let file = File::open(path).map_err(|error| at(path, error))?;
        let mode = file.metadata().map_err(|error| at(path, error))?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(invalid(format!(
                "{path}: others may read this token (mode {mode:03o}): run `chmod 600 {path}`, and if \
                 they may have read it, delete it so that a new one is made",
                path = path.display(),
            )));
        }
        let mut text = String::new();
        file.take(LONGEST + 1).read_to_string(&mut text).map_err(|error| at(path, error))?;
        text.trim()
            .parse()
            .map_err(|why: &str| invalid(format!("{}: {why}, or delete the file", path.display())))
    }

    /// Makes the file, for the owner alone. Whoever finds it finds a whole secret, be it a command that
    /// waits for this node to start.
    fn create(path: &Path) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let secret = random_hex::<32>()?;
        files::replace_private(path, format!("{secret}\n").as_bytes())?;
        Ok(Self(secret))
    }
}

impl FromStr for Secret {
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

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// So many random bytes of the system, in hex.
///
/// # Errors
///
/// When the system has none to give.
pub(crate) fn random_hex<const N: usize>() -> io::Result<String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn is_made_once_for_the_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep").join("token");
        let made = Secret::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(made.0.len(), 64);
        assert_eq!(Secret::load_or_create(&path).unwrap().0, made.0, "kept for the next start");
    }

    #[test]
    fn a_file_open_to_others_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let secret = Secret::create(&path).unwrap().0;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Secret::load(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600") && !error.contains(&secret), "{error}");
    }

    #[test]
    fn an_empty_or_strange_file_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        Secret::create(&path).unwrap();
        for content in ["", "\n", "short", "two words of some length", "äöüäöüäöüäöüäöü"]
        {
            fs::write(&path, content).unwrap();
            let error = Secret::load(&path).unwrap_err().to_string();
            assert!(error.contains("delete the file"), "{error}");
        }
    }

    #[test]
    fn only_the_whole_secret_is_it() {
        let secret = Secret::from_str("0123456789abcdef").unwrap();
        assert!(secret.is(b"0123456789abcdef"));
        for bad in ["", "0123456789abcde", "0123456789abcdef0", "0123456789abcdeX"] {
            assert!(!secret.is(bad.as_bytes()), "{bad:?}");
        }
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }
}
