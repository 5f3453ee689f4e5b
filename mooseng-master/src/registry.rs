//! The chunkservers as this master sees them now: who is up, how full, what each has reported. Soft state, rebuilt
//! from heartbeats and reports; never replicated.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use mooseng_meta::{ServerPlace, ServerRow};
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
    /// Those of its whole copies that are in doubt.
    doubtful: BTreeSet<ChunkId>,
    /// Copies in doubt that it was ordered to fetch anew.
    refetching: BTreeSet<ChunkId>,
    /// Up to here its copies in doubt were looked at in this round.
    doubtful_to: Option<ChunkId>,
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
        self.doubtful.contains(&chunk)
    }

    /// It has this copy. Doubt ends with the fetching of a whole copy: that of a part is not.
    fn note(&mut self, part: Part, copy: Copy) {
        self.copies.insert(part, copy);
        if !part.is_whole() {
            return;
        }
        if copy.in_doubt {
            self.doubtful.insert(part.chunk());
        } else {
            self.doubtful.remove(&part.chunk());
            self.refetching.remove(&part.chunk());
        }
    }

    /// It has this copy no more.
    fn lost(&mut self, part: Part) {
        self.copies.remove(&part);
        self.report_parts.remove(&part);
        if self.deleting.remove(&part) {
            self.confirmed.insert(part);
        }
        if !part.is_whole() {
            return;
        }
        self.doubtful.remove(&part.chunk());
        self.refetching.remove(&part.chunk());
    }

    fn forget_copies(&mut self) {
        self.copies.clear();
        self.doubtful.clear();
        self.refetching.clear();
        self.doubtful_to = None;
    }

    /// The next of its copies in doubt, at most `limit` of them, each in its turn; those it is fetching anew left out.
    pub fn next_doubtful(&mut self, limit: usize) -> Vec<ChunkId> {
        let from = self.doubtful_to.take().map_or(Unbounded, Excluded);
        let looked: Vec<ChunkId> = self.doubtful.range((from, Unbounded)).take(limit).copied().collect();
        if looked.len() == limit {
            self.doubtful_to = looked.last().copied();
        }
        looked.into_iter().filter(|chunk| !self.refetching.contains(chunk)).collect()
    }

    /// It is to fetch a copy anew; `false` if it has enough to fetch already.
    pub fn refetch(&mut self, chunk: ChunkId, limit: usize) -> bool {
        self.refetching.len() < limit && self.refetching.insert(chunk)
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
}

impl Registry {
    /// The servers that the state knows.
    #[must_use]
    pub fn of(servers: &[ServerRow]) -> Self {
        let mut registry = Self::default();
        servers.iter().for_each(|row| registry.know(row));
        registry
    }

    /// Takes over what the replicated state knows of a server.
    pub fn know(&mut self, row: &ServerRow) {
        let server = self.servers.entry(row.server).or_default();
        server.name.clone_from(&row.name);
        server.address.clone_from(&row.address);
        server.place.clone_from(&row.place);
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
            server.refetching.clear();
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
            server.forget_copies();
            server.deleting.clear();
            server.confirmed.clear();
        }
    }

    /// Deletions that were ordered and not confirmed are to be ordered again.
    pub fn forget_deletions(&mut self) {
        self.servers.values_mut().for_each(|server| server.deleting.clear());
    }

    /// Copies that were to be fetched anew, and were not reported since, are to be ordered again.
    pub fn forget_refetching(&mut self) {
        self.servers.values_mut().for_each(|server| server.refetching.clear());
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
                server.forget_copies();
                for (part, copy) in std::mem::take(&mut server.report_parts) {
                    server.note(part, copy);
                }
                server.reported = true;
            }
        } else {
            for (part, copy) in report.copies {
                server.note(part, copy);
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
        let usable = self.servers.iter().filter(|(id, server)| server.is_up(now) && !leave_out.contains(id));
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

    /// Those of `servers` that are up.
    #[must_use]
    pub fn up(&self, servers: &[ServerId], now: Duration) -> Vec<ServerId> {
        let is_up = |id: &ServerId| self.servers.get(id).is_some_and(|server| server.is_up(now));
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

    /// Where a copy of `chunk` can be fetched from, and in which version: one of `servers` that is up and has it whole, in
    /// `version` or a later one.
    #[must_use]
    pub fn whole_copy(
        &self,
        chunk: ChunkId,
        version: ChunkVersion,
        servers: &[ServerId],
        now: Duration,
    ) -> Option<(String, ChunkVersion)> {
        servers.iter().find_map(|id| {
            let server = self.servers.get(id).filter(|server| server.is_up(now))?;
            let copy = server.copies.get(&Part::whole(chunk))?;
            if copy.in_doubt || copy.version < version {
                return None;
            }
            Some((server.address.clone(), copy.version))
        })
    }

    /// The servers that are up and have copies in doubt.
    #[must_use]
    pub fn in_doubt(&self, now: Duration) -> Vec<ServerId> {
        let doubts = |server: &KnownServer| server.is_up(now) && !server.doubtful.is_empty();
        self.servers.iter().filter(|(_, server)| doubts(server)).map(|(id, _)| *id).collect()
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
            });
        }
        registry
    }

    fn whole(chunk: u64) -> Part {
        Part::whole(ChunkId::from_raw(chunk))
    }

    fn copy(in_doubt: bool) -> Copy {
        Copy { version: ChunkVersion::from_raw(3), in_doubt }
    }

    #[test]
    fn whole_copies_come_first_and_those_in_doubt_are_refetched_one_after_the_other() {
        let mut registry = registry();
        let (one, two, now) = (ServerId::from_raw(1), ServerId::from_raw(2), Duration::from_secs(9));
        let chunk = ChunkId::from_raw;
        for (server, conn, in_doubt) in [(one, 1, true), (two, 2, false)] {
            registry.heard(server, ConnId::Framed(conn), now, Vec::new()).unwrap();
            let copies = (0..5).map(|raw| (whole(raw), copy(in_doubt))).collect();
            registry.report(server, Report { full: true, last: true, copies, lost: Vec::new() });
        }
        let first = |registry: &Registry| registry.addresses(chunk(1), &[one, two], now)[0].0;
        assert_eq!((first(&registry), registry.in_doubt(now)), (two, vec![one]));
        let version = ChunkVersion::from_raw;
        assert_eq!(
            registry.whole_copy(chunk(1), version(2), &[one, two], now),
            Some(("a2".into(), version(3)))
        );
        assert_eq!(registry.whole_copy(chunk(1), version(4), &[one, two], now), None);
        let server = registry.get_mut(one).unwrap();
        assert_eq!(server.next_doubtful(3), [chunk(0), chunk(1), chunk(2)]);
        assert!(server.refetch(chunk(1), 1) && !server.refetch(chunk(2), 1));
        assert_eq!(server.next_doubtful(3), [chunk(3), chunk(4)]);
        assert_eq!(server.next_doubtful(3), [chunk(0), chunk(2)]);
        let refetched = Report { copies: vec![(whole(1), copy(false))], ..Report::default() };
        registry.report(one, refetched);
        assert_eq!(first(&registry), one);
        assert!(registry.get_mut(one).unwrap().refetch(chunk(2), 1));
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
        let (server, now, chunk) = (ServerId::from_raw(1), Duration::from_secs(9), ChunkId::from_raw(7));
        registry.heard(server, ConnId::Framed(1), now, Vec::new()).unwrap();
        let part = Part::new(chunk, 3).unwrap();
        let has = |part, in_doubt| Report { copies: vec![(part, copy(in_doubt))], ..Report::default() };
        let lost = |part| Report { lost: vec![part], ..Report::default() };
        registry.report(server, has(part, false));
        assert_eq!(registry.whole_copy(chunk, ChunkVersion::from_raw(1), &[server], now), None);
        registry.report(server, has(part, true));
        assert_eq!(registry.in_doubt(now), [], "nothing fetches a part anew");
        registry.report(server, has(whole(7), true));
        registry.report(server, has(part, false));
        assert_eq!(registry.in_doubt(now), [server], "the whole copy is in doubt still");
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
