//! What an engine remembers across restarts: one small JSON file behind a checksum, replaced whole.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crc::{CRC_64_GO_ISO, Crc, Table};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::files::{self, at};
use crate::txid::hex16;

/// What we write is shorter, in bytes.
const MAX_SIZE: u64 = 1024 * 1024;

pub(crate) static CRC64: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_GO_ISO);

/// What a state file holds. Each begins with its format and the database that it is about.
pub(crate) trait Saved: Clone + PartialEq + Serialize + DeserializeOwned {
    const FORMAT: &'static str;
    /// What an operator can do about a file that cannot be used: a sentence.
    const REMEDY: &'static str;

    /// The state of a node that has none yet.
    fn new(database: &Path) -> Self;
    fn database(&self) -> &Path;
}

/// What all formats have in common.
#[derive(Deserialize)]
struct Head {
    format: String,
}

/// A state file, and what it holds.
#[derive(Clone)]
pub(crate) struct StateFile<T> {
    path: PathBuf,
    saved: T,
}

/// Why the contents of a state file cannot be used.
#[derive(Debug)]
pub(crate) enum Unusable {
    TooLarge,
    CutOff,
    Damaged,
    Json(serde_json::Error),
    Format { found: String, known: &'static str },
    Database { found: PathBuf, configured: PathBuf },
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("it is far too large"),
            Self::CutOff => f.write_str("it is cut off"),
            Self::Damaged => f.write_str("it is damaged: its checksum does not match"),
            Self::Json(why) => why.fmt(f),
            Self::Format { found, known } => {
                write!(
                    f,
                    "another version of Litepilot wrote it, in the format {found:?}, and this one knows \
                     {known:?}: start that version again, or a newer one"
                )
            }
            Self::Database { found, configured } => write!(
                f,
                "it is about {}, the configuration names {}",
                found.display(),
                configured.display()
            ),
        }
    }
}

impl<T: Saved> StateFile<T> {
    /// Reads the file at `path`, or begins one, in a directory that is made if it is not there.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is damaged, or is about another database. It is left as it is.
    pub(crate) fn open(path: PathBuf, database: &Path) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(|error| at(dir, error))?;
        }
        let saved = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => T::new(database),
            Err(error) => return Err(at(&path, error)),
            Ok(found) if found.len() > MAX_SIZE => {
                return Err(unusable::<T>(&path, &Unusable::TooLarge));
            }
            Ok(_) => {
                let text = fs::read(&path).map_err(|error| at(&path, error))?;
                parse(&text, database).map_err(|why| unusable::<T>(&path, &why))?
            }
        };
        Ok(Self { path, saved })
    }

    pub(crate) fn saved(&self) -> &T {
        &self.saved
    }

    /// Replaces what is saved; on disk when this returns.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; then what was saved stays.
    pub(crate) fn save(&mut self, saved: T) -> io::Result<()> {
        if saved != self.saved {
            let text = sealed(&serde_json::to_vec(&saved)?);
            files::replace(&self.path, &text).map_err(|error| at(&self.path, error))?;
            self.saved = saved;
        }
        Ok(())
    }
}

fn parse<T: Saved>(text: &[u8], database: &Path) -> Result<T, Unusable> {
    let json = unsealed(text)?;
    // First, since another format may have other fields.
    let Head { format } = serde_json::from_slice(json).map_err(Unusable::Json)?;
    if format != T::FORMAT {
        return Err(Unusable::Format { found: format, known: T::FORMAT });
    }
    let saved: T = serde_json::from_slice(json).map_err(Unusable::Json)?;
    if saved.database() != database {
        let (found, configured) = (saved.database().to_owned(), database.to_owned());
        return Err(Unusable::Database { found, configured });
    }
    Ok(saved)
}

/// Puts a CRC before what is written, so that damage is noticed.
pub(crate) fn sealed(json: &[u8]) -> Vec<u8> {
    let mut text = hex16(CRC64.checksum(json)).to_vec();
    text.push(b' ');
    text.extend_from_slice(json);
    text
}

/// The reverse of [`sealed`].
///
/// # Errors
///
/// When it is cut off or was changed.
pub(crate) fn unsealed(text: &[u8]) -> Result<&[u8], Unusable> {
    let (crc, json) = text.split_at_checked(17).ok_or(Unusable::CutOff)?;
    if crc[..16] != hex16(CRC64.checksum(json)) || crc[16] != b' ' {
        return Err(Unusable::Damaged);
    }
    Ok(json)
}

fn unusable<T: Saved>(path: &Path, why: &Unusable) -> io::Error {
    at(path, io::Error::new(io::ErrorKind::InvalidData, format!("{why}. {}", T::REMEDY)))
}
