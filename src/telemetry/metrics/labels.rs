//! What requests are told apart by, as metrics, headers and the access log name it.

/// Where the answer came from, as `Litepilot-Route` and the metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    Local,
    Primary,
    /// The primary's application, after this node's had asked for that.
    Replayed,
    /// This node's application, by a passthrough rule.
    Passthrough,
    /// Nowhere: Litepilot answered itself.
    None,
}

impl Route {
    /// Every route, in the order of [`Route::index`].
    pub(super) const ALL: [Self; 5] =
        [Self::Local, Self::Primary, Self::Replayed, Self::Passthrough, Self::None];

    /// The name in headers and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Primary => "primary",
            Self::Replayed => "replayed",
            Self::Passthrough => "passthrough",
            Self::None => "none",
        }
    }

    /// Its place in tables.
    pub(super) fn index(self) -> usize {
        self as usize
    }
}

/// How a read's wait for its token ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadWait {
    /// This node reached the token.
    Reached,
    /// `read_wait` passed.
    TimedOut,
    /// `held_reads` others were waiting already.
    Full,
    /// No such transaction can exist; the token is replaced.
    Impossible,
}

impl ReadWait {
    pub(super) const ALL: [Self; 4] = [Self::Reached, Self::TimedOut, Self::Full, Self::Impossible];

    /// The name in the metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Reached => "reached",
            Self::TimedOut => "timed-out",
            Self::Full => "full",
            Self::Impossible => "impossible",
        }
    }
}

/// Why a request is sent again to the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replay {
    /// `Litepilot-Replay: primary`
    Litepilot,
    /// `fly-replay: instance=…`
    FlyInstance,
    /// `fly-replay: region=…`
    FlyRegion,
    /// It is a read, and has failed here.
    FailedRead,
}

impl Replay {
    pub(super) const ALL: [Self; 4] =
        [Self::Litepilot, Self::FlyInstance, Self::FlyRegion, Self::FailedRead];

    /// The name in the metrics and in the access log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Litepilot => "litepilot",
            Self::FlyInstance => "fly-instance",
            Self::FlyRegion => "fly-region",
            Self::FailedRead => "failed-read",
        }
    }
}
