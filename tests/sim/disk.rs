//! A disk in memory that loses what was not synced.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use rand::RngExt;
use rand::rngs::SmallRng;
use redb::StorageBackend;

/// The disk; clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Shelf(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What is read.
    current: Vec<u8>,
    /// What was synced last.
    synced: Vec<u8>,
    /// What came since.
    since: Vec<Op>,
    /// Which power cycle it is: whoever opened it before the last one writes no more.
    life: u64,
    /// Nothing can be written.
    full: bool,
}

#[derive(Clone, Debug)]
enum Op {
    Length(usize),
    Write(usize, Vec<u8>),
}

/// The disk as it was opened.
#[derive(Debug)]
pub struct Opened {
    shelf: Shelf,
    life: u64,
}

impl Shelf {
    pub fn open(&self) -> io::Result<Opened> {
        Ok(Opened { shelf: self.clone(), life: self.state().life })
    }

    /// From now on nothing can be written, or it can again.
    pub fn fill(&self, full: bool) {
        self.state().full = full;
    }

    /// Another disk, with nothing on it.
    pub fn wipe(&self) {
        let mut state = self.state();
        *state = State { life: state.life + 1, ..State::default() };
    }

    /// The power fails. Of what was not synced, some has reached the disk, in no order.
    pub fn crash(&self, chance: &mut SmallRng) {
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
        state.full = false;
        (state.synced, state.current) = (left.clone(), left);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    fn writable(&self, life: u64) -> io::Result<()> {
        match () {
            () if self.life != life => Err(io::Error::other("the power has failed")),
            () if self.full => Err(io::ErrorKind::StorageFull.into()),
            () => Ok(()),
        }
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
        state.writable(self.life)?;
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
        let mut state = self.shelf.state();
        state.writable(self.life)?;
        state.since.clear();
        state.synced = state.current.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Op::Write(offset as usize, data.to_vec()))
    }
}
