//! Memory for packed weights and KV pages: zeroed, page-aligned, on 2 MiB pages where the system gives them.
//!
//! Small buffers are carved from shared regions, since a matrix of a small model is smaller than one huge
//! page and the gain (fewer page walks while streaming weights) only comes with whole ones. A region goes
//! back to the system when the last buffer inside it is dropped.

use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use crate::KernelError;

const HUGE_PAGE: usize = 2 << 20;
/// Size of a shared region.
const REGION: usize = 16 << 20;
/// Buffers from this size on have a region of their own.
const OWN_REGION: usize = 4 << 20;
/// Buffers begin at cache lines.
const LINE: usize = 64;

/// A zeroed run of bytes, 64-byte aligned.
pub(crate) struct Buffer {
    start: NonNull<u8>,
    len: usize,
    _region: Arc<Region>,
}

// SAFETY: the buffer owns its bytes exclusively, like a boxed slice.
unsafe impl Send for Buffer {}
// SAFETY: shared access only reads, like a boxed slice.
unsafe impl Sync for Buffer {}

/// The region that small buffers are carved from, and how many of its bytes are given out.
static CURRENT: Mutex<Option<(Arc<Region>, usize)>> = Mutex::new(None);

impl Buffer {
    /// # Errors
    /// [`KernelError::Memory`] if the system refuses.
    pub fn zeroed(len: usize) -> Result<Self, KernelError> {
        let error = KernelError::Memory { bytes: len };
        let Some(rounded) = len.max(1).checked_next_multiple_of(LINE) else {
            return Err(error);
        };
        if rounded >= OWN_REGION {
            let region = Arc::new(Region::map(rounded).ok_or(error)?);
            return Ok(Self { start: region.start, len, _region: region });
        }
        let mut current = CURRENT.lock().unwrap_or_else(|e| e.into_inner());
        if current.as_ref().is_none_or(|(region, used)| region.len - used < rounded) {
            *current = Some((Arc::new(Region::map(REGION).ok_or(KernelError::Memory { bytes: len })?), 0));
        }
        let Some((region, used)) = current.as_mut() else {
            return Err(error);
        };
        // SAFETY: `used + rounded` lies inside the region by the check above.
        let start = unsafe { region.start.add(*used) };
        *used += rounded;
        Ok(Self { start, len, _region: Arc::clone(region) })
    }
}

impl std::ops::Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes from `start` are mapped, initialised and owned by this buffer.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

/// Zeroed memory from the system, returned to it on drop.
struct Region {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a region is only an address range; its bytes belong to the buffers carved from it.
unsafe impl Send for Region {}
// SAFETY: as for `Send`.
unsafe impl Sync for Region {}

#[cfg(unix)]
impl Region {
    fn map(len: usize) -> Option<Self> {
        let len = len.checked_next_multiple_of(HUGE_PAGE)?;
        let padded = len.checked_add(HUGE_PAGE)?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
        // SAFETY: a fresh anonymous mapping touches no existing memory.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), padded, access, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return None;
        }
        let raw: *mut u8 = address.cast();
        let before = raw.align_offset(HUGE_PAGE);
        let start = raw.wrapping_add(before);
        // SAFETY: both ranges are the unused ends of the mapping made above.
        unsafe {
            if before > 0 {
                libc::munmap(raw.cast(), before);
            }
            libc::munmap(start.wrapping_add(len).cast(), HUGE_PAGE - before);
        }
        #[cfg(target_os = "linux")]
        // SAFETY: advice about our own mapping; a refusal changes nothing.
        unsafe {
            libc::madvise(start.cast(), len, libc::MADV_HUGEPAGE);
        }
        NonNull::new(start).map(|start| Self { start, len })
    }
}

#[cfg(unix)]
impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `map` kept; no buffer refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(not(unix))]
impl Region {
    fn layout(len: usize) -> Option<std::alloc::Layout> {
        std::alloc::Layout::from_size_align(len, LINE).ok()
    }

    fn map(len: usize) -> Option<Self> {
        // SAFETY: `len` is never zero, see `Buffer::zeroed`.
        let start = unsafe { std::alloc::alloc_zeroed(Self::layout(len)?) };
        NonNull::new(start).map(|start| Self { start, len })
    }
}

#[cfg(not(unix))]
impl Drop for Region {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.len) {
            // SAFETY: allocated by `map` with the same layout.
            unsafe { std::alloc::dealloc(self.start.as_ptr(), layout) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_zeroed_aligned_and_do_not_overlap() {
        let sizes = [0, 1, 63, 64, 65, 5000, OWN_REGION - 1, OWN_REGION, OWN_REGION + 1, REGION + 1];
        let mut buffers: Vec<Buffer> = sizes.iter().map(|&n| Buffer::zeroed(n).unwrap()).collect();
        for (i, buffer) in buffers.iter_mut().enumerate() {
            assert_eq!(buffer.len(), sizes[i]);
            assert_eq!(buffer.as_ptr() as usize % LINE, 0);
            assert!(buffer.iter().all(|&b| b == 0), "buffer {i}");
            buffer.fill(i as u8 + 1);
        }
        for (i, buffer) in buffers.iter().enumerate() {
            assert!(buffer.iter().all(|&b| b == i as u8 + 1), "buffer {i}");
        }
    }

    #[test]
    fn absurd_size_is_refused() {
        assert!(matches!(Buffer::zeroed(usize::MAX - 5), Err(KernelError::Memory { .. })));
        assert!(matches!(Buffer::zeroed(1 << 60), Err(KernelError::Memory { .. })));
    }
}
