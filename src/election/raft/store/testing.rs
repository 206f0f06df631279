//! A disk in memory that loses what was not synced, and may be full.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use redb::StorageBackend;

use super::Store;
use super::disk::Source;

/// The disk; clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shelf(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    current: Vec<u8>,
    /// What was synced last.
    synced: Vec<u8>,
    since: Vec<Op>,
    full: bool,
    /// It takes what comes, but whoever wants it synced has to wait.
    stalled: bool,
    /// Which power cycle it is: whoever opened it before the last one writes no more.
    life: u64,
}

#[derive(Clone, Debug)]
enum Op {
    Length(usize),
    Write(usize, Vec<u8>),
}

/// The disk as it was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    shelf: Shelf,
    life: u64,
}

impl Shelf {
    pub(crate) fn open(&self) -> io::Result<Opened> {
        Ok(Opened { shelf: self.clone(), life: self.state().life })
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    pub(crate) fn set_stalled(&self, stalled: bool) {
        self.state().stalled = stalled;
        self.0.1.notify_all();
    }

    /// A store on it, written by a thread of its own as on a real disk.
    pub(crate) fn store(&self) -> io::Result<Store> {
        let shelf = self.clone();
        Store::new(Source::backend(move || shelf.open()), true)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.state().current.clone()
    }

    pub(crate) fn set_bytes(&self, bytes: Vec<u8>) {
        let mut state = self.state();
        state.since.clear();
        (state.synced, state.current) = (bytes.clone(), bytes);
    }

    /// The power fails. Of what was not synced, some has reached the disk, in no order.
    pub(crate) fn crash(&self, chance: &mut SmallRng) {
        let mut state = self.state();
        let mut left = state.synced.clone();
        let mut since = std::mem::take(&mut state.since);
        since.retain(|_| chance.random_bool(0.5));
        for i in (1..since.len()).rev() {
            since.swap(i, chance.random_range(0..=i));
        }
        for op in since {
            op.apply(&mut left);
        }
        state.life += 1;
        (state.synced, state.current) = (left.clone(), left);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }
}

impl Op {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Write(at, data) => {
                let end = at + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at..end].copy_from_slice(data);
            }
        }
    }
}

impl Opened {
    fn change(&self, op: Op) -> io::Result<()> {
        let mut state = self.shelf.state();
        if state.life != self.life {
            return Err(io::Error::other("the power has failed"));
        }
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        op.apply(&mut state.current);
        state.since.push(op);
        Ok(())
    }
}

impl StorageBackend for Opened {
    fn len(&self) -> io::Result<u64> {
        Ok(self.shelf.state().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.shelf.state();
        let from = offset as usize;
        let bytes = state.current.get(from..from + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Op::Length(len as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        let state = self.shelf.state();
        let mut state = self.shelf.0.1.wait_while(state, |state| state.stalled).unwrap();
        if state.life != self.life {
            return Err(io::Error::other("the power has failed"));
        }
        state.since.clear();
        state.synced = state.current.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Op::Write(offset as usize, data.to_vec()))
    }
}

/// Chance that is the same each time.
pub(crate) fn chance(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed)
}
