//! Matrix products: `out[r, c] = alpha * sum over k of lhs[r, k] * rhs[k, c]`, on top of what `out` holds if asked.
//!
//! Forward is `x W^T`, the input's gradient `dy W`, the weight's `dy^T x`: one function and views. Both operands are
//! packed once a product, in the order in which the processor's kernel reads them. The output is cut by its shape alone,
//! and each value sums over k in one order, so that results do not depend on threads.
//!
//! Kernels: [`avx512`] for f32, [`amx`] or [`bf16`] for bf16 where the processor has them; else the `gemm` crate, on values
//! rounded to bf16 if that is asked for.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod bf16;
mod panel;
mod plain;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod transpose;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use stockade_kernels::Pool;

use super::Precision;
use super::buffer::{Buffer, Buffers};
use super::parallel::Shards;
use panel::{COLS, Kernel, Panel};

pub(super) use panel::Line;

/// A matrix to read, rows and columns at any stride.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    values: &'a [f32],
    pub(super) rows: usize,
    pub(super) cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> View<'a> {
    /// `[rows, cols]`, row-major.
    pub(super) fn new(values: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(values, rows, cols, cols)
    }

    /// Rows of `cols` values that begin `stride` apart.
    pub(super) fn strided(values: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(rows == 0 || cols == 0 || (rows - 1) * stride + cols <= values.len(), "matrix outside its slice");
        Self { values, rows, cols, row_stride: stride, col_stride: 1 }
    }

    /// The transpose.
    pub(super) fn t(self) -> Self {
        Self {
            values: self.values,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }

    /// The columns before `col` and those from it on.
    pub(super) fn split_columns(self, col: usize) -> (Self, Self) {
        (self.part(0..self.rows, 0..col), self.part(0..self.rows, col..self.cols))
    }

    /// Rows and columns of these ranges.
    fn part(self, rows: Range<usize>, cols: Range<usize>) -> Self {
        let first = (rows.start * self.row_stride + cols.start * self.col_stride).min(self.values.len());
        Self { values: &self.values[first..], rows: rows.len(), cols: cols.len(), ..self }
    }

    /// Strides along rows and along columns.
    fn rows_side(&self) -> (usize, usize) {
        (self.row_stride, self.col_stride)
    }

    /// Strides along columns and along rows.
    fn cols_side(&self) -> (usize, usize) {
        (self.col_stride, self.row_stride)
    }
}

/// A matrix to write: rows of `cols` values that begin `stride` apart.
pub(super) struct Target<'a> {
    shards: Shards<'a>,
    first: usize,
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a> Target<'a> {
    pub(super) fn new(values: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::columns(values, rows, 0, cols, cols)
    }

    /// Columns `first..first + cols` of a matrix whose rows begin `stride` apart.
    pub(super) fn columns(values: &'a mut [f32], rows: usize, first: usize, cols: usize, stride: usize) -> Self {
        assert!(cols <= stride, "rows do not overlap");
        let shards = Shards::new(values);
        shards.pointer(first, rows, cols, stride);
        Self { shards, first, rows, cols, stride }
    }

    /// # Safety
    /// Nobody else uses these elements while the result lives.
    pub(super) unsafe fn shared(shards: Shards<'a>, first: usize, rows: usize, cols: usize, stride: usize) -> Self {
        shards.pointer(first, rows, cols, stride);
        Self { shards, first, rows, cols, stride }
    }
}

/// Where parts of a packed matrix may begin.
pub(super) const STEP: usize = 32;

/// What a product does with its output's old values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Into {
    Set,
    Add,
}

/// How a network multiplies.
#[derive(Clone)]
pub(super) struct Products {
    pub(super) pool: Arc<Pool>,
    buffers: Buffers,
    precision: Precision,
    /// `None`: [`plain`].
    kernel: Option<&'static Kernel>,
}

impl std::fmt::Debug for Products {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Products").field("precision", &self.precision).field("kernel", &self.kernel_name()).finish()
    }
}

impl Products {
    pub(super) fn new(pool: Arc<Pool>, buffers: Buffers, precision: Precision) -> Self {
        Self { pool, buffers, precision, kernel: find(precision) }
    }

    /// For logs and benchmarks.
    pub(super) fn kernel_name(&self) -> &'static str {
        self.kernel.map_or("plain", |kernel| kernel.name)
    }

    /// A product over the pool. k is not empty, or the product adds.
    pub(super) fn multiply(&self, lhs: View<'_>, rhs: View<'_>, alpha: f32, into: Into, out: Target<'_>) {
        assert!(lhs.rows == out.rows && rhs.cols == out.cols && lhs.cols == rhs.rows, "shapes of a product agree");
        let Some(kernel) = self.kernel else {
            return plain::multiply(&self.pool, self.precision, lhs, rhs, alpha, into, &out);
        };
        let panels = out.cols.div_ceil(COLS);
        let rows = rows_of_a_task(out.rows, kernel.rows);
        let tasks = out.rows.div_ceil(rows.max(1));
        // Few rows are shared out by columns as well.
        let across = if tasks < 4 { panels.div_ceil(4).max(1) } else { panels.max(1) };
        let groups = panels.div_ceil(across);
        for (start, depth, into) in blocks(lhs.cols, kernel.block, into) {
            let lines = kernel.rhs_lines(depth);
            let mut packed = self.buffers.take(panels * lines * 16);
            let shards = Shards::new(&mut packed);
            let chunks = depth.div_ceil(CHUNK);
            self.pool.run(chunks * panels, &|i| {
                let (chunk, panel) = (i / panels * CHUNK, i % panels);
                let first = panel * COLS;
                let part = Panel {
                    first,
                    count: COLS.min(out.cols - first),
                    start: start + chunk,
                    depth: CHUNK.min(depth - chunk),
                };
                let (at, room) = (panel * lines + kernel.rhs_lines(chunk), kernel.rhs_lines(part.depth));
                // SAFETY: each part of a panel is packed by one task, into lines of its own.
                unsafe { (kernel.pack_rhs)(rhs, part, shards.part(at * 16, room * 16).as_mut_ptr().cast()) };
            });
            self.pool.run(tasks * groups, &|i| {
                let (row, first) = (i / groups * rows, i % groups * across);
                let rows = row..out.rows.min(row + rows);
                let panels = first..panels.min(first + across);
                let right = Right { packed: &packed, lines, skip: 0, first: 0 };
                run(kernel, Left { view: lhs, alpha, start, depth }, rows, &right, panels, into, &out);
            });
        }
    }

    /// Packs a right matrix, on this thread, for products with parts of it.
    pub(super) fn ready<'a>(&self, rhs: View<'a>) -> Ready<'a> {
        let packed = self.kernel.map(|kernel| {
            let lines = kernel.rhs_lines(rhs.rows);
            let mut packed = self.buffers.take(rhs.cols.div_ceil(COLS) * lines * 16);
            for (i, to) in packed.chunks_exact_mut((lines * 16).max(1)).enumerate() {
                let first = i * COLS;
                let panel = Panel { first, count: COLS.min(rhs.cols - first), start: 0, depth: rhs.rows };
                // SAFETY: the lines are this panel's, and buffers are made of lines.
                unsafe { (kernel.pack_rhs)(rhs, panel, to.as_mut_ptr().cast()) };
            }
            packed
        });
        Ready { view: rhs, packed }
    }

    /// A product on this thread with the rows `k` and the columns `cols` of the right matrix. Both begin at multiples of
    /// [`STEP`]; `k` ends at one or with the matrix.
    pub(super) fn multiply_ready(
        &self,
        lhs: View<'_>,
        rhs: &Ready<'_>,
        (k, cols): (Range<usize>, Range<usize>),
        alpha: f32,
        into: Into,
        out: Target<'_>,
    ) {
        assert!(lhs.rows == out.rows && cols.len() == out.cols && lhs.cols == k.len(), "shapes of a product agree");
        let whole = k.end == rhs.view.rows || k.end.is_multiple_of(STEP);
        assert!(k.start.is_multiple_of(STEP) && cols.start.is_multiple_of(STEP) && whole, "parts are whole panels");
        assert!(k.end <= rhs.view.rows && cols.end <= rhs.view.cols, "parts lie in their matrix");
        match (self.kernel, &rhs.packed) {
            (Some(kernel), Some(packed)) => {
                let right = Right {
                    packed,
                    lines: kernel.rhs_lines(rhs.view.rows),
                    skip: k.start * kernel.rhs_bytes / 64,
                    first: cols.start / COLS,
                };
                let panels = 0..cols.len().div_ceil(COLS);
                let left = Left { view: lhs, alpha, start: 0, depth: k.len() };
                run(kernel, left, 0..out.rows, &right, panels, into, &out);
            }
            _ => plain::multiply_here(self.precision, lhs, rhs.view.part(k, cols), alpha, into, &out),
        }
    }
}

/// A right matrix that is packed for several products.
pub(super) struct Ready<'a> {
    view: View<'a>,
    packed: Option<Buffer>,
}

/// A left matrix times a factor, `depth` values of k from `start` on.
#[derive(Clone, Copy)]
struct Left<'a> {
    view: View<'a>,
    alpha: f32,
    start: usize,
    depth: usize,
}

/// Panels of a right matrix.
struct Right<'a> {
    packed: &'a [f32],
    /// Of a panel.
    lines: usize,
    /// Lines of each panel that come before the values of k in question.
    skip: usize,
    /// The panel of the output's first column.
    first: usize,
}

/// The best kernel that this processor has.
fn find(precision: Precision) -> Option<&'static Kernel> {
    #[cfg(target_arch = "x86_64")]
    {
        return match precision {
            Precision::F32 => std::arch::is_x86_feature_detected!("avx512f").then_some(&avx512::F32),
            Precision::Bf16 if amx::available() => Some(&amx::BF16),
            Precision::Bf16 => bf16::available().then_some(&bf16::BF16),
        };
    }
    #[allow(unreachable_code, reason = "reached on other processors")]
    {
        let _ = precision;
        None
    }
}

/// Rows that a task computes: an eighth, in whole panels, not so few that the right matrix is read too often.
fn rows_of_a_task(n: usize, panel: usize) -> usize {
    n.div_ceil(8).clamp(64, 384).next_multiple_of(panel)
}

/// k in blocks of about the same depth, at most `block`; the first sets where the product sets.
fn blocks(k: usize, block: usize, into: Into) -> impl Iterator<Item = (usize, usize, Into)> {
    let block = k.div_ceil(k.div_ceil(block).max(1)).next_multiple_of(32).max(32);
    (0..k).step_by(block).map(move |start| {
        let into = if start == 0 { into } else { Into::Add };
        (start, block.min(k - start), into)
    })
}

thread_local! {
    /// Panels of the left matrix.
    static LEFT: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// `lines` of this thread's scratch, whatever they hold.
fn with_scratch(lines: usize, work: impl FnOnce(&mut [Line])) {
    LEFT.with_borrow_mut(|scratch| {
        if scratch.len() < lines {
            scratch.resize(lines, Line([0.0; 16]));
        }
        work(&mut scratch[..lines]);
    });
}

/// Values of k that all panels are packed for before the next: where k runs along rows, the rows' pages stay known to
/// the processor. A whole number of lines in every kernel.
const CHUNK: usize = 64;

/// Panels of the right matrix that stay in a core's second cache while one of the left matrix after the other, in the
/// first, passes by: so the output is written along its rows.
const GROUP_BYTES: usize = 512 << 10;

/// Rows of the output against panels of the right matrix, over one block of k.
fn run(
    kernel: &Kernel,
    left: Left<'_>,
    rows: Range<usize>,
    right: &Right<'_>,
    panels: Range<usize>,
    into: Into,
    out: &Target<'_>,
) {
    let Left { view, alpha, start, depth } = left;
    let lhs_lines = kernel.lhs_lines(depth);
    let count = rows.len().div_ceil(kernel.rows);
    with_scratch(count * lhs_lines, |left| {
        for chunk in (0..depth).step_by(CHUNK) {
            for (i, to) in left.chunks_exact_mut(lhs_lines).enumerate() {
                let first = rows.start + i * kernel.rows;
                let panel = Panel {
                    first,
                    count: kernel.rows.min(rows.end - first),
                    start: start + chunk,
                    depth: CHUNK.min(depth - chunk),
                };
                let to = &mut to[kernel.lhs_lines(chunk)..];
                // SAFETY: the panel is inside of the matrix and the lines are its own.
                unsafe { (kernel.pack_lhs)(view, panel, alpha, to.as_mut_ptr()) };
            }
        }
        (kernel.enter)();
        let group = (GROUP_BYTES / (kernel.rhs_lines(depth) * 64).max(1)).max(1);
        for first in panels.clone().step_by(group) {
            let group = first..panels.end.min(first + group);
            for (i, left) in left.chunks_exact(lhs_lines).enumerate() {
                let row = rows.start + i * kernel.rows;
                let height = kernel.rows.min(rows.end - row);
                for panel in group.clone() {
                    let at = (right.first + panel) * right.lines + right.skip;
                    let right = right.packed[at * 16..][..kernel.rhs_lines(depth) * 16].as_ptr();
                    let (col, cols) = (panel * COLS, COLS.min(out.cols - panel * COLS));
                    let c = out.shards.pointer(out.first + row * out.stride + col, height, cols, out.stride);
                    // SAFETY: panels are whole, and the tile of the output is this task's by `Target`'s contract.
                    unsafe {
                        let depth = kernel.padded(depth);
                        (kernel.product)(left.as_ptr(), right.cast(), depth, c, out.stride, (height, cols), into);
                    }
                }
            }
        }
        (kernel.leave)();
    });
}
