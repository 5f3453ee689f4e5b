//! Storage classes as administrators and clients see them.

use std::time::Duration;

use mooseng_meta::ClusterCommand;
use mooseng_protocol::pb;
use mooseng_protocol::status::CallError;
use mooseng_types::level::SUPPORTED;
use mooseng_types::{InodeId, Level};

use super::leases;
use crate::core::testing::Leader;
use crate::group::{Proposal, Ticket};

/// The connection of an administrator.
const ADMIN: u64 = 9;

/// A chunkserver with these labels in this rack.
fn serve(leader: &mut Leader, number: u8, labels: &[&str], rack: &str) -> u32 {
    let disk = pb::DiskStatus { total_bytes: 1 << 40, free_bytes: 1 << 40, ..Default::default() };
    let request = pb::RegisterServerRequest {
        uuid: vec![number; 16].into(),
        name: format!("s{number}"),
        address: format!("s{number}:1"),
        disks: vec![disk],
        labels: labels.iter().map(ToString::to_string).collect(),
        region: "eu".into(),
        rack: rack.into(),
    };
    leader.ask(100 + u64::from(number), &request).unwrap().server
}

fn class(name: &str, keep: &str) -> Option<pb::StorageClass> {
    Some(pb::StorageClass { name: name.into(), keep: keep.into(), ..Default::default() })
}

fn put(leader: &mut Leader, request: &pb::PutClassRequest) -> Result<pb::ClassStatus, String> {
    leader.ask(ADMIN, request).map(|reply| reply.class.unwrap()).map_err(|error| error.to_string())
}

fn create(leader: &mut Leader, name: &str, keep: &str) -> Result<pb::ClassStatus, String> {
    put(leader, &pb::PutClassRequest { class: class(name, keep), ..Default::default() })
}

fn set(leader: &mut Leader, name: &str, inodes: &[u64]) -> Result<u32, String> {
    let request = pb::SetClassRequest { name: name.into(), inodes: inodes.to_vec(), dry_run: false };
    leader.ask(ADMIN, &request).map(|reply| reply.changed).map_err(|error| error.to_string())
}

/// Two servers on SSDs in different racks, and two others.
fn leader() -> Leader {
    let mut leader = Leader::new();
    serve(&mut leader, 1, &["ssd", "A"], "r1");
    serve(&mut leader, 2, &["ssd"], "r2");
    serve(&mut leader, 3, &["B"], "r1");
    serve(&mut leader, 4, &["B"], "r2");
    leader
}

/// The servers that a new chunk of a new file in the root gets.
fn granted(leader: &mut Leader, session: u64, seq: u64, name: &'static str) -> Result<Vec<u32>, CallError> {
    let meta = leases::meta(session, seq);
    let it = pb::CreateRequest { meta, parent: 1, name: name.into(), kind: 8, ..Default::default() };
    let file = leader.ask(1, &it)?.attr.unwrap().inode;
    let reply = leader.ask(1, &leases::grant(session, seq + 1, file))?;
    let mut servers: Vec<u32> = reply.servers.iter().map(|server| server.server).collect();
    servers.sort_unstable();
    Ok(servers)
}

#[test]
fn a_new_chunk_goes_where_the_class_of_its_directory_wants_it() {
    let mut leader = leader();
    let session = leader.open(1);
    let made = create(&mut leader, "fast", "2ssd/[RACK]").unwrap();
    assert_eq!((made.id, made.objects), (3, Some(0)));
    let fit = &made.fits[0];
    assert_eq!((fit.copies, fit.placed, fit.matching, fit.losses_survived, fit.is_met), (2, 2, 2, 1, true));
    assert_eq!(set(&mut leader, "fast", &[InodeId::ROOT.raw(), 777]), Ok(1));
    for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
        assert_eq!(granted(&mut leader, session, 1 + 2 * at as u64, name).unwrap(), [1, 2]);
    }
    let change =
        pb::PutClassRequest { change: "fast".into(), class: class("fast", "2B"), ..Default::default() };
    assert_eq!(put(&mut leader, &change).unwrap().objects, Some(4));
    assert_eq!(granted(&mut leader, session, 7, "d").unwrap(), [3, 4]);
}

#[test]
fn a_strict_class_without_servers_has_no_space_and_a_standard_one_takes_others() {
    let mut leader = leader();
    let session = leader.open(1);
    for (name, goal) in [("strict", "2C:strict"), ("std", "2C")] {
        let request = pb::PutClassRequest { class: class(name, goal), force: true, ..Default::default() };
        assert!(!put(&mut leader, &request).unwrap().fits[0].is_met);
    }
    set(&mut leader, "strict", &[1]).unwrap();
    let refused = granted(&mut leader, session, 1, "a").unwrap_err();
    assert!(matches!(refused, CallError::Refused(mooseng_types::FsError::NoSpace)), "{refused}");
    set(&mut leader, "std", &[1]).unwrap();
    assert_eq!(granted(&mut leader, session, 3, "b").unwrap().len(), 2);
}

#[test]
fn what_cannot_be_fulfilled_is_refused_unless_forced_and_a_dry_run_says_why() {
    let mut leader = leader();
    let refused = create(&mut leader, "gold", "A,C").unwrap_err();
    assert!(
        refused
            .contains("class gold cannot be fulfilled: keep (A,C): copy 2 (C): no right server can be had"),
        "{refused}"
    );
    let mut request =
        pb::PutClassRequest { class: class("gold", "A,C"), dry_run: true, ..Default::default() };
    let status = put(&mut leader, &request).unwrap();
    assert_eq!((status.fits[0].is_met, status.fits[0].placed, status.fits[0].substituted), (false, 1, 1));
    assert_eq!(leader.core.state().classes().len(), 3, "a dry run makes nothing");
    request = pb::PutClassRequest { force: true, dry_run: false, ..request };
    assert_eq!(put(&mut leader, &request).unwrap().id, 3);
    for (keep, said) in [("A,", "keep \"A,\": at character 3"), ("@8+2", "erasure coding"), ("", "give keep")]
    {
        let refused = create(&mut leader, "other", keep).unwrap_err();
        assert!(refused.contains(said), "{refused}");
    }
    assert!(create(&mut leader, "gold", "2").unwrap_err().contains("mooseng class change gold"));
    let renamed =
        pb::PutClassRequest { change: "default".into(), class: class("x", "2"), ..Default::default() };
    assert!(put(&mut leader, &renamed).unwrap_err().contains("keeps its name"));
}

#[test]
fn a_class_goes_once_nothing_has_it() {
    let mut leader = leader();
    let remove = |leader: &mut Leader, name: &str, dry_run| {
        let request = pb::RemoveClassRequest { name: name.into(), dry_run };
        leader.ask(ADMIN, &request).map(drop).map_err(|error| error.to_string())
    };
    create(&mut leader, "gold", "A").unwrap();
    set(&mut leader, "gold", &[1]).unwrap();
    assert!(remove(&mut leader, "gold", false).unwrap_err().contains("1 objects have class gold"));
    set(&mut leader, "default", &[1]).unwrap();
    remove(&mut leader, "gold", true).unwrap();
    remove(&mut leader, "gold", false).unwrap();
    let unknown = remove(&mut leader, "gold", false).unwrap_err();
    assert!(unknown.contains("no class is called gold: there are default, 2CP, 3CP"), "{unknown}");
    assert!(remove(&mut leader, "default", false).unwrap_err().contains("stays"));
}

#[test]
fn the_choice_is_explained() {
    let mut leader = leader();
    create(&mut leader, "gold", "A,2B").unwrap();
    set(&mut leader, "gold", &[1]).unwrap();
    let reply = leader.ask(ADMIN, &pb::ExplainClassRequest { inodes: vec![1, 999] }).unwrap();
    let classes: Vec<&str> = reply.objects.iter().map(|object| object.class.as_str()).collect();
    assert_eq!((classes, reply.goal.as_str()), (vec!["gold", ""], "A,2B"));
    let mut asked: Vec<(u32, &str, &str)> =
        reply.chosen.iter().map(|it| (it.copy, it.asked.as_str(), it.name.as_str())).collect();
    asked.sort_unstable();
    assert_eq!(asked[0], (1, "A", "s1"));
    assert!(reply.chosen.iter().all(|it| it.right && it.region == "eu"));
    assert_eq!(reply.warnings, ["region eu has all 3 of 3 copies: it is the only region"]);
    let gone = leader.ask(ADMIN, &pb::ExplainClassRequest { inodes: vec![999] }).unwrap();
    assert_eq!((gone.objects[0].class.as_str(), gone.chosen.len()), ("", 0));
}

#[test]
fn below_the_level_of_classes_the_way_to_them_is_named_and_a_server_says_where_it_stands_once_it_is_reached()
{
    let levels = SUPPORTED.up_to(Level::IDENTITY).unwrap();
    let mut leader = Leader::founded_by(levels);
    let server = serve(&mut leader, 1, &["ssd"], "r1");
    let refused = create(&mut leader, "x", "2").unwrap_err();
    assert!(refused.contains("mooseng cluster upgrade"), "{refused}");
    let beat = |leader: &mut Leader| {
        let request = pb::HeartbeatRequest { server, ..Default::default() };
        leader.ask(101, &request).unwrap().register_again
    };
    assert!(!beat(&mut leader));
    leader.core.groups.root_mut().upgrade(SUPPORTED);
    let command = ClusterCommand::RaiseLevel { level: Level::CLASSES }.into();
    let proposal = Proposal { request: None, command, ticket: Ticket(u64::MAX) };
    leader.core.groups.root_mut().gather(proposal);
    leader.pass(Duration::from_millis(100));
    assert!(leader.core.state().servers()[0].place.labels.is_empty());
    assert!(beat(&mut leader));
    assert_eq!(serve(&mut leader, 1, &["ssd"], "r1"), server);
    assert_eq!(leader.core.state().servers()[0].place.rack, "r1");
    assert!(!beat(&mut leader));
}
