use super::*;
use crate::cluster::EpochStart;
use crate::txid::Checksum;
use proptest::prelude::*;

fn samples() -> Vec<Message> {
    let position = Position { checksum: Checksum(1 << 63 | 5), ..Position::default() };
    let start = EpochStart { epoch: crate::cluster::Epoch(7), held: position };
    let update = |base, pages: Vec<(u32, std::sync::Arc<[u8]>)>| {
        let changed = u32::try_from(pages.len()).unwrap();
        Message::Update(Update { base, position, page_size: 512, count: 9, changed, pages })
    };
    vec![
        Message::Hello(position),
        Message::Lineage(Lineage::new(vec![start]).unwrap()),
        Message::Level(position),
        update(None, vec![(1, [1; 512].into()), (9, [9; 512].into())]),
        update(Some(Checksum(1 << 63)), Vec::new()),
        Message::Applied(Position::default()),
        Message::Alive,
        Message::Refused("too large".to_owned()),
    ]
}

#[tokio::test]
async fn every_message_arrives_however_it_is_cut() {
    for piece in [1, 7, 4096] {
        let (near, far) = tokio::io::duplex(piece);
        let (mut near, mut far) = (Wire::new(near), Wire::new(far));
        let sender = tokio::spawn(async move {
            for message in samples() {
                near.send(&message).await.unwrap();
            }
        });
        for message in samples() {
            let received = far.receive().await.unwrap();
            assert_eq!(format!("{received:?}"), format!("{message:?}"));
        }
        sender.await.unwrap();
        assert_eq!(far.receive().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[tokio::test]
async fn an_impossible_update_is_refused_before_its_pages() {
    for (page_size, count, changed) in [(500, 1, 1), (512, 1, 2), (65_536, 1_025, 1), (0, 1, 1)] {
        let (near, far) = tokio::io::duplex(4096);
        let position = Position::default();
        let pages = Vec::new();
        let update = Update { base: None, position, page_size, count, changed, pages };
        Wire::new(near).send(&Message::Update(update)).await.unwrap();
        let error = Wire::new(far).receive().await.unwrap_err();
        assert!(error.to_string().contains("impossible size"), "{error}");
    }
}

proptest! {
    #[test]
    fn whatever_comes_is_an_error_and_no_panic(bytes: Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let received = runtime.block_on(async {
            let (mut near, far) = tokio::io::duplex(bytes.len().max(1));
            tokio::io::AsyncWriteExt::write_all(&mut near, &bytes).await.unwrap();
            drop(near);
            Wire::new(far).receive().await
        });
        prop_assert!(received.is_err());
    }
}
