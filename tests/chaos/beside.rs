//! Processes beside an application that have its database open: a writer that the proxy does not see, and
//! a reader that does not end.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

use rustix::process::Pid;

const WRITER: &str = "
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)
for number in range(10 ** 9):
    text = f'{sys.argv[2]}-{number}'
    db.execute('INSERT INTO entries (text, writer, number) VALUES (?, ?, ?)', (text, sys.argv[2], number))
    print(text, flush=True)
    time.sleep(0.005)
";
const READER: &str = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)
db.execute('BEGIN')
print(db.execute('SELECT count(*) FROM entries').fetchone()[0], flush=True)
sys.stdin.read()
";

/// A process, until it is dropped. It may have died with the file system that it used.
pub struct Beside {
    process: Child,
    said: Option<JoinHandle<Vec<String>>>,
}

impl Beside {
    /// Writes all the time, under a name of its own, until it cannot any more.
    pub fn writer(database: &Path, name: &str) -> Self {
        // Most of what it has written is replicated by then.
        Self::start(WRITER, database, name, 20)
    }

    /// Has a read transaction open.
    pub fn reader(database: &Path) -> Self {
        Self::start(READER, database, "", 1)
    }

    /// Returns once it has said so many lines, or cannot.
    fn start(script: &str, database: &Path, name: &str, first: usize) -> Self {
        let mut python = Command::new("python3");
        python.args(["-c", script]).arg(database).arg(name).stdin(Stdio::piped());
        let mut process = python.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines =
            BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let first: Vec<_> = lines.by_ref().take(first).collect();
        let said = thread::spawn(move || first.into_iter().chain(lines).collect());
        Self { process, said: Some(said) }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// Ends it; says what it has said, which is what SQLite told it was committed.
    pub fn stop(mut self) -> Vec<String> {
        let _ = self.process.kill();
        self.said.take().unwrap().join().unwrap()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
