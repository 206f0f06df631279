//! The epoch of the fixed primary, kept in `data_dir/epoch` as a decimal number.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::cluster::Epoch;
use crate::files::{self, at};

const NAME: &str = "epoch";
/// Bytes; a `u64` has at most 20 digits.
const MAX_FILE: u64 = 64;

/// Begins the epoch after the one in `data_dir` and after `beyond`. It is on disk when this returns.
///
/// # Errors
///
/// When it can be neither read nor written, and when the file holds something else: to start over at
/// 1 then would make tokens of lost epochs look satisfied.
pub(crate) fn begin(data_dir: &Path, beyond: Epoch) -> io::Result<Epoch> {
    let path = data_dir.join(NAME);
    let last = read(&path).map_err(|e| at(&path, e))?.max(beyond);
    let next = last.0.checked_add(1).map(Epoch);
    let next = next.ok_or_else(|| at(&path, io::Error::other("there is no later epoch")))?;
    files::replace(&path, format!("{next}\n").as_bytes()).map_err(|e| at(&path, e))?;
    Ok(next)
}

fn read(path: &Path) -> io::Result<Epoch> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Epoch(0)),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut text)?;
    let number = std::str::from_utf8(&text).ok().and_then(|text| text.trim_end().parse().ok());
    number.map(Epoch).ok_or_else(|| {
        let what = "it should hold one decimal number, the last epoch: restore it, or write there a \
                    number that no node has seen yet";
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn grows_each_time_and_beyond_what_others_know() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(begin(dir.path(), Epoch(0)).unwrap(), Epoch(1));
        assert_eq!(begin(dir.path(), Epoch(0)).unwrap(), Epoch(2));
        assert_eq!(begin(dir.path(), Epoch(9)).unwrap(), Epoch(10));
        assert_eq!(begin(dir.path(), Epoch(9)).unwrap(), Epoch(11));
        assert_eq!(fs::read_to_string(dir.path().join(NAME)).unwrap(), "11\n");
    }

    #[test]
    fn a_damaged_file_is_an_error_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        for bad in ["", "seven", "-1", "99999999999999999999999", "1 2"] {
            fs::write(&path, bad).unwrap();
            let error = begin(dir.path(), Epoch(0)).unwrap_err();
            assert!(error.to_string().contains("one decimal number"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = begin(Path::new("/nonexistent/litepilot"), Epoch(0)).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/litepilot/epoch"), "{error}");
    }
}
