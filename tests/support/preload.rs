//! Faults of a node's disk and clock, by the library `preload.c`, which is compiled here.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::OnceLock;

use crate::need;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/preload.c");

/// The words of the control file, in the library's order.
#[derive(Clone, Copy)]
enum Word {
    At,
    Calls,
    Failed,
    Error,
    Sticky,
    Sync,
    Offset,
    Rate,
    Base,
}

const WORDS: usize = 9;

/// What a disk says when it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// ENOSPC, from that call on.
    Full,
    /// EIO, once.
    Broken,
}

/// One node's. Changes hold at once, while it runs, and for its later lives.
pub struct Faults(File);

/// For [`crate::cluster::Plan::environment`]: with it a node has no faults yet.
pub fn environment(data_dir: &Path) -> Vec<(&'static str, PathBuf)> {
    let Some(library) = library() else { return Vec::new() };
    fs::write(control(data_dir), [0; 8 * WORDS]).unwrap();
    vec![
        ("LD_PRELOAD", library.clone()),
        ("FAULTS_CONTROL", control(data_dir)),
        ("FAULTS_UNDER", data_dir.to_owned()),
    ]
}

/// Whether there can be such faults; if not, that is said.
pub fn is_possible() -> bool {
    library().is_some()
}

fn control(data_dir: &Path) -> PathBuf {
    data_dir.with_extension("faults")
}

fn library() -> Option<&'static PathBuf> {
    static LIBRARY: OnceLock<Option<PathBuf>> = OnceLock::new();
    let compile = || {
        let library =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("preload-{}", process::id()));
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).args([SOURCE, "-ldl"]);
        let compiled = need::need("cc", "gcc libc6-dev") && {
            let output = cc.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            output.status.success() || need::skip(&format!("preload.c does not compile: {said}"))
        };
        compiled.then_some(library)
    };
    LIBRARY.get_or_init(compile).as_ref()
}

impl Faults {
    /// Of the node with this `data_dir`, which was started with [`environment`].
    pub fn of(data_dir: &Path) -> Self {
        Self(File::options().read(true).write(true).open(control(data_dir)).unwrap())
    }

    /// Of the calls that write something of the node's, sync, or make or rename a file, the `at`th from now
    /// on fails.
    pub fn fail(&self, at: i64, with: Failure) {
        self.set(Word::At, 0);
        self.set(Word::Calls, 0);
        self.set(Word::Failed, 0);
        self.set(Word::Error, if with == Failure::Full { 28 } else { 5 });
        self.set(Word::Sticky, (with == Failure::Full).into());
        self.set(Word::At, at);
    }

    /// How many calls there were since [`Faults::fail`], and how many of them have failed.
    pub fn counted(&self) -> (i64, i64) {
        (self.get(Word::Calls), self.get(Word::Failed))
    }

    /// A sync takes so much longer.
    pub fn slow_down(&self, millis: i64) {
        self.set(Word::Sync, millis);
    }

    /// The time of day is so many seconds later.
    pub fn set_clock(&self, later: i64) {
        self.set(Word::Offset, later);
    }

    /// Timers run at so many millionths of their rate.
    pub fn run_at(&self, rate: i64) {
        self.set(Word::Base, 0);
        self.set(Word::Rate, rate);
    }

    /// The disk is as it should be.
    pub fn heal(&self) {
        self.set(Word::At, 0);
        self.set(Word::Sync, 0);
    }

    fn set(&self, word: Word, value: i64) {
        self.0.write_all_at(&value.to_ne_bytes(), word as u64 * 8).unwrap();
    }

    fn get(&self, word: Word) -> i64 {
        let mut value = [0; 8];
        self.0.read_exact_at(&mut value, word as u64 * 8).unwrap();
        i64::from_ne_bytes(value)
    }
}
