//! Groups of several cells in the same masters: each has its files and its ids, all share the log.

use std::fs;

use mooseng_protocol::pb;
use mooseng_types::{CellId, InodeId, SessionId};

use crate::world::{Client, World};

const CELLS: u16 = 3;

/// A session in a cell, whose leader is asked over a connection of its own.
struct User {
    client: Client,
    cell: CellId,
    session: u64,
    seq: u64,
}

impl User {
    fn new(world: &World, cell: u16) -> Self {
        let mut client = world.client();
        let cell = CellId::from_raw(cell);
        client.become_client(cell.raw() as u8);
        let open = pb::OpenSessionRequest {
            client_id: vec![cell.raw() as u8; 16].into(),
            cell: cell.raw().into(),
            ..Default::default()
        };
        let session = client.call(&open).unwrap().session;
        assert_eq!(SessionId::from_raw(session).cell(), cell);
        Self { client, cell, session, seq: 0 }
    }

    fn create(&mut self, name: &str) -> u64 {
        self.seq += 1;
        let meta = Some(pb::RequestMeta { session: self.session, seq: self.seq, acked_below: self.seq });
        let parent = self.cell.root().raw();
        let name = name.to_owned().into();
        let request = pb::CreateRequest { meta, parent, name, kind: 4, mode: 0o755, ..Default::default() };
        self.client.call(&request).unwrap().attr.unwrap().inode
    }

    fn lookup(&mut self, name: &str) -> Option<u64> {
        let request = pb::LookupRequest { parent: self.cell.root().raw(), name: name.to_owned().into() };
        self.client.call(&request).ok().map(|reply| reply.attr.unwrap().inode)
    }
}

fn users(world: &World) -> Vec<User> {
    (0..CELLS).map(|cell| User::new(world, cell)).collect()
}

#[test]
fn each_cell_has_its_files_and_ids_and_all_are_there_after_the_masters_have_started_again() {
    let mut world = World::with_cells(3, CELLS);
    let mut users = users(&world);
    let made: Vec<u64> = users.iter_mut().map(|user| user.create("d")).collect();
    let cells: Vec<CellId> = made.iter().map(|inode| InodeId::from_raw(*inode).cell()).collect();
    assert_eq!(cells, (0..CELLS).map(CellId::from_raw).collect::<Vec<_>>());
    users[1].create("only here");
    assert_eq!(users[0].lookup("only here"), None);
    let status = users[0].client.call(&pb::ClusterStatusRequest {}).unwrap();
    assert_eq!(status.cells.iter().map(|cell| cell.cell).collect::<Vec<_>>(), [0, 1, 2]);
    (1..=3).for_each(|id| world.stop(id));
    (1..=3).for_each(|id| world.start(id));
    for (user, inode) in users.iter_mut().zip(made) {
        user.client = world.client();
        assert_eq!(user.lookup("d"), Some(inode));
    }
    assert!(users[1].lookup("only here").is_some());
}

#[test]
fn a_master_that_was_away_gets_a_snapshot_of_each_cell_that_it_lacks_too_much_of() {
    let mut world = World::with_cells(3, CELLS);
    let mut users = users(&world);
    for user in &mut users {
        user.create("before");
    }
    world.stop(3);
    // The log keeps a few KiB of each group.
    for number in 0..400 {
        users[1].create(&format!("while it was away {number}"));
    }
    users[2].create("while it was away");
    world.start(3);
    let store = world.data(3).join("cell-0001/store.current");
    world.until("the snapshot has taken its place", || fs::read_to_string(&store).is_ok());
    world.until("it has all", || {
        let mut third = world.client_of(3);
        let of = |status: &pb::ClusterStatusReply| -> Vec<u64> {
            status.cells.iter().map(|cell| cell.applied_index).collect()
        };
        let ask = pb::ClusterStatusRequest {};
        let first = world.client_of(1).call(&ask).unwrap();
        of(&first).iter().zip(of(&third.call(&ask).unwrap())).all(|(first, third)| third + 1 >= *first)
    });
}

#[test]
fn a_master_whose_configuration_leaves_out_a_cell_that_is_in_its_log_does_not_start() {
    let mut world = World::with_cells(1, 2);
    drop(User::new(&world, 1));
    world.stop(1);
    world.cells = 1;
    let refused = format!("{:#}", world.try_start(1).unwrap_err());
    assert!(refused.contains("cell") && refused.contains("`cells`"), "{refused}");
}
