//! Reads the tree of a file key by key, and collects what is wrong with it.
//!
//! A section knows its keys by having been asked for them, so that a key stands in the code once.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::yaml::value::ValueError;
use crate::yaml::{Key, Node, Place, Problem, Value, de, suggest, value};

/// What all sections of one file share.
pub(crate) struct Reader<'a> {
    file: &'a str,
    /// Relative paths are relative to this.
    directory: PathBuf,
    problems: RefCell<Vec<Problem>>,
}

/// A mapping of the file; empty if the file does not have it.
pub(crate) struct Section<'a> {
    reader: &'a Reader<'a>,
    /// The keys that lead here: `proxy.cookie`.
    path: String,
    place: Place,
    entries: &'a [(Key, Node)],
    known: RefCell<Vec<&'static str>>,
    /// A type's derive has been asked for the rest, and has refused what it does not know.
    derived: Cell<bool>,
}

impl<'a> Reader<'a> {
    /// A reader of the named file.
    pub(crate) fn new(file: &'a str) -> Self {
        let directory = Path::new(file).parent().unwrap_or(Path::new(""));
        let directory = std::path::absolute(directory.join(".")).unwrap_or(directory.to_owned());
        Self { file, directory, problems: RefCell::new(Vec::new()) }
    }

    /// Reads the whole file.
    pub(crate) fn root<T>(&'a self, root: &'a Node, read: impl FnOnce(&Section<'a>) -> T) -> T {
        self.section(String::new(), root.place, root, read)
    }

    /// Everything that was wrong, in the order of the file.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort();
        problems.dedup();
        problems
    }

    fn section<T>(
        &'a self,
        path: String,
        place: Place,
        node: &'a Node,
        read: impl FnOnce(&Section<'a>) -> T,
    ) -> T {
        let entries = match &node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Null => &[],
            _ => {
                let message =
                    format!("{} where a mapping is expected: write `key: value`", node.describe());
                self.problem(&path, node.place, &message);
                // It is there, though unusable: its keys are not missing as well.
                return self.silently(path, place, read);
            }
        };
        let section = Section::new(self, path, place, entries);
        let value = read(&section);
        section.refuse_unknown();
        value
    }

    /// Reads an empty section without a word about what is missing.
    fn silently<T>(
        &'a self,
        path: String,
        place: Place,
        read: impl FnOnce(&Section<'a>) -> T,
    ) -> T {
        let before = self.problems.borrow().len();
        let section = Section::new(self, path, place, &[]);
        let value = read(&section);
        self.problems.borrow_mut().truncate(before);
        value
    }

    fn problem(&self, path: &str, place: Place, message: &str) {
        let message =
            if path.is_empty() { message.to_owned() } else { format!("{path}: {message}") };
        self.problems.borrow_mut().push(Problem::new(self.file, place, message));
    }
}

impl<'a> Section<'a> {
    fn new(reader: &'a Reader<'a>, path: String, place: Place, entries: &'a [(Key, Node)]) -> Self {
        let (known, derived) = (RefCell::default(), Cell::default());
        Self { reader, path, place, entries, known, derived }
    }

    /// The value of a key; `None` if it is not given, null or wrong.
    pub(crate) fn get<T>(
        &self,
        key: &'static str,
        read: impl Fn(&Node) -> Result<T, ValueError>,
    ) -> Option<T> {
        self.checked(&self.path_of(key), self.node(key)?, read)
    }

    /// The value of a key that must be given; `remedy` says what to write.
    pub(crate) fn required<T>(
        &self,
        key: &'static str,
        remedy: &str,
        read: impl Fn(&Node) -> Result<T, ValueError>,
    ) -> Option<T> {
        if self.node(key).is_none() {
            let message = format!("missing, but required: {remedy}");
            self.reader.problem(&self.path_of(key), self.place_of(key), &message);
        }
        self.get(key, read)
    }

    /// The items of a list; wrong ones are left out.
    pub(crate) fn list<T>(
        &self,
        key: &'static str,
        read: impl Fn(&Node) -> Result<T, ValueError>,
    ) -> Option<Vec<T>> {
        let path = self.path_of(key);
        let items = self.checked(&path, self.node(key)?, value::list)?;
        Some(items.iter().filter_map(|item| self.checked(&path, item, &read)).collect())
    }

    /// The entries of a mapping whose keys are free; those with a wrong key are left out.
    pub(crate) fn entries<K, V>(
        &self,
        key: &'static str,
        read_key: impl Fn(&str) -> Result<K, ValueError>,
        read: impl Fn(&Node) -> Result<V, ValueError>,
    ) -> Option<Vec<(K, Option<V>)>> {
        let path = self.path_of(key);
        let entries = self.checked(&path, self.node(key)?, value::map)?;
        let entry = |(key, node): &(Key, Node)| {
            let value = self.checked(&format!("{path}.{}", key.text), node, &read);
            let name = read_key(&key.text)
                .map_err(|why| self.reader.problem(&path, key.place, &why.to_string()));
            Some((name.ok()?, value))
        };
        Some(entries.iter().filter_map(entry).collect())
    }

    /// A section within; an empty one if it is not given.
    pub(crate) fn section<T>(&self, key: &'static str, read: impl FnOnce(&Section<'a>) -> T) -> T {
        match self.entry(key) {
            Some((at, node)) => self.reader.section(self.path_of(key), at.place, node, read),
            None => read(&Section::new(self.reader, self.path_of(key), self.place, &[])),
        }
    }

    /// A section within, if it is given.
    pub(crate) fn optional<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&Section<'a>) -> Option<T>,
    ) -> Option<T> {
        self.node(key)?;
        self.section(key, read)
    }

    /// All keys that were not asked for, as a `T` whose derive knows them.
    pub(crate) fn rest<T: DeserializeOwned + Default>(&self) -> T {
        let known = self.known.borrow();
        let rest = self.entries.iter().filter(|(key, _)| !known.contains(&key.text.as_str()));
        let rest = Value::Map(rest.cloned().collect());
        self.derived.set(true);
        let (value, misfits) = de::read(Node { place: self.place, value: rest, plain: None });
        for misfit in misfits {
            let place = misfit.place().unwrap_or(self.place);
            self.reader.problem(&self.path_of(&misfit.path()), place, misfit.message());
        }
        value
    }

    /// A list of sections, or one section in its place.
    pub(crate) fn sections<T>(
        &self,
        key: &'static str,
        read: impl Fn(&Section<'a>) -> T,
    ) -> Option<Vec<T>> {
        let node = self.node(key)?;
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let read = |item: &'a Node| self.reader.section(self.path_of(key), item.place, item, &read);
        Some(items.iter().map(read).collect())
    }

    /// A path; a relative one is relative to the file's directory.
    pub(crate) fn path(&self, key: &'static str) -> Option<PathBuf> {
        self.get(key, value::path).map(|path| self.resolve(&path))
    }

    /// A path that must be given.
    pub(crate) fn required_path(&self, key: &'static str, remedy: &str) -> Option<PathBuf> {
        self.required(key, remedy, value::path).map(|path| self.resolve(&path))
    }

    /// The path from the file's directory.
    pub(crate) fn resolve(&self, path: &Path) -> PathBuf {
        self.reader.directory.join(path).components().collect()
    }

    /// Whether a key is given, rightly or wrongly.
    pub(crate) fn is_given(&self, key: &'static str) -> bool {
        self.node(key).is_some()
    }

    /// Whether the value of a key is this word, and no list.
    pub(crate) fn has_word(&self, key: &'static str, word: &str) -> bool {
        self.node(key).is_some_and(|node| matches!(&node.value, Value::Text(text) if text == word))
    }

    /// Notes that the value of a key is wrong; the key itself need not be there.
    pub(crate) fn wrong(&self, key: &'static str, message: impl AsRef<str>) {
        let place = self.node(key).map_or(self.place_of(key), |node| node.place);
        self.reader.problem(&self.path_of(key), place, message.as_ref());
    }

    fn checked<'n, T>(
        &self,
        path: &str,
        node: &'n Node,
        read: impl Fn(&'n Node) -> Result<T, ValueError>,
    ) -> Option<T> {
        read(node).map_err(|why| self.reader.problem(path, node.place, &why.to_string())).ok()
    }

    /// The value of a key, unless it is null: that stands for the default.
    fn node(&self, key: &'static str) -> Option<&'a Node> {
        self.entry(key).map(|(_, node)| node).filter(|node| node.value != Value::Null)
    }

    fn entry(&self, key: &'static str) -> Option<&'a (Key, Node)> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
        self.entries.iter().find(|(found, _)| found.text == key)
    }

    /// Where the key stands, or else its section.
    fn place_of(&self, key: &'static str) -> Place {
        self.entry(key).map_or(self.place, |(key, _)| key.place)
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn refuse_unknown(&self) {
        if self.derived.get() {
            return;
        }
        let known = self.known.borrow();
        for (key, _) in self.entries {
            if known.contains(&key.text.as_str()) {
                continue;
            }
            let path = self.path_of(&crate::yaml::shorten(&key.text));
            let remedy = suggest::among(&key.text, &known);
            self.reader.problem(&path, key.place, &format!("unknown key: {remedy}"));
        }
    }
}
