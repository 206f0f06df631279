//! The cluster's own authority, and the certificates that it issues (`litepilot certs`).

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Error, anyhow, bail};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::ServerName;

use super::{Validity, identity};
use crate::cluster::NodeId;

/// A key that signs, and its certificate.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
    validity: Validity,
}

/// A certificate and its key, as PEM.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
    /// When the certificate is valid.
    pub(crate) validity: Validity,
}

impl Authority {
    /// A new one. Each has a name of its own, so that certificates of two are not mixed up.
    ///
    /// # Errors
    ///
    /// When no key can be made.
    pub fn create(validity: Validity) -> anyhow::Result<Self> {
        let mark = getrandom::u32()?;
        let mut params = params(validity, &format!("Litepilot cluster {mark:08x}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, issuer: Issuer::new(params, key), validity })
    }

    /// Reads one.
    ///
    /// # Errors
    ///
    /// When the files cannot be read, or are not those of an authority.
    pub fn read(certificate: &Path, key: &Path) -> anyhow::Result<Self> {
        let (_, validity) = super::read_pair(certificate, key).map_err(|faults| {
            Error::msg(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        })?;
        identity::read_authorities(certificate).map_err(|fault| anyhow!("{fault}"))?;
        let text =
            |path: &Path| fs::read_to_string(path).with_context(|| path.display().to_string());
        let key = KeyPair::from_pem(&text(key)?)
            .with_context(|| format!("{}: it cannot sign", key.display()))?;
        let pem = text(certificate)?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key)
            .with_context(|| certificate.display().to_string())?;
        Ok(Self { certificate: pem, issuer, validity })
    }

    /// Its certificate, as PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its key, as PEM.
    pub(crate) fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// When its certificate is valid.
    pub(crate) fn validity(&self) -> Validity {
        self.validity
    }

    /// Issues a node's certificate, good for both ends of a connection. Beside the node it may name
    /// hosts, for whoever looks for them. It never outlives the authority.
    ///
    /// # Errors
    ///
    /// When a host name is none, or the authority has expired.
    pub fn issue(
        &self,
        node: &NodeId,
        hosts: &[String],
        validity: Validity,
    ) -> anyhow::Result<Issued> {
        if let Some(bad) = hosts.iter().find(|host| !is_host(host)) {
            bail!("{bad:?} is no host name and no IP address");
        }
        let validity = Validity { until: validity.until.min(self.validity.until), ..validity };
        if validity.until <= validity.from {
            bail!("the authority has expired: make a new one in another directory");
        }
        let mut params = params(validity, node.as_str());
        let names = CertificateParams::new(hosts)?;
        params.subject_alt_names = names.subject_alt_names;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let signed = params.signed_by(&key, &self.issuer)?;
        Ok(Issued { certificate: signed.pem(), key: key.serialize_pem(), validity })
    }
}

fn params(validity: Validity, name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    let seconds = |at: SystemTime| at.into();
    params.not_before = seconds(validity.from);
    params.not_after = seconds(validity.until);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn is_host(host: &str) -> bool {
    ServerName::try_from(host.strip_prefix("*.").unwrap_or(host)).is_ok()
}
