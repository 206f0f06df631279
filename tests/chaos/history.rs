//! What was asked of the registers and answered, on one clock; judged register by register.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use serde::Serialize;

use crate::linear::{MOST, Operation, is_linearizable};

/// Of one register; then another one takes its place. Some are asked after the end.
pub const PER_REGISTER: usize = MOST - 28;

/// One operation, and who asked where: for whoever reads a history that was kept.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    pub register: u64,
    pub client: u64,
    pub node: String,
    #[serde(flatten)]
    pub operation: Operation,
}

/// All operations of a run.
pub struct History {
    begin: Instant,
    entries: Mutex<Vec<Entry>>,
}

impl History {
    pub fn new() -> Self {
        Self { begin: Instant::now(), entries: Mutex::default() }
    }

    /// The time now, in nanoseconds.
    pub fn now(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }

    pub fn add(&self, entry: Entry) {
        self.entries.lock().unwrap().push(entry);
    }

    /// All registers.
    pub fn registers(&self) -> Vec<u64> {
        self.by_register().into_keys().collect()
    }

    /// How many operations of how many registers there were. A history that no register can have is kept
    /// in a file.
    ///
    /// # Errors
    ///
    /// Which registers answered what they cannot, and where that is to be read.
    pub fn judge(&self, seed: u64) -> Result<(usize, usize), String> {
        let registers = self.by_register();
        let operations = |of: &[Entry]| of.iter().map(|entry| entry.operation).collect::<Vec<_>>();
        let wrong = registers.iter().filter(|(_, of)| !is_linearizable(&operations(of)));
        let wrong: Vec<_> = wrong.map(|(register, _)| *register).collect();
        if wrong.is_empty() {
            return Ok((registers.values().map(Vec::len).sum(), registers.len()));
        }
        let kept = self.keep(seed);
        Err(format!(
            "registers {wrong:?} are not linearizable; the history is in {}",
            kept.display()
        ))
    }

    fn by_register(&self) -> BTreeMap<u64, Vec<Entry>> {
        let mut registers: BTreeMap<u64, Vec<Entry>> = BTreeMap::new();
        for entry in &*self.entries.lock().unwrap() {
            registers.entry(entry.register).or_default().push(entry.clone());
        }
        registers
    }

    /// One operation a line, in JSON.
    fn keep(&self, seed: u64) -> PathBuf {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("history-{seed}.jsonl"));
        let mut lines = Vec::new();
        for entry in &*self.entries.lock().unwrap() {
            writeln!(lines, "{}", serde_json::to_string(entry).unwrap()).unwrap();
        }
        fs::write(&path, lines).unwrap();
        path
    }
}

#[test]
fn a_history_that_is_refused_is_kept() {
    use crate::linear::Action;
    let history = History::new();
    let operation = |called, action| Operation { called, returned: called + 1, action };
    for (register, operation) in
        [(1, operation(0, Action::Write(5))), (2, operation(2, Action::Read(5)))]
    {
        history.add(Entry { register, client: 0, node: "n1".to_owned(), operation });
    }
    let why = history.judge(0).unwrap_err();
    let (said, path) = why.split_once("; the history is in ").unwrap();
    assert!(said.contains("[2]"), "{why}");
    let kept = fs::read_to_string(path).unwrap();
    assert_eq!(kept.lines().count(), 2);
    assert!(kept.contains(r#""action":{"read":5}"#), "{kept}");
    fs::remove_file(path).unwrap();
}
