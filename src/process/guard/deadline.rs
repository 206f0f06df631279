//! Until when a program may run.

use crate::claim::BootTime;

/// Until when a program may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deadline {
    /// As long as we live: it can commit nothing that would matter, as on a replica.
    #[default]
    None,
    At(BootTime),
}

impl Deadline {
    /// Whether that time has come.
    pub fn is_past(self) -> bool {
        match self {
            Deadline::None => false,
            Deadline::At(time) => BootTime::now() >= time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn it_is_past_from_its_time_on() {
        assert!(!Deadline::None.is_past());
        assert!(Deadline::At(BootTime(0)).is_past());
        assert!(Deadline::At(BootTime::now()).is_past());
        assert!(!Deadline::At(BootTime::now().after(Duration::from_secs(3600))).is_past());
    }
}
