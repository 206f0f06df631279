//! Notices that whoever started this process is gone, even if it was killed: the system closes its
//! end of the pipe between us.

use std::io;
use std::os::fd::AsFd;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// Ready when standard input, a pipe to which nobody writes, ends.
///
/// # Errors
///
/// When it is no pipe.
pub(crate) fn stdin_ends() -> io::Result<impl Future<Output = ()>> {
    let mut pipe = Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
    Ok(async move {
        let mut unused = [0; 64];
        while pipe.read(&mut unused).await.is_ok_and(|read| read > 0) {}
    })
}
