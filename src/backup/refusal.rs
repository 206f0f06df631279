//! Why LiteFS, or an operator, does not get what was asked for.

use std::fmt;
use std::io;

use http::StatusCode;

use super::store::StoreError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Only the primary's LiteFS backs up, while its node holds the lease.
    NotPrimary,
    /// What came does not go on from what is kept. LiteFS asks again, and is then asked for a snapshot.
    NewHistory(String),
    /// LiteFS would overwrite itself with it.
    NeverRestored(String),
    /// What came, or is kept, is damaged.
    Damaged(String),
    /// The store is another cluster's.
    OtherCluster {
        place: String,
        theirs: String,
        ours: String,
    },
    Store(StoreError),
    /// Anything here: no room, LiteFS does not answer.
    Here(String),
}

impl Refusal {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NewHistory(_) => StatusCode::CONFLICT,
            Self::Damaged(_) => StatusCode::BAD_REQUEST,
            Self::OtherCluster { .. } | Self::NeverRestored(_) => StatusCode::FORBIDDEN,
            Self::NotPrimary | Self::Store(_) | Self::Here(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// For LiteFS. Never `EPOSMISMATCH`: at that it would restore itself from the backup.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::NotPrimary => "ENOTPRIMARY",
            Self::NewHistory(_) => "ENEWHISTORY",
            Self::NeverRestored(_) => "ENEVERRESTORED",
            Self::Damaged(_) => "EDAMAGED",
            Self::OtherCluster { .. } => "EOTHERCLUSTER",
            Self::Store(_) => "ESTORE",
            Self::Here(_) => "EHERE",
        }
    }

    /// Whether an operator has to do something, and it is worth saying at once.
    pub(crate) fn needs_somebody(&self) -> bool {
        matches!(
            self,
            Self::OtherCluster { .. }
                | Self::Store(StoreError::Refused(_) | StoreError::ClockOff(_))
        )
    }

    /// Whether it is part of how things go.
    pub(crate) fn is_usual(&self) -> bool {
        matches!(self, Self::NotPrimary | Self::NewHistory(_) | Self::NeverRestored(_))
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Here(error.to_string())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPrimary => f.write_str("this node does not hold the lease"),
            Self::NewHistory(db) => {
                write!(f, "{db}: not what follows the backup: the next generation begins")
            }
            Self::NeverRestored(db) => {
                write!(
                    f,
                    "{db}: LiteFS is never overwritten from a backup: the next generation begins"
                )
            }
            Self::Damaged(why) => write!(f, "damaged: {why}"),
            Self::OtherCluster { place, theirs, ours } => write!(
                f,
                "{place} holds backups of another cluster, {theirs}, and this is {ours}: give this one a place of \
                 its own (backup.url); `litepilot backup restore --from {place}` reads the other's"
            ),
            Self::Store(error) => error.fmt(f),
            Self::Here(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Refusal {}
