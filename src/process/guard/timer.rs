//! A timer on the clock of deadlines.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use super::Deadline;
use crate::claim::BootTime;

/// Goes off at a deadline.
///
/// Tokio's timers, and the time limits of poll(2), run on `CLOCK_MONOTONIC`, which stands still while
/// the machine sleeps: after waking up a program would have what was left to it before.
#[derive(Debug)]
pub(crate) struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    /// Goes off only once it is set.
    pub(crate) fn new() -> io::Result<Timer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Boottime, flags)?;
        // Unsound for types that give out a different descriptor each time, hence deprecated; an
        // `OwnedFd` does not. Its replacement is unsafe code.
        #[expect(deprecated)]
        let timer = AsyncFd::new(timer)?;
        Ok(Timer(timer))
    }

    pub(crate) fn set(&self, deadline: Deadline) -> io::Result<()> {
        let off = Timespec { tv_sec: 0, tv_nsec: 0 };
        let at = match deadline {
            Deadline::None => off,
            // The time 0 would turn it off.
            Deadline::At(BootTime(nanos)) => {
                Timespec::try_from(Duration::from_nanos(nanos.max(1))).map_err(io::Error::other)?
            }
        };
        let spec = Itimerspec { it_interval: off, it_value: at };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::ABSTIME, &spec)?;
        Ok(())
    }

    /// Returns when it goes off, once for each time that it was set.
    pub(crate) async fn gone_off(&self) -> io::Result<()> {
        let mut expirations = [0; 8];
        loop {
            let mut ready = self.0.readable().await?;
            // `WouldBlock`: it was set anew in between.
            match ready.try_io(|timer| Ok(rustix::io::read(timer, &mut expirations)?)) {
                Ok(read) => return read.map(|_| ()),
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_goes_off_at_the_deadline_that_was_set_last() {
        let timer = Timer::new().unwrap();
        let soon = || Deadline::At(BootTime::now().after(Duration::from_millis(20)));
        timer.set(soon()).unwrap();
        timer.gone_off().await.unwrap();
        timer.set(Deadline::At(BootTime(0))).unwrap();
        timer.gone_off().await.unwrap();

        timer.set(soon()).unwrap();
        timer.set(Deadline::None).unwrap();
        let last = soon();
        timer.set(Deadline::At(BootTime::now().after(Duration::from_secs(3600)))).unwrap();
        timer.set(last).unwrap();
        timer.gone_off().await.unwrap();
        assert!(last.is_past());
    }
}
