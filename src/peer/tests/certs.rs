//! Certificates for tests: an authority, and what it issues.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use super::node;
use crate::config::PeerTls;
use crate::peer::Credentials;
use crate::tls::authority::Authority;
use crate::tls::{Identity, Validity};

pub(crate) static AUTHORITY: LazyLock<Authority> = LazyLock::new(authority);

/// Named in every certificate, for those who go by host names.
pub(crate) const HOST: &str = "host.test";
const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn authority() -> Authority {
    Authority::create(valid()).unwrap()
}

/// From an hour ago, for an hour.
pub(crate) fn valid() -> Validity {
    Validity { from: SystemTime::now() - HOUR, until: SystemTime::now() + HOUR }
}

/// Since a minute ago no more.
pub(crate) fn expired() -> Validity {
    Validity { until: SystemTime::now() - HOUR / 60, ..valid() }
}

/// What `name` has from the cluster's authority.
pub(crate) fn credentials(name: &str) -> Arc<Credentials> {
    of(name, &identity(&AUTHORITY, name, valid()))
}

/// Those of an identity.
pub(crate) fn of(own: &str, identity: &Identity) -> Arc<Credentials> {
    Arc::new(Credentials::new(node(own), identity).unwrap())
}

/// What an authority issues to `name`.
pub(crate) fn identity(authority: &Authority, name: &str, validity: Validity) -> Identity {
    let dir = tempfile::tempdir().unwrap();
    let [ca, cert, key] = ["ca", "cert", "key"].map(|file| dir.path().join(file));
    let issued = authority.issue(&node(name), &[HOST.to_owned()], validity).unwrap();
    std::fs::write(&ca, authority.certificate()).unwrap();
    std::fs::write(&cert, issued.certificate).unwrap();
    std::fs::write(&key, issued.key).unwrap();
    Identity::read(&PeerTls { ca, cert, key }, &node(name)).unwrap()
}
