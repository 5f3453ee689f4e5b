//! What is said to a master next, and what its answers mean: a value without sockets and clocks. Every master is told that
//! this server lives; only the leader is told what it has.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mooseng_protocol::door::Door;
use mooseng_protocol::pb;
use mooseng_protocol::status::CallError;
use mooseng_types::Part;

use crate::config::Config;
use crate::copy_events::{CopyEvent, CopyEvents, Ear, FailedFetch, FetchReason, ToTell};
use crate::keeper::{Keeper, Keepers};
use crate::store::{CopyInfo, Store};

/// Copies named in one report.
const REPORT_MAX: usize = 10_000;
/// With the first heartbeat of a talk, and one in so many, a master is told what has passed the door.
const DOOR_EVERY: u32 = 10;

/// What all masters are told about.
#[derive(Debug)]
pub struct Teller {
    pub(crate) store: Arc<Store>,
    pub(crate) events: Arc<CopyEvents>,
    pub(crate) keepers: Arc<Keepers>,
    pub(crate) uuid: [u8; 16],
    pub(crate) name: String,
    /// What storage classes know it by.
    pub(crate) place: Place,
    /// Where this server serves.
    pub(crate) address: String,
    /// The number that the masters gave this server; 0 for none yet.
    pub(crate) number: AtomicU32,
    /// Where requests are counted.
    pub(crate) door: Arc<Door>,
}

/// Where this server stands, and what storage classes call it by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    pub(crate) labels: Vec<String>,
    pub(crate) region: String,
    pub(crate) rack: String,
}

impl Place {
    pub(crate) fn of(config: &Config) -> Self {
        Self { labels: config.labels.clone(), region: config.region.clone(), rack: config.rack.clone() }
    }
}

/// What is to be said to a master.
#[derive(Debug)]
pub enum Say {
    /// Who this is.
    Register(pb::RegisterServerRequest),
    /// That this server lives.
    Beat(pb::HeartbeatRequest),
    /// What it has, or what changed.
    Report(pb::ChunkReportRequest),
    /// Nothing until the next heartbeat is due, or, to a leader, until something has changed.
    Wait,
}

/// The talk with one master, from the beginning of a connection to its end. After [`Talk::next`] the caller says how that
/// went, with the one of the other functions that fits.
#[derive(Debug, Default)]
pub struct Talk {
    turn: Turn,
    /// What a leader is still to be told.
    ear: Option<Ear>,
    registered: bool,
    /// Heartbeats so far.
    beats: u32,
    /// The parts of a full report that are still to be told.
    parts: VecDeque<pb::ChunkReportRequest>,
    /// What the report that is on its way tells.
    on_its_way: Option<ToTell>,
    /// And of copies that were not fetched.
    failed_on_its_way: Vec<(Part, FailedFetch)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Turn {
    #[default]
    Register,
    Beat,
    /// The master leads, and hears what changed.
    Report,
    Rest {
        leader: bool,
    },
}

impl Talk {
    /// What to say next.
    pub fn next(&mut self, teller: &Teller) -> Say {
        if self.turn == Turn::Register && self.registered {
            self.turn = Turn::Beat;
        }
        let server = teller.number.load(Ordering::Acquire);
        if self.turn == Turn::Beat && server == 0 {
            self.turn = Turn::Rest { leader: false };
        }
        match self.turn {
            Turn::Register => Say::Register(pb::RegisterServerRequest {
                uuid: teller.uuid.to_vec().into(),
                name: teller.name.clone(),
                address: teller.address.clone(),
                disks: disk_status(teller),
                labels: teller.place.labels.clone(),
                region: teller.place.region.clone(),
                rack: teller.place.rack.clone(),
            }),
            Turn::Beat => Say::Beat(pb::HeartbeatRequest {
                server,
                disks: disk_status(teller),
                address: teller.address.clone(),
                door: self.beats.is_multiple_of(DOOR_EVERY).then(|| (&teller.door.snapshot()).into()),
            }),
            Turn::Report => match self.next_report(teller, server) {
                Some(report) => Say::Report(report),
                None => {
                    self.turn = Turn::Rest { leader: true };
                    Say::Wait
                }
            },
            Turn::Rest { .. } => Say::Wait,
        }
    }

    fn next_report(&mut self, teller: &Teller, server: u32) -> Option<pb::ChunkReportRequest> {
        if self.parts.is_empty() {
            let ear = self.ear.as_ref()?;
            match ear.take(REPORT_MAX) {
                ToTell::Everything => self.tell_everything(teller, server),
                ToTell::Some(events) => {
                    let failed = ear.take_failed(REPORT_MAX);
                    if events.is_empty() && failed.is_empty() {
                        return None;
                    }
                    let mut report = pb::ChunkReportRequest { server, ..Default::default() };
                    report.failed = failed.iter().map(not_fetched).collect();
                    self.failed_on_its_way = failed;
                    for &(part, event) in &events {
                        match event {
                            CopyEvent::Here { version, in_doubt, verified } => {
                                report.chunks.push(status(&CopyInfo { part, version, in_doubt }, verified));
                            }
                            CopyEvent::Lost if part.is_whole() => report.lost.push(part.chunk().raw()),
                            CopyEvent::Lost => report.lost_parts.push(part.into()),
                        }
                    }
                    self.on_its_way = Some(ToTell::Some(events));
                    return Some(report);
                }
            }
        }
        self.on_its_way = Some(ToTell::Everything);
        self.parts.pop_front()
    }

    /// Events noted before are covered; those that come meanwhile follow.
    fn tell_everything(&mut self, teller: &Teller, server: u32) {
        let untold = self.ear.get_or_insert_with(|| teller.events.listen()).take_all();
        let verified = |copy: &CopyInfo| untold.get(&copy.part).is_some_and(|it| it.verifies(copy.version));
        let part = |copies: &[CopyInfo]| pb::ChunkReportRequest {
            server,
            full: true,
            chunks: copies.iter().map(|copy| status(copy, verified(copy))).collect(),
            ..Default::default()
        };
        let copies = teller.store.list();
        tracing::info!(copies = copies.len(), "everything is reported to the leader");
        self.parts = copies.chunks(REPORT_MAX).map(part).collect();
        if self.parts.is_empty() {
            self.parts.push_back(part(&[]));
        }
        if let Some(last) = self.parts.back_mut() {
            last.last = true;
        }
    }

    /// The master has answered a registration. An error ends the talk.
    pub fn registered(
        &mut self,
        teller: &Teller,
        reply: Result<pb::RegisterServerReply, CallError>,
    ) -> Result<(), CallError> {
        match reply {
            Ok(reply) => {
                if teller.number.swap(reply.server, Ordering::AcqRel) != reply.server {
                    tracing::info!(server = reply.server, "registered");
                }
                self.registered = true;
            }
            // It hears all the same that the server lives, if that has a number.
            Err(CallError::NotLeader { .. } | CallError::Unavailable { .. }) => {}
            Err(error) => return Err(error),
        }
        self.turn = Turn::Beat;
        Ok(())
    }

    /// The master has answered a heartbeat.
    pub fn beaten(&mut self, teller: &Teller, reply: &pb::HeartbeatReply) {
        self.beats = self.beats.wrapping_add(1);
        self.registered &= !reply.register_again;
        self.turn = if reply.leader { Turn::Report } else { Turn::Rest { leader: false } };
        if !reply.leader {
            self.ear = None;
        } else if reply.want_full_report || self.ear.is_none() {
            self.tell_everything(teller, teller.number.load(Ordering::Acquire));
        }
    }

    /// The leader has answered a report, or it is not known to have got it.
    pub fn reported(&mut self, arrived: bool) {
        if let Some(told) = self.on_its_way.take()
            && !arrived
        {
            self.parts.clear();
            if let Some(ear) = &self.ear {
                ear.put_back(told);
            }
        }
        let failed = std::mem::take(&mut self.failed_on_its_way);
        if let Some(ear) = self.ear.as_ref().filter(|_| !arrived) {
            ear.put_back_failed(failed);
        }
    }

    /// Waits until the next heartbeat is due, or until a leader is to hear something.
    pub(crate) fn wait(&self, teller: &Teller, heartbeat: Duration) {
        match &self.ear {
            Some(ear) if self.turn == Turn::Rest { leader: true } => ear.wait(heartbeat),
            _ => teller.events.wait_for_stop(heartbeat),
        }
    }

    /// The next heartbeat is due, or something changed.
    pub fn woken(&mut self) {
        self.turn = Turn::Register;
    }
}

fn status(copy: &CopyInfo, verified: bool) -> pb::CopyStatus {
    pb::CopyStatus {
        chunk: copy.part.chunk().raw(),
        version: copy.version.raw(),
        in_doubt: copy.in_doubt,
        part: copy.part.index().into(),
        verified,
    }
}

fn not_fetched((part, failed): &(Part, FailedFetch)) -> pb::FetchFailure {
    let reason = match failed.reason {
        FetchReason::Unreachable => pb::FetchFailureReason::Unreachable,
        FetchReason::Damaged => pb::FetchFailureReason::Damaged,
        FetchReason::Older => pb::FetchFailureReason::Older,
        FetchReason::NoSpace => pb::FetchFailureReason::NoSpace,
        FetchReason::Other => pb::FetchFailureReason::Other,
    };
    pb::FetchFailure {
        chunk: part.chunk().raw(),
        index: part.index().into(),
        source: failed.source.clone(),
        reason: reason.into(),
    }
}

fn disk_status(teller: &Teller) -> Vec<pb::DiskStatus> {
    let disks = teller.store.disks().iter().enumerate();
    let status = disks.map(|(number, disk)| {
        let (total_bytes, _) = disk.space();
        let scrub = teller.keepers.get(number).map(Keeper::progress).unwrap_or_default();
        let (quarantine_bytes, quarantine_copies) = disk.quarantine().totals();
        pb::DiskStatus {
            path: disk.root().display().to_string(),
            total_bytes,
            free_bytes: disk.room(),
            failed: disk.failed(),
            chunks: disk.copies(),
            quarantine_bytes,
            quarantine_copies,
            scrub_done_permille: scrub.permille(),
            scrub_started_unix_s: if scrub.under_way { scrub.started_unix_s } else { 0 },
            last_complete_unix_s: scrub.last_complete_unix_s,
            damaged_found: scrub.damaged_found,
        }
    });
    status.collect()
}

#[cfg(test)]
mod tests {
    use mooseng_types::{ChunkId, ChunkVersion, ClusterId};

    use super::*;

    fn teller() -> Teller {
        let events = Arc::<CopyEvents>::default();
        let store = Store::open(Vec::new(), ClusterId::from_bytes([1; 16]), 0, Arc::clone(&events)).unwrap();
        Teller {
            store: Arc::new(store),
            events,
            keepers: Arc::default(),
            uuid: [1; 16],
            name: "s".into(),
            place: Place { labels: vec!["A".into()], ..Place::default() },
            address: "s:1".into(),
            number: AtomicU32::new(0),
            door: Arc::default(),
        }
    }

    fn report(say: Say) -> pb::ChunkReportRequest {
        match say {
            Say::Report(report) => report,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_heartbeat_in_ten_tells_what_has_passed_the_door() {
        let teller = teller();
        let mut talk = Talk::default();
        assert!(matches!(talk.next(&teller), Say::Register(_)));
        talk.registered(&teller, Ok(pb::RegisterServerReply { server: 4 })).unwrap();
        let mut told = Vec::new();
        for beat in 0..21 {
            match talk.next(&teller) {
                Say::Beat(request) => told.extend(request.door.map(|door| (beat, door.strangers))),
                other => panic!("{other:?}"),
            }
            talk.beaten(&teller, &pb::HeartbeatReply::default());
            teller.door.refused().stranger(&"peer", &"why");
            talk.woken();
        }
        assert_eq!(told, [(0, 0), (10, 10), (20, 20)]);
    }

    #[test]
    fn a_server_says_who_it_is_again_when_the_master_can_keep_more_of_it() {
        let (teller, mut talk) = (teller(), Talk::default());
        let registers = |talk: &mut Talk| match talk.next(&teller) {
            Say::Register(request) => request.labels == ["A"],
            _ => false,
        };
        assert!(registers(&mut talk));
        talk.registered(&teller, Ok(pb::RegisterServerReply { server: 1 })).unwrap();
        talk.beaten(&teller, &pb::HeartbeatReply::default());
        talk.woken();
        assert!(!registers(&mut talk));
        talk.beaten(&teller, &pb::HeartbeatReply { register_again: true, ..Default::default() });
        talk.woken();
        assert!(registers(&mut talk));
    }

    #[test]
    fn only_a_leader_hears_reports_and_what_did_not_arrive_is_told_again() {
        let teller = teller();
        let mut talk = Talk::default();
        assert!(matches!(talk.next(&teller), Say::Register(_)));
        talk.registered(&teller, Err(CallError::NotLeader { leader: None })).unwrap();
        assert!(matches!(talk.next(&teller), Say::Wait), "it has no number yet");
        talk.woken();
        assert!(matches!(talk.next(&teller), Say::Register(_)));
        talk.registered(&teller, Ok(pb::RegisterServerReply { server: 4 })).unwrap();
        assert!(matches!(talk.next(&teller), Say::Beat(beat) if beat.server == 4));

        let here = CopyEvent::Here { version: ChunkVersion::from_raw(3), in_doubt: true, verified: true };
        let whole = Part::whole(ChunkId::from_raw(9));
        let parts = [1, 2].map(|index| Part::new(whole.chunk(), index).unwrap());
        talk.beaten(&teller, &pb::HeartbeatReply::default());
        assert!(matches!(talk.next(&teller), Say::Wait));
        talk.woken();
        assert!(matches!(talk.next(&teller), Say::Beat(_)));
        let leads = || pb::HeartbeatReply { leader: true, ..Default::default() };
        talk.beaten(&teller, &leads());
        let full = report(talk.next(&teller));
        assert!(
            full.full && full.last && full.chunks.is_empty(),
            "whoever leads anew hears everything first"
        );
        talk.reported(true);

        teller.events.note(whole, here);
        teller.events.note(parts[0], here);
        teller.events.note(parts[1], CopyEvent::Lost);
        let failed = FailedFetch { source: "s:2".into(), reason: FetchReason::Damaged };
        teller.events.not_fetched(parts[0], &failed);
        for arrived in [false, true] {
            let report = report(talk.next(&teller));
            let status = |part| pb::CopyStatus { chunk: 9, version: 3, in_doubt: true, part, verified: true };
            assert_eq!(report.chunks, [status(0), status(1)]);
            let failed = pb::FetchFailure { chunk: 9, index: 1, source: "s:2".into(), reason: 2 };
            assert_eq!(report.failed, [failed]);
            assert_eq!((report.lost, report.lost_parts), (vec![], vec![pb::PartRef { chunk: 9, index: 2 }]));
            talk.reported(arrived);
        }
        assert!(matches!(talk.next(&teller), Say::Wait));

        talk.beaten(
            &teller,
            &pb::HeartbeatReply { leader: true, want_full_report: true, ..Default::default() },
        );
        for _ in 0..2 {
            let full = report(talk.next(&teller));
            assert!(full.full && full.last);
            talk.reported(false);
        }
    }
}
