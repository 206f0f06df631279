//! Certificates and keys: the paths. `litepilot check` and the listeners read the files.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::reader::Section;

/// `proxy.tls:`: one certificate with its key. A list of these serves several names by SNI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeTls(pub Vec<CertKey>);

/// A certificate chain and its key, both PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertKey {
    /// The chain.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// `cluster.tls:`, PEM files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerTls {
    /// The cluster's own certificate authority.
    pub ca: PathBuf,
    /// This node's certificate chain; its name is the node's name.
    pub cert: PathBuf,
    /// This node's private key.
    pub key: PathBuf,
}

pub(super) fn read_pair(section: &Section<'_>) -> Option<CertKey> {
    let cert = section.required_path("cert", CERT);
    let key = section.required_path("key", KEY);
    Some(CertKey { cert: cert?, key: key? })
}

pub(super) fn read_peer(section: &Section<'_>) -> Option<PeerTls> {
    let ca = section.required_path("ca", "the PEM file of the cluster's certificate authority");
    let cert = section.required_path("cert", CERT);
    let key = section.required_path("key", KEY);
    Some(PeerTls { ca: ca?, cert: cert?, key: key? })
}

const CERT: &str = "the PEM file of the certificate chain";
const KEY: &str = "the PEM file of the private key";
