//! Muon: momentum whose singular values are all brought near 1 (Jordan 2024; as nanochat uses it).

use super::Muon;
use gemm::Parallelism;
use std::sync::Mutex;
use stockade_kernels::Pool;

/// The polynomial that pushes singular values towards 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Orthogonalisation {
    /// Five Newton-Schulz steps with Jordan's coefficients: values land in about 0.7 to 1.2.
    #[default]
    NewtonSchulz,
    /// Five steps with coefficients that are optimal one after the other (arXiv:2505.16932).
    PolarExpress,
}

/// What an orthogonal update is multiplied by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MuonScale {
    /// `sqrt(max(1, rows / cols))`.
    #[default]
    Aspect,
    /// `0.2 sqrt(max(rows, cols))`: as long as AdamW's updates are, so that its rate can be kept (arXiv:2502.16982).
    Adamw,
}

const JORDAN: (f32, f32, f32) = (3.4445, -4.7750, 2.0315);
const POLAR: [(f32, f32, f32); 5] = [
    (8.156_554, -22.483_294, 15.878_77),
    (4.042_93, -2.808_917_4, 0.500_017_8),
    (3.891_667_8, -2.772_484, 0.506_064_8),
    (3.285_753_6, -2.368_129_4, 0.464_490_24),
    (2.346_541_4, -1.709_782_8, 0.423_235_5),
];
/// Output rows that one task computes.
const BLOCK: usize = 64;

/// `m = b m + (1 - b) g; u = (1 - b) g + b m; W = (1 - lr wd) W - lr * scale * orthogonal(u)`
///
/// # Shapes
/// `values`, `gradient`, `momentum`: `[rows, cols]`.
#[expect(clippy::too_many_arguments, reason = "the operands of one formula")]
pub(super) fn update(
    values: &mut [f32],
    gradient: &[f32],
    clip: f32,
    momentum: &mut [f32],
    rows: usize,
    muon: &Muon,
    share: f64,
    pool: &Pool,
) {
    let cols = values.len() / rows.max(1);
    let (kept, new) = (muon.momentum as f32, (1.0 - muon.momentum) as f32);
    let mut u = vec![0.0f32; values.len()];
    for ((u, m), &g) in u.iter_mut().zip(momentum.iter_mut()).zip(gradient) {
        let g = g * clip;
        *m = kept * *m + new * g;
        *u = new * g + kept * *m;
    }
    let orthogonal = orthogonalise(u, rows, cols, muon.orthogonalisation, pool);
    let scale = match muon.scale {
        MuonScale::Aspect => (rows as f64 / cols as f64).max(1.0).sqrt(),
        MuonScale::Adamw => 0.2 * (rows.max(cols) as f64).sqrt(),
    };
    let rate = share * muon.rate;
    let (keep, size) = ((1.0 - rate * muon.weight_decay) as f32, (rate * scale) as f32);
    for (w, u) in values.iter_mut().zip(&orthogonal) {
        *w = *w * keep - size * u;
    }
}

/// The nearest orthogonal matrix, about: `x` with its singular values moved near 1.
pub(super) fn orthogonalise(
    mut x: Vec<f32>,
    rows: usize,
    cols: usize,
    method: Orthogonalisation,
    pool: &Pool,
) -> Vec<f32> {
    if rows > cols {
        let turned = orthogonalise(transposed(&x, rows, cols), cols, rows, method, pool);
        return transposed(&turned, cols, rows);
    }
    let norm = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    let (length, coefficients) = match method {
        Orthogonalisation::NewtonSchulz => (norm + 1e-7, [JORDAN; 5]),
        Orthogonalisation::PolarExpress => (norm * 1.01 + 1e-6, POLAR),
    };
    x.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    let mut next = vec![0.0; x.len()];
    let (mut square, mut inner) = (vec![0.0; rows * rows], vec![0.0; rows * rows]);
    for (a, b, c) in coefficients {
        // A = X X^T; X = a X + (b A + c A A) X
        product(&mut square, &x, (cols, 1), &x, (1, cols), (rows, cols), pool);
        product(&mut inner, &square, (rows, 1), &square, (rows, 1), (rows, rows), pool);
        inner.iter_mut().zip(&square).for_each(|(inner, square)| *inner = b * square + c * *inner);
        product(&mut next, &inner, (rows, 1), &x, (cols, 1), (rows, rows), pool);
        x.iter_mut().zip(&next).for_each(|(x, next)| *x = a * *x + next);
    }
    x
}

/// `out = left * right` for `out` of `rows` rows and `inner` terms each, in blocks of rows that only the shape decides.
/// Strides are (between rows, between columns), in elements.
fn product(
    out: &mut [f32],
    left: &[f32],
    left_strides: (usize, usize),
    right: &[f32],
    right_strides: (usize, usize),
    (rows, inner): (usize, usize),
    pool: &Pool,
) {
    let cols = out.len() / rows.max(1);
    assert!(out.len() == rows * cols && left.len() >= rows * inner && right.len() >= inner * cols);
    let blocks: Vec<Mutex<&mut [f32]>> = out.chunks_mut((BLOCK * cols).max(1)).map(Mutex::new).collect();
    pool.run(blocks.len(), &|i| {
        let mut block = blocks[i].lock().expect("each task takes its own block");
        let first = &left[i * BLOCK * left_strides.0..];
        // SAFETY: the block holds `len / cols` rows of the result; `left` has as many rows of `inner` elements from
        // `first` on and `right` has `inner * cols`, both dense in one of their strides, as asserted above.
        unsafe {
            gemm::gemm(
                block.len() / cols,
                cols,
                inner,
                block.as_mut_ptr(),
                1,
                cols as isize,
                false,
                first.as_ptr(),
                left_strides.1 as isize,
                left_strides.0 as isize,
                right.as_ptr(),
                right_strides.1 as isize,
                right_strides.0 as isize,
                0.0,
                1.0,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
    });
}

fn transposed(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    let mut turned = vec![0.0; x.len()];
    for (i, row) in x.chunks_exact(cols.max(1)).enumerate() {
        for (j, &value) in row.iter().enumerate() {
            turned[j * rows + i] = value;
        }
    }
    turned
}
