//! Until when a program may run.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Until when a program may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deadline {
    /// As long as we live: it can commit nothing that would matter, as on a replica.
    #[default]
    None,
    /// Until this time of [`boottime`].
    At(Duration),
}

impl Deadline {
    /// Whether that time has come.
    pub fn is_past(self) -> bool {
        match self {
            Deadline::None => false,
            Deadline::At(time) => boottime() >= time,
        }
    }
}

/// The time since the machine was started, suspension included (`CLOCK_BOOTTIME`): while it sleeps,
/// others may become primary.
pub fn boottime() -> Duration {
    // It is never negative. Were it, then nothing may run.
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_past_from_its_time_on() {
        assert!(!Deadline::None.is_past());
        assert!(Deadline::At(Duration::ZERO).is_past());
        assert!(Deadline::At(boottime()).is_past());
        assert!(!Deadline::At(boottime() + Duration::from_secs(3600)).is_past());
    }
}
