//! `admin:`, the port for operators.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::reader::Section;
use super::{address, value};
use crate::yaml::Node;
use crate::yaml::value::ValueError;

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9180);
const HOSTS: [&str; 2] = ["localhost", "127.0.0.1"];

/// `admin:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where the admin port listens. Port 0 lets the system choose (for tests).
    pub(crate) listen: SocketAddr,
    /// Accepted `Host` names, besides the listen address.
    pub hosts: Vec<String>,
    /// For anything that changes state; `None`: `data_dir/admin.token`.
    pub token: Option<String>,
    /// Commands that an operator gives on another node may run here.
    pub allow_forwarded_commands: bool,
}

pub(super) fn read(section: &Section<'_>) -> Admin {
    let hosts = section.list("hosts", address::host);
    Admin {
        listen: section.get("listen", address::listen).unwrap_or(LISTEN),
        hosts: hosts.unwrap_or_else(|| HOSTS.map(str::to_owned).into()),
        token: section.get("token", token),
        allow_forwarded_commands: section
            .get("allow_forwarded_commands", value::boolean)
            .unwrap_or(false),
    }
}

/// What fits behind `Authorization: Bearer`. The message does not repeat a secret.
fn token(node: &Node) -> Result<String, ValueError> {
    let token = value::word(node).map_err(|_| "no text: write the token in quotes".to_owned())?;
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("a token has letters, digits and signs, but no blanks: write such a one, \
                    or remove the key and one is made"
            .into());
    }
    Ok(token)
}
