//! A witness' engine: it keeps nothing.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::{BoxFuture, Engine, EngineState};
use crate::position::PositionCell;
use crate::txid::EpochTxid;

#[derive(Default)]
pub(crate) struct NullEngine(Arc<PositionCell>);

impl Engine for NullEngine {
    fn position(&self) -> &Arc<PositionCell> {
        &self.0
    }

    fn read_position(&self) -> BoxFuture<'_, io::Result<EpochTxid>> {
        Box::pin(async { Err(io::Error::new(io::ErrorKind::Unsupported, "a witness has no data")) })
    }

    fn lag(&self) -> Option<Duration> {
        None
    }

    fn state(&self) -> EngineState {
        EngineState { engine: "none", state: "witness".to_owned(), pid: None, restarts: 0 }
    }
}
