//! Paths as clients write them, and rule files: see [`crate::fuzz`].

use std::sync::LazyLock;

use http::{HeaderMap, Method, Uri};

use super::file::parse;
use super::{RuleSet, WriteRoute, path, target};

static BUNDLED: LazyLock<RuleSet> = LazyLock::new(|| {
    let sources = ["django".to_owned(), "static".to_owned()];
    RuleSet::load(&sources).unwrap_or_else(|why| unreachable!("{why:?}"))
});

/// The class is the strictest of all readings, always the same, and a plain path has one reading.
pub(crate) fn path(data: &[u8]) {
    let mut held = Vec::new();
    target::write(data, &mut held);
    let Ok(uri) = Uri::try_from(held) else { return };
    let bytes = target::bytes(uri.path()).into_owned();
    let fields = HeaderMap::new();
    for method in [Method::GET, Method::POST] {
        let class =
            |uri: &Uri| BUNDLED.classify(&method, uri, &fields).map(|verdict| verdict.class);
        let first = class(&uri);
        assert_eq!(first, class(&uri));
        let Ok(readings) = path::readings(&bytes) else {
            assert!(first.is_err());
            continue;
        };
        if path::is_plain(&bytes) && bytes.starts_with(b"/") {
            assert!(readings.is_empty(), "{readings:?}");
        }
        for reading in readings {
            // What an application reads, asked for without a disguise.
            let mut undisguised: Vec<u8> = reading.iter().flat_map(|byte| encoded(*byte)).collect();
            if let Some(query) = uri.query() {
                undisguised.extend_from_slice(format!("?{query}").as_bytes());
            }
            let Ok(undisguised) = Uri::try_from(undisguised) else { continue };
            if path::is_plain(&reading) && undisguised.path().as_bytes().starts_with(b"/") {
                let strict = (first.ok(), class(&undisguised).ok());
                assert!(strict.0 >= strict.1, "{uri} is laxer than {undisguised}: {strict:?}");
            }
        }
    }
    let _ = target::shown(uri.path());
    learned(uri.path());
}

fn encoded(byte: u8) -> Vec<u8> {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => vec![byte],
        _ => format!("%{byte:02X}").into_bytes(),
    }
}

/// The rule of a route that was learned is one, and means that route.
fn learned(path: &str) {
    let Some(route) = WriteRoute::of(&Method::GET, b"shop.test:80", path) else { return };
    assert!(route.is_sound());
    let text = format!("rules:\n{}\n", route.rule());
    let rules = parse("learned.yml", text.as_bytes());
    assert!(rules.is_ok_and(|rules| rules.len() == 1), "{text}");
}

/// A rule file is read or every problem is named; what is read classifies anything.
pub(crate) fn file(data: &[u8]) {
    match parse("rules.yml", data) {
        Ok(rules) => {
            let rules = RuleSet::new(rules);
            for uri in ["/", "*", "/a/b%2fc?d=e&f", "/%zz//..;/x"] {
                let uri = Uri::from_static(uri);
                let verdict = rules.classify(&Method::GET, &uri, &HeaderMap::new());
                assert!(verdict.is_ok_and(|verdict| rules.place(verdict.rule).len() < 1 << 16));
            }
        }
        Err(problems) => assert!(!problems.is_empty()),
    }
}
