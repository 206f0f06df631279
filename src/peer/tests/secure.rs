//! What only TLS can promise: who is at the other end, and that nobody else is let in.

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certs::{self, AUTHORITY};
use super::greeting::{refusal, round_trip};
use super::log::Log;
use super::*;
use crate::peer::greeting::GreetingRefusal;
use crate::peer::{Credentials, DialError, Stream};
use crate::relay::{Link, Relay, Way};
use crate::tls::{Identity, provider};

/// A dialer of node `own` that shows what it likes and believes whom it likes.
fn dialer_with(own: &str, credentials: Arc<Credentials>, at: SocketAddr) -> Dialer {
    let peers = [(node("n1"), host_port(at)), (node("n3"), host_port(at))];
    let mut dialer = Dialer::new(node(own), &peers, TIMES);
    dialer.secure(credentials);
    dialer
}

/// Runs an echoing listener of `n1` that shows what it likes.
async fn echo_with(tasks: &mut JoinSet<()>, credentials: Arc<Credentials>) -> SocketAddr {
    let mut listener = Over::Plain.bind("n1", TIMES).await;
    listener.secure(credentials);
    listener.handle(ECHO, MANY, echo_handler());
    let at = listener.local_addr().unwrap();
    tasks.spawn(listener.run());
    at
}

async fn echo(tasks: &mut JoinSet<()>) -> SocketAddr {
    Over::Tls.echo(tasks, "n1", MANY, TIMES).await
}

async fn dial(dialer: &Dialer) -> Result<Stream, DialError> {
    dialer.dial_now(&node("n1"), ECHO).await
}

fn untrusted(result: Result<Stream, DialError>) -> String {
    match result {
        Err(DialError::Untrusted(why)) => why,
        other => panic!("{other:?} is trusted"),
    }
}

/// Somebody who knows TLS but no Litepilot: with this version and protocols, and a certificate of
/// the cluster if it has one.
struct Somebody {
    version: &'static SupportedProtocolVersion,
    protocols: &'static [&'static str],
    shows: Option<Identity>,
}

impl Somebody {
    async fn connect(&self, at: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        let shown = certs::identity(&AUTHORITY, "n1", certs::valid());
        roots.roots.clone_from(&shown.authorities.roots);
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[self.version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match &self.shows {
            None => builder.with_no_client_auth(),
            Some(identity) => builder.with_client_cert_resolver(Arc::new(
                rustls::sign::SingleCertAndKey::from(identity.certified.clone()),
            )),
        };
        config.alpn_protocols = self.protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        let socket = TcpStream::connect(at).await.unwrap();
        let name = ServerName::try_from(certs::HOST).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, socket).await
    }

    /// All that it gets to hear before it is shown out.
    async fn hears(&self, at: SocketAddr) -> std::io::Result<String> {
        let mut heard = String::new();
        let mut stream = self.connect(at).await?;
        let reading = stream.read_to_string(&mut heard);
        timeout(Duration::from_secs(20), reading).await.expect("it is let in")?;
        Ok(heard)
    }
}

#[tokio::test]
async fn the_listener_goes_by_the_certificate_whatever_a_dialer_calls_itself() {
    let mut listener = Over::Tls.bind("n1", TIMES).await;
    let at = listener.local_addr().unwrap();
    let (seen, mut incoming) = tokio::sync::mpsc::unbounded_channel();
    listener.handle(ECHO, MANY, Arc::new(move |i| seen.send(i).unwrap()));
    let mut tasks = JoinSet::new();
    tasks.spawn(listener.run());
    let _stream = dial(&dialer_with("n3", certs::credentials("n2"), at)).await.unwrap();
    assert_eq!(incoming.recv().await.unwrap().node, node("n2"));
}

#[tokio::test]
async fn names_that_dns_does_not_know_are_good_names() {
    for name in ["1", "db_a", "A.b-"] {
        let members = Arc::new(move |node: &NodeId| node.as_str() == name);
        let at = (Ipv4Addr::LOCALHOST, 0).into();
        let mut listener = Listener::bind(node("n1"), at, members, TIMES).await.unwrap();
        listener.secure(certs::credentials("n1"));
        listener.handle(ECHO, MANY, echo_handler());
        let at = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(listener.run());
        let mut stream = dial(&dialer_with(name, certs::credentials(name), at)).await.unwrap();
        round_trip(&mut stream).await;
        // Letter by letter, unlike DNS.
        let other = name.to_lowercase() + "x";
        let stranger = dial(&dialer_with(&other, certs::credentials(&other), at)).await;
        assert_eq!(refusal(stranger).0, GreetingRefusal::NotAMember);
    }
}

#[tokio::test]
async fn another_authoritys_certificate_counts_at_neither_end() {
    let mut tasks = JoinSet::new();
    let foreign = certs::identity(&certs::authority(), "n2", certs::valid());
    let ours = certs::identity(&AUTHORITY, "n2", certs::valid());
    let at = echo(&mut tasks).await;

    let why = untrusted(dial(&dialer_with("n2", certs::of("n2", &foreign), at)).await);
    assert!(why.contains("another authority"), "{why}");

    let pretender = Identity { authorities: ours.authorities.clone(), ..foreign };
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let refused = dial(&dialer_with("n2", certs::of("n2", &pretender), at)).await;
    let (reason, detail) = refusal(refused);
    assert_eq!(reason, GreetingRefusal::BadCertificate);
    assert!(detail.contains("was not issued by the authority"), "{detail}");
    assert!(log.text().contains("was issued by another authority"), "{}", log.text());
}

#[tokio::test]
async fn an_expired_certificate_counts_at_neither_end() {
    let mut tasks = JoinSet::new();
    let expired = |name| certs::of(name, &certs::identity(&AUTHORITY, name, certs::expired()));
    let at = echo(&mut tasks).await;
    let (reason, detail) = refusal(dial(&dialer_with("n2", expired("n2"), at)).await);
    assert_eq!(reason, GreetingRefusal::BadCertificate);
    assert!(detail.contains("has expired"), "{detail}");

    let at = echo_with(&mut tasks, expired("n1")).await;
    let why = untrusted(dial(&dialer_with("n2", certs::credentials("n2"), at)).await);
    assert!(why.contains("has expired"), "{why}");
}

#[tokio::test]
async fn another_nodes_certificate_is_noticed_before_anything_is_said() {
    let mut tasks = JoinSet::new();
    let mut listener = Over::Plain.bind("n1", TIMES).await;
    listener.secure(certs::credentials("n3"));
    let (seen, mut incoming) = tokio::sync::mpsc::unbounded_channel();
    listener.handle(ECHO, MANY, Arc::new(move |i| seen.send(i).unwrap()));
    let at = listener.local_addr().unwrap();
    tasks.spawn(listener.run());
    let dialer = dialer_with("n2", certs::credentials("n2"), at);
    let (reason, detail) = refusal(dial(&dialer).await);
    assert_eq!(reason, GreetingRefusal::WrongNode);
    assert!(detail.contains("n1 is meant, but this is n3"), "{detail}");
    assert!(incoming.try_recv().is_err());
}

#[tokio::test]
async fn who_shows_no_certificate_or_speaks_tls_1_2_or_no_protocol_is_refused() {
    let mut tasks = JoinSet::new();
    let at = echo(&mut tasks).await;
    let member = Some(certs::identity(&AUTHORITY, "n2", certs::valid()));
    let known = &[ECHO];

    let nameless = Somebody { version: &TLS13, protocols: known, shows: None };
    let error = nameless.hears(at).await.unwrap_err().to_string();
    assert!(error.contains("CertificateRequired"), "{error}");

    let old = Somebody { version: &TLS12, protocols: known, shows: member.clone() };
    let error = old.hears(at).await.unwrap_err().to_string();
    assert!(error.contains("ProtocolVersion"), "{error}");

    let unknown = Somebody { version: &TLS13, protocols: &["h2"], shows: member.clone() };
    let error = unknown.hears(at).await.unwrap_err().to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");

    let silent = Somebody { version: &TLS13, protocols: &[], shows: member.clone() };
    let heard = silent.hears(at).await.unwrap();
    assert!(heard.starts_with("NO unknown-protocol "), "{heard}");

    // And the same one with all of it right, whatever host it believes to have reached, if it asks.
    let mut right = dial(&dialer_with("n2", certs::credentials("n2"), at)).await.unwrap();
    round_trip(&mut right).await;
}

#[tokio::test]
async fn plain_tcp_and_tls_recognize_each_other_and_say_what_to_do() {
    let mut tasks = JoinSet::new();
    let tls = Over::Tls.echo(&mut tasks, "n1", MANY, TIMES).await;
    let plain = Over::Plain.echo(&mut tasks, "n1", MANY, TIMES).await;
    for (over, at, hint) in [
        (Over::Plain, tls, "TLS is spoken there: has this node no cluster.tls?"),
        (Over::Tls, plain, "no TLS is spoken there: has that node no cluster.tls?"),
    ] {
        let error = over.dialer("n2", &[("n1", at)]).dial(&node("n1"), ECHO).await.unwrap_err();
        assert!(matches!(error, DialError::Greeting(_)), "{error:?}");
        assert!(error.to_string().contains(hint), "{error}");
    }
}

/// A client hello that goes on for as long as it may, and then some.
fn endless_hello() -> Vec<u8> {
    let record = [&[22, 3, 1, 0x40, 0][..], &[1, 0, 0xff, 0xff], &[0; 0x4000 - 4]].concat();
    let more = [&[22, 3, 1, 0x40, 0][..], &[0; 0x4000]].concat();
    [record, more.repeat(8)].concat()
}

#[tokio::test]
async fn who_sends_without_end_is_cut_off() {
    let mut tasks = JoinSet::new();
    let at = echo(&mut tasks).await;
    let junk = [vec![0; 1 << 16], vec![b'A'; 1 << 16], b"\x16\x03\x01\x40\x00".repeat(5000)];
    for piece in junk.into_iter().chain([endless_hello()]) {
        let socket = TcpStream::connect(at).await.unwrap();
        let (mut read, mut write) = socket.into_split();
        let flood = tokio::spawn(async move { while write.write_all(&piece).await.is_ok() {} });
        // An alert at most, and then the end, while it still sends.
        let mut heard = Vec::new();
        let _ = read.read_to_end(&mut heard).await;
        assert!(heard.len() <= 16, "{} bytes", heard.len());
        flood.await.unwrap();
        let mut member = dial(&Over::Tls.dialer("n2", &[("n1", at)])).await.unwrap();
        round_trip(&mut member).await;
    }
}

#[tokio::test]
async fn the_silent_and_the_slow_are_cut_off_and_hold_nobody_up() {
    let mut tasks = JoinSet::new();
    let times = Times { greeting: Duration::from_millis(500), ..TIMES };
    let at = Over::Tls.echo(&mut tasks, "n1", MANY, times).await;
    let mut silent = TcpStream::connect(at).await.unwrap();
    let (mut slow, mut drip) = TcpStream::connect(at).await.unwrap().into_split();
    tasks.spawn(async move {
        for byte in endless_hello() {
            let _ = drip.write_all(&[byte]).await;
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    });
    let mut member = dial(&Over::Tls.dialer("n2", &[("n1", at)])).await.unwrap();
    round_trip(&mut member).await;
    let mut nothing = [0];
    assert_eq!(silent.read(&mut nothing).await.unwrap(), 0);
    assert!(matches!(slow.read(&mut nothing).await, Ok(0) | Err(_)));
    round_trip(&mut member).await;
}

#[tokio::test]
async fn new_credentials_hold_for_new_connections_and_old_connections_live_on() {
    let mut tasks = JoinSet::new();
    let listening = certs::credentials("n1");
    let at = echo_with(&mut tasks, listening.clone()).await;
    let dialing = certs::credentials("n2");
    let dialer = dialer_with("n2", dialing.clone(), at);
    let mut old = dial(&dialer).await.unwrap();
    round_trip(&mut old).await;

    // Both come to believe another authority only: it takes both for them to understand each other.
    let authority = certs::authority();
    listening.replace(&certs::identity(&authority, "n1", certs::valid())).unwrap();
    assert!(untrusted(dial(&dialer).await).contains("another authority"));
    dialing.replace(&certs::identity(&authority, "n2", certs::valid())).unwrap();
    let mut new = dial(&dialer).await.unwrap();
    round_trip(&mut new).await;
    round_trip(&mut old).await;
}

#[tokio::test]
async fn a_handshake_cut_anywhere_is_an_error_and_nothing_else() {
    let mut tasks = JoinSet::new();
    let relay = Relay::to(echo(&mut tasks).await).await;
    let dialer = Over::Tls.dialer("n2", &[("n1", relay.addr())]);
    round_trip(&mut dial(&dialer).await.unwrap()).await;
    for way in [Way::There, Way::Back] {
        let (before, whole) = (relay.passed(way), {
            dial(&dialer).await.unwrap();
            relay.passed(way)
        });
        let length = whole - before;
        for bytes in (0..length - 30).step_by(90) {
            relay.set(Link::Whole);
            relay.set_after(way, bytes, Link::Cut);
            let error = dial(&dialer).await.unwrap_err();
            assert!(matches!(error, DialError::Greeting(_)), "{way:?} {bytes}: {error:?}");
        }
        relay.set(Link::Whole);
    }
    round_trip(&mut dial(&dialer).await.unwrap()).await;
}

#[tokio::test]
async fn an_end_that_the_peer_did_not_say_is_no_end() {
    let mut tasks = JoinSet::new();
    let relay = Relay::to(echo(&mut tasks).await).await;
    let mut stream = dial(&Over::Tls.dialer("n2", &[("n1", relay.addr())])).await.unwrap();
    round_trip(&mut stream).await;
    relay.set(Link::HalfClosed(Way::Back));
    let error = stream.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
}
