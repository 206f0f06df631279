//! How the token's cookies are set.

use super::reader::Section;
use super::{address, value};

/// `proxy.cookie:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// `SameSite`
    pub same_site: SameSite,
    /// `Secure`
    pub secure: Secure,
    /// `Domain`
    pub domain: Option<String>,
}

/// The values of a cookie's `SameSite`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// `strict`
    Strict,
    /// `lax`
    Lax,
    /// `none`; only with `secure: true` or `auto`
    None,
}

/// Whether cookies are `Secure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secure {
    /// If the client came over TLS, here or at a trusted proxy.
    Auto,
    Always,
    Never,
}

impl Default for Cookie {
    fn default() -> Self {
        Self { same_site: SameSite::Lax, secure: Secure::Auto, domain: None }
    }
}

pub(super) fn read(section: &Section<'_>) -> Cookie {
    let default = Cookie::default();
    let same_site = value::one_of(&[
        ("strict", SameSite::Strict),
        ("lax", SameSite::Lax),
        ("none", SameSite::None),
    ]);
    let secure = value::one_of(&[
        ("auto", Secure::Auto),
        ("true", Secure::Always),
        ("false", Secure::Never),
    ]);
    let cookie = Cookie {
        same_site: section.get("same_site", same_site).unwrap_or(default.same_site),
        secure: section.get("secure", secure).unwrap_or(default.secure),
        domain: section.get("domain", address::host),
    };
    if cookie.same_site == SameSite::None && cookie.secure == Secure::Never {
        let message = "browsers drop a SameSite=None cookie that is not Secure: \
                       write secure: true or auto, or same_site: lax";
        section.wrong("secure", message);
    }
    cookie
}
