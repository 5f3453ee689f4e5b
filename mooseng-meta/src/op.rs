//! The commands, one family per file. Each refuses first and changes second: after its first change there is no way
//! back, so there is no `?` either.

mod attr;
mod commit;
mod create;
mod grant;
mod inline;
mod lease;
mod member;
mod reap;
mod rename;
mod replica;
mod unlink;
mod xattr;

use mooseng_types::{FsError, INLINE_MAX, InodeId, TimeNs};

use crate::command::Command;
use crate::response::Response;
use crate::tables::Tables;

impl Command {
    /// Refuses what has a length that no command may have, so that it is never proposed.
    pub fn check(&self) -> Result<(), FsError> {
        match self {
            Self::Create { kind, target, .. } => create::check(*kind, target),
            Self::SetXattr { name, value, .. } => xattr::check(name, value),
            Self::RemoveXattr { name, .. } => xattr::check(name, &[]),
            Self::WriteInline { data, .. } if data.is_empty() || data.len() as u64 > INLINE_MAX => {
                Err(FsError::Invalid)
            }
            _ => Ok(()),
        }
    }
}

/// Carries out a command. After an `Err` nothing has changed.
pub(crate) fn run(t: &mut Tables, stamp: TimeNs, command: &Command) -> Result<Response, FsError> {
    match command {
        Command::Create { .. }
        | Command::Link { .. }
        | Command::Unlink { .. }
        | Command::Rmdir { .. }
        | Command::Rename { .. } => run_on_name(t, stamp, command),
        Command::SetAttr { inode, change, session } => attr::set(t, stamp, *inode, change, *session),
        Command::SetXattr { inode, name, value, mode } => {
            xattr::set(t, stamp, *inode, xattr::Value { name, value, mode: *mode })
        }
        Command::RemoveXattr { inode, name } => xattr::remove(t, stamp, *inode, name),
        Command::GrantWrite { session, inode, index, candidates, failed, up, nothing_written, renew } => {
            let (nothing_written, renew) = (*nothing_written, *renew);
            let servers = grant::Servers { candidates, failed, up, nothing_written, renew };
            grant::grant(t, *session, grant::Place { inode: *inode, index: *index }, servers)
        }
        Command::CommitWrite { session, inode, size_at_least, mtime, chunks } => {
            let change =
                commit::Change { size_at_least: *size_at_least, mtime: mtime.unwrap_or(stamp), stamp };
            commit::commit(t, *session, *inode, change, chunks)
        }
        Command::WriteInline { inode, offset, append, data } => {
            let at = if *append { inline::At::End } else { inline::At::Offset(*offset) };
            inline::write(t, stamp, *inode, at, data)
        }
        Command::ReleaseLease { session, inode, indexes } => lease::release(t, *session, *inode, indexes),
        Command::AddReplica { chunk, version, server } => replica::add(t, *chunk, *version, *server),
        Command::RemoveReplica { chunk, server } => replica::remove(t, *chunk, *server),
        Command::ReapOrphans { inodes } => Ok(reap::orphans(t, inodes)),
        Command::ForgetDead { chunks } => Ok(reap::forget(t, chunks)),
        Command::Bootstrap { .. }
        | Command::OpenSession { .. }
        | Command::CloseSession { .. }
        | Command::RegisterServer { .. } => run_on_cluster(t, stamp, command),
    }
}

fn run_on_cluster(t: &mut Tables, stamp: TimeNs, command: &Command) -> Result<Response, FsError> {
    match command {
        Command::Bootstrap { cluster, copies } => member::bootstrap(t, stamp, *cluster, *copies),
        Command::OpenSession { client, name } => Ok(member::open_session(t, client, name)),
        Command::CloseSession { session } => Ok(member::close_session(t, *session)),
        Command::RegisterServer { uuid, name, address } => {
            Ok(member::register_server(t, *uuid, name, address))
        }
        _ => Err(FsError::NotSupported),
    }
}

fn run_on_name(t: &mut Tables, stamp: TimeNs, command: &Command) -> Result<Response, FsError> {
    match command {
        Command::Create { parent, name, kind, mode, uid, gid, rdev, target } => {
            let new = create::New { kind: *kind, mode: *mode, uid: *uid, gid: *gid, rdev: *rdev, target };
            create::create(t, stamp, *parent, name, &new)
        }
        Command::Link { inode, new_parent, new_name } => {
            create::link(t, stamp, *inode, *new_parent, new_name)
        }
        Command::Unlink { parent, name } => unlink::unlink(t, stamp, *parent, name),
        Command::Rmdir { parent, name } => unlink::rmdir(t, stamp, *parent, name),
        Command::Rename { parent, name, new_parent, new_name, mode } => {
            let old = rename::Place { dir: *parent, name };
            let new = rename::Place { dir: *new_parent, name: new_name };
            rename::rename(t, stamp, old, new, *mode)
        }
        _ => Err(FsError::NotSupported),
    }
}

/// How a directory's counts change.
#[derive(Clone, Copy)]
struct DirChange {
    /// More entries.
    entries: i64,
    /// More subdirectories.
    subdirs: i32,
}

/// Notes in a directory that its entries have changed.
fn change_dir(t: &mut Tables, stamp: TimeNs, dir: InodeId, change: DirChange) {
    let Some(mut row) = t.inode(dir) else { return };
    row.size = row.size.saturating_add_signed(change.entries);
    row.nlink = row.nlink.saturating_add_signed(change.subdirs);
    row.touch(stamp);
    t.put_inode(dir, &row);
}
