//! The group grows, shrinks, and takes back a master that has lost its disk, while it serves.

use std::collections::BTreeMap;
use std::time::Duration;

use mooseng_master::store::FjallStore;
use mooseng_meta::{Batch, MetaStore};
use mooseng_protocol::pb;

use crate::failover::{mkdir, names, open_session};
use crate::recover::{own_role, status as own_status};
use crate::world::{Client, World};

fn role(status: &pb::ClusterStatusReply, id: u64) -> Option<&str> {
    status.masters.iter().find(|master| master.id == id).map(|master| master.role.as_str())
}

fn all_up_to_date(status: &pb::ClusterStatusReply, roles: &[(u64, &str)]) -> bool {
    let commit = status.masters.iter().map(|master| master.commit_index).max().unwrap();
    status.masters.len() == roles.len()
        && roles.iter().all(|(id, wanted)| {
            let leads = *wanted == "follower" && role(status, *id) == Some("leader");
            leads || role(status, *id) == Some(wanted)
        })
        && status.masters.iter().all(|master| master.applied_index + 5 >= commit)
}

const VOTERS: [(u64, &str); 3] = [(1, "follower"), (2, "follower"), (3, "follower")];

#[test]
fn a_single_master_grows_to_three_and_back_and_serves_all_the_while() {
    let mut world = World::new(1);
    let mut client = world.client();
    let session = open_session(&mut client, 1);
    client.call(&mkdir(session, 1, "before")).unwrap();
    for _ in 0..2 {
        let id = world.start_another();
        client = world.client();
        client.wait_for("it asks to be let in", |status| status.joining.iter().any(|it| it.id == id));
        let request = pb::AddMasterRequest { master: format!("master-{id}"), ..Default::default() };
        let done = client.call(&request).unwrap().done;
        assert!(done.contains("voter"), "{done}");
        client.wait_for("it becomes a voter", |status| role(status, id) == Some("follower"));
        client.call(&mkdir(session, id, &format!("with {id}"))).unwrap();
    }
    client.wait_for("all have everything", |status| all_up_to_date(status, &VOTERS));
    // The one that founded the group is not needed any more.
    world.stop(1);
    client.call(&mkdir(session, 4, "without 1")).unwrap();
    client.wait_for("the one that was stopped is missed", |status| role(status, 1) == Some("unreachable"));
    let leader = client.leader();
    let other = if leader == 2 { 3 } else { 2 };
    let remove = |id: u64| pb::RemoveMasterRequest { master: id.to_string(), ..Default::default() };
    let refused = client.call(&remove(other)).unwrap_err().to_string();
    assert!(refused.contains("mend one of them first"), "{refused}");
    client.call(&remove(1)).unwrap();
    client.call(&remove(other)).unwrap();
    client.wait_for("one is left", |status| status.masters.len() == 1);
    world.stop(other);
    client.call(&mkdir(session, 5, "alone")).unwrap();
    assert_eq!(names(&mut client), ["alone", "before", "with 2", "with 3", "without 1"]);
}

#[test]
fn a_master_that_lost_its_disk_comes_back_by_itself() {
    let mut world = World::new(3);
    let mut client = world.client();
    let session = open_session(&mut client, 1);
    client.call(&mkdir(session, 1, "a")).unwrap();
    client.wait_for("all have everything", |status| all_up_to_date(status, &VOTERS));
    let lost = client.leader();
    world.stop(lost);
    world.wipe(lost);
    client.call(&mkdir(session, 2, "b")).unwrap();
    world.start(lost);
    // By its own word: until it is replaced, the others take its former life for it.
    client.wait_for("it is a voter again", |status| {
        own_role(&world, lost) == "follower" && all_up_to_date(status, &VOTERS)
    });
    let stores = std::fs::read_dir(world.data(lost)).unwrap().map(|entry| entry.unwrap());
    let stores =
        stores.filter(|it| it.path().is_dir() && it.file_name().to_string_lossy().starts_with("store"));
    assert_eq!(stores.count(), 1, "the store that the snapshot has replaced is gone");
    // Now it counts: with it, another may go.
    let leader = client.leader();
    world.stop(leader);
    client.call(&mkdir(session, 3, "c")).unwrap();
    assert_eq!(names(&mut client), ["a", "b", "c"]);
}

/// Three masters, each of which has 20 names.
fn world_with_names() -> (World, Client) {
    let world = World::new(3);
    let mut client = world.client();
    let session = open_session(&mut client, 1);
    for seq in 1..=20 {
        client.call(&mkdir(session, seq, &format!("d{seq:02}"))).unwrap();
    }
    client.wait_for("all have everything", |status| all_up_to_date(status, &VOTERS));
    (world, client)
}

fn damage_log(world: &World, id: u64) {
    let segment = world.data(id).join("log").join("0000000000000001.log");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[300] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
}

#[test]
fn an_empty_group_never_takes_the_place_of_one_whose_logs_are_all_damaged() {
    let (mut world, _) = world_with_names();
    // The second time there is nothing left to set aside, but what was.
    for _ in 0..2 {
        for id in 1..=3 {
            world.stop(id);
        }
        for id in 1..=3 {
            if !world.data(id).join("damaged-1").exists() {
                damage_log(&world, id);
            }
            world.start(id);
        }
        assert!((0..10_000).any(|_| own_status(&world, 1).joining.len() == 3), "all ask to be let in");
        // Each question is a turn in which it could be founded.
        for _ in 0..20 {
            let status = own_status(&world, 1);
            assert!(status.masters.is_empty(), "{status:?}");
        }
    }
}

#[test]
fn a_log_damaged_in_its_middle_is_set_aside_and_fetched_from_the_others() {
    let (mut world, mut client) = world_with_names();
    let damaged = client.leader() % 3 + 1;
    world.stop(damaged);
    damage_log(&world, damaged);
    world.start(damaged);
    client.wait_for("it is a voter again", |status| {
        own_role(&world, damaged) == "follower" && all_up_to_date(status, &VOTERS)
    });
    assert!(world.data(damaged).join("damaged-1").join("log").exists(), "nothing is thrown away");
    let leader = client.leader();
    world.stop(leader);
    assert_eq!(names(&mut client).len(), 20);
}

#[test]
fn a_learner_has_everything_and_never_votes() {
    let mut world = World::new(1);
    let mut client = world.client();
    let session = open_session(&mut client, 1);
    client.call(&mkdir(session, 1, "a")).unwrap();
    let id = world.start_another();
    client.wait_for("it asks to be let in", |status| !status.joining.is_empty());
    let dry = pb::AddMasterRequest { master: id.to_string(), learner: true, dry_run: true };
    client.call(&dry).unwrap();
    client.call(&pb::AddMasterRequest { dry_run: false, ..dry }).unwrap();
    client.wait_for("it follows", |status| all_up_to_date(status, &[(1, "follower"), (id, "learner")]));
    let transfer = pb::TransferLeaderRequest { master: id.to_string(), dry_run: false };
    let refused = client.call(&transfer).unwrap_err().to_string();
    assert!(refused.contains("learner"), "{refused}");
    // Its loss stops nobody.
    world.stop(id);
    client.call(&mkdir(session, 2, "b")).unwrap();
}

#[test]
fn leadership_goes_where_it_is_sent_and_a_stopping_leader_sends_it_on() {
    let mut world = World::new(3);
    let mut client = world.client();
    let session = open_session(&mut client, 1);
    client.wait_for("all have everything", |status| all_up_to_date(status, &VOTERS));
    let first = client.leader();
    let to = first % 3 + 1;
    let transfer = pb::TransferLeaderRequest { master: format!("master-{to}"), dry_run: false };
    client.call(&transfer).unwrap();
    client.wait_for("it leads", |status| role(status, to) == Some("leader"));
    client.call(&mkdir(session, 1, "a")).unwrap();
    let begun = std::time::Instant::now();
    world.stop(to);
    client.call(&mkdir(session, 2, "b")).unwrap();
    // An election after a time-out takes longer than the hand-over, which needs none.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(names(&mut client), ["a", "b"]);
}

#[test]
fn a_replica_whose_state_differs_is_taken_out_of_service_and_stays_out() {
    let mut world = World::new(3);
    let mut client = world.client();
    let session = open_session(&mut client, 1);
    client.wait_for("all have everything", |status| all_up_to_date(status, &VOTERS));
    let odd = client.leader() % 3 + 1;
    world.stop(odd);
    {
        // A bit of the root directory's row rots: its owner.
        let root = [b"i".as_slice(), &1u64.to_be_bytes()].concat();
        let store =
            FjallStore::open(&mooseng_master::store::StorePlace::new(world.data(odd)).current().unwrap());
        let store = store.unwrap();
        let mut row = store.get(&root).unwrap().to_vec();
        row[4] ^= 1;
        store.write(&Batch { applied_index: 0, rows: BTreeMap::from([(root, Some(row.into()))]) });
    }
    world.start(odd);
    for seq in 1..=200 {
        client.call(&mkdir(session, seq, &format!("d{seq}"))).unwrap();
    }
    let why = world.end_of(odd).to_string();
    assert!(why.contains(&format!("master {odd} differs")), "{why}");
    let again = world.try_start(odd).unwrap_err().to_string();
    assert!(again.contains("differs") && again.contains("move"), "{again}");
    // The others are alike, and go on.
    client.call(&mkdir(session, 201, "after")).unwrap();
    assert_eq!(names(&mut client).len(), 201);
    // What was said of it is not said of the one that comes in its place.
    world.wipe(odd);
    world.start(odd);
    client.wait_for("it is a voter again", |status| {
        own_role(&world, odd) == "follower" && all_up_to_date(status, &VOTERS)
    });
    for seq in 202..=300 {
        client.call(&mkdir(session, seq, &format!("d{seq}"))).unwrap();
    }
    assert_eq!(own_role(&world, odd), "follower");
}
