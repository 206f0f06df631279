//! What is read in a certificate. That it is genuine is rustls' affair.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::Validity;
use crate::cluster::NodeId;
use crate::yaml::shorten;

/// The name of the node to which a certificate was issued.
///
/// # Errors
///
/// What is wrong with its name.
pub(crate) fn node_name(certificate: &CertificateDer<'_>) -> Result<NodeId, String> {
    let parsed = parse(certificate)?;
    let mut names = parsed.subject().iter_common_name();
    let (Some(name), None) = (names.next(), names.next()) else {
        return Err("its subject has not one common name (CN), which is the node's name".to_owned());
    };
    let name = name.as_str().map_err(|_| "its common name (CN) is no text".to_owned())?;
    name.parse()
        .map_err(|_| format!("its common name (CN), {:?}, can be no node's name", shorten(name)))
}

/// Whether it may sign others.
pub(super) fn is_authority(certificate: &CertificateDer<'_>) -> Result<bool, String> {
    Ok(parse(certificate)?.is_ca())
}

/// The names of DNS for which it is good; none if it cannot be read.
pub(super) fn dns_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(parsed) = parse(certificate) else { return Vec::new() };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return Vec::new() };
    let dns_name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(dns_name).collect()
}

/// When all of a chain is valid.
pub(super) fn validity(chain: &[CertificateDer<'_>]) -> Result<Validity, String> {
    let mut whole = Validity { from: SystemTime::UNIX_EPOCH, until: latest() };
    for certificate in chain {
        let parsed = parse(certificate)?;
        let one = parsed.validity();
        whole.from = whole.from.max(time(one.not_before.timestamp()));
        whole.until = whole.until.min(time(one.not_after.timestamp()));
    }
    Ok(whole)
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        _ => Err("it is no X.509 certificate".to_owned()),
    }
}

/// Times before 1970 count as 1970: they are over.
fn time(seconds: i64) -> SystemTime {
    let since_1970 = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    SystemTime::UNIX_EPOCH.checked_add(since_1970).unwrap_or_else(latest)
}

/// The last second of the year 9999, the latest that a certificate can name.
fn latest() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799)
}
