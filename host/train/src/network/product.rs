//! Matrix products: `out[r, c] = alpha * sum over k of lhs[r, k] * rhs[k, c]`, on top of what `out` holds if asked.
//!
//! Forward is `x W^T`, the input's gradient `dy W`, the weight's `dy^T x`: one function and views. The output is cut
//! into tiles by its shape alone, and each tile sums over k in one order, so that results do not depend on threads.

use gemm::Parallelism;
use stockade_kernels::Pool;

use super::parallel::Shards;

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
        assert!(col <= self.cols, "column outside its matrix");
        let first = (col * self.col_stride).min(self.values.len());
        let (left, right) = (Self { cols: col, ..self }, self.cols - col);
        (left, Self { cols: right, values: &self.values[first..], ..self })
    }

    fn pointer(&self, row: usize, col: usize) -> *const f32 {
        // Inside the slice wherever row and column are inside the matrix.
        self.values.as_ptr().wrapping_add(row * self.row_stride + col * self.col_stride)
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

/// What a product does with its output's old values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Into {
    Set,
    Add,
}

/// A product over the pool.
pub(super) fn multiply(pool: &Pool, lhs: View<'_>, rhs: View<'_>, alpha: f32, into: Into, out: Target<'_>) {
    let (rows, cols) = (tile(out.rows), tile(out.cols));
    // One side is cut; the other only where the first gives too few tiles.
    let cols = if out.rows.div_ceil(rows.max(1)) >= 4 { out.cols } else { cols };
    let across = out.cols.div_ceil(cols.max(1));
    let tiles = out.rows.div_ceil(rows.max(1)) * across;
    pool.run(tiles, &|i| {
        let (row, col) = (i / across * rows, i % across * cols);
        tile_product(lhs, rhs, alpha, into, &out, (row, rows), (col, cols));
    });
}

/// A product on this thread.
pub(super) fn multiply_here(lhs: View<'_>, rhs: View<'_>, alpha: f32, into: Into, out: Target<'_>) {
    let (rows, cols) = (out.rows, out.cols);
    tile_product(lhs, rhs, alpha, into, &out, (0, rows), (0, cols));
}

/// Rows of a tile: an eighth, in whole registers, not so few that packing outweighs the product.
fn tile(n: usize) -> usize {
    n.div_ceil(8).next_multiple_of(32).clamp(64, 512).min(n)
}

/// Computes rows and columns (first, at most so many) of `out`.
fn tile_product(
    lhs: View<'_>,
    rhs: View<'_>,
    alpha: f32,
    into: Into,
    out: &Target<'_>,
    (row, rows): (usize, usize),
    (col, cols): (usize, usize),
) {
    assert!(lhs.rows == out.rows && rhs.cols == out.cols && lhs.cols == rhs.rows, "shapes of a product agree");
    let (rows, cols) = (rows.min(out.rows - row), cols.min(out.cols - col));
    if rows == 0 || cols == 0 {
        return;
    }
    let target = out.shards.pointer(out.first + row * out.stride + col, rows, cols, out.stride);
    // SAFETY: all three matrices lie in their slices (asserted where views and targets are made and here), the tile is
    // nobody else's by `Target`'s contract, and f32 is a type that gemm knows.
    unsafe {
        gemm::gemm(
            rows,
            cols,
            lhs.cols,
            target,
            1,
            out.stride as isize,
            into == Into::Add,
            lhs.pointer(row, 0),
            lhs.col_stride as isize,
            lhs.row_stride as isize,
            rhs.pointer(0, col),
            rhs.col_stride as isize,
            rhs.row_stride as isize,
            1.0f32,
            alpha,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
