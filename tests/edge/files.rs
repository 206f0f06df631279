//! Certificates that need no authority, in files.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A directory of certificates and their keys.
pub struct Files(TempDir);

impl Files {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// With one for `shop.test` and `localhost`.
    pub fn of_shop() -> Self {
        let files = Self::new();
        files.issue("shop", &["shop.test", "localhost"]);
        files
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes `name.crt` and `name.key`, whatever was there, and returns the certificate.
    pub fn issue(&self, name: &str, hosts: &[&str]) -> CertificateDer<'static> {
        self.issue_until(name, hosts, SystemTime::now() + 100 * DAY)
    }

    /// Likewise, for one that expires then.
    pub fn issue_until(
        &self,
        name: &str,
        hosts: &[&str],
        until: SystemTime,
    ) -> CertificateDer<'static> {
        let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.not_before = (until - 200 * DAY).into();
        params.not_after = until.into();
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(self.path(&format!("{name}.crt")), certificate.pem()).unwrap();
        let file = self.path(&format!("{name}.key"));
        std::fs::write(&file, key.serialize_pem()).unwrap();
        std::fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
        certificate.der().clone()
    }

    /// `proxy.tls` with these certificates, as YAML.
    pub fn tls(&self, names: &[&str]) -> String {
        let pair = |name: &&str| {
            let [cert, key] = ["crt", "key"].map(|end| self.path(&format!("{name}.{end}")));
            format!("{{cert: {}, key: {}}}", cert.display(), key.display())
        };
        let pairs: Vec<_> = names.iter().map(pair).collect();
        format!("tls: [{}]", pairs.join(", "))
    }
}
