//! Work shared out in pieces whose number and borders never depend on threads.

use std::sync::Mutex;

use stockade_kernels::Pool;

/// Rows of elementwise work that one task takes.
pub(super) const ROWS: usize = 64;

/// Calls `work(i, piece)` once for each piece, spread over the pool.
pub(super) fn each<T: Send>(pool: &Pool, pieces: impl IntoIterator<Item = T>, work: impl Fn(usize, T) + Sync) {
    let slots: Vec<_> = pieces.into_iter().map(|piece| Mutex::new(Some(piece))).collect();
    pool.run(slots.len(), &|i| {
        let piece = slots[i].lock().unwrap_or_else(|e| e.into_inner()).take();
        if let Some(piece) = piece {
            work(i, piece);
        }
    });
}

/// A slice whose disjoint parts, strided rows among them, are written by different tasks.
#[derive(Clone, Copy)]
pub(super) struct Shards<'a> {
    start: *mut f32,
    len: usize,
    borrow: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: access goes only through `part` and `pointer`, whose callers promise disjoint parts.
unsafe impl Sync for Shards<'_> {}
// SAFETY: as above.
unsafe impl Send for Shards<'_> {}

impl<'a> Shards<'a> {
    pub(super) fn new(slice: &'a mut [f32]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), borrow: std::marker::PhantomData }
    }

    /// The elements `first..first + len`.
    ///
    /// # Safety
    /// No two live results may overlap.
    #[allow(clippy::mut_from_ref, reason = "that is the purpose: disjoint parts, by the caller's promise")]
    pub(super) unsafe fn part(&self, first: usize, len: usize) -> &'a mut [f32] {
        assert!(first <= self.len && len <= self.len - first, "shard outside its slice");
        // SAFETY: inside the slice by the assertion, not aliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(first), len) }
    }

    /// Where a matrix of `rows` rows of `cols` elements, `stride` apart, begins; anywhere if it is empty.
    pub(super) fn pointer(&self, first: usize, rows: usize, cols: usize, stride: usize) -> *mut f32 {
        if rows == 0 || cols == 0 {
            return self.start;
        }
        assert!(first + (rows - 1) * stride + cols <= self.len, "matrix outside its slice");
        // SAFETY: inside the slice by the assertion.
        unsafe { self.start.add(first) }
    }
}
