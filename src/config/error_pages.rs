//! `proxy.error_pages`: what browsers see in the place of our own pages.

use std::path::{Path, PathBuf};

use super::reader::Section;
use crate::yaml::value;
use crate::yaml::value::ValueError;

/// Files by what they stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorPages(pub(crate) Vec<(Answers, PathBuf)>);

/// The answers that a page is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    Status(u16),
    /// Those of the class that begins with this digit.
    Class(u16),
}

pub(super) fn read(section: &Section<'_>) -> ErrorPages {
    let entries = section.entries("error_pages", answers, value::path).unwrap_or_default();
    let resolved =
        |(of, path): (Answers, Option<PathBuf>)| Some((of, section.resolve(Path::new(&path?))));
    ErrorPages(entries.into_iter().filter_map(resolved).collect())
}

fn answers(key: &str) -> Result<Answers, ValueError> {
    match key {
        "4xx" => return Ok(Answers::Class(4)),
        "5xx" => return Ok(Answers::Class(5)),
        _ => {}
    }
    let status = key.parse().ok().filter(|status| (400..600).contains(status));
    status.map(Answers::Status).ok_or_else(|| {
        format!("{key:?} is no status of an error: write one like 503, or 4xx, or 5xx").into()
    })
}
