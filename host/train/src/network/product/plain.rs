//! Products by the `gemm` crate, for processors that no kernel here is written for.

use gemm::Parallelism;
use stockade_kernels::Pool;

use super::{Into, Precision, Target, View};

/// A product over the pool: tiles of the output.
pub(super) fn multiply(
    pool: &Pool,
    precision: Precision,
    lhs: View<'_>,
    rhs: View<'_>,
    alpha: f32,
    into: Into,
    out: &Target<'_>,
) {
    let (left, right) = (rounded(precision, lhs), rounded(precision, rhs));
    let (lhs, rhs) = (lhs.over(&left), rhs.over(&right));
    let (rows, cols) = (tile(out.rows), tile(out.cols));
    // One side is cut; the other only where the first gives too few tiles.
    let cols = if out.rows.div_ceil(rows.max(1)) >= 4 { out.cols } else { cols };
    let across = out.cols.div_ceil(cols.max(1));
    let tiles = out.rows.div_ceil(rows.max(1)) * across;
    pool.run(tiles, &|i| {
        let (row, col) = (i / across * rows, i % across * cols);
        product(lhs, rhs, alpha, into, out, (row, rows), (col, cols));
    });
}

/// A product on this thread.
pub(super) fn multiply_here(
    precision: Precision,
    lhs: View<'_>,
    rhs: View<'_>,
    alpha: f32,
    into: Into,
    out: &Target<'_>,
) {
    let (left, right) = (rounded(precision, lhs), rounded(precision, rhs));
    product(lhs.over(&left), rhs.over(&right), alpha, into, out, (0, out.rows), (0, out.cols));
}

/// Rows of a tile: an eighth, in whole registers, not so few that packing outweighs the product.
fn tile(n: usize) -> usize {
    n.div_ceil(8).next_multiple_of(32).clamp(64, 512).min(n)
}

/// The values of a view as bf16 has them; none where they stay.
fn rounded(precision: Precision, view: View<'_>) -> Vec<f32> {
    match precision {
        Precision::F32 => Vec::new(),
        Precision::Bf16 => view.values.iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect(),
    }
}

/// Computes rows and columns (first, at most so many) of `out`.
fn product(
    lhs: View<'_>,
    rhs: View<'_>,
    alpha: f32,
    into: Into,
    out: &Target<'_>,
    (row, rows): (usize, usize),
    (col, cols): (usize, usize),
) {
    let (rows, cols) = (rows.min(out.rows - row), cols.min(out.cols - col));
    if rows == 0 || cols == 0 {
        return;
    }
    let target = out.shards.pointer(out.first + row * out.stride + col, rows, cols, out.stride);
    // Inside their slices wherever row and column are inside their matrices.
    let left = lhs.values.as_ptr().wrapping_add(row * lhs.row_stride);
    let right = rhs.values.as_ptr().wrapping_add(col * rhs.col_stride);
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
            left,
            lhs.col_stride as isize,
            lhs.row_stride as isize,
            right,
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

impl<'a> View<'a> {
    /// The same matrix over other values, if there are such.
    fn over(self, values: &'a [f32]) -> Self {
        if values.is_empty() { self } else { Self { values, ..self } }
    }
}
