//! Pages of the operator's own in the place of ours, for browsers: `proxy.error_pages`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use http::StatusCode;

use crate::config::{self, Answers};
use crate::yaml::{Place, Problem};

/// Bytes of a page. All of them are kept in memory.
const MAX: u64 = 1 << 20;

/// The pages, read.
#[derive(Debug, Default)]
pub struct ErrorPages {
    by_status: HashMap<u16, Bytes>,
    /// By the first digit of the status.
    by_class: HashMap<u16, Bytes>,
}

impl ErrorPages {
    /// Reads them.
    ///
    /// # Errors
    ///
    /// Each file that cannot be read, or is too large.
    pub(crate) fn load(files: &config::ErrorPages) -> Result<Self, Vec<Problem>> {
        let (mut pages, mut problems) = (Self::default(), Vec::new());
        for (answers, path) in &files.0 {
            match read(path) {
                Ok(page) => drop(match answers {
                    Answers::Status(status) => pages.by_status.insert(*status, page),
                    Answers::Class(digit) => pages.by_class.insert(*digit, page),
                }),
                Err(why) => {
                    let file = path.display().to_string();
                    let message = format!("proxy.error_pages: it cannot be read: {why}");
                    problems.push(Problem::new(&file, Place::START, message));
                }
            }
        }
        if problems.is_empty() { Ok(pages) } else { Err(problems) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_status.is_empty() && self.by_class.is_empty()
    }

    /// The page for an answer with that status.
    pub(crate) fn of(&self, status: StatusCode) -> Option<Bytes> {
        let status = status.as_u16();
        self.by_status.get(&status).or_else(|| self.by_class.get(&(status / 100))).cloned()
    }
}

fn read(path: &Path) -> io::Result<Bytes> {
    let mut page = Vec::new();
    File::open(path)?.take(MAX + 1).read_to_end(&mut page)?;
    if page.len() as u64 > MAX {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(page.into())
}
