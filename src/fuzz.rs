//! Every parser of what comes from outside, to be fed with any bytes at all.
//!
//! A target takes bytes and asserts what must hold of them: beside that it returns at all, that what is
//! understood, written and read again is the same, that it does not matter in which pieces bytes come, and
//! that limits hold. Targets stand beside their parsers, in files called `fuzz.rs`. The crate in `fuzz/` feeds
//! them with libFuzzer; here the inputs that it found are played again, as ordinary tests.

use tokio::runtime::{Builder, Runtime};

/// One target.
pub type Target = fn(&[u8]);

macro_rules! targets {
    ($($name:ident => $target:path,)*) => {
        /// All of them, by the names of their corpora.
        pub const TARGETS: &[(&str, Target)] = &[$((stringify!($name), $target)),*];

        #[cfg(test)]
        mod corpus {
            $(#[test]
            fn $name() {
                super::tests::replay(stringify!($name), $target);
            })*
        }
    };
}

targets! {
    http1_connections => crate::proxy::fuzz::connection,
    request_heads => crate::proxy::fuzz::request_head,
    response_heads => crate::proxy::upstream::fuzz::head,
    response_chunks => crate::proxy::upstream::fuzz::chunks,
    cookies_and_tokens => crate::proxy::fuzz::token,
    fly_replay => crate::proxy::fuzz::fly_replay,
    proxy_protocol => crate::proxy::fuzz::proxy_protocol,
    forwarding_headers => crate::proxy::fuzz::forwarded,
    paths_and_classes => crate::rules::fuzz::path,
    rule_files => crate::rules::fuzz::file,
    configurations => crate::config::fuzz::configuration,
    litefs_yml => crate::config::fuzz::litefs_yml,
    values_of_configurations => crate::config::fuzz::values,
    ltx_files => crate::backup::fuzz::ltx,
    ltx_headers => crate::backup::fuzz::header,
    backup_requests => crate::backup::fuzz::request,
    lease_requests => crate::lease::fuzz::request,
    litefs_events => crate::litefs::fuzz::events,
    litefs_output => crate::litefs::fuzz::output,
    peer_greetings => crate::peer::fuzz::greeting,
    gossip => crate::peer::fuzz::gossip,
    election_messages => crate::election::fuzz::messages,
    embedded_messages => crate::embedded::fuzz::messages,
    guard_and_last_will => crate::last_will::fuzz::lines,
}

/// Runs what waits for nothing but the bytes that are there; libFuzzer finds what hangs.
pub(crate) fn at_once<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: Runtime = Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap_or_else(|why| unreachable!("{why}"));
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// The pieces in which the bytes come, by a first byte that says how.
pub(crate) fn pieces(data: &[u8]) -> (impl Iterator<Item = &[u8]>, &[u8]) {
    let (size, all) =
        data.split_first().map_or((1, data), |(first, rest)| (usize::from(*first), rest));
    (all.chunks(size.max(1)), all)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{TARGETS, Target};

    const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus");

    pub(super) fn replay(name: &str, target: Target) {
        let inputs = std::fs::read_dir(Path::new(CORPUS).join(name)).expect("a corpus");
        let mut played = 0;
        for input in inputs {
            let path = input.unwrap().path();
            eprintln!("{}", path.display());
            target(&std::fs::read(path).unwrap());
            played += 1;
        }
        assert!(played > 0, "the corpus is empty");
        target(b"");
    }

    #[test]
    fn every_corpus_has_its_target() {
        for corpus in std::fs::read_dir(CORPUS).unwrap() {
            let name = corpus.unwrap().file_name().into_string().unwrap();
            assert!(TARGETS.iter().any(|(known, _)| *known == name), "{name}");
        }
    }
}
