//! TLS between nodes and towards clients ([`edge`]): who does its cryptography, and what certificates
//! and keys must be like.
//!
//! A cluster has an authority of its own ([`authority`] makes it), and that is the only one its nodes
//! believe. A node's certificate bears the node's name as the common name (CN) of its subject, letter
//! by letter; alternative names mean nothing here, because a node's name (`1`, `db_a`) need be no
//! name of DNS. It must be good for both ends of a connection: any node dials any other.

pub mod authority;
pub(crate) mod edge;
mod identity;
mod validity;
mod x509;

#[cfg(test)]
mod tests;

pub use identity::{Fault, Identity, Part, exposed, read_pair};
pub use validity::{Concern, Validity};
pub(crate) use x509::node_name;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::ProducesTickets;

#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
compile_error!("TLS needs one of the features `ring` (the default) and `aws-lc-rs`");

/// Who does the cryptography: AWS-LC in builds with the feature `aws-lc-rs`, else ring.
pub fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "aws-lc-rs")]
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "aws-lc-rs"))]
    let provider = rustls::crypto::ring::default_provider();
    Arc::new(provider)
}

/// Makes and reads session tickets; its keys change every few hours and are never written down.
fn ticketer() -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
    #[cfg(feature = "aws-lc-rs")]
    let ticketer = rustls::crypto::aws_lc_rs::Ticketer::new();
    #[cfg(not(feature = "aws-lc-rs"))]
    let ticketer = rustls::crypto::ring::Ticketer::new();
    ticketer
}
