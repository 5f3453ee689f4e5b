//! Snapshots on the wire. What another process tells is cut to what a door of this release can have; nothing of it is a
//! reason to refuse the request that it comes with.

use crate::pb;
use crate::rpc::KINDS;

use super::{BUCKETS, Requests, Snapshot};

/// Kinds that are taken from another process: a later release may know some more.
const KINDS_MAX: usize = 2 * KINDS.len();

impl From<&Snapshot> for pb::DoorStatus {
    fn from(snapshot: &Snapshot) -> Self {
        let Snapshot { requests, strangers, forbidden } = snapshot;
        let requests = requests.iter().map(pb::RequestCounts::from).collect();
        Self { requests, strangers: *strangers, forbidden: *forbidden }
    }
}

impl From<pb::DoorStatus> for Snapshot {
    fn from(status: pb::DoorStatus) -> Self {
        let pb::DoorStatus { requests, strangers, forbidden } = status;
        let requests = requests.into_iter().take(KINDS_MAX).map(Requests::from).collect();
        Self { requests, strangers, forbidden }
    }
}

impl From<&Requests> for pb::RequestCounts {
    fn from(requests: &Requests) -> Self {
        let Requests { kind, requests, refused, failed, lost, total_us, max_us, below_us } = requests;
        let used = below_us.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        Self {
            kind: u32::from(*kind),
            requests: *requests,
            refused: *refused,
            failed: *failed,
            lost: *lost,
            total_us: *total_us,
            max_us: *max_us,
            below_us: below_us.iter().take(used).copied().collect(),
        }
    }
}

impl From<pb::RequestCounts> for Requests {
    fn from(counts: pb::RequestCounts) -> Self {
        let pb::RequestCounts { kind, requests, refused, failed, lost, total_us, max_us, mut below_us } =
            counts;
        below_us.resize(BUCKETS, 0);
        // Whoever sent it may have reserved much more.
        below_us.shrink_to_fit();
        Self {
            kind: u16::try_from(kind).unwrap_or(0),
            requests,
            refused,
            failed,
            lost,
            total_us,
            max_us,
            below_us,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prost::Message as _;

    use super::*;
    use crate::door::{Door, Outcome};
    use crate::principal::Role;
    use crate::status::CallError;

    #[test]
    fn a_snapshot_reads_back_and_its_bytes_never_change() {
        let door = Door::default();
        let entered = door.enter(0x0107, Duration::ZERO);
        door.leave(entered, Outcome::Failed, Duration::from_micros(5));
        door.refused().stranger(&"peer", &"why");
        let client = CallError::Forbidden { role: Role::Client, kind: 0x0504 };
        door.refused().forbidden("mount", &client);
        let snapshot = door.snapshot();
        let bytes = pb::DoorStatus::from(&snapshot).encode_to_vec();
        let expected = [
            0x0a, 17, 0x08, 0x87, 2, 0x10, 1, 0x20, 1, 0x30, 5, 0x38, 5, 0x42, 4, 0, 0, 0, 1, 0x10, 1, 0x18,
            1,
        ];
        assert_eq!(bytes, expected);
        assert_eq!(Snapshot::from(pb::DoorStatus::decode(&bytes[..]).unwrap()), snapshot);
    }

    #[test]
    fn whatever_another_process_tells_is_cut_to_size() {
        let counts = pb::RequestCounts {
            kind: u32::MAX,
            requests: u64::MAX,
            refused: u64::MAX,
            failed: u64::MAX,
            below_us: vec![u64::MAX; 1000],
            ..Default::default()
        };
        let told = Snapshot::from(pb::DoorStatus { requests: vec![counts; 10_000], ..Default::default() });
        assert_eq!(told.requests.len(), KINDS_MAX);
        let row = &told.requests[0];
        assert_eq!((row.kind, row.below_us.len()), (0, BUCKETS));
        assert_eq!((row.errors(), row.under_way(), row.percentile_us(255)), (u64::MAX, 0, 0));
    }
}
