//! Clients over TLS. They believe whatever they are shown, and say what it was.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use litepilot::tls;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme, SupportedProtocolVersion,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::node::TestNode;
use super::wire::soon;

/// A connection over TLS.
pub type Secure = TlsStream<TcpStream>;

/// What a client offers.
pub struct Offer {
    pub host: &'static str,
    pub protocols: &'static [&'static str],
    pub versions: &'static [&'static SupportedProtocolVersion],
}

impl Default for Offer {
    fn default() -> Self {
        Self { host: "shop.test", protocols: &["h2", "http/1.1"], versions: rustls::ALL_VERSIONS }
    }
}

impl Offer {
    /// To speak HTTP/1.1 only.
    pub fn http1() -> Self {
        Self { protocols: &["http/1.1"], ..Self::default() }
    }

    /// To whoever is at that name.
    pub fn host(host: &'static str) -> Self {
        Self { host, ..Self::default() }
    }

    pub async fn connect(&self, node: &TestNode) -> std::io::Result<Secure> {
        let mut config = ClientConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(self.versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Credulous))
            .with_no_client_auth();
        config.alpn_protocols = self.protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        let socket = TcpStream::connect(address(node)).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let name = ServerName::try_from(self.host).unwrap();
        soon("a handshake", TlsConnector::from(Arc::new(config)).connect(name, socket)).await
    }
}

pub fn address(node: &TestNode) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, node.port()).into()
}

/// What was agreed on by ALPN.
pub fn protocol(stream: &Secure) -> Option<&str> {
    stream.get_ref().1.alpn_protocol().map(|name| std::str::from_utf8(name).unwrap())
}

/// What the node has shown.
pub fn shown(stream: &Secure) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

/// Checks nothing but that the other side has the key.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = tls::provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = tls::provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::provider().signature_verification_algorithms.supported_schemes()
    }
}
