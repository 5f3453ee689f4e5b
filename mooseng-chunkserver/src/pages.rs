//! Memory straight from the kernel and straight back to it (`mmap(2)`): an allocator keeps what another thread frees.
#![expect(unsafe_code, reason = "system calls without a safe wrapper, and the slice over what they give")]

use std::mem::ManuallyDrop;
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

/// The size of a huge page, in bytes, and what its address is a multiple of.
const HUGE: usize = 2 << 20;

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

    /// The two halves of a huge page, where the kernel has one: its bytes lie one after another in the machine's memory,
    /// so a disk takes a half in one request. Of single pages, each is a segment of its own, and few disks take 256.
    ///
    /// # Panics
    /// As [`Pages::new`].
    pub(crate) fn halves() -> [Self; 2] {
        let around = Self::new(2 * HUGE);
        let before = around.start.align_offset(HUGE);
        let (_, page) = around.split_at(before);
        let (page, _) = page.split_at(HUGE);
        // SAFETY: this advice changes no byte of the memory, which is our own. A kernel without huge pages refuses it.
        unsafe { libc::madvise(page.start.as_ptr().cast(), page.length, libc::MADV_HUGEPAGE) };
        let (first, second) = page.split_at(HUGE / 2);
        [first, second]
    }

    /// The first `at` bytes and the others; either may be none. `at` is a multiple of a page's size.
    fn split_at(self, at: usize) -> (Self, Self) {
        assert!(at <= self.length, "pages are split within them");
        let whole = ManuallyDrop::new(self);
        let rest = whole.length - at;
        // SAFETY: it is not beyond the end of the mapping.
        let middle = unsafe { whole.start.add(at) };
        (Self { start: whole.start, length: at }, Self { start: middle, length: rest })
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
        if self.length == 0 {
            return;
        }
        // SAFETY: these pages were mapped by `new`, no other value has them, and nothing refers to them any more.
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

    #[test]
    fn the_halves_of_a_huge_page_lie_side_by_side_and_are_given_back_one_by_one() {
        let [mut first, mut second] = Pages::halves();
        assert!(first.as_ptr().addr().is_multiple_of(HUGE));
        assert_eq!((first.len(), second.len()), (HUGE / 2, HUGE / 2));
        assert_eq!(first.as_ptr_range().end, second.as_ptr());
        first.fill(1);
        second.fill(2);
        drop(first);
        assert!(second.iter().all(|byte| *byte == 2), "the other half is still there");
    }
}
