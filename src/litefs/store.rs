//! What the engine remembers across restarts: which epoch's history the copy holds, and what was
//! promised. LiteFS itself keeps the data and its transaction numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use super::announced::Announced;
use super::databases::Databases;
use super::joining::Joining;
use super::lineage::{self, Began, Lineage};
use super::origins::Joins;
use super::position::LitefsPosition;
use super::reached_file::ReachedFile;
use super::sole::Sole;
use crate::cluster::{Epoch, EpochStart};
use crate::copy::state_file::{self, StateFile};
use crate::txid::{EpochTxid, Position, Txid};

/// The file's name in `data_dir`.
pub(crate) const FILE: &str = "litefs.state";

#[derive(Clone)]
pub struct Store {
    state: StateFile<Saved>,
    lineage: StateFile<lineage::Saved>,
    reached: Arc<ReachedFile>,
    /// In memory only, and shared by all clones: it goes on while one of them is written.
    announced: Arc<Mutex<Announced>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    format: String,
    /// The database that this is about.
    database: PathBuf,
    /// The epoch whose history the copy holds.
    epoch: Epoch,
    /// No primary of an earlier epoch is listened to.
    promised: Epoch,
    /// This node's last tenure, until another's history is followed.
    #[serde(rename = "reign")]
    tenure: Option<Tenure>,
}

/// A tenure of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tenure {
    epoch: Epoch,
    /// What the copy held when it began, in terms of the history before.
    held: Position,
}

impl state_file::Saved for Saved {
    const FORMAT: &'static str = "litepilot litefs 1";
    const REMEDY: &'static str = "It is kept as it is. Give this node an empty data_dir and an empty \
                                  litefs.data: it gets a new copy from the primary";

    fn new(database: &Path) -> Self {
        Self {
            format: Self::FORMAT.to_owned(),
            database: database.to_owned(),
            epoch: Epoch(0),
            promised: Epoch(0),
            tenure: None,
        }
    }

    fn database(&self) -> &Path {
        &self.database
    }
}

impl Store {
    /// Reads the files in `dir`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// When one cannot be read, is damaged, or is about another database; the text says what to do.
    pub fn open(dir: &Path, database: &Path) -> io::Result<Self> {
        Ok(Self {
            state: StateFile::open(dir.join(FILE), database)?,
            lineage: StateFile::open(dir.join(lineage::FILE), database)?,
            reached: Arc::new(ReachedFile::open(dir)?),
            announced: Arc::default(),
        })
    }

    /// From now on, on disk, no primary of an earlier epoch is listened to.
    ///
    /// # Errors
    ///
    /// When it cannot be written; then that was not promised.
    pub fn promise(&mut self, epoch: Epoch) -> io::Result<()> {
        let promised = epoch.max(self.saved().promised);
        self.state.save(Saved { promised, ..self.saved().clone() })
    }

    /// No primary of an epoch before this is listened to.
    pub fn floor(&self) -> Epoch {
        let saved = self.saved();
        let held = saved.tenure.map_or(Epoch(0), |tenure| tenure.epoch);
        saved.promised.max(saved.epoch).max(held)
    }

    /// Begins this node's tenure in `epoch` with what the copy holds, on disk. Returns that, in terms of
    /// the history before; of a tenure that was begun before, what it held then.
    ///
    /// # Errors
    ///
    /// When the epoch is over, or it cannot be written; then it was not begun.
    pub fn begin(&mut self, epoch: Epoch, content: &Databases) -> io::Result<Position> {
        if epoch < self.floor() {
            let what =
                format!("epoch {} is known: this node cannot be primary in {epoch}", self.floor());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        if let Some(tenure) = self.saved().tenure.filter(|tenure| tenure.epoch == epoch) {
            return Ok(tenure.held);
        }
        let (held, present) = (self.held(content), self.present());
        self.remember(content.names(), |saved| {
            let origin = |(name, at): (&String, &LitefsPosition)| {
                (name.clone(), saved.origins.of(name, *at, present))
            };
            let mut origins: BTreeMap<_, _> = content.iter().map(origin).collect();
            origins.retain(|_, of| *of != held.at.epoch);
            saved.lineage.begin(Began { epoch, databases: content.clone(), origins });
            saved.origins.note(content, present);
            saved.origins.tenure = Some(EpochStart { epoch, held });
            // All that it holds is the history from here on.
            saved.foreign = Databases::default();
        })?;
        let tenure = Some(Tenure { epoch, held });
        self.state.save(Saved { tenure, ..self.saved().clone() })?;
        Ok(held)
    }

    /// Whether [`Store::join`] has something to note on disk.
    pub(crate) fn is_to_join(&self, to: &Joining, connected: bool, content: &Databases) -> bool {
        // It may come late: whoever has begun, promised or followed something else since does not go back.
        let follows = self.joins().is_some_and(|joins| joins.start == to.start);
        let over = self.saved().tenure.is_some() || self.floor() > to.epoch();
        let before = self.position(content).at.epoch;
        follows && !over && before < to.epoch() && to.is_done(connected, &self.own(content))
    }

    /// Notes that the copy, with this content, has reached the history that it follows, once it has, and
    /// what of it.
    ///
    /// # Errors
    ///
    /// When it cannot be written; then it does not count as such.
    pub fn join(
        &mut self,
        joining: &Joining,
        connected: bool,
        content: &Databases,
    ) -> io::Result<()> {
        if self.is_to_join(joining, connected, content) {
            self.adopt(joining.start)?;
        }
        self.look(joining.epoch(), content);
        Ok(())
    }

    /// A copy of `epoch` with this content may have reached what was announced.
    pub(crate) fn look(&self, epoch: Epoch, content: &Databases) {
        if self.saved().tenure.is_none() && self.saved().epoch == epoch {
            self.announced().look(&self.own(content));
        }
    }

    /// What counts of a copy with this content: not what is of another history and still to be replaced,
    /// which could pass for what was announced.
    fn own(&self, content: &Databases) -> Databases {
        content.other_than(&self.lineage.saved().foreign)
    }

    /// The copy is about to follow the last of `starts`. From now on those that have diverged do not count,
    /// for as long as it holds them.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn follow(
        &mut self,
        content: &Databases,
        diverged: &Databases,
        starts: &[EpochStart],
    ) -> io::Result<()> {
        let mut saved = self.lineage.saved().clone();
        // Those that were not replaced yet stay so.
        saved.foreign = content.other_than(&self.own(content));
        saved.foreign.replace(diverged);
        saved.origins.note(content, self.present());
        saved.origins.follow(self.position(content).at, starts);
        self.lineage.save(saved)
    }

    /// The databases that hold something which the history of `starts` lacks.
    pub fn diverged(&self, content: &Databases, starts: &[EpochStart], elects: bool) -> Databases {
        let origin = |name: &str, at| self.origin(name, at);
        self.lineage().diverged(content, origin, starts, elects)
    }

    /// The epoch whose history a database is of.
    pub(crate) fn origin(&self, name: &str, at: LitefsPosition) -> Epoch {
        self.lineage.saved().origins.of(name, at, self.present())
    }

    /// The epoch whose history changes the copy, if anything does.
    fn present(&self) -> Epoch {
        let joins = self.joins().map(|joins| joins.start.epoch);
        let tenure = self.saved().tenure.map(|tenure| tenure.epoch);
        tenure.or(joins).unwrap_or(self.saved().epoch)
    }

    /// The epoch that the copy has begun to follow, and has not joined.
    fn joins(&self) -> Option<Joins> {
        let joins = self.lineage.saved().origins.joins;
        joins.filter(|joins| joins.start.epoch > self.saved().epoch)
    }

    fn adopt(&mut self, start: EpochStart) -> io::Result<()> {
        if start.epoch < self.saved().epoch {
            return self.end_tenure(self.saved().epoch);
        }
        let began = self.lineage().of(start.epoch).map(Databases::seq);
        // Begun by a build that counts one database.
        let txid = began.unwrap_or(start.held.at.txid);
        self.reached.save(EpochTxid { epoch: start.epoch, txid })?;
        self.end_tenure(start.epoch)?;
        self.announced().start(start.epoch, Some(txid));
        Ok(())
    }

    /// The tenure of this node is over, and `content` is what it has left behind.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn close(&mut self, content: &Databases) -> io::Result<()> {
        if self.saved().tenure.is_none() {
            return Ok(());
        }
        let at = self.position(content).at;
        self.reached.save(at)?;
        self.announced().start(at.epoch, Some(at.txid));
        self.end_tenure(at.epoch)
    }

    fn end_tenure(&mut self, epoch: Epoch) -> io::Result<()> {
        self.state.save(Saved { epoch, tenure: None, ..self.saved().clone() })
    }

    /// What a copy with this content has reached. One that was this node's to write and never was written
    /// is still of the history before: whether that tenure was opened is for others to know.
    pub fn position(&self, content: &Databases) -> Position {
        let epoch = match self.saved().tenure {
            Some(Tenure { epoch, held }) if self.is_same(epoch, held, content) => return held,
            Some(Tenure { epoch, .. }) => {
                let at = EpochTxid { epoch, txid: content.seq() };
                return Position { at, checksum: content.checksum() };
            }
            None => self.saved().epoch,
        };
        if let Some(joins) = self.joins() {
            let came = |(name, at): (&String, &_)| self.origin(name, *at) == joins.start.epoch;
            let changed = content.iter().all(came);
            let at = joins.worth(content, self.are_several(content), changed);
            return Position { at, checksum: content.checksum() };
        }
        let txid = self.reached(epoch, content);
        let txid = txid.unwrap_or_else(|| self.alone(epoch, content));
        // Another database may be here that the primary never had: LiteFS takes none away.
        let announced = self.announced();
        let known = announced.said(epoch);
        let checksum = known.map_or_else(|| content.checksum(), |s| content.among(s).checksum());
        Position { at: EpochTxid { epoch, txid }, checksum }
    }

    /// What this copy has reached in `epoch`, if that is known. Of a single database LiteFS' own position says
    /// it.
    fn reached(&self, epoch: Epoch, content: &Databases) -> Option<Txid> {
        let announced = self.announced().reached(epoch);
        if !self.are_several(content) {
            return announced;
        }
        let kept = self.reached.get(epoch).map(|at| at.txid);
        let sole = self.sole().filter(|sole| sole.is_over());
        let alone = sole.and_then(|sole| sole.reached(epoch, &self.own(content)));
        announced.max(kept).max(alone)
    }

    /// What there is of the only database.
    fn alone(&self, epoch: Epoch, content: &Databases) -> Txid {
        let own = self.own(content);
        let unnamed = self.lineage.saved().notes_first
            && self.lineage().of(epoch).is_some_and(Databases::is_empty);
        match self.sole().and_then(|sole| sole.reached(epoch, &own)) {
            Some(reached) => reached,
            // The primary has not named one yet, so it may have others.
            None if unnamed => self.reached.get(epoch).map(|at| at.txid).unwrap_or_default(),
            None => own.seq(),
        }
    }

    /// The last epoch in which a second database has come, as far as known, and up to where there was one.
    pub(crate) fn sole_until(&self) -> Option<EpochTxid> {
        self.sole().filter(|sole| sole.is_over()).map(|sole| sole.until)
    }

    /// The only database, in the last epoch in which there was one at first.
    pub(crate) fn sole(&self) -> Option<&Sole> {
        self.lineage.saved().sole.as_ref()
    }

    /// What a copy with this content holds, where nothing more comes: to be compared with others'. Of one
    /// database all counts that is here, announced or not.
    pub fn held(&self, content: &Databases) -> Position {
        let mut position = self.position(content);
        let several = self.are_several(content);
        if self.saved().tenure.is_none() && self.joins().is_none() && !several {
            position.at.txid = position.at.txid.max(self.alone(position.at.epoch, content));
        }
        position
    }

    /// Whether there is more than one, here or where the data comes from: then what a copy holds does not
    /// say what it has reached.
    pub(crate) fn are_several(&self, content: &Databases) -> bool {
        content.are_several() || self.names().nth(1).is_some()
    }

    fn is_same(&self, epoch: Epoch, held: Position, content: &Databases) -> bool {
        match self.lineage().of(epoch) {
            Some(began) => began == content,
            // Begun by a build that knew one database.
            None => held.at.txid == content.seq() && held.checksum == content.checksum(),
        }
    }

    /// What the databases held where the last epochs began, as far as known here.
    pub fn lineage(&self) -> &Lineage {
        &self.lineage.saved().lineage
    }

    /// Every database that was ever here, or at a primary.
    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.lineage.saved().names.iter()
    }

    /// Notes names of databases, and until when there was one; on disk if that is news.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub(crate) fn name(&mut self, databases: &Databases, sole: Option<Sole>) -> io::Result<()> {
        if self.knows(databases, sole.as_ref()) {
            return Ok(());
        }
        let sole = sole.or_else(|| self.sole_so_far(databases));
        self.remember(databases.names(), |saved| saved.sole = sole.or(saved.sole.take()))
    }

    /// Whether [`Store::name`] has nothing to note.
    pub(crate) fn knows(&self, databases: &Databases, sole: Option<&Sole>) -> bool {
        let saved = self.lineage.saved();
        let named = databases.names().all(|name| saved.names.contains(name));
        named && (sole.is_none() || sole == saved.sole.as_ref())
    }

    /// Notes what the primary of `epoch` names.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn named(
        &mut self,
        epoch: Epoch,
        databases: &Databases,
        sole: Option<Sole>,
    ) -> io::Result<()> {
        let sole = sole.or_else(|| self.first_of(epoch, databases));
        self.name(databases, sole)
    }

    /// The first database of `epoch`, if that began with none.
    pub(crate) fn first_of(&self, epoch: Epoch, databases: &Databases) -> Option<Sole> {
        self.first(self.lineage(), epoch, databases.names())
    }

    /// The first database of an epoch that began with none.
    fn first<'a>(
        &self,
        lineage: &Lineage,
        epoch: Epoch,
        mut names: impl Iterator<Item = &'a String>,
    ) -> Option<Sole> {
        let known = self.sole().is_some_and(|sole| sole.until.epoch == epoch);
        let began_empty = lineage.of(epoch).is_some_and(Databases::is_empty);
        let name = names.next().filter(|_| began_empty && !known)?;
        names.next().is_none().then(|| Sole::so_far(epoch, name))
    }

    /// A replica may get the second database before its primary says that it has come.
    fn sole_so_far(&self, databases: &Databases) -> Option<Sole> {
        let epoch = self.saved().epoch;
        let announced = self.announced();
        let said = announced.said(epoch).filter(|said| !said.are_several())?;
        let second = databases.names().any(|name| !self.lineage.saved().names.contains(name));
        let first = second && !self.are_several(said) && self.saved().tenure.is_none();
        first.then(|| Sole::of(EpochTxid { epoch, txid: said.seq() }, said))
    }

    /// Takes over what a primary knows of the epochs before, and which databases it has: before any of its
    /// data comes.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn learn(
        &mut self,
        others: &Lineage,
        names: &BTreeSet<String>,
        sole: Option<Sole>,
    ) -> io::Result<()> {
        let first = || others.last().and_then(|epoch| self.first(others, epoch, names.iter()));
        let sole = sole.or_else(first);
        self.remember(names.iter(), |saved| {
            saved.lineage.learn(others);
            saved.sole = sole.or(saved.sole.take());
        })
    }

    fn remember<'a>(
        &mut self,
        names: impl Iterator<Item = &'a String>,
        change: impl FnOnce(&mut lineage::Saved),
    ) -> io::Result<()> {
        let mut saved = self.lineage.saved().clone();
        saved.name(names);
        change(&mut saved);
        self.lineage.save(saved)
    }

    /// What the primary has announced, and this copy has reached of it.
    pub fn announced(&self) -> MutexGuard<'_, Announced> {
        self.announced.lock()
    }

    /// To note what was reached before it is acknowledged, without holding anybody else up.
    pub(crate) fn reached_file(&self) -> Arc<ReachedFile> {
        self.reached.clone()
    }

    fn saved(&self) -> &Saved {
        self.state.saved()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::databases::tests::databases;
    use super::*;
    use crate::copy::history::tests::{position, start};

    fn open(dir: &Path) -> Store {
        Store::open(dir, Path::new("app.db")).unwrap()
    }

    fn content(txid: u64) -> Databases {
        databases(&[("app.db", txid)])
    }

    fn epoch(store: &Store, txid: u64) -> u64 {
        store.position(&content(txid)).at.epoch.0
    }

    #[test]
    fn what_was_promised_and_begun_outlives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        assert_eq!(epoch(&store, 5), 0);
        store.promise(Epoch(3)).unwrap();
        let held = store.begin(Epoch(3), &content(5)).unwrap();
        assert_eq!((held.at.epoch, held.at.txid), (Epoch(0), Txid(5)));
        let mut store = open(dir.path());
        assert_eq!(store.begin(Epoch(3), &content(9)).unwrap(), held, "the same tenure");
        assert!(store.begin(Epoch(2), &content(9)).is_err());
        assert_eq!(store.floor(), Epoch(3));
        store.promise(Epoch(4)).unwrap();
        assert!(store.begin(Epoch(3), &content(9)).is_err());
    }

    #[test]
    fn only_what_was_written_in_a_tenure_is_of_its_epoch() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        store.adopt(start(1, position(0, 5, 1005))).unwrap();
        store.begin(Epoch(2), &content(5)).unwrap();
        assert_eq!((epoch(&store, 5), epoch(&store, 6)), (1, 2));
        store.close(&content(6)).unwrap();
        assert_eq!(epoch(&open(dir.path()), 6), 2);
        store.begin(Epoch(3), &content(6)).unwrap();
        store.close(&content(6)).unwrap();
        assert_eq!(epoch(&store, 6), 2, "nothing was written in epoch 3");
    }

    #[test]
    fn another_history_is_taken_over_only_forward() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        store.begin(Epoch(2), &content(5)).unwrap();
        store.adopt(start(4, position(0, 5, 1005))).unwrap();
        assert_eq!(epoch(&store, 5), 4);
        store.adopt(start(3, position(0, 5, 1005))).unwrap();
        assert_eq!(epoch(&store, 5), 4);
        assert_eq!(store.floor(), Epoch(4));
    }

    #[test]
    fn of_several_databases_only_what_was_reached_counts_after_a_restart_too() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        let begun = databases(&[("app.db", 4), ("queue.db", 2)]);
        store.lineage_of(2, &begun);
        store.adopt(start(2, position(1, 6, 1))).unwrap();
        store.announced().begin(Epoch(2));
        store.announced().hear(at(2, 7), databases(&[("app.db", 4), ("queue.db", 3)]));
        store.announced().hear(at(2, 8), databases(&[("app.db", 5)]));
        // The later one came first.
        let holds = databases(&[("app.db", 5), ("queue.db", 2)]);
        store.announced().look(&holds);
        assert_eq!(epoch_and_txid(&store, &holds), (2, 6));
        assert_eq!(epoch_and_txid(&open(dir.path()), &holds), (2, 6));
        let holds = databases(&[("app.db", 5), ("queue.db", 3)]);
        store.announced().look(&holds);
        let at = store.position(&holds).at;
        assert_eq!((at.txid, store.held(&holds)), (Txid(8), store.position(&holds)));
        store.reached_file().save(at).unwrap();
        assert_eq!(open(dir.path()).position(&holds).at, at);
    }

    #[test]
    fn what_an_epoch_that_began_with_nothing_has_outlives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        store.begin(Epoch(1), &Databases::default()).unwrap();
        store.close(&content(7)).unwrap();
        assert_eq!(epoch_and_txid(&open(dir.path()), &content(7)), (1, 7), "its primary");
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        store.lineage_of(1, &Databases::default());
        store.adopt(start(1, position(0, 0, 0))).unwrap();
        assert_eq!(epoch_and_txid(&store, &content(7)), (1, 0), "nobody has named that one");
        store.named(Epoch(1), &content(3), None).unwrap();
        let store = open(dir.path());
        assert_eq!(store.held(&content(7)).at, at(1, 7), "a replica");
    }

    #[test]
    fn a_tenure_counts_the_commits_of_all_databases() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        let begun = databases(&[("app.db", 4), ("queue.db", 2)]);
        assert_eq!(store.begin(Epoch(1), &begun).unwrap().at.txid, Txid(6));
        assert_eq!(epoch_and_txid(&store, &begun), (0, 6), "nothing was written yet");
        let left = databases(&[("app.db", 4), ("queue.db", 5), ("new.db", 1)]);
        assert_eq!(epoch_and_txid(&store, &left), (1, 10));
        store.close(&left).unwrap();
        // What comes from the next primary does not move it on in the epoch that is over.
        let more = databases(&[("app.db", 9), ("queue.db", 5), ("new.db", 1)]);
        assert_eq!(epoch_and_txid(&open(dir.path()), &more), (1, 10));
    }

    fn at(epoch: u64, txid: u64) -> EpochTxid {
        EpochTxid { epoch: Epoch(epoch), txid: Txid(txid) }
    }

    fn epoch_and_txid(store: &Store, holds: &Databases) -> (u64, u64) {
        let at = store.position(holds).at;
        (at.epoch.0, at.txid.0)
    }

    impl Store {
        /// As heard from the primary of that epoch.
        fn lineage_of(&mut self, epoch: u64, begun: &Databases) {
            let mut lineage = Lineage::default();
            let (databases, origins) = (begun.clone(), BTreeMap::new());
            lineage.begin(Began { epoch: Epoch(epoch), databases, origins });
            let names = begun.names().cloned().collect();
            self.learn(&lineage, &names, None).unwrap();
        }
    }

    #[test]
    fn a_damaged_or_foreign_file_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).promise(Epoch(3)).unwrap();
        let foreign = Store::open(dir.path(), Path::new("other.db")).err().unwrap().to_string();
        assert!(foreign.contains("app.db") && foreign.contains("empty data_dir"), "{foreign}");
        let path = dir.path().join(FILE);
        let mut text = fs::read(&path).unwrap();
        text[30] ^= 1;
        fs::write(&path, &text).unwrap();
        assert!(Store::open(dir.path(), Path::new("app.db")).is_err());
        assert_eq!(fs::read(&path).unwrap(), text);
    }

    #[test]
    fn a_file_of_a_newer_format_is_refused_in_words_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        for file in [FILE, lineage::FILE] {
            let json =
                br#"{"format":"litepilot litefs 9","database":"app.db","what":["is", "this"]}"#;
            let text = state_file::sealed(json);
            fs::write(dir.path().join(file), &text).unwrap();
            let error = Store::open(dir.path(), Path::new("app.db")).err().unwrap().to_string();
            assert!(error.contains(file) && error.contains("start that version again"), "{error}");
            assert_eq!(fs::read(dir.path().join(file)).unwrap(), text);
            fs::remove_file(dir.path().join(file)).unwrap();
        }
    }
}
