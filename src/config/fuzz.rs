//! Configurations: see [`crate::fuzz`].

use super::litefs_yml::{LitefsYml, go_duration};
use super::{Config, HostPort, Target};
use crate::cluster::NodeId;
use crate::yaml::value::parse_duration;

/// A configuration is read or every problem is named, and twice in the same way.
pub(crate) fn configuration(data: &[u8]) {
    let env = |name: &str| (name.len() < 4).then(|| name.repeat(2));
    let read = || Config::from_yaml("litepilot.yml", data, &env);
    match (read(), read()) {
        (Ok(one), Ok(two)) => assert!(one == two),
        (Err(one), Err(two)) => assert!(!one.is_empty() && one == two),
        _ => unreachable!("once it was right, once not"),
    }
}

/// What is written reads as what was read.
pub(crate) fn litefs_yml(data: &[u8]) {
    let Ok((read, _)) = LitefsYml::parse("litefs.yml", data) else { return };
    let text = read.to_text();
    assert!(!text.contains('$'), "LiteFS would expand it: {text}");
    // Sections that say nothing are left out, and a file without any is none.
    if text.is_empty() {
        return;
    }
    match LitefsYml::parse("litefs.yml", text.as_bytes()) {
        Ok((again, _)) => assert!(again == read, "{read:?}\n{text}\n{again:?}"),
        Err(why) => assert!(why.is_empty(), "{text}: {why:?}"),
    }
}

/// Addresses, names and durations mean the same when they are written and read again.
pub(crate) fn values(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(address) = text.parse::<HostPort>() {
        assert_eq!(address.to_string().parse().as_ref(), Ok(&address));
    }
    if let Ok(target) = text.parse::<Target>() {
        assert_eq!(target.to_string().parse().as_ref(), Ok(&target));
    }
    if let Ok(node) = text.parse::<NodeId>() {
        assert_eq!(node.as_str(), text);
    }
    if let Some(duration) = go_duration::parse(text) {
        assert_eq!(go_duration::parse(&go_duration::text(duration)), Some(duration));
    }
    let _ = parse_duration(text);
}
