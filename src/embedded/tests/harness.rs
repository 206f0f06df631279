//! Engines with real files, joined by connections that can be cut.

pub(super) use std::fs;
pub(super) use std::path::Path;

pub(super) use rusqlite::Connection;
pub(super) use tokio::task::JoinHandle as Task;
pub(super) use tokio::time::timeout;

pub(super) use super::super::*;
pub(super) use crate::txid::Txid;

pub(super) const MODES: [&str; 2] = ["delete", "wal"];
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Node {
    dir: PathBuf,
    /// Removed with the node.
    _dir: Option<tempfile::TempDir>,
    pub(super) engine: Arc<Embedded>,
}

impl Node {
    pub(super) fn new(role: CopyRole) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = Self::at(dir.path(), role);
        Self { _dir: Some(dir), ..node }
    }

    /// In a directory that stays.
    pub(super) fn at(dir: &Path, role: CopyRole) -> Self {
        fs::create_dir_all(dir.join("mount")).unwrap();
        Self { dir: dir.to_owned(), _dir: None, engine: start(dir, role, true).unwrap() }
    }

    pub(super) fn restart(&mut self, role: CopyRole) {
        self.engine.stop();
        self.engine = start(&self.dir, role, true).unwrap();
    }

    pub(super) fn mount(&self) -> PathBuf {
        self.dir.join("mount")
    }

    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The copies that were saved, the oldest first.
    pub(super) fn archived(&self) -> Vec<PathBuf> {
        let Ok(found) = fs::read_dir(self.data().join("diverged")) else { return Vec::new() };
        let mut names: Vec<_> = found.map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    }

    pub(super) async fn held(&self) -> Held {
        self.engine.held().await.unwrap()
    }

    pub(super) fn database(&self) -> PathBuf {
        self.mount().join("db.sqlite3")
    }

    pub(super) fn connect(&self) -> Connection {
        let connection = Connection::open(self.database()).unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        connection
    }

    pub(super) fn app(&self, mode: &str) -> Connection {
        let app = self.connect();
        app.pragma_update(None, "journal_mode", mode).unwrap();
        app.execute_batch("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, x)").unwrap();
        app
    }

    pub(super) async fn now(&self) -> EpochTxid {
        self.engine.read_position().await.unwrap()
    }

    pub(super) async fn reaches(&self, position: EpochTxid) {
        timeout(PATIENCE, self.engine.position().wait(position)).await.unwrap_or_else(|_| {
            let at = self.engine.position().get();
            panic!("at {at}, not at {position}; {:?}", self.engine.state())
        });
    }

    pub(super) fn count(&self) -> i64 {
        self.connect().query_row("SELECT count(*) FROM t", (), |row| row.get(0)).unwrap()
    }
}

pub(super) fn start(dir: &Path, role: CopyRole, replicated: bool) -> io::Result<Arc<Embedded>> {
    Embedded::start(Options {
        mount: dir.join("mount"),
        db: "db.sqlite3".into(),
        data_dir: dir.join("data"),
        role,
        replicated,
        apply_delay: Duration::ZERO,
    })
}

pub(super) const PRIMARY: CopyRole = CopyRole::Primary(Epoch(1));

/// A connection between two engines, until it is dropped or fails.
pub(super) struct Joined {
    serving: Task<io::Result<()>>,
    following: Task<io::Result<()>>,
}

impl Joined {
    pub(super) fn new(primary: &Node, replica: &Node) -> Self {
        Self::telling(primary, replica, |_| {})
    }

    /// Tells what the replica says that it holds.
    pub(super) fn telling(
        primary: &Node,
        replica: &Node,
        on_applied: impl Fn(Position) + Send + 'static,
    ) -> Self {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (primary, replica) = (primary.engine.clone(), replica.engine.clone());
        Self {
            serving: tokio::spawn(async move { primary.serve(near, on_applied).await }),
            following: tokio::spawn(async move { replica.follow(far).await }),
        }
    }

    /// What made the replica give up.
    pub(super) async fn failure(mut self) -> io::Error {
        timeout(PATIENCE, &mut self.following).await.unwrap().unwrap().unwrap_err()
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.serving.abort();
        self.following.abort();
    }
}

pub(super) fn insert(app: &Connection) {
    app.execute("INSERT INTO t (x) VALUES (randomblob(100))", ()).unwrap();
}

pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never: {what}"));
}

pub(super) async fn replica_is_level(primary: &Node, replica: &Node) {
    replica.reaches(primary.now().await).await;
}
