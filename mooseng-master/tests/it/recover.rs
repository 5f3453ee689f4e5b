//! A majority is lost for good, and the group is made anew from the master that is left.

use std::path::Path;
use std::time::Duration;

use mooseng_env::{Clock as _, SystemClock};
use mooseng_master::recover;
use mooseng_protocol::pb;
use mooseng_protocol::principal::Role;
use mooseng_protocol::transport::FrameStream;

use crate::failover::{mkdir, names, open_session};
use crate::world::{World, caller, hello, saying};

const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn status(world: &World, id: u64) -> pb::ClusterStatusReply {
    let (mut stream, _) = FrameStream::connect(&world.address(id), &caller(Role::Client), SECOND).unwrap();
    stream.call(&pb::ClusterStatusRequest {}, &[], SECOND).unwrap()
}

/// What a master says of itself.
pub(crate) fn own_role(world: &World, id: u64) -> String {
    let status = status(world, id);
    status.masters.iter().find(|it| it.id == id).map_or_else(|| "none".into(), |it| it.role.clone())
}

/// Three masters, each of which has `names`, all stopped; the third made anew and started.
fn world_with_a_group_made_anew() -> World {
    let mut world = World::new(3);
    let mut client = world.client();
    let session = open_session(&mut client, 1);
    for seq in 1..=20 {
        client.call(&mkdir(session, seq, &format!("d{seq:02}"))).unwrap();
    }
    // It has everything, and the others go on a little without it.
    client.wait_for("all have everything", |status| {
        let commit = status.masters.iter().map(|master| master.commit_index).max().unwrap();
        status.masters.len() == 3 && status.masters.iter().all(|master| master.applied_index >= commit)
    });
    world.stop(3);
    client.call(&mkdir(session, 21, "lost")).unwrap();
    world.stop(1);
    world.stop(2);
    let config = world.config(3);
    let plan = recover::plan(&config).unwrap();
    assert_eq!((plan.group.epoch, plan.left_out.len()), (1, 2));
    assert!(plan.stamp.is_some());
    recover::recover(&config, &plan).unwrap();
    world.start(3);
    world
}

#[test]
fn all_that_the_last_master_had_is_there_and_the_group_grows_again() {
    let mut world = world_with_a_group_made_anew();
    let mut client = world.client();
    assert_eq!(names(&mut client), (1..=20).map(|n| format!("d{n:02}")).collect::<Vec<_>>());
    let now = status(&world, 3);
    assert_eq!((now.epoch, now.masters.len()), (2, 1));
    let session = open_session(&mut client, 2);
    client.call(&mkdir(session, 1, "alone")).unwrap();
    for id in [1, 2] {
        world.wipe(id);
        world.start(id);
        client.wait_for("it asks to be let in", |status| status.joining.iter().any(|it| it.id == id));
        let request = pb::AddMasterRequest { master: id.to_string(), ..Default::default() };
        client.call(&request).unwrap();
        client.wait_for("it becomes a voter", |status| {
            status.masters.iter().any(|it| it.id == id && it.role == "follower")
        });
    }
    // The new ones have it all: the one that was recovered may go.
    world.stop(3);
    client.call(&mkdir(session, 2, "with the others")).unwrap();
    assert_eq!(names(&mut client).len(), 22);
    assert_eq!(client.call(&pb::CheckRequest {}).unwrap().violations, [""; 0]);
}

#[test]
fn masters_left_behind_hear_of_the_new_group_and_stop() {
    let mut world = world_with_a_group_made_anew();
    let mut client = world.client();
    client.wait_for("it leads alone", |status| status.epoch == 2);
    world.start(1);
    world.start(2);
    let begun = std::time::Instant::now();
    for id in [1, 2] {
        while own_role(&world, id) != "removed" {
            assert!(begun.elapsed() < Duration::from_secs(20), "{id}: {}", own_role(&world, id));
            SystemClock::default().sleep(Duration::from_millis(5));
        }
    }
    // Neither the one that was recovered nor what it has changed.
    let now = status(&world, 3);
    assert_eq!((now.epoch, now.masters.len()), (2, 1));
    assert_eq!(own_role(&world, 3), "leader");
    assert_eq!(names(&mut client).len(), 20);
}

/// What nobody can prevent, and what the rule in the documentation is for: two of three that do not reach the third are
/// a majority of the group they know.
#[test]
fn masters_left_behind_that_reach_nobody_serve_the_old_group_until_they_hear() {
    let mut world = world_with_a_group_made_anew();
    world.client().wait_for("it leads alone", |status| status.epoch == 2);
    world.stop(3);
    world.start(1);
    world.start(2);
    let mut client = world.client();
    let session = open_session(&mut client, 3);
    client.call(&mkdir(session, 1, "in the old group")).unwrap();
    assert_eq!(names(&mut client).len(), 22);
    world.start(3);
    let begun = std::time::Instant::now();
    let settled = |world: &World| {
        [(1, "removed"), (2, "removed"), (3, "leader")].iter().all(|(id, role)| own_role(world, *id) == *role)
    };
    while !settled(&world) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", [1, 2, 3].map(|id| own_role(&world, id)));
        SystemClock::default().sleep(Duration::from_millis(5));
    }
    let now = status(&world, 3);
    assert_eq!((now.epoch, now.masters.len()), (2, 1));
    assert_eq!(names(&mut world.client()).len(), 20);
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_master_with_an_old_image_of_its_directory_comes_back_as_a_new_one() {
    let mut world = World::new(3);
    let mut client = world.client();
    let all_have_everything = |status: &pb::ClusterStatusReply| {
        let commit = status.masters.iter().map(|master| master.commit_index).max().unwrap();
        status.masters.len() == 3 && status.masters.iter().all(|it| it.voter && it.applied_index >= commit)
    };
    client.wait_for("all have everything", all_have_everything);
    let session = open_session(&mut client, 1);
    client.call(&mkdir(session, 1, "before")).unwrap();
    let victim = if client.leader() == 3 { 2 } else { 3 };
    let image = tempfile::tempdir().unwrap();
    world.stop(victim);
    copy_tree(&world.data(victim), image.path());
    world.start(victim);
    for seq in 2..=50 {
        client.call(&mkdir(session, seq, &format!("d{seq:02}"))).unwrap();
    }
    client.wait_for("all have everything", all_have_everything);
    world.stop(victim);
    world.wipe(victim);
    copy_tree(image.path(), &world.data(victim));
    world.start(victim);
    world.loses_its_log(victim);
    assert!(world.data(victim).join("lost-log").exists());
    world.start(victim);
    client.wait_for("it is a voter again", |status| all_have_everything(status) && status.joining.is_empty());
    assert!(world.data(victim).join("damaged-1").exists() && !world.data(victim).join("lost-log").exists());
    assert_eq!(names(&mut client).len(), 50);
    assert_eq!(client.call(&pb::CheckRequest {}).unwrap().violations, [""; 0]);
}

#[test]
fn what_a_stranger_says_puts_no_master_out_of_service() {
    let world = World::new(3);
    let mut client = world.client();
    let session = open_session(&mut client, 1);
    for id in 1..=3 {
        let claim = |role| saying(pb::Hello { epoch: 99, node_id: 9, ..hello(role) });
        for role in [Role::Chunkserver, Role::Client, Role::Admin] {
            let refused =
                FrameStream::connect(&world.address(id), &claim(role), SECOND).map(drop).unwrap_err();
            assert!(refused.to_string().contains("epoch"), "{refused}");
        }
        let (mut stranger, _) =
            FrameStream::connect(&world.address(id), &claim(Role::Master), SECOND).unwrap();
        for from in 1..=4 {
            // A heartbeat of a leader that has committed what nobody has.
            let beat = pb::RaftMessage {
                kind: 8,
                to: id,
                from,
                term: 1 << 20,
                commit: 1 << 60,
                ..Default::default()
            };
            let view = pb::GroupView { epoch: 99, index: 1 << 60, members: Vec::new() };
            for epoch in [0, 1, 99] {
                let group = Some(view.clone());
                let said =
                    pb::RaftMessages { messages: vec![beat.clone()], group, epoch, ..Default::default() };
                stranger.send_one_way(&pb::RaftFrame { groups: vec![said] }).unwrap();
            }
        }
    }
    for seq in 1..=20 {
        client.call(&mkdir(session, seq, &format!("d{seq:02}"))).unwrap();
    }
    client.wait_for("all serve", |status| {
        status.masters.iter().all(|it| it.role == "leader" || it.role == "follower")
    });
    assert!((1..=3).all(|id| own_role(&world, id) != "removed"));
}
