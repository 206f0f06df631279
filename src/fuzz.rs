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
    use std::panic::catch_unwind;
    use std::path::{Path, PathBuf};
    use std::time::{Duration, Instant};

    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::{TARGETS, Target};

    const FUZZ: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz");
    /// Bytes of a mutated input.
    const LONGEST: usize = 4096;
    /// What means something to many parsers.
    const SIGNS: &[u8] = b"\0\r\n\t \"%&*+,-./:;<=>?@[\\]{}0123456789afxz~\x7f\x80\xff";

    fn corpus(name: &str) -> Vec<PathBuf> {
        let files = std::fs::read_dir(Path::new(FUZZ).join("corpus").join(name)).expect("a corpus");
        files.map(|file| file.unwrap().path()).collect()
    }

    pub(super) fn replay(name: &str, target: Target) {
        let inputs = corpus(name);
        assert!(!inputs.is_empty(), "the corpus is empty");
        for path in inputs {
            eprintln!("{}", path.display());
            target(&std::fs::read(path).unwrap());
        }
        target(b"");
    }

    #[test]
    fn every_corpus_has_its_target() {
        for corpus in std::fs::read_dir(Path::new(FUZZ).join("corpus")).unwrap() {
            let name = corpus.unwrap().file_name().into_string().unwrap();
            assert!(TARGETS.iter().any(|(known, _)| *known == name), "{name}");
        }
    }

    /// Without libFuzzer, and so without knowing what is new: changed inputs, for
    /// `LITEPILOT_FUZZ_SECONDS` each target, or a few of each, always the same.
    #[test]
    fn changed_inputs_do_no_harm_either() {
        let seconds = std::env::var("LITEPILOT_FUZZ_SECONDS").map(|text| text.parse().unwrap());
        let only = std::env::var("LITEPILOT_FUZZ_TARGET").ok();
        let seed = if seconds.is_ok() { getrandom::u64().unwrap() } else { 1 };
        let mut rng = SmallRng::seed_from_u64(seed);
        for (name, target) in TARGETS {
            if only.as_ref().is_some_and(|only| only != name) {
                continue;
            }
            let inputs: Vec<_> =
                corpus(name).iter().map(|path| std::fs::read(path).unwrap()).collect();
            let (began, mut played) = (Instant::now(), 0u64);
            let goes_on = |played| match seconds {
                Ok(seconds) => began.elapsed() < Duration::from_secs(seconds),
                Err(_) => played < 20,
            };
            while goes_on(played) {
                let input = changed(&inputs, &mut rng);
                if catch_unwind(|| target(&input)).is_err() {
                    let failures = Path::new(FUZZ).join("failures").join(name);
                    std::fs::create_dir_all(&failures).unwrap();
                    let file = failures.join(format!("{seed:x}-{played}"));
                    std::fs::write(&file, &input).unwrap();
                    panic!("{name}: see {}", file.display());
                }
                played += 1;
            }
            eprintln!("{name}: {played} inputs in {:?}", began.elapsed());
        }
    }

    /// One of the inputs, changed in some places.
    fn changed(inputs: &[Vec<u8>], rng: &mut SmallRng) -> Vec<u8> {
        let mut input = inputs[rng.random_range(0..inputs.len())].clone();
        for _ in 0..rng.random_range(1..6) {
            let at = rng.random_range(0..=input.len());
            let to = rng.random_range(at..=input.len().min(at + 64));
            match rng.random_range(0..6) {
                0 => input.insert(at, SIGNS[rng.random_range(0..SIGNS.len())]),
                1 => input.insert(at, rng.random()),
                2 => drop(input.drain(at..to)),
                3 => {
                    let piece = input[at..to].to_vec();
                    input.splice(at..at, piece);
                }
                4 => {
                    let other = &inputs[rng.random_range(0..inputs.len())];
                    let from = rng.random_range(0..=other.len());
                    input.truncate(at);
                    input.extend_from_slice(&other[from..]);
                }
                _ => {
                    if let Some(byte) = input.get_mut(at) {
                        *byte ^= 1 << rng.random_range(0..8);
                    }
                }
            }
        }
        input.truncate(LONGEST);
        input
    }
}
