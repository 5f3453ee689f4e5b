//! Memory straight from the kernel and straight back to it (`mmap(2)`): an allocator keeps what another thread frees.
#![expect(
    unsafe_code,
    reason = "three system calls without a safe wrapper, and the slice over what they give"
)]

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// A piece of memory of its own, zeroed, at the beginning of a page.
#[derive(Debug)]
pub(crate) struct Pages {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory belongs to this value alone, as that of a `Box<[u8]>` does.
unsafe impl Send for Pages {}
// SAFETY: shared references give shared slices only.
unsafe impl Sync for Pages {}

impl Pages {
    /// `length` bytes, which must not be 0.
    ///
    /// # Panics
    /// If the kernel has no more memory: what an allocator does, too.
    pub(crate) fn new(length: usize) -> Self {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that there is.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, access, flags, -1, 0) };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => Self { start, length },
            _ => panic!("no memory for a buffer of {length} bytes: {}", std::io::Error::last_os_error()),
        }
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping is that long, readable, zeroed by the kernel, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, writable, and `self` is borrowed for nobody else.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: this very mapping was made by `new`, and nothing refers to it any more.
        let result = unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
        debug_assert_eq!(result, 0, "a mapping of its own can be given back");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_zero_aligned_and_their_own() {
        let mut a = Pages::new(1 << 20);
        let b = Pages::new(100);
        assert!(a.as_ptr().addr().is_multiple_of(4096) && a.iter().all(|byte| *byte == 0));
        a.fill(7);
        assert_eq!((a.len(), b.len(), a[1_000_000], b[99]), (1 << 20, 100, 7, 0));
    }
}
