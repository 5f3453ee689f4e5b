//! The cluster, its clients and its chunkservers.

use mooseng_types::{ChunkId, ClassId, ClusterId, FileKind, FsError, Level, ServerId, SessionId, TimeNs};

use super::{class, lease};
use crate::codec::v1::row::Number;
use crate::inode::InodeRow;
use crate::key;
use crate::response::Response;
use crate::server::{ServerMode, ServerPlace, ServerRow};
use crate::session::{SessionRecord, Window};
use crate::settings::Settings;
use crate::tables::Tables;

/// Open to everybody, as in MooseFS, so that whoever mounts a new cluster can begin.
const ROOT_MODE: u16 = 0o777;

/// Makes the root directory.
pub(crate) fn bootstrap(
    t: &mut Tables,
    stamp: TimeNs,
    cluster: ClusterId,
    copies: u8,
) -> Result<Response, FsError> {
    if t.settings.is_some() {
        return Err(FsError::Exists);
    }

    let settings = Settings { cluster, copies };
    t.settings = Some(settings);
    t.rows.put(&key::SETTINGS, settings.encode().into());
    let root = t.cell.root();
    let row = InodeRow {
        kind: FileKind::Directory,
        mode: ROOT_MODE,
        uid: 0,
        gid: 0,
        nlink: 2,
        rdev: 0,
        size: 0,
        atime: stamp,
        mtime: stamp,
        ctime: stamp,
        btime: stamp,
        parent: root,
        content: 0,
        xattr_names: 0,
        class: ClassId::from_raw(0),
    };
    t.put_inode(root, &row);
    t.counters.totals.inodes += 1;
    class::found(t);
    Ok(Response::Done)
}

/// The client's session, a new one if it has none.
pub(crate) fn open_session(t: &mut Tables, client: &[u8; 16], name: &str) -> Result<Response, FsError> {
    if let Some(known) = t.row::<Number>(&key::client(client)) {
        return Ok(Response::Session(known.session()));
    }
    let session = t.new_session()?;
    let record = SessionRecord { client: *client, name: name.to_owned() };
    t.rows.put(&key::client(client), Number(session.raw()).encode().into());
    t.rows.put(&key::session(session), record.encode().into());
    t.windows.insert(session, Window { acked_below: 0, highest: 0, dirty: true });
    Ok(Response::Session(session))
}

/// Ends a session with its leases and its stored answers; one that is gone already is fine.
pub(crate) fn close_session(t: &mut Tables, session: SessionId) -> Response {
    let Some(record) = t.row::<SessionRecord>(&key::session(session)) else { return Response::Done };
    let leases = t
        .rows
        .collect(&key::leases(session), &[], usize::MAX, |key, _| ChunkId::from_raw(key::number_at(key, 9)));
    for chunk in leases {
        let Some(row) = t.chunk(chunk) else { continue };
        let file_size = t.inode(row.inode).map_or(0, |file| file.size);
        lease::end_with_session(t, chunk, row, file_size);
    }
    for key in t.rows.collect(&key::responses(session), &[], usize::MAX, |key, _| key.to_vec()) {
        t.rows.delete_written_once(&key);
    }
    t.rows.delete(&key::client(&record.client));
    t.rows.delete(&key::session(session));
    t.rows.delete(&key::window(session));
    t.windows.remove(&session);
    Response::Done
}

/// The server's id, a new one if it has none; its name, address and place are those it came with last.
pub(crate) fn register_server(
    t: &mut Tables,
    uuid: [u8; 16],
    name: &str,
    address: &str,
    place: ServerPlace,
) -> Response {
    let known = t.row::<Number>(&key::server_uuid(&uuid)).and_then(Number::server);
    let server = known.unwrap_or_else(|| t.new_server());
    let mode = t.row::<ServerRow>(&key::server(server)).map_or(ServerMode::Normal, |row| row.mode);
    let row = ServerRow { server, uuid, name: name.to_owned(), address: address.to_owned(), place, mode };
    if known.is_none() {
        t.rows.put(&key::server_uuid(&uuid), Number(server.raw().into()).encode().into());
    }
    t.rows.put(&key::server(server), row.encode(t.level).into());
    Response::Server(server)
}

/// Says what a server is there for.
pub(crate) fn set_server_mode(
    t: &mut Tables,
    server: ServerId,
    mode: ServerMode,
) -> Result<Response, FsError> {
    let mut row = t.row::<ServerRow>(&key::server(server)).ok_or(FsError::NotFound)?;
    row.mode = mode;
    t.rows.put(&key::server(server), row.encode(t.level).into());
    Ok(Response::Done)
}

/// Makes a server unknown, unless a row of this cell counts a copy of its.
pub(crate) fn forget_server(t: &mut Tables, server: ServerId) -> Result<Response, FsError> {
    let row = t.row::<ServerRow>(&key::server(server)).ok_or(FsError::NotFound)?;
    let holds = !t.rows.collect(&key::held_by(server), &[], 1, |_, _| ()).is_empty();
    // Until the table is complete, it does not say that there is nothing.
    if holds || t.indexed_to().is_some() {
        return Err(FsError::NotEmpty);
    }
    t.rows.delete(&key::server(server));
    t.rows.delete(&key::server_uuid(&row.uuid));
    Ok(Response::Done)
}

/// From here on formats of this level are written. A level that the cluster has, or has left behind, changes nothing.
pub(crate) fn raise_level(t: &mut Tables, level: Level) -> Response {
    if level > t.level {
        t.level = level;
        t.rows.put(&key::LEVEL, Number(level.raw().into()).encode().into());
        class::found(t);
    }
    Response::Done
}
