//! What a replica has until its first copy comes: an empty database that bears the mark.
//!
//! Without it the application would make a database of its own, and what it wrote there would be
//! acknowledged and then replaced. With it SQLite refuses the write, and the request goes to the
//! primary. It is in WAL mode, so that applications that ask for that get it without writing.
//!
//! It is an empty database like any other ([`super::image`] knows one): whoever becomes primary
//! removes the mark, and the application begins in it. It is never deleted or replaced as a file,
//! because an application that has it open would go on in a file that is no longer there. So a
//! first copy whose pages have another size has to wait until nobody has it open.

use std::fs;
use std::io;
use std::path::Path;

use super::apply;
use super::image::{READ_VERSION, WRITE_VERSION};
use super::observe::{explain, file_at};
use crate::files::at;

/// The size of a page in which SQLite makes databases if not told otherwise, in bytes.
const PAGE_SIZE: u16 = 4096;

/// Sees to it that there is a database at `path`: one that is there is left as it is.
///
/// # Errors
///
/// When it cannot be made. `ResourceBusy` if an application is just making one itself.
pub(crate) fn put(path: &Path) -> io::Result<()> {
    if file_at(path)?.is_none() {
        // Made under another name: an application must not find it before it bears the mark.
        let mut aside = path.as_os_str().to_owned();
        aside.push("-placeholder");
        let aside = Path::new(&aside);
        let made = remove(aside)
            .and_then(|()| apply::create(aside))
            .and_then(|()| fill(aside))
            .and_then(|()| fs::hard_link(aside, path));
        remove(aside)?;
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(at(path, error));
            }
            _ => {}
        }
    }
    // An application may have been faster, and have it open.
    fill(path)
}

fn fill(path: &Path) -> io::Result<()> {
    let connection = apply::open(path)?;
    apply::fill(&connection, &first_page()).map_err(|e| explain(path, e))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The only page of an empty database. See SQLite's "Database File Format", 1.3 and 1.6.
pub(crate) fn first_page() -> Vec<u8> {
    let mut page = vec![0; usize::from(PAGE_SIZE)];
    page[..16].copy_from_slice(b"SQLite format 3\0");
    page[16..18].copy_from_slice(&PAGE_SIZE.to_be_bytes());
    page[WRITE_VERSION] = apply::READ_ONLY;
    page[READ_VERSION] = 2;
    // How full pages of an index may be: fixed values.
    page[21..24].copy_from_slice(&[64, 32, 32]);
    page[28..32].copy_from_slice(&1_u32.to_be_bytes());
    // The schema: a leaf of a table, without a cell, whose content begins at the end of the page.
    page[100] = 13;
    page[105..107].copy_from_slice(&PAGE_SIZE.to_be_bytes());
    page
}
