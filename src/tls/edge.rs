//! TLS towards clients: the certificates of `proxy.tls`, and which of them a client is shown.
//!
//! A client says whom it means (SNI, RFC 6066). It is shown the certificate that bears that name, or
//! a wildcard for it; the first one of the configuration, if none does or it named nobody. TLS 1.2
//! and 1.3, with rustls' own choice of suites. Sessions are resumed by tickets, which any worker can
//! read and nobody has to keep.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{Fault, Validity, read_pair, x509};
use crate::config::CertKey;

/// What is offered by ALPN, the better first.
const PROTOCOLS: [&[u8]; 2] = [HTTP_2, b"http/1.1"];
/// The name of HTTP/2 in ALPN (RFC 9113, 3.1).
pub(crate) const HTTP_2: &[u8] = b"h2";

/// A certificate that clients may be shown.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    /// The file that it is in.
    pub(crate) file: PathBuf,
    /// When it is valid.
    pub(crate) validity: Validity,
    certified: Arc<CertifiedKey>,
    /// The names of DNS that it bears.
    names: Vec<String>,
}

impl Shown {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with them, but for the dates.
    pub(crate) fn read(files: &CertKey) -> Result<Self, Vec<Fault>> {
        let (certified, validity) = read_pair(&files.cert, &files.key)?;
        let names = certified.cert.first().map(x509::dns_names).unwrap_or_default();
        let certified = Arc::new(certified);
        Ok(Self { file: files.cert.clone(), validity, certified, names })
    }
}

/// What the public port goes by. `shown` is not empty.
///
/// # Errors
///
/// When rustls does not want it.
pub(crate) fn server_config(shown: Vec<Shown>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(super::provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Showcase(shown)));
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = super::ticketer()?;
    Ok(Arc::new(config))
}

/// All certificates, in the order of the configuration.
#[derive(Debug)]
struct Showcase(Vec<Shown>);

impl ResolvesServerCert for Showcase {
    fn resolve(&self, client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = client.signature_schemes();
        let usable = |shown: &&Shown| shown.certified.key.choose_scheme(schemes).is_some();
        let fit = |asked: &str| {
            let fits = |shown: &Shown| shown.names.iter().filter_map(|n| fit(n, asked)).max();
            let candidates = self.0.iter().filter(usable).filter_map(|s| Some((fits(s)?, s)));
            // Of several that fit equally well the first.
            candidates.reduce(|best, next| if next.0 > best.0 { next } else { best })
        };
        let named = client.server_name().and_then(fit).map(|(_, shown)| shown);
        // A client that cannot check any signature of ours is told so by rustls.
        let shown = named.or_else(|| self.0.iter().find(usable)).or(self.0.first());
        shown.map(|shown| shown.certified.clone())
    }
}

/// How well a certificate's name fits the one that was asked for. A wildcard stands for one label
/// (RFC 9525, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Wildcard,
    Exact,
}

fn fit(name: &str, asked: &str) -> Option<Fit> {
    if name.eq_ignore_ascii_case(asked) {
        return Some(Fit::Exact);
    }
    let (_, domain) = asked.split_once('.')?;
    name.strip_prefix("*.")?.eq_ignore_ascii_case(domain).then_some(Fit::Wildcard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        assert_eq!(fit("shop.test", "SHOP.test"), Some(Fit::Exact));
        assert_eq!(fit("*.shop.test", "a.shop.test"), Some(Fit::Wildcard));
        for asked in ["shop.test", "a.b.shop.test", "test", "a.shop.tes"] {
            assert_eq!(fit("*.shop.test", asked), None, "{asked}");
        }
        assert!(Fit::Exact > Fit::Wildcard);
    }
}
