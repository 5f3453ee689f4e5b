//! System calls that have no safe wrapper: a `close(2)` whose answer counts, shared mappings, and threads with
//! descriptors of their own.
#![expect(
    unsafe_code,
    reason = "five system calls without a safe wrapper, each used as its manual page has it"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, IntoRawFd as _};
use std::thread::JoinHandle;

/// Closes a file and answers what `close(2)` did: the last chance to hear of an error. Dropping a `File` says nothing.
pub(super) fn close(file: File) -> io::Result<()> {
    let descriptor = file.into_raw_fd();
    // SAFETY: `into_raw_fd` has made us the only owner, and the number is not used again.
    answer(unsafe { libc::close(descriptor) })
}

/// A part of a file in memory, shared with everybody who has the file.
#[derive(Debug)]
pub(super) struct Mapping {
    start: *mut libc::c_void,
    length: usize,
}

impl Mapping {
    /// Maps `length` bytes from `offset`, a multiple of the page size. The file must reach that far, and must not be cut
    /// meanwhile: a page beyond the end of a file is a SIGBUS.
    pub(super) fn shared(file: &File, offset: u64, length: usize) -> io::Result<Mapping> {
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice overlaps nothing of ours.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), length, access, libc::MAP_SHARED, file.as_raw_fd(), offset)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { start, length })
    }

    /// Stores `bytes` at `at`; what does not fit is left out.
    pub(super) fn store(&mut self, at: usize, bytes: &[u8]) {
        let at = at.min(self.length);
        let count = bytes.len().min(self.length - at);
        let to = self.start.cast::<u8>().wrapping_add(at);
        // SAFETY: `at + count` is within the mapping, which lives as long as `self`; the source is a slice elsewhere.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, count) };
    }

    /// `msync(2)`: returns when what was stored is in the file.
    pub(super) fn sync(&self) -> io::Result<()> {
        // SAFETY: start and length are those of a mapping of ours.
        answer(unsafe { libc::msync(self.start, self.length, libc::MS_SYNC) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: start and length are those of a mapping of ours, and nobody has a pointer into it.
        unsafe { libc::munmap(self.start, self.length) };
    }
}

/// Starts a thread with a table of descriptors of its own (`unshare(2)`, `CLONE_FILES`).
///
/// Every program that a process starts begins as a copy of the process, open files included, and the kernel flushes each
/// of them when the copy gives it up. Where the files' servers are down, that takes as long as a `close` would, and
/// nothing starts meanwhile. What such a thread opens is in no copy that another thread makes.
///
/// The number of a descriptor means another file in another thread, or none: `work` takes no file along and hands none
/// out.
pub(super) fn spawn_with_own_descriptors(work: impl FnOnce() + Send + 'static) -> JoinHandle<io::Result<()>> {
    std::thread::spawn(|| {
        // SAFETY: the call touches no memory; the thread has just begun, and neither takes files along nor hands any out.
        answer(unsafe { libc::unshare(libc::CLONE_FILES) })?;
        work();
        Ok(())
    })
}

fn answer(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn what_is_stored_in_a_mapping_is_in_the_file() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 5000]).unwrap();
        let mut mapping = Mapping::shared(&file, 4096, 904).unwrap();
        mapping.store(900, b"abcdefgh");
        mapping.sync().unwrap();
        drop(mapping);
        let mut back = [0; 6];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut back, 4994).unwrap();
        assert_eq!(&back, b"\x07\x07abcd");
        close(file).unwrap();
    }

    #[test]
    fn what_a_thread_with_its_own_descriptors_opens_is_in_nobody_elses_table() {
        let (say, heard) = std::sync::mpsc::sync_channel(1);
        let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
        let thread = spawn_with_own_descriptors(move || {
            let file = tempfile::tempfile().unwrap();
            let metadata = file.metadata().unwrap();
            say.send((file.as_raw_fd(), (metadata.dev(), metadata.ino()))).unwrap();
            released.recv().unwrap();
            drop(file);
        });
        let (descriptor, theirs) = heard.recv().unwrap();
        let ours = std::fs::metadata(format!("/proc/self/fd/{descriptor}"));
        release.send(()).unwrap();
        thread.join().unwrap().unwrap();
        assert!(ours.map_or(true, |ours| (ours.dev(), ours.ino()) != theirs), "it is ours too");
    }
}
