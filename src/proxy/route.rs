//! Where a request goes. Pure.

/// Where the answer came from, as `Litepilot-Route` and the metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// This node's application.
    Local,
    /// The primary's application.
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
    pub const ALL: [Self; 5] =
        [Self::Local, Self::Primary, Self::Replayed, Self::Passthrough, Self::None];

    /// The name in headers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Primary => "primary",
            Self::Replayed => "replayed",
            Self::Passthrough => "passthrough",
            Self::None => "none",
        }
    }

    /// Its place in tables.
    pub fn index(self) -> usize {
        self as usize
    }
}
