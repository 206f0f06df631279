//! Why two nodes did not come together over TLS, in words that say what to do.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::AlertDescription as Alert;
use rustls::{CertificateError, Error, OtherError};

use super::DialError;
use super::greeting::GreetingRefusal;
use crate::cluster::NodeId;

/// Why the listening end refuses; `None` if the connection just broke.
pub(crate) fn of_listener(error: &io::Error) -> Option<(GreetingRefusal, String)> {
    Some(match tls(error)? {
        Error::NoCertificatesPresented => {
            (GreetingRefusal::BadCertificate, "it shows no certificate".to_owned())
        }
        Error::InvalidCertificate(why) => {
            (GreetingRefusal::BadCertificate, format!("its certificate {}", explain(why)))
        }
        Error::NoApplicationProtocol => (
            GreetingRefusal::UnknownProtocol,
            "it asks for a protocol (ALPN) that is not spoken here".to_owned(),
        ),
        Error::AlertReceived(alert) => (
            GreetingRefusal::Other,
            format!("it does not want this node's certificate ({alert:?})"),
        ),
        Error::PeerIncompatible(why) => {
            (GreetingRefusal::Malformed, format!("only TLS 1.3 is spoken here ({why:?})"))
        }
        Error::InvalidMessage(why) => (
            GreetingRefusal::Malformed,
            format!("it speaks no TLS, which is spoken here ({why:?})"),
        ),
        other => (GreetingRefusal::Malformed, format!("the TLS handshake failed: {other}")),
    })
}

/// Why the dialing end has no connection, for whatever went wrong up to the listener's answer.
pub(crate) fn of_dialer(error: io::Error, protocol: &str) -> DialError {
    match tls(&error) {
        Some(Error::InvalidCertificate(why)) => match wrong_name(why) {
            Some(wrong) => DialError::Refused(GreetingRefusal::WrongNode, wrong.to_string()),
            None => DialError::Untrusted(explain(why)),
        },
        Some(Error::AlertReceived(alert)) => of_alert(*alert, protocol),
        Some(Error::InvalidMessage(_)) => {
            let hint = "no TLS is spoken there: has that node no cluster.tls?";
            DialError::Greeting(io::Error::new(io::ErrorKind::InvalidData, hint))
        }
        _ => DialError::Greeting(error),
    }
}

fn of_alert(alert: Alert, protocol: &str) -> DialError {
    let bad = |why: &str| DialError::Refused(GreetingRefusal::BadCertificate, why.to_owned());
    match alert {
        Alert::NoApplicationProtocol => {
            let why = format!("{protocol} is not spoken there");
            DialError::Refused(GreetingRefusal::UnknownProtocol, why)
        }
        Alert::UnknownCA | Alert::DecryptError => {
            bad("this node's certificate was not issued by the authority that is believed there")
        }
        Alert::CertificateExpired => {
            bad("this node's certificate has expired, or one of the two clocks is wrong")
        }
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateUnknown
        | Alert::CertificateRevoked
        | Alert::CertificateRequired
        | Alert::AccessDenied => bad("this node's certificate is not accepted there"),
        other => DialError::Refused(GreetingRefusal::Other, format!("TLS alert {other:?}")),
    }
}

/// The error of a dialer that found another node than it meant.
pub(crate) fn wrong_node(meant: &NodeId, found: Result<NodeId, String>) -> Error {
    let wrong = match found {
        Ok(found) => format!("{meant} is meant, but this is {found}: check the addresses"),
        Err(why) => format!("{meant} is meant, and of the certificate there {why}"),
    };
    CertificateError::Other(OtherError(Arc::new(WrongName(wrong)))).into()
}

#[derive(Debug)]
struct WrongName(String);

impl fmt::Display for WrongName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongName {}

fn wrong_name(error: &CertificateError) -> Option<&WrongName> {
    match error {
        CertificateError::Other(OtherError(error)) => error.downcast_ref(),
        _ => None,
    }
}

fn tls(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// Goes on after "the certificate".
fn explain(error: &CertificateError) -> String {
    use CertificateError as Why;
    match error {
        Why::UnknownIssuer | Why::BadSignature => "was issued by another authority".to_owned(),
        Why::Expired | Why::ExpiredContext { .. } => {
            "has expired, or this machine's clock is wrong".to_owned()
        }
        Why::NotValidYet | Why::NotValidYetContext { .. } => {
            "is not valid yet, or this machine's clock is wrong".to_owned()
        }
        other => format!("is not accepted: {other}"),
    }
}
