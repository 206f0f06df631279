//! Several LTX files in a row as one: a compacted file, a snapshot, or the database itself.
//!
//! Pages go to a scratch file, where a later one takes the place of an earlier; in memory are only their
//! places, some 16 bytes a page.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::ltx::{Decoder, Encoder, Facts, Header, Pos, combine, page_checksum};
use super::object::Object;
use crate::txid::{Checksum, FLAG, Txid};

const BUFFER: usize = 256 * 1024;

/// What transactions in a row have made of a database's pages.
pub(crate) struct Merge {
    scratch: File,
    /// Page number → place in the scratch file, in pages.
    places: BTreeMap<u32, u32>,
    used: u32,
    first: Option<Facts>,
    last: Option<Facts>,
}

impl Merge {
    /// With a scratch file in that directory, which vanishes with this.
    ///
    /// # Errors
    ///
    /// When it cannot be made there.
    pub(crate) fn new(dir: &Path) -> io::Result<Self> {
        let scratch = scratch_file(dir)?;
        Ok(Self { scratch, places: BTreeMap::new(), used: 0, first: None, last: None })
    }

    /// Adds the file that comes next. After an error the whole is of no use.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is damaged, or does not follow.
    pub(crate) fn add(&mut self, from: impl Read) -> io::Result<Facts> {
        let mut file = Decoder::new(BufReader::with_capacity(BUFFER, from))?;
        let header = *file.header();
        self.follows(&header)?;
        let size = header.page_size as usize;
        let mut page = vec![0; size];
        while let Some(number) = file.page(&mut page)? {
            let place = *self.places.entry(number).or_insert_with(|| {
                self.used += 1;
                self.used - 1
            });
            self.scratch.write_all_at(&page, u64::from(place) * size as u64)?;
        }
        let facts = file.finish()?;
        // What was cut off is not to come back when the database grows again.
        if let Some(beyond) = header.commit.checked_add(1) {
            drop(self.places.split_off(&beyond));
        }
        self.first.get_or_insert(facts);
        self.last = Some(facts);
        Ok(facts)
    }

    /// Adds one that is kept, if it is what its name says.
    ///
    /// # Errors
    ///
    /// As [`Merge::add`].
    pub(crate) fn add_object(&mut self, path: &Path, object: &Object) -> io::Result<()> {
        let facts = self.add(File::open(path)?)?;
        match object.is(&facts) {
            true => Ok(()),
            false => Err(bad("it is not what its name says")),
        }
    }

    fn follows(&self, next: &Header) -> io::Result<()> {
        let Some(last) = &self.last else { return Ok(()) };
        if next.before() == Some(last.after()) && next.page_size == last.header.page_size {
            return Ok(());
        }
        Err(bad(format!("what begins with {} does not follow {}", next.min, last.after())))
    }

    /// As one file.
    ///
    /// # Errors
    ///
    /// When nothing was added, it cannot be written, or a snapshot's checksum is wrong.
    pub(crate) fn write_ltx<W: Write>(&self, to: W) -> io::Result<Facts> {
        let (first, last) = self.ends()?;
        let range = (first.header.min, last.header.max);
        let (size, commit) = (last.header.page_size, last.header.commit);
        let mut header = Header::new(size, commit, range, last.header.millis);
        header.pre = first.header.pre;
        let mut file = Encoder::new(BufWriter::with_capacity(BUFFER, to), header)?;
        let sum = self.pages(|number, page| file.page(number, page))?;
        self.is_right(&header, sum, last.post)?;
        file.finish(last.post).map(|(facts, _)| facts)
    }

    /// As the database; what was added must begin with a snapshot.
    ///
    /// # Errors
    ///
    /// As [`Merge::write_ltx`].
    pub(crate) fn write_database(&self, to: &File) -> io::Result<Pos> {
        let (first, last) = self.ends()?;
        if first.header.min != Txid(1) {
            return Err(bad("there is no snapshot to begin with"));
        }
        let size = u64::from(last.header.page_size);
        to.set_len(u64::from(last.header.commit) * size)?;
        let sum = self.pages(|number, page| to.write_all_at(page, u64::from(number - 1) * size))?;
        self.is_right(&first.header, sum, last.post)?;
        to.sync_all()?;
        Ok(last.after())
    }

    fn ends(&self) -> io::Result<(Facts, Facts)> {
        self.first.zip(self.last).ok_or_else(|| bad("there is nothing in it"))
    }

    fn pages(&self, mut each: impl FnMut(u32, &[u8]) -> io::Result<()>) -> io::Result<u64> {
        let (_, last) = self.ends()?;
        let size = u64::from(last.header.page_size);
        let mut page = vec![0; last.header.page_size as usize];
        let mut sum = FLAG;
        for (number, place) in &self.places {
            self.scratch.read_exact_at(&mut page, u64::from(*place) * size)?;
            sum = combine(sum, page_checksum(*number, &page));
            each(*number, &page)?;
        }
        Ok(sum)
    }

    fn is_right(&self, header: &Header, sum: u64, post: Checksum) -> io::Result<()> {
        match header.is_snapshot() && Checksum(sum) != post {
            true => Err(bad("the pages do not have the database's checksum")),
            false => Ok(()),
        }
    }
}

/// One that nobody else sees, and that ends with the process.
fn scratch_file(dir: &Path) -> io::Result<File> {
    let path = dir.join(format!("merge-{}", crate::secret::random_hex::<8>()?));
    let mut options = File::options();
    let file = options.read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn bad(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

#[cfg(test)]
mod tests;
