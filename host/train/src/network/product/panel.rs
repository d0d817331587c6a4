//! Operands in the order in which a kernel reads them, and what a kernel is.

use super::{Into, View};

/// Columns of a panel of the right matrix.
pub(super) const COLS: usize = 32;

/// 64 bytes, one register or a row of a tile.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::network) struct Line(pub(in crate::network) [f32; 16]);

/// Part of an operand: `count` rows (or columns) from `first` on, and k from `start` on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Panel {
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) start: usize,
    pub(super) depth: usize,
}

/// Panels of both sides, their depth, the output with its stride, and how many rows and columns of it count.
pub(super) type Product = unsafe fn(*const Line, *const Line, usize, *mut f32, usize, (usize, usize), Into);

/// A way to multiply.
pub(super) struct Kernel {
    pub(super) name: &'static str,
    /// Rows of a panel of the left matrix.
    pub(super) rows: usize,
    /// k is filled up with zeros to a multiple of this.
    pub(super) depth: usize,
    /// Values of k that are multiplied at once: panels of them fit the cache.
    pub(super) block: usize,
    /// Bytes of a panel for each k.
    pub(super) lhs_bytes: usize,
    pub(super) rhs_bytes: usize,
    /// Packs at most `rows` rows, times a factor; the rest of the panel is 0.
    ///
    /// # Safety
    /// The processor has the kernel's instructions, the panel lies in the view, and there is room for it.
    pub(super) pack_lhs: unsafe fn(View<'_>, Panel, f32, *mut Line),
    /// Packs at most [`COLS`] columns; the rest of the panel is 0.
    ///
    /// # Safety
    /// As for the left matrix.
    pub(super) pack_rhs: unsafe fn(View<'_>, Panel, *mut Line),
    /// Multiplies two panels over a depth that [`Self::padded`] gave, into so many rows and columns.
    ///
    /// # Safety
    /// Between `enter` and `leave`, with whole panels, and with an output that nobody else uses.
    pub(super) product: Product,
    /// Called by each thread before products and after them.
    pub(super) enter: fn(),
    pub(super) leave: fn(),
}

impl Kernel {
    /// Depth of a panel for `depth` values of k.
    pub(super) fn padded(&self, depth: usize) -> usize {
        depth.next_multiple_of(self.depth)
    }

    /// Lines of a panel of the left matrix.
    pub(super) fn lhs_lines(&self, depth: usize) -> usize {
        (self.padded(depth) * self.lhs_bytes).div_ceil(64)
    }

    /// Lines of a panel of the right matrix.
    pub(super) fn rhs_lines(&self, depth: usize) -> usize {
        (self.padded(depth) * self.rhs_bytes).div_ceil(64)
    }
}
