//! Counts the guards of a node: who has begun, and who has ended with nothing left of its program.
//!
//! It is a pipe that the node and all its guards write lines to. At its end they are all gone, and
//! whoever has read it knows whether something may still run: a guard that was killed has said that it
//! begins and not that it is done. [`crate::last_will`] reads it.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, PipeReader, PipeWriter, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// The first line to a guard that takes part; the pipe comes with it.
pub(super) const TALLY: &str = "tally";
/// A guard is about to start its program.
pub(crate) const BEGUN: &str = "+";
/// Nobody of its program's group is left.
pub(crate) const DONE: &str = "-";
/// Longer lines could be torn apart by others' (`PIPE_BUF`).
pub(crate) const LONGEST: usize = 4096;

/// The writing end, as the node has it. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Tally(Arc<PipeWriter>);

impl Tally {
    /// Both ends.
    ///
    /// # Errors
    ///
    /// When there are no descriptors left.
    pub(crate) fn new() -> io::Result<(Self, PipeReader)> {
        let (reader, writer) = io::pipe()?;
        // Of the writing end alone: a reader that is stopped must stop nobody else.
        fcntl_setfl(&writer, OFlags::NONBLOCK)?;
        Ok((Self(Arc::new(writer)), reader))
    }

    /// Writes a whole line, or nothing.
    ///
    /// # Errors
    ///
    /// When it is too long, nobody reads, or there is no room.
    pub(crate) fn write(&self, line: &str) -> io::Result<()> {
        write(&self.0, line)
    }

    /// Has the guard at the other end take part. Says whether it was told.
    pub(super) fn lend(&self, guard: impl AsFd) -> bool {
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        let pipe = [self.0.as_fd()];
        let line = format!("{TALLY}\n");
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        control.push(SendAncillaryMessage::ScmRights(&pipe))
            && sendmsg(guard, &[IoSlice::new(line.as_bytes())], &mut control, flags)
                == Ok(line.len())
    }
}

fn write(mut pipe: &PipeWriter, line: &str) -> io::Result<()> {
    let line = format!("{line}\n");
    if line.len() > LONGEST {
        return Err(ErrorKind::FileTooLarge.into());
    }
    pipe.write_all(line.as_bytes())
}

/// A guard's place in it.
pub(super) struct Place(PipeWriter);

impl Place {
    /// Begins to count.
    ///
    /// # Errors
    ///
    /// When it is not known whether it counts. If nobody reads any more, nothing needs to be counted.
    pub(super) fn take(pipe: OwnedFd) -> io::Result<Self> {
        let pipe = PipeWriter::from(pipe);
        match write(&pipe, BEGUN) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
            Ok(()) | Err(_) => Ok(Self(pipe)),
        }
    }

    /// Nothing of the program is left.
    pub(super) fn done(self) {
        // Not told, it counts as something that may still run.
        let _ = write(&self.0, DONE);
    }
}

/// Takes what has come first from a socket, and the pipe if one came along. Does not wait.
pub(super) fn receive(from: impl AsFd, piece: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(from, &mut [IoSliceMut::new(piece)], &mut control, flags)?;
    let pipe = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut pipes) => pipes.next(),
        _ => None,
    });
    Ok((received.bytes, pipe))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_ends_is_told_from_what_is_killed() {
        let (tally, mut reader) = Tally::new().unwrap();
        let mut places = Vec::new();
        for _ in 0..2 {
            let (ours, guards) = UnixStream::pair().unwrap();
            assert!(tally.lend(&ours));
            let mut piece = [0; 64];
            let (length, pipe) = receive(&guards, &mut piece).unwrap();
            assert_eq!(&piece[..length], b"tally\n");
            places.push(Place::take(pipe.unwrap()).unwrap());
        }
        drop(tally);
        let killed = places.pop();
        places.pop().unwrap().done();
        drop(killed);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "+\n+\n-\n");
    }

    #[test]
    fn a_reader_that_is_gone_or_stopped_keeps_nobody() {
        let (tally, reader) = Tally::new().unwrap();
        let long = "x".repeat(LONGEST - 1);
        while tally.write(&long).is_ok() {}
        assert_eq!(tally.write(&long).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(tally.write(&"x".repeat(LONGEST)).is_err());
        drop(reader);
        assert_eq!(tally.write("x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert!(Place::take(tally.0.try_clone().unwrap().into()).is_ok());
    }
}
