//! Snapshots over a connection: frame by frame, each answered when its bytes are taken.

use std::time::Duration;

use bytes::Bytes;
use mooseng_meta::StoreView;
use mooseng_protocol::pb;
use mooseng_protocol::rpc::{self, Rpc};
use mooseng_protocol::status::CallError;
use mooseng_protocol::transport::FrameStream;
use mooseng_types::CellId;
use prost::Message as _;

use super::{message_to_wire, read_cell, read_message};
use crate::raft::Message;
use crate::snapshot::{Ending, Sent, SnapshotError, SnapshotFrame, frames};

/// How long the receiver may take for one frame: it may have to sync a table of some MiB to a slow disk. A master that is
/// told to stop waits for no longer than this either.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Sends all rows of `view`, so that the receiver may take `message` in when it has them. Blocks until the receiver has
/// made them durable: for a thread of its own. `pace` is told the bytes of each frame of rows that has been taken; it may
/// wait, so that sending leaves room for other work, and says whether to go on.
pub(crate) fn send(
    stream: &mut FrameStream,
    cell: CellId,
    view: &dyn StoreView,
    message: Message,
    pace: &dyn Fn(usize) -> bool,
) -> Result<Sent, SnapshotError> {
    let mut rows = 0;
    frames(cell, view, message, &mut |frame| {
        let failed = |source| SnapshotError::Call { rows, source };
        match frame {
            SnapshotFrame::Begin(cell, message) => {
                let (message, cell) = (Some(message_to_wire(message)), cell.raw().into());
                let begin = pb::SnapshotBegin { message, cell };
                stream.call(&begin, &[], ANSWER_MAX).map_err(failed)?;
            }
            SnapshotFrame::Rows(part) => {
                let (count, bytes) =
                    (part.len(), part.iter().map(|(key, value)| key.len() + value.len()).sum());
                let row = |(key, value)| pb::SnapshotRow { key, value };
                let part = pb::SnapshotRows { rows: part.into_iter().map(row).collect() };
                stream.call(&part, &[], ANSWER_MAX).map_err(failed)?;
                rows += count as u64;
                if !pace(bytes) {
                    return Err(SnapshotError::Stopped);
                }
            }
            SnapshotFrame::End(Ending { rows, hash }) => {
                stream.call(&pb::SnapshotEnd { rows, hash }, &[], ANSWER_MAX).map_err(failed)?;
            }
        }
        Ok(())
    })
}

/// What a frame of this kind says.
pub fn read(kind: u16, body: Bytes) -> Result<SnapshotFrame, CallError> {
    let bad = |error: &dyn std::fmt::Display| CallError::Rejected { message: error.to_string() };
    match kind {
        pb::SnapshotBegin::KIND => {
            let begin = pb::SnapshotBegin::decode(body).map_err(|error| bad(&error))?;
            // Without a message it is a snapshot of nothing, which the receiver refuses.
            let message = begin.message.map(read_message).transpose().map_err(|error| bad(&error))?;
            let cell = read_cell(begin.cell).map_err(|error| bad(&error))?;
            Ok(SnapshotFrame::Begin(cell, message.unwrap_or_default()))
        }
        pb::SnapshotRows::KIND => {
            let rows = pb::SnapshotRows::decode(body).map_err(|error| bad(&error))?;
            Ok(SnapshotFrame::Rows(rows.rows.into_iter().map(|row| (row.key, row.value)).collect()))
        }
        pb::SnapshotEnd::KIND => {
            let pb::SnapshotEnd { rows, hash } =
                pb::SnapshotEnd::decode(body).map_err(|error| bad(&error))?;
            Ok(SnapshotFrame::End(Ending { rows, hash }))
        }
        kind => Err(bad(&format!("{} is no frame of a snapshot", rpc::name(kind)))),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::net::{Ipv4Addr, TcpListener};

    use mooseng_meta::MetaStore as _;
    use mooseng_protocol::frame::{FLAG_REPLY, Frame, Header};
    use mooseng_protocol::transport::Socket;
    use mooseng_types::level::SUPPORTED;

    use super::*;
    use crate::snapshot::testing::{Rows, all_rows, message, store};
    use crate::snapshot::{Received, Receiving};
    use crate::store::{FjallStore, IncomingStore};

    const SOON: Duration = Duration::from_secs(5);

    /// Answers every frame of a snapshot that comes over `stream`, until one is refused or it is whole.
    fn serve(stream: FrameStream, sink: IncomingStore) -> Result<Received<FjallStore>, SnapshotError> {
        let (mut reader, mut writer) = stream.split();
        let mut sink = Some(sink);
        let mut receiving = None;
        loop {
            let Frame { header, body, .. } = reader.receive().unwrap();
            let mut done = None;
            let outcome = match read(header.kind, body).unwrap() {
                SnapshotFrame::Begin(_, begin) => Receiving::begin(begin, sink.take().unwrap(), SUPPORTED)
                    .map(|begun| receiving = Some(begun)),
                SnapshotFrame::Rows(rows) => receiving.as_mut().unwrap().rows(rows),
                SnapshotFrame::End(end) => receiving.take().unwrap().end(end).map(|whole| done = Some(whole)),
            };
            outcome?;
            let header = Header { flags: FLAG_REPLY, deadline_ms: 0, ..header };
            writer.send(header, &pb::Empty::default(), &[]).unwrap();
            if let Some(whole) = done {
                return Ok(whole);
            }
        }
    }

    #[test]
    fn a_store_crosses_a_socket_onto_another_disk() {
        let rows: Rows = (0..200u8).map(|number| (vec![b'x', number], vec![number; 20_000].into())).collect();
        let from = store(&rows);
        let data = tempfile::tempdir().unwrap();
        let sink = IncomingStore::begin(&data.path().join("store-1")).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let paced = RefCell::new(0);
        let (sent, received) = std::thread::scope(|scope| {
            let receiver = scope.spawn(|| {
                serve(FrameStream::new(Socket::accepted(listener.accept().unwrap().0)).unwrap(), sink)
            });
            let mut stream = FrameStream::new(Socket::connect(address, SOON).unwrap()).unwrap();
            let pace = |bytes| {
                *paced.borrow_mut() += bytes as u64;
                true
            };
            let sent = send(&mut stream, CellId::ROOT, &*from.view(), message(70), &pace);
            (sent.unwrap(), receiver.join().unwrap().unwrap())
        });
        assert_eq!((sent.rows, sent.bytes), (received.rows, received.bytes));
        assert_eq!(paced.into_inner(), sent.bytes);
        let mut wanted = all_rows(&*from.view());
        let (key, value) = mooseng_meta::base_row(70, 3);
        wanted.insert(key.to_vec(), value);
        assert!(all_rows(&*received.store.view()) == wanted);
    }

    /// Sends to a receiver that takes two frames and goes away.
    fn send_in_vain(pace: &dyn Fn(usize) -> bool) -> Result<Sent, SnapshotError> {
        let rows: Rows = (0..100u8).map(|number| (vec![b'x', number], vec![number; 20_000].into())).collect();
        let from = store(&rows);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut reader, mut writer) =
                    FrameStream::new(Socket::accepted(listener.accept().unwrap().0)).unwrap().split();
                for _ in 0..2 {
                    let header =
                        Header { flags: FLAG_REPLY, deadline_ms: 0, ..reader.receive().unwrap().header };
                    writer.send(header, &pb::Empty::default(), &[]).unwrap();
                }
            });
            let mut stream = FrameStream::new(Socket::connect(address, SOON).unwrap()).unwrap();
            send(&mut stream, CellId::ROOT, &*from.view(), message(70), pace)
        })
    }

    #[test]
    fn a_receiver_that_goes_away_is_an_error_that_says_how_far_it_was() {
        let result = send_in_vain(&|_| true);
        assert!(matches!(result, Err(SnapshotError::Call { rows: 1.., .. })), "{result:?}");
    }

    #[test]
    fn a_master_that_is_stopping_sends_no_further_frame() {
        let result = send_in_vain(&|_| false);
        assert!(matches!(result, Err(SnapshotError::Stopped)), "{result:?}");
    }
}
