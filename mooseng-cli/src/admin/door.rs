//! What has passed the door of a master or a chunkserver, as status shows it.

use std::collections::BTreeMap;

use mooseng_protocol::door::{Requests, Snapshot};
use mooseng_protocol::pb;
use serde::Serialize;

/// Since the process started.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Door {
    /// Connections that have ended without a proof of their role.
    pub(crate) strangers: u64,
    /// Requests from a role that must not send them.
    pub(crate) forbidden: u64,
    /// By the name of the request.
    pub(crate) requests: BTreeMap<String, Passed>,
}

/// The requests of one kind.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Passed {
    /// That have come.
    requests: u64,
    /// That were not done: the sum of the next three.
    errors: u64,
    /// For good.
    refused: u64,
    /// Not now, or not there.
    failed: u64,
    /// Their connections ended before the answer.
    lost: u64,
    total_us: u64,
    max_us: u64,
    p50_us: u64,
    p99_us: u64,
}

impl From<pb::DoorStatus> for Door {
    fn from(told: pb::DoorStatus) -> Self {
        let Snapshot { requests, strangers, forbidden } = told.into();
        let requests = requests.iter().map(|row| (name(row), Passed::from(row))).collect();
        Self { strangers, forbidden, requests }
    }
}

impl From<&Requests> for Passed {
    fn from(row: &Requests) -> Self {
        Self {
            requests: row.requests,
            errors: row.errors(),
            refused: row.refused,
            failed: row.failed,
            lost: row.lost,
            total_us: row.total_us,
            max_us: row.max_us,
            p50_us: row.percentile_us(50),
            p99_us: row.percentile_us(99),
        }
    }
}

/// A later release may know kinds that this one does not; they must not hide each other.
fn name(row: &Requests) -> String {
    match row.name() {
        "unknown" if row.kind != 0 => format!("unknown {:#06x}", row.kind),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_names_each_request_and_says_how_it_went() {
        let counts = |kind| pb::RequestCounts { kind, requests: 1, ..Default::default() };
        let create = pb::RequestCounts {
            kind: 0x0107,
            requests: 11,
            refused: 1,
            failed: 2,
            lost: 3,
            total_us: 900,
            max_us: 500,
            below_us: vec![0, 0, 9, 0, 0, 0, 0, 0, 0, 1],
        };
        let requests = vec![counts(0), create, counts(0x0ffe), counts(0x0fff)];
        let door = Door::from(pb::DoorStatus { requests, strangers: 7, forbidden: 8 });
        let json = serde_json::to_value(&door).unwrap();
        let names: Vec<&String> = json["requests"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["CreateRequest", "unknown", "unknown 0x0ffe", "unknown 0x0fff"]);
        let expected = serde_json::json!({
            "requests": 11, "errors": 6, "refused": 1, "failed": 2, "lost": 3,
            "total_us": 900, "max_us": 500, "p50_us": 4, "p99_us": 500,
        });
        assert_eq!(json["requests"]["CreateRequest"], expected);
        assert_eq!([&json["strangers"], &json["forbidden"]], [7, 8]);
    }
}
