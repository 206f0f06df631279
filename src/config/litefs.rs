//! `litefs:`, what keeps the database.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::litefs_yml::Extra;
use super::reader::Section;
use super::{address, value};
use crate::yaml::Node;
use crate::yaml::value::ValueError;

const BINARY: &str = "litefs";
const MOUNT: &str = "/litefs";
const DATA: &str = "/var/lib/litefs";
const HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 20202);
const LEASE_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 20203);
const RETENTION: Duration = Duration::from_secs(60 * 60);
/// The keys of `litefs.yml` that are ours to write.
const OURS: [&str; 5] = ["lease", "http", "fuse", "data", "proxy"];

/// `litefs:`
#[derive(Clone, Debug, PartialEq)]
pub struct Litefs {
    /// What keeps and replicates the database.
    pub engine: EngineKind,
    /// The LiteFS executable: a path, or a name looked up in `PATH`.
    pub binary: PathBuf,
    /// The directory of the database, whatever the engine.
    pub mount: PathBuf,
    /// LiteFS' own data.
    pub data: PathBuf,
    /// LiteFS' HTTP port.
    pub http: SocketAddr,
    /// Where LiteFS gets its lease.
    pub(crate) lease_listen: SocketAddr,
    /// How long LiteFS keeps transactions.
    pub(crate) retention: Duration,
    /// FUSE's `allow_other`.
    pub(crate) allow_other: bool,
    /// Merged into the rendered `litefs.yml`.
    pub extra: Extra,
}

/// The engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// A LiteFS that we start.
    Litefs,
    /// A LiteFS that somebody else starts.
    External,
    /// None: a plain directory that we ship to the replicas.
    Embedded,
}

pub(super) fn read(section: &Section<'_>) -> Litefs {
    let engines = [
        ("litefs", EngineKind::Litefs),
        ("external", EngineKind::External),
        ("embedded", EngineKind::Embedded),
    ];
    Litefs {
        engine: section.get("engine", value::one_of(&engines)).unwrap_or(EngineKind::Litefs),
        binary: read_binary(section),
        mount: section.path("mount").unwrap_or_else(|| MOUNT.into()),
        data: section.path("data").unwrap_or_else(|| DATA.into()),
        http: section.get("http", address::listen_fixed).unwrap_or(HTTP),
        lease_listen: section.get("lease_listen", loopback).unwrap_or(LEASE_LISTEN),
        retention: section.get("retention", value::duration).unwrap_or(RETENTION),
        allow_other: section.get("allow_other", value::boolean).unwrap_or(false),
        extra: section.section("extra", extra),
    }
}

/// A bare name is looked up in `PATH`; anything else is a path.
fn read_binary(section: &Section<'_>) -> PathBuf {
    match section.get("binary", value::path) {
        Some(path) if path.components().count() > 1 => section.resolve(&path),
        Some(name) => name,
        None => BINARY.into(),
    }
}

/// What is between LiteFS and us alone.
pub(super) fn loopback(node: &Node) -> Result<SocketAddr, ValueError> {
    let address = address::listen(node)?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err(format!("{} is not on loopback: write 127.0.0.1:{}", node.describe(), address.port())
            .into())
    }
}

/// Only what LiteFS knows: it does not start with anything else.
fn extra(section: &Section<'_>) -> Extra {
    for key in OURS.into_iter().filter(|key| section.is_given(key)) {
        let message =
            format!("written by Litepilot (not allowed here: {}): remove it", OURS.join(", "));
        section.wrong(key, message);
    }
    section.rest()
}
