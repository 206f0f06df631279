//! TLS between nodes: who they are, in place of the plain greeting's line.
//!
//! TLS 1.3 only, both ends show a certificate of the cluster's authority, and nobody else's counts.
//! The listener takes the peer's name from its certificate and the protocol from ALPN; its answer is
//! the greeting's. The dialer goes on only if the certificate bears the name of the node that it
//! means: a host name proves nothing here. Nothing is resumed, so that each connection is checked
//! against the certificates that are in force.

use std::io;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, PeerIncompatible, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::greeting::{GreetingRefusal, Hello};
use super::{Stream, distrust};
use crate::cluster::NodeId;
use crate::tls::{self, Identity};

/// What a node shows the others and whom it believes, replaced while it runs: new connections go by
/// the new, those that are open live on.
pub struct Credentials {
    own: NodeId,
    configs: RwLock<Arc<Configs>>,
}

/// Those of the present identity; each handshake adds what is its own.
struct Configs {
    server: ServerConfig,
    client: ClientConfig,
    authorities: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// How a handshake ended at the listening end.
pub(crate) enum Accepted {
    /// Somebody with a certificate of the cluster; what it asks for, or why it is not wanted.
    Somebody(Stream, Result<Hello, (GreetingRefusal, String)>),
    /// There will be no TLS with it; it has got an alert, which it should be able to read.
    Rejected(TcpStream, GreetingRefusal, String),
    Broken(io::Error),
}

impl Credentials {
    /// Those of node `own`.
    ///
    /// # Errors
    ///
    /// When rustls does not want them, which [`Identity::read`] would have found.
    pub fn new(own: NodeId, identity: &Identity) -> Result<Self, Error> {
        Ok(Self { own, configs: RwLock::new(Arc::new(Configs::new(identity)?)) })
    }

    /// From now on new connections go by these.
    ///
    /// # Errors
    ///
    /// As [`Credentials::new`]; the old ones then stay.
    pub(crate) fn replace(&self, identity: &Identity) -> Result<(), Error> {
        let configs = Arc::new(Configs::new(identity)?);
        *self.configs.write() = configs;
        Ok(())
    }

    fn configs(&self) -> Arc<Configs> {
        self.configs.read().clone()
    }

    /// The listening end's part, for one of these protocols. The caller bounds the time; rustls bounds
    /// what it keeps of a handshake, to 64 KiB for each message.
    pub(super) async fn accept<'a>(
        &self,
        socket: TcpStream,
        protocols: impl Iterator<Item = &'a str>,
    ) -> Accepted {
        let mut config = self.configs().server.clone();
        config.alpn_protocols = protocols.map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        match acceptor.accept(socket).into_fallible().await {
            Ok(stream) => {
                let session = stream.get_ref().1;
                let node = session.peer_certificates().and_then(<[_]>::first).map(tls::node_name);
                let hello = self.hello(node, session.alpn_protocol());
                Accepted::Somebody(Stream::secured(stream.into()), hello)
            }
            Err((error, socket)) => match distrust::of_listener(&error) {
                Some((refusal, detail)) => Accepted::Rejected(socket, refusal, detail),
                None => Accepted::Broken(error),
            },
        }
    }

    /// What a dialer would have said without TLS.
    fn hello(
        &self,
        from: Option<Result<NodeId, String>>,
        protocol: Option<&[u8]>,
    ) -> Result<Hello, (GreetingRefusal, String)> {
        let from = from
            .unwrap_or_else(|| Err("there is none".to_owned()))
            .map_err(|why| (GreetingRefusal::BadCertificate, format!("its certificate: {why}")))?;
        let protocol = protocol.and_then(|name| str::from_utf8(name).ok()).ok_or_else(|| {
            (GreetingRefusal::UnknownProtocol, "it asks for no protocol by ALPN".to_owned())
        })?;
        // Whom it means it has seen in our certificate.
        Ok(Hello { protocol: protocol.to_owned(), from, to: self.own.clone() })
    }

    /// The dialing end's part. The caller bounds the time.
    pub(super) async fn connect(&self, socket: TcpStream, hello: &Hello) -> io::Result<Stream> {
        let configs = self.configs();
        let mut config = configs.client.clone();
        config.alpn_protocols = vec![hello.protocol.as_bytes().to_vec()];
        let verifier = Meant { node: hello.to.clone(), configs: configs.clone() };
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
        // Not sent and not looked at: only the node's name counts.
        let address = ServerName::from(socket.peer_addr()?.ip());
        let connecting = TlsConnector::from(Arc::new(config)).connect(address, socket);
        Ok(Stream::secured(connecting.await?.into()))
    }
}

impl Configs {
    fn new(identity: &Identity) -> Result<Self, Error> {
        let provider = tls::provider();
        let algorithms = provider.signature_verification_algorithms;
        let certified = Arc::new(SingleCertAndKey::from(identity.certified.clone()));
        let members = identity.authorities.clone();
        let members = WebPkiClientVerifier::builder_with_provider(members, provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(members)
            .with_cert_resolver(certified.clone());
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            // Each dial has a verifier of its own in its place.
            .with_root_certificates(identity.authorities.clone())
            .with_client_cert_resolver(certified);
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        Ok(Self { server, client, authorities: identity.authorities.clone(), algorithms })
    }
}

/// Accepts one node's certificate.
struct Meant {
    node: NodeId,
    configs: Arc<Configs>,
}

impl ServerCertVerifier for Meant {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Configs { authorities, algorithms, .. } = &*self.configs;
        let parsed = ParsedCertificate::try_from(own)?;
        let algorithms = algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, authorities, between, now, algorithms)?;
        match tls::node_name(own) {
            Ok(name) if name == self.node => Ok(ServerCertVerified::assertion()),
            found => Err(distrust::wrong_node(&self.node, found)),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.configs.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.configs.algorithms.supported_schemes()
    }
}

impl std::fmt::Debug for Meant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Meant").field(&self.node).finish()
    }
}
