//! `backup:`, what keeps the databases' history elsewhere.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::reader::Section;
use super::{EngineKind, litefs, value};
use crate::backup::plan::Schedule;
use crate::backup::store::Place;
use crate::yaml::Node;
use crate::yaml::value::ValueError;

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 20204);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// `backup:`
#[derive(Clone, Debug, PartialEq)]
pub struct Backup {
    /// Where it is kept.
    pub(crate) place: Place,
    /// Where LiteFS brings it.
    pub(crate) listen: SocketAddr,
    pub(crate) schedule: Schedule,
}

pub(super) fn read(section: &Section<'_>, engine: EngineKind) -> Option<Backup> {
    let hours = |key, hours| section.get(key, value::duration).unwrap_or(HOUR * hours);
    let backup = Backup {
        listen: section.get("listen", litefs::loopback).unwrap_or(LISTEN),
        schedule: Schedule {
            retention: hours("retention", 7 * 24),
            snapshot_interval: hours("snapshot_interval", 24),
            precision: hours("precision", 24),
        },
        place: section.required("url", "write where backups are kept", place)?,
    };
    if engine == EngineKind::Embedded {
        section.wrong(
            "url",
            "litefs.engine is embedded, and only LiteFS backs up: remove the section",
        );
    }
    Some(backup)
}

fn place(node: &Node) -> Result<Place, ValueError> {
    value::text(node)?.parse()
}
