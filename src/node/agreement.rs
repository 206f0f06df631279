//! What the cluster agrees upon, told to the engine; and what the engine proposes.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::cluster::EpochStart;
use crate::election::Election;
use crate::election::table::{Command, Table};
use crate::litefs::agreement::{Agreement, IdProposal};
use crate::publish;

/// By the election. Ends with it, or once the engine proposes nothing any more.
pub(crate) async fn by_election(agreement: Agreement, election: Election) {
    let Agreement { starts, litefs_id, mut proposals } = agreement;
    let (mut table, mut own) = (election.table(), election.own());
    let tell = async {
        loop {
            let now = table.borrow_and_update().clone();
            let known = all_starts(&now, own.borrow_and_update().start);
            publish::if_changed(&starts, known);
            publish::if_changed(&litefs_id, now.litefs_id.clone());
            tokio::select! {
                Ok(()) = table.changed() => {}
                Ok(()) = own.changed() => {}
                else => return,
            }
        }
    };
    let propose = async {
        let table = election.table();
        while let Some(IdProposal { id, reply }) = proposals.recv().await {
            let agreed = election.agree(Command::SetLitefsId { id }).await;
            // LiteFS asks for it as soon as it was answered.
            let known = table.borrow().litefs_id.clone();
            publish::if_changed(&litefs_id, known);
            // An error means that LiteFS no longer waits.
            let _ = reply.send(agreed.map_err(|why| why.to_string()));
        }
    };
    tokio::select! {
        () = tell => {}
        () = propose => {}
    }
}

/// By nobody: each LiteFS keeps its own cluster ID on disk. Ends with the engine.
pub(crate) async fn by_this_node(
    litefs_id: watch::Sender<Option<String>>,
    mut proposals: mpsc::Receiver<IdProposal>,
) {
    while let Some(IdProposal { id, reply }) = proposals.recv().await {
        litefs_id.send_replace(Some(id));
        // An error means that LiteFS no longer waits.
        let _ = reply.send(Ok(()));
    }
}

/// A primary knows of its own start before its table does.
fn all_starts(table: &Table, own: Option<EpochStart>) -> Arc<[EpochStart]> {
    let mut starts: Vec<EpochStart> = table.starts.iter().copied().collect();
    let newest = starts.last().map(|start| start.epoch).unwrap_or_default();
    starts.extend(own.filter(|start| start.epoch > newest));
    starts.into()
}
