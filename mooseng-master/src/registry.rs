//! The chunkservers as this master sees them now: who is up, how full, what each has reported. Soft state, rebuilt
//! from heartbeats and reports; never replicated.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use mooseng_meta::{ServerMode, ServerPlace, ServerRow};
use mooseng_protocol::door::{Requests, Snapshot};
use mooseng_types::{ChunkId, ChunkVersion, Part, ServerId};

use crate::conn::ConnId;
use crate::multiregion::placement::Candidate;

/// A server with so many requests that are not answered yet has too much to do: as many as fill the queue of a disk.
const UNDER_WAY_MAX: u64 = 1024;

/// A server that has not spoken for this long is down.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// A disk of a chunkserver, as the server tells of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Disk {
    /// Its size.
    pub total_bytes: u64,
    /// What it can still take.
    pub free_bytes: u64,
    /// It is out of use.
    pub failed: bool,
    /// Copies on it.
    pub copies: u64,
}

/// A copy, as its server tells of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Copy {
    /// The last version it has adopted.
    pub version: ChunkVersion,
    /// Its server stopped while it was written: what no sync covered may be lost.
    pub in_doubt: bool,
    /// Every block of this version was read and matched its checksum since this master was first told of it.
    pub verified: bool,
}

/// What a server tells of its copies: everything, in parts, or what has changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Everything.
    pub full: bool,
    /// The last part of everything.
    pub last: bool,
    /// Copies and parts that it has.
    pub copies: Vec<(Part, Copy)>,
    /// Those that it has no more.
    pub lost: Vec<Part>,
}

/// A chunkserver's present state.
#[derive(Debug, Default)]
pub struct KnownServer {
    /// Its name.
    pub name: String,
    /// Where it serves chunks.
    pub address: String,
    /// Where it stands.
    pub place: ServerPlace,
    /// What it is there for.
    pub mode: ServerMode,
    /// It has said where it stands since the state can keep that.
    pub has_placed: bool,
    /// The connection it keeps to this master.
    pub conn: Option<ConnId>,
    /// When it last spoke.
    pub heard: Option<Duration>,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// What has passed its door, as it told last.
    pub door: Option<Snapshot>,
    /// How long it took to answer, on average between the last two times that it told.
    latency: Option<Duration>,
    /// Its full report is in.
    pub reported: bool,
    /// What it has, once it has reported.
    pub copies: BTreeMap<Part, Copy>,
    /// Deletions ordered and not yet confirmed.
    pub deleting: BTreeSet<Part>,
    /// Deletions ordered and confirmed.
    pub confirmed: BTreeSet<Part>,
    recently_given: u64,
    report_parts: BTreeMap<Part, Copy>,
}

impl KnownServer {
    /// Whether it can be used.
    #[must_use]
    pub fn is_up(&self, now: Duration) -> bool {
        self.conn.is_some() && self.heard.is_some_and(|heard| now.saturating_sub(heard) < SILENCE_MAX)
    }

    /// Sums of what somebody else tells may be anything.
    fn sum(&self, of: impl Fn(&Disk) -> u64) -> u64 {
        self.disks.iter().filter(|disk| !disk.failed).map(of).fold(0, u64::saturating_add)
    }

    fn has_in_doubt(&self, chunk: ChunkId) -> bool {
        self.copies.get(&Part::whole(chunk)).is_some_and(|copy| copy.in_doubt)
    }

    /// It has this copy no more.
    fn lost(&mut self, part: Part) {
        self.copies.remove(&part);
        self.report_parts.remove(&part);
        if self.deleting.remove(&part) {
            self.confirmed.insert(part);
        }
    }

    /// Bytes of its working disks.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.sum(|disk| disk.total_bytes)
    }

    /// Bytes it can still take.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.sum(|disk| disk.free_bytes)
    }

    /// It tells what has passed its door; of that, requests of this kind say how soon it answers.
    pub fn tell_door(&mut self, door: Snapshot, kind: u16) {
        self.latency = door.mean_since(self.door.as_ref(), kind).or(self.latency);
        self.door = Some(door);
    }

    /// The machine it runs on, as far as its address says.
    #[must_use]
    pub fn host(&self) -> &str {
        self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host)
    }

    /// As placement sees it.
    #[must_use]
    pub fn candidate(&self, server: ServerId) -> Candidate<'_> {
        let under_way =
            |door: &Snapshot| door.requests.iter().map(Requests::under_way).fold(0, u64::saturating_add);
        Candidate {
            server,
            labels: &self.place.labels,
            region: &self.place.region,
            rack: &self.place.rack,
            host: self.host(),
            free_bytes: self.free_bytes(),
            recently_given: self.recently_given,
            latency: self.latency,
            is_overloaded: self.door.as_ref().is_some_and(|door| under_way(door) >= UNDER_WAY_MAX),
        }
    }
}

/// All chunkservers of the cluster.
#[derive(Debug, Default)]
pub struct Registry {
    servers: BTreeMap<ServerId, KnownServer>,
    /// Rises whenever copies may belong elsewhere than before.
    places: u64,
}

impl Registry {
    /// The servers that the state knows.
    #[must_use]
    pub fn of(servers: &[ServerRow]) -> Self {
        let mut registry = Self::default();
        registry.know_all(servers);
        registry
    }

    /// Takes over what the replicated state knows of a server.
    pub fn know(&mut self, row: &ServerRow) {
        let is_known = self.servers.contains_key(&row.server);
        let server = self.servers.entry(row.server).or_default();
        server.name.clone_from(&row.name);
        server.address.clone_from(&row.address);
        if !is_known || server.place != row.place || server.mode != row.mode {
            self.places += 1;
        }
        server.place.clone_from(&row.place);
        server.mode = row.mode;
    }

    /// Takes over all that the replicated state knows of servers: what it knows no more is gone here, too.
    pub fn know_all(&mut self, rows: &[ServerRow]) {
        rows.iter().for_each(|row| self.know(row));
        self.servers.retain(|id, _| rows.iter().any(|row| row.server == *id));
    }

    /// Another number than before where copies may belong elsewhere than before: a server is new, or it has other labels or
    /// another mode.
    #[must_use]
    pub fn places(&self) -> u64 {
        self.places
    }

    /// A server speaks over `conn`.
    pub fn heard(
        &mut self,
        id: ServerId,
        conn: ConnId,
        now: Duration,
        disks: Vec<Disk>,
    ) -> Option<&mut KnownServer> {
        let server = self.servers.get_mut(&id)?;
        if server.conn != Some(conn) {
            // A new connection may be a new process: what it has must be told again.
            server.conn = Some(conn);
            server.has_placed = false;
            server.reported = false;
            server.report_parts.clear();
            server.deleting.clear();
            server.confirmed.clear();
        }
        server.heard = Some(now);
        server.disks = disks;
        server.recently_given = 0;
        Some(server)
    }

    /// A connection has ended.
    pub fn closed(&mut self, conn: ConnId) {
        for server in self.servers.values_mut().filter(|server| server.conn == Some(conn)) {
            server.conn = None;
        }
    }

    /// Forgets all reports: another master leads, and deletions may be decided without this one.
    pub fn forget_reports(&mut self) {
        for server in self.servers.values_mut() {
            server.reported = false;
            server.report_parts.clear();
            server.copies.clear();
            server.deleting.clear();
            server.confirmed.clear();
        }
    }

    /// Deletions that were ordered and not confirmed are to be ordered again.
    pub fn forget_deletions(&mut self) {
        self.servers.values_mut().for_each(|server| server.deleting.clear());
    }

    /// The masters have agreed that these are gone everywhere.
    pub fn forget_confirmed(&mut self, parts: &[Part]) {
        for server in self.servers.values_mut() {
            for part in parts {
                server.confirmed.remove(part);
            }
        }
    }

    /// Takes in a report; `false` if the server is not known.
    pub fn report(&mut self, id: ServerId, report: Report) -> bool {
        let Some(server) = self.servers.get_mut(&id) else { return false };
        if report.full {
            server.report_parts.extend(report.copies);
            if report.last {
                server.copies = std::mem::take(&mut server.report_parts);
                server.reported = true;
            }
        } else {
            for (part, copy) in report.copies {
                server.copies.insert(part, copy);
                server.confirmed.remove(&part);
            }
        }
        for part in report.lost {
            server.lost(part);
        }
        true
    }

    /// Where new copies could go.
    pub fn candidates(&self, now: Duration, leave_out: &[ServerId]) -> Vec<Candidate<'_>> {
        let usable = self.servers.iter().filter(|(id, server)| {
            server.is_up(now) && server.mode == ServerMode::Normal && !leave_out.contains(id)
        });
        usable.map(|(id, server)| server.candidate(*id)).collect()
    }

    /// A new copy goes to `server`.
    pub fn given(&mut self, server: ServerId) {
        if let Some(server) = self.servers.get_mut(&server) {
            server.recently_given += 1;
        }
    }

    /// A server.
    #[must_use]
    pub fn get(&self, id: ServerId) -> Option<&KnownServer> {
        self.servers.get(&id)
    }

    /// A server, to be changed.
    pub fn get_mut(&mut self, id: ServerId) -> Option<&mut KnownServer> {
        self.servers.get_mut(&id)
    }

    /// All servers.
    pub fn iter(&self) -> impl Iterator<Item = (ServerId, &KnownServer)> {
        self.servers.iter().map(|(id, server)| (*id, server))
    }

    /// Whether some server, not counting `leave_out`, has not spoken to this master since it started.
    #[must_use]
    pub fn awaits(&self, leave_out: &[ServerId]) -> bool {
        self.servers.iter().any(|(id, server)| server.heard.is_none() && !leave_out.contains(id))
    }

    /// Those of `servers` that are up and, with `sure`, have told that they have a copy of `chunk`.
    #[must_use]
    pub fn up_with(&self, chunk: ChunkId, sure: bool, servers: &[ServerId], now: Duration) -> Vec<ServerId> {
        let part = Part::whole(chunk);
        let has = |server: &KnownServer| !sure || (server.reported && server.copies.contains_key(&part));
        let is_up =
            |id: &ServerId| self.servers.get(id).is_some_and(|server| server.is_up(now) && has(server));
        servers.iter().copied().filter(is_up).collect()
    }

    /// Whether it knows all of them. The root's group makes servers known; a master that leads another cell may not have
    /// heard of all of them yet.
    #[must_use]
    pub fn knows(&self, servers: &[ServerId]) -> bool {
        servers.iter().all(|id| self.servers.contains_key(id))
    }

    /// Addresses of `servers`, which have `chunk`: first those that are up and whose copy is whole, then those that are up,
    /// each in their order.
    #[must_use]
    pub fn addresses(&self, chunk: ChunkId, servers: &[ServerId], now: Duration) -> Vec<(ServerId, String)> {
        let mut known: Vec<_> = servers.iter().filter_map(|id| Some((*id, self.servers.get(id)?))).collect();
        known.sort_by_key(|(_, server)| (!server.is_up(now), server.has_in_doubt(chunk)));
        known.into_iter().map(|(id, server)| (id, server.address.clone())).collect()
    }

    /// What servers tell of a part, each that has told of everything, in their order.
    #[must_use]
    pub fn told(&self, part: Part) -> Vec<(ServerId, Copy)> {
        let has = |(id, server): (&ServerId, &KnownServer)| Some((*id, *server.copies.get(&part)?));
        self.servers.iter().filter_map(has).collect()
    }

    /// What a server has behind `after`, in order, at most `limit`.
    #[must_use]
    pub fn parts_of(&self, id: ServerId, after: Option<Part>, limit: usize) -> Vec<Part> {
        let from = after.map_or(Unbounded, Excluded);
        let copies =
            self.servers.get(&id).into_iter().flat_map(|server| server.copies.range((from, Unbounded)));
        copies.take(limit).map(|(part, _)| *part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> Registry {
        let mut registry = Registry::default();
        for id in [1, 2] {
            let server = ServerId::from_raw(id);
            registry.know(&ServerRow {
                server,
                uuid: [id as u8; 16],
                name: String::new(),
                address: format!("a{id}"),
                place: ServerPlace::default(),
                mode: ServerMode::Normal,
            });
        }
        registry
    }

    fn whole(chunk: u64) -> Part {
        Part::whole(ChunkId::from_raw(chunk))
    }

    fn copy(in_doubt: bool) -> Copy {
        Copy { version: ChunkVersion::from_raw(3), in_doubt, verified: false }
    }

    #[test]
    fn whole_copies_come_before_those_in_doubt_until_they_are_told_to_be_whole() {
        let mut registry = registry();
        let (one, two, now) = (ServerId::from_raw(1), ServerId::from_raw(2), Duration::from_secs(9));
        for (server, conn, in_doubt) in [(one, 1, true), (two, 2, false)] {
            registry.heard(server, ConnId::Framed(conn), now, Vec::new()).unwrap();
            let copies = (0..5).map(|raw| (whole(raw), copy(in_doubt))).collect();
            registry.report(server, Report { full: true, last: true, copies, lost: Vec::new() });
        }
        let chunk = ChunkId::from_raw(1);
        let first = |registry: &Registry| registry.addresses(chunk, &[one, two], now)[0].0;
        assert_eq!(first(&registry), two);
        assert_eq!(registry.told(whole(1)), [(one, copy(true)), (two, copy(false))]);
        registry.report(one, Report { copies: vec![(whole(1), copy(false))], ..Report::default() });
        assert_eq!(first(&registry), one);
        assert_eq!(registry.parts_of(one, None, 2), [whole(0), whole(1)]);
        assert_eq!(registry.parts_of(one, Some(whole(3)), 9), [whole(4)]);
    }

    #[test]
    fn what_a_server_tells_of_its_disks_cannot_overflow() {
        let mut registry = registry();
        let disk = Disk { total_bytes: u64::MAX, free_bytes: u64::MAX, ..Disk::default() };
        let server =
            registry.heard(ServerId::from_raw(1), ConnId::Framed(1), Duration::ZERO, vec![disk; 3]).unwrap();
        assert_eq!((server.total_bytes(), server.free_bytes()), (u64::MAX, u64::MAX));
    }

    fn disk(free_bytes: u64) -> Disk {
        Disk { total_bytes: 100, free_bytes, ..Disk::default() }
    }

    #[test]
    fn a_server_is_up_while_it_speaks_and_its_connection_lives() {
        let mut registry = registry();
        let (first, now) = (ServerId::from_raw(1), Duration::from_secs(100));
        registry
            .heard(first, ConnId::Framed(7), now, vec![disk(5), Disk { failed: true, ..disk(9) }])
            .unwrap();
        assert_eq!(registry.candidates(now, &[]).iter().map(|c| c.free_bytes).collect::<Vec<_>>(), [5]);
        assert_eq!(registry.candidates(now, &[first]), []);
        assert_eq!(registry.candidates(now + SILENCE_MAX, &[]), []);
        let chunk = ChunkId::from_raw(1);
        let order = registry.addresses(chunk, &[ServerId::from_raw(2), first], now);
        assert_eq!(order[0].1, "a1", "the one that is up comes first");
        registry.closed(ConnId::Framed(7));
        assert_eq!(registry.candidates(now, &[]), []);
    }

    #[test]
    fn a_full_report_counts_when_its_last_part_is_in() {
        let mut registry = registry();
        let server = ServerId::from_raw(1);
        registry.heard(server, ConnId::Framed(1), Duration::ZERO, Vec::new()).unwrap();
        let part = |raw, last| Report {
            full: true,
            last,
            copies: vec![(whole(raw), copy(false))],
            lost: Vec::new(),
        };
        assert!(registry.report(server, part(10, false)));
        assert!(!registry.get(server).unwrap().reported);
        assert!(registry.report(server, part(11, true)));
        assert!(registry.get(server).unwrap().reported);
        assert_eq!(registry.get(server).unwrap().copies.len(), 2);
        registry.report(server, Report { lost: vec![whole(10)], ..Report::default() });
        assert_eq!(registry.get(server).unwrap().copies.keys().copied().collect::<Vec<_>>(), [whole(11)]);
        assert!(!registry.report(ServerId::from_raw(9), Report::default()));
    }

    #[test]
    fn parts_are_known_beside_whole_copies_and_are_never_taken_for_them() {
        let mut registry = registry();
        let (server, now) = (ServerId::from_raw(1), Duration::from_secs(9));
        registry.heard(server, ConnId::Framed(1), now, Vec::new()).unwrap();
        let part = Part::new(ChunkId::from_raw(7), 3).unwrap();
        let has = |part, in_doubt| Report { copies: vec![(part, copy(in_doubt))], ..Report::default() };
        let lost = |part| Report { lost: vec![part], ..Report::default() };
        registry.report(server, has(part, false));
        assert_eq!(registry.told(whole(7)), []);
        registry.report(server, has(whole(7), true));
        registry.report(server, has(part, false));
        assert_eq!(registry.told(whole(7)), [(server, copy(true))], "the whole copy is in doubt still");
        registry.get_mut(server).unwrap().deleting.insert(whole(7));
        registry.report(server, lost(part));
        let after = registry.get(server).unwrap();
        assert!(
            after.deleting.contains(&whole(7)) && after.confirmed.is_empty(),
            "the order was for the copy"
        );
        assert_eq!(after.copies.keys().copied().collect::<Vec<_>>(), [whole(7)]);
        registry.report(server, lost(whole(7)));
        registry.report(server, has(part, false));
        let after = registry.get(server).unwrap();
        assert!(after.confirmed.contains(&whole(7)));
        assert_eq!(after.copies.keys().copied().collect::<Vec<_>>(), [part]);
    }
}
