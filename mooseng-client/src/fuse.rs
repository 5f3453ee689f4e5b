//! The kernel's requests, one call each: decode, call the client, reply.
//!
//! Long because the trait has one function for each kind of request and cannot be implemented in parts.

mod convert;
mod dir;
mod kernel;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};
use mooseng_types::{Attr, FileKind, FileName, FsError, NAME_MAX, SetAttr};

use crate::client::Client;
use crate::edge::inode::OpenFile;
use crate::file::Pages;
use crate::fs::{Caller, NewNode, RenameMode, XattrMode};
use crate::{ClientError, Result};
use convert::{errno, file_attr, id, kind_of_mode, set_time};
use dir::OpenDir;
use kernel::Kernel;

/// The largest write and read of one request.
const REQUEST_MAX: u32 = 1 << 20;
/// Requests of the kernel's own (reading ahead, writing back) that may wait.
const BACKGROUND_MAX: u16 = 64;
/// What `statfs(2)` counts in.
const STAT_BLOCK: u64 = 4096;
/// What is wanted of the kernel, each where it has it.
const CAPABILITIES: [InitFlags; 7] = [
    InitFlags::FUSE_ASYNC_READ,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_ASYNC_DIO,
    // Handles that go past the kernel's pages may be mapped all the same.
    InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
    InitFlags::FUSE_CACHE_SYMLINKS,
];

/// Open things by the number that the kernel knows them by.
#[derive(Debug)]
struct Handles<T> {
    open: RwLock<HashMap<u64, Arc<T>>>,
    next: AtomicU64,
}

impl<T> Handles<T> {
    fn new() -> Self {
        Self { open: RwLock::default(), next: AtomicU64::new(1) }
    }

    fn add(&self, thing: Arc<T>) -> FileHandle {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.write().unwrap_or_else(PoisonError::into_inner).insert(number, thing);
        FileHandle(number)
    }

    fn get(&self, handle: FileHandle) -> Result<Arc<T>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(&handle.0).cloned().ok_or(ClientError::Refused(FsError::Stale))
    }

    fn remove(&self, handle: FileHandle) -> Option<Arc<T>> {
        self.open.write().unwrap_or_else(PoisonError::into_inner).remove(&handle.0)
    }
}

/// The file system as fuser calls it.
#[derive(Debug)]
pub(crate) struct FuseFs {
    client: Arc<Client>,
    files: Handles<OpenFile>,
    dirs: Handles<Mutex<OpenDir>>,
    attr_timeout: Duration,
    entry_timeout: Duration,
    kernel: Arc<Kernel>,
    /// What is read past the kernel's pages can be mapped all the same.
    direct_maps: bool,
}

impl FuseFs {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        let attr_timeout = Duration::from_millis(client.config().attr_timeout_ms);
        let entry_timeout = Duration::from_millis(client.config().entry_timeout_ms);
        let kernel = Arc::new(Kernel::new(attr_timeout));
        let (files, dirs) = (Handles::new(), Handles::new());
        Self { client, files, dirs, attr_timeout, entry_timeout, kernel, direct_maps: false }
    }

    /// For answers that have one time for name and attributes.
    fn both_timeout(&self) -> Duration {
        self.attr_timeout.min(self.entry_timeout)
    }

    /// What makes the kernel forget, for whoever has mounted this.
    pub(crate) fn kernel(&self) -> Arc<Kernel> {
        Arc::clone(&self.kernel)
    }

    /// The kernel is being told these attributes.
    fn tell(&self, attr: &Attr) -> fuser::FileAttr {
        self.kernel.tell(attr, self.client.clock.monotonic());
        file_attr(attr)
    }

    fn entry(&self, result: Result<Attr>, reply: ReplyEntry) {
        match result {
            Ok(attr) => reply.entry_with_ttls(
                &self.attr_timeout,
                &self.entry_timeout,
                &self.tell(&attr),
                Generation(attr.generation),
            ),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn make(&self, parent: INodeNo, name: &OsStr, node: &NewNode) -> Result<Attr> {
        self.client.make(id(parent), &file_name(name)?, node)
    }

    fn open_file(&self, ino: INodeNo, flags: OpenFlags) -> Result<(FileHandle, FopenFlags)> {
        let file = self.client.open(id(ino))?;
        let mut answer = append_flags(flags.0);
        if let Some((attr, pages)) = file.as_opened() {
            // Asked before the kernel's beliefs are looked at: what is done with meanwhile is doubted there.
            let noted = self.client.foreign.is_noted(attr.inode);
            let trusted = self.kernel.opens(&attr, pages, self.client.clock.monotonic());
            if pages == Pages::Right {
                answer |= FopenFlags::FOPEN_KEEP_CACHE;
            }
            if (noted || !trusted) && self.direct_maps {
                answer |= FopenFlags::FOPEN_DIRECT_IO;
            }
        }
        // Nothing that a close would have to wait for.
        if flags.acc_mode() == OpenAccMode::O_RDONLY {
            answer |= FopenFlags::FOPEN_NOFLUSH;
        }
        Ok((self.files.add(file), answer))
    }

    /// Writes at the end. Where that is not where the kernel thought, it has to forget the length, and the pages there.
    fn append(&self, file: &OpenFile, believed: u64, data: &[u8]) -> Result<()> {
        let offset = self.client.append(file, data)?;
        if offset != believed {
            self.kernel.forget_attributes(file.inode(), self.client.clock.monotonic());
            self.client.foreign.note(file.inode());
        }
        Ok(())
    }

    fn create_file(
        &self,
        parent: INodeNo,
        name: &OsStr,
        node: &NewNode,
        flags: i32,
    ) -> Result<(Attr, FileHandle)> {
        let exclusive = flags & libc::O_EXCL != 0;
        let (attr, file) = self.client.create(id(parent), &file_name(name)?, node, exclusive)?;
        Ok((attr, self.files.add(file)))
    }
}

/// A handle that appends goes past the kernel's pages: only the masters know where the end is.
fn append_flags(flags: i32) -> FopenFlags {
    if flags & libc::O_APPEND != 0 { FopenFlags::FOPEN_DIRECT_IO } else { FopenFlags::empty() }
}

fn file_name(name: &OsStr) -> Result<FileName> {
    Ok(FileName::parse(name.as_bytes())?)
}

fn node(req: &Request, kind: FileKind, mode: u32) -> NewNode {
    NewNode {
        kind,
        mode: (mode & 0o7777) as u16,
        rdev: 0,
        target: Vec::new(),
        caller: Caller { uid: req.uid(), gid: req.gid() },
    }
}

/// POSIX ACLs are not kept; programs take this answer for "there are none".
fn is_acl(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"system.posix_acl_")
}

fn empty(result: Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

/// Answers a question for an attribute's bytes: with their number if there is no room, as `getxattr(2)` has it.
fn xattr_bytes(result: Result<impl AsRef<[u8]>>, size: u32, reply: ReplyXattr) {
    match result {
        Ok(bytes) => {
            let length = u32::try_from(bytes.as_ref().len()).unwrap_or(u32::MAX);
            match size {
                0 => reply.size(length),
                size if size < length => reply.error(Errno::ERANGE),
                _ => reply.data(bytes.as_ref()),
            }
        }
        Err(error) => reply.error(errno(&error)),
    }
}

impl Filesystem for FuseFs {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for capability in CAPABILITIES {
            // An older kernel goes without.
            let granted = config.add_capabilities(capability).is_ok();
            self.direct_maps |= granted && capability == InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP;
        }
        config.set_max_write(REQUEST_MAX).ok();
        if let Err(most) = config.set_max_readahead(REQUEST_MAX) {
            config.set_max_readahead(most).ok();
        }
        config.set_max_background(BACKGROUND_MAX).ok();
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(file_name(name).and_then(|name| self.client.lookup(id(parent), &name)), reply);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.client.getattr(id(ino)) {
            Ok(attr) => reply.attr(&self.attr_timeout, &self.tell(&attr)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = SetAttr {
            mode: mode.map(|mode| (mode & 0o7777) as u16),
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
        };
        // An empty change still asks for the attributes.
        let result = if change == SetAttr::default() {
            self.client.getattr(id(ino))
        } else {
            self.client.setattr(id(ino), change)
        };
        match result {
            Ok(attr) => reply.attr(&self.attr_timeout, &self.tell(&attr)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.client.readlink(id(ino)) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let result = kind_of_mode(mode)
            .and_then(|kind| self.make(parent, name, &NewNode { rdev, ..node(req, kind, mode) }));
        self.entry(result, reply);
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        self.entry(self.make(parent, name, &node(req, FileKind::Directory, mode)), reply);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(file_name(name).and_then(|name| self.client.unlink(id(parent), &name)), reply);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(file_name(name).and_then(|name| self.client.rmdir(id(parent), &name)), reply);
    }

    fn symlink(&self, req: &Request, parent: INodeNo, link_name: &OsStr, target: &Path, reply: ReplyEntry) {
        let target = target.as_os_str().as_bytes().to_vec();
        let link = NewNode { target, ..node(req, FileKind::Symlink, 0o777) };
        self.entry(self.make(parent, link_name, &link), reply);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mode = match flags {
            none if none.is_empty() => RenameMode::Replace,
            RenameFlags::RENAME_NOREPLACE => RenameMode::NoReplace,
            RenameFlags::RENAME_EXCHANGE => RenameMode::Exchange,
            _ => return reply.error(Errno::EINVAL),
        };
        let result = file_name(name).and_then(|name| {
            self.client.rename((id(parent), &name), (id(newparent), &file_name(newname)?), mode)
        });
        empty(result, reply);
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let result = file_name(newname).and_then(|name| self.client.link(id(ino), id(newparent), &name));
        self.entry(result, reply);
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.open_file(ino, flags) {
            Ok((handle, flags)) => reply.opened(handle, flags),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        match self.create_file(parent, name, &node(req, FileKind::File, mode), flags) {
            Ok((attr, handle)) => reply.created(
                &self.both_timeout(),
                &self.tell(&attr),
                Generation(attr.generation),
                handle,
                append_flags(flags),
            ),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.files.get(fh).and_then(|file| self.client.read(&file, offset, size.into())) {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.files.get(fh).and_then(|file| {
            if write_flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
                self.client.written_by_mapping(id(ino));
                self.client.write(&file, offset, data)
            } else if flags.0 & libc::O_APPEND != 0 {
                self.append(&file, offset, data)
            } else {
                self.client.write(&file, offset, data)
            }
        });
        match written {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        empty(self.files.get(fh).and_then(|file| self.client.flush(&file)), reply);
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        empty(self.files.get(fh).and_then(|file| self.client.fsync(&file)), reply);
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        if let Some(file) = self.files.remove(fh) {
            self.client.release(&file);
        }
        reply.ok();
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        empty(self.files.get(fh).and_then(|file| self.client.fallocate(&file, offset, length)), reply);
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let dir = OpenDir::new(id(ino));
        reply.opened(self.dirs.add(Arc::new(Mutex::new(dir))), FopenFlags::empty());
    }

    fn readdir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = self.list(fh, offset, false, |entry| {
            reply.add(entry.ino, entry.cookie, convert::file_type(entry.kind), OsStr::from_bytes(entry.name))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn readdirplus(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let listed = self.list(fh, offset, true, |entry| {
            let Some(attr) = &entry.attr else { return false };
            let name = OsStr::from_bytes(entry.name);
            let generation = Generation(attr.generation);
            reply.add(entry.ino, entry.cookie, name, &self.both_timeout(), &self.tell(attr), generation)
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        drop(self.dirs.remove(fh));
        reply.ok();
    }

    /// Every change of a directory is durable when it is answered.
    fn fsyncdir(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.client.statfs() {
            Ok(stats) => {
                let free = stats.free_bytes / STAT_BLOCK;
                let block = STAT_BLOCK as u32;
                let total = stats.total_bytes / STAT_BLOCK;
                // There is no limit on the number of objects; programs that check want to see room.
                let inodes_free = u64::from(u32::MAX);
                let inodes = stats.inodes.saturating_add(inodes_free);
                reply.statfs(total, free, free, inodes, inodes_free, block, NAME_MAX as u32, block);
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn setxattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        if is_acl(name) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let mode = match flags {
            0 => XattrMode::Any,
            libc::XATTR_CREATE => XattrMode::Create,
            libc::XATTR_REPLACE => XattrMode::Replace,
            _ => return reply.error(Errno::EINVAL),
        };
        empty(self.client.setxattr(id(ino), name.as_bytes(), value, mode), reply);
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if is_acl(name) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        xattr_bytes(self.client.getxattr(id(ino), name.as_bytes()), size, reply);
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self
            .client
            .listxattr(id(ino))
            .map(|names| names.iter().flat_map(|name| name.iter().copied().chain([0])).collect::<Vec<u8>>());
        xattr_bytes(names, size, reply);
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.client.removexattr(id(ino), name.as_bytes()), reply);
    }
}
