//! The three files of `cluster.tls`: read, and found to belong together.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::verify_server_cert_signed_by_trust_anchor as verify;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore};

use super::{Validity, x509};
use crate::cluster::NodeId;
use crate::config::PeerTls;

/// No file of certificates is larger, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Whoever is neither the owner nor in the group may read the file.
const READ_BY_ALL: u32 = 0o004;

/// What a node shows the others, and whom it believes: files that fit each other. Whether the
/// certificate is valid now, [`Identity::validity`] says.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The cluster's own authority; during its replacement the old one and the new one.
    pub(crate) authorities: Arc<RootCertStore>,
    /// This node's certificate with the chain that leads to the authority, and its key.
    pub(crate) certified: Arc<CertifiedKey>,
    /// When that chain is valid.
    pub(crate) validity: Validity,
    /// What is not wrong but should be otherwise.
    pub(crate) remarks: Vec<Fault>,
}

/// One of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Ca,
    Cert,
    Key,
}

/// Something wrong with one of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub(crate) part: Part,
    pub(crate) path: PathBuf,
    /// What is wrong, and what would be right.
    pub(crate) message: String,
}

impl Identity {
    /// Reads the files of `node`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with them, but for the dates.
    pub fn read(files: &PeerTls, node: &NodeId) -> Result<Self, Vec<Fault>> {
        let provider = super::provider();
        let authorities = read_authorities(&files.ca);
        let pair = read_pair(&files.cert, &files.key);
        let (authorities, (certified, validity)) = match (authorities, pair) {
            (Ok(authorities), Ok(pair)) => (Arc::new(authorities), pair),
            (authorities, pair) => {
                let faults = authorities.err().into_iter().chain(pair.err().unwrap_or_default());
                return Err(faults.collect());
            }
        };
        let named = has_name(&certified, node);
        let signed = is_signed(&certified, &authorities, validity, &provider)
            .map_err(|why| explain(&why, &files.ca));
        let fault = |message| Fault { part: Part::Cert, path: files.cert.clone(), message };
        let faults: Vec<_> = [named, signed].into_iter().filter_map(Result::err).collect();
        if !faults.is_empty() {
            return Err(faults.into_iter().map(fault).collect());
        }
        let certified = Arc::new(certified);
        let remarks = exposed(&files.key).into_iter().collect();
        Ok(Self { authorities, certified, validity, remarks })
    }
}

/// Reads a certificate chain and its key, and when the chain is valid.
///
/// # Errors
///
/// Everything that is wrong with them, but for the dates.
pub fn read_pair(cert: &Path, key: &Path) -> Result<(CertifiedKey, Validity), Vec<Fault>> {
    let fault = |part, path: &Path| {
        let path = path.to_owned();
        move |message| Fault { part, path, message }
    };
    let chain = read_certificates(cert)
        .and_then(|chain| Ok((x509::validity(&chain)?, chain)))
        .map_err(fault(Part::Cert, cert));
    let private = read_key(key).map_err(fault(Part::Key, key));
    let ((validity, chain), private) = match (chain, private) {
        (Ok(chain), Ok(private)) => (chain, private),
        (chain, private) => return Err(chain.err().into_iter().chain(private.err()).collect()),
    };
    let certified =
        CertifiedKey::from_der(chain, private, &super::provider()).map_err(|error| {
            let message = match error {
                rustls::Error::InconsistentKeys(_) => {
                    format!(
                        "it is not the key of the first certificate in {}: name that one's key, or \
                         put the certificate that this key belongs to first",
                        cert.display()
                    )
                }
                error => format!("it cannot be used: {error}"),
            };
            vec![fault(Part::Key, key)(message)]
        })?;
    Ok((certified, validity))
}

pub(super) fn read_authorities(path: &Path) -> Result<RootCertStore, Fault> {
    let read = || {
        let mut authorities = RootCertStore::empty();
        for certificate in read_certificates(path)? {
            if !x509::is_authority(&certificate)? {
                let hint = "name the file of the authority's own certificate";
                return Err(format!("it holds a certificate that may not sign others: {hint}"));
            }
            authorities.add(certificate).map_err(|error| error.to_string())?;
        }
        Ok(authorities)
    };
    read().map_err(|message| Fault { part: Part::Ca, path: path.to_owned(), message })
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path)?;
    let all = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    match all {
        Ok(none) if none.is_empty() => Err(no_block("CERTIFICATE")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(broken(&error)),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| match error {
        pem::Error::NoItemsFound => no_block("PRIVATE KEY"),
        error => broken(&error),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut text));
    match read {
        Err(error) => Err(format!("it cannot be read: {error}")),
        Ok(_) if text.len() as u64 > MAX_BYTES => {
            Err("it is larger than 1 MiB: is it the right file?".to_owned())
        }
        Ok(_) => Ok(text),
    }
}

fn no_block(label: &str) -> String {
    format!("it holds no PEM block \"-----BEGIN {label}-----\"")
}

fn broken(error: &pem::Error) -> String {
    format!("it is no whole PEM file: {error}")
}

fn has_name(certified: &CertifiedKey, node: &NodeId) -> Result<(), String> {
    let name = certified.end_entity_cert().map_err(|error| error.to_string())?;
    match x509::node_name(name)? {
        name if name == *node => Ok(()),
        name => Err(format!("it was issued to {name}, but this node is {node}: name {node}'s own")),
    }
}

/// Whether the authority has signed it for both ends of a connection, its dates apart.
fn is_signed(
    certified: &CertifiedKey,
    authorities: &Arc<RootCertStore>,
    validity: Validity,
    provider: &Arc<CryptoProvider>,
) -> Result<(), rustls::Error> {
    // At a time when all of the chain is valid.
    let since_1970 = validity.from.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let then = UnixTime::since_unix_epoch(since_1970);
    let (own, between) = certified.cert.split_first().ok_or(CertificateError::BadEncoding)?;
    let algorithms = provider.signature_verification_algorithms.all;
    verify(&ParsedCertificate::try_from(own)?, authorities, between, then, algorithms)?;
    WebPkiClientVerifier::builder_with_provider(authorities.clone(), provider.clone())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?
        .verify_client_cert(own, between, then)?;
    Ok(())
}

fn explain(error: &rustls::Error, ca: &Path) -> String {
    use CertificateError as Why;
    match error {
        rustls::Error::InvalidCertificate(Why::UnknownIssuer | Why::BadSignature) => {
            format!("it was not issued by the authority in {}", ca.display())
        }
        rustls::Error::InvalidCertificate(Why::InvalidPurposeContext { .. }) => {
            "it must be issued for both ends of a connection: the extended key usages are \
             serverAuth and clientAuth"
                .to_owned()
        }
        error => format!("other nodes would refuse it: {error}"),
    }
}

/// Whether everybody on this machine may read a key. Only a remark: in containers secrets are often
/// mounted like that.
pub fn exposed(key: &Path) -> Option<Fault> {
    let mode = fs::metadata(key).map(|found| found.permissions().mode());
    let message = "every user of this machine may read it: chmod 600".to_owned();
    mode.is_ok_and(|mode| mode & READ_BY_ALL != 0).then(|| Fault {
        part: Part::Key,
        path: key.to_owned(),
        message,
    })
}

impl Part {
    /// Its key in the configuration.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ca => "ca",
            Self::Cert => "cert",
            Self::Key => "key",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.message)
    }
}
