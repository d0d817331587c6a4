//! Products with the network's matrices, their adapters included.

use std::ops::Deref;

use super::buffer::Buffer;
use super::dropout::Draw;
use super::gradients::Gradients;
use super::layout::{Matrices, Part};
use super::parallel::{ROWS, each};
use super::product::{Into, Target, View};
use super::simd::simd;
use super::{Network, Place};

/// The adapter of one matrix: indices of its parameters.
#[derive(Debug)]
pub(super) struct AdapterOf {
    /// `[R, in]`
    pub(super) a: usize,
    /// `[out, R]`
    pub(super) b: usize,
    /// DoRA: `[out]`
    pub(super) magnitude: Option<usize>,
    /// DoRA: `|W + sBA|` by rows, as of the last [`Network::updated`].
    pub(super) norms: Vec<f32>,
}

/// What a pass adds to the bare products.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path {
    /// Adapters are on.
    pub(super) adapter: bool,
    pub(super) dropout: Option<Draw>,
}

/// A matrix as f32.
pub(super) enum Weight<'a> {
    Held(&'a [f32]),
    /// Dequantized for this product.
    Made(Buffer),
}

impl Deref for Weight<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Self::Held(values) => values,
            Self::Made(buffer) => buffer,
        }
    }
}

impl Network {
    /// `[rows, cols]` of all parts.
    pub(super) fn weight(&self, matrices: &Matrices) -> Weight<'_> {
        let (first, last) = (matrices.parts[0].tensor, matrices.parts[matrices.parts.len() - 1].tensor);
        match (&self.places[first], &self.places[last]) {
            (&Place::Master(first), &Place::Master(last)) => {
                Weight::Held(&self.masters[self.ranges[first].start..self.ranges[last].end])
            }
            (Place::Frozen(first), Place::Frozen(last)) => Weight::Held(&self.frozen[first.start..last.end]),
            _ => {
                let mut values = self.buffers.take(matrices.rows * matrices.cols);
                for part in &matrices.parts {
                    let to = &mut values[part.first * matrices.cols..][..part.rows * matrices.cols];
                    if let Place::Nf4(quantized) = &self.places[part.tensor] {
                        quantized.dequantize(&self.pool, to);
                    }
                }
                Weight::Made(values)
            }
        }
    }

    /// `y [n, rows] = x [n, cols] W^T + b`, with adapters.
    pub(super) fn project(&self, matrices: &Matrices, path: Path, x: &[f32], y: &mut [f32]) {
        let (rows, cols) = (matrices.rows, matrices.cols);
        let n = x.len() / cols;
        let weight = self.weight(matrices);
        self.products.multiply(
            View::new(x, n, cols),
            View::new(&weight, rows, cols).t(),
            1.0,
            Into::Set,
            Target::new(y, n, rows),
        );
        if path.adapter && matrices.parts.iter().any(|part| part.adapter.is_some()) {
            let dropped = self.dropped(path, x, cols);
            let input = dropped.as_deref().unwrap_or(x);
            for part in &matrices.parts {
                if let Some(adapter) = self.adapter(part) {
                    self.adapt(adapter, part, input, cols, y, rows);
                    if let Some(scales) = self.dora_scales(adapter) {
                        scale_columns(&self.pool, y, rows, part.first, &scales);
                    }
                }
            }
        }
        for part in &matrices.parts {
            if let Some(bias) = part.bias {
                add_bias(&self.pool, y, rows, part.first, self.base(bias));
            }
        }
    }

    /// From `dy [n, rows]`, which it may change, `dx [n, cols]` (set) and the gradients of what is trained.
    pub(super) fn project_back(
        &self,
        matrices: &Matrices,
        path: Path,
        x: &[f32],
        dy: &mut [f32],
        dx: Option<&mut [f32]>,
        gradients: &mut Gradients,
    ) {
        let (rows, cols) = (matrices.rows, matrices.cols);
        let n = x.len() / cols;
        let (first, last) = (&matrices.parts[0], &matrices.parts[matrices.parts.len() - 1]);
        for part in &matrices.parts {
            if let Some(bias) = part.bias.and_then(|bias| self.master(bias)) {
                add_column_sums(&self.pool, dy, rows, part.first, gradients.get_mut(bias));
            }
        }
        let adapted = path.adapter && matrices.parts.iter().any(|part| part.adapter.is_some());
        if adapted {
            self.magnitudes_back(matrices, path, x, dy, gradients);
        }
        if let (Some(first), Some(last)) = (self.master(first.tensor), self.master(last.tensor)) {
            let target = Target::new(gradients.span_mut(first, last), rows, cols);
            self.products.multiply(View::new(dy, n, rows).t(), View::new(x, n, cols), 1.0, Into::Add, target);
        }
        let mut dx = dx;
        if let Some(dx) = dx.as_deref_mut() {
            let weight = self.weight(matrices);
            self.products.multiply(
                View::new(dy, n, rows),
                View::new(&weight, rows, cols),
                1.0,
                Into::Set,
                Target::new(dx, n, cols),
            );
        }
        if adapted {
            self.adapters_back(matrices, path, x, dy, dx, gradients);
        }
    }

    fn adapter(&self, part: &Part) -> Option<&AdapterOf> {
        part.adapter.map(|i| &self.adapters[i])
    }

    /// The adapters' input, where dropout changes it.
    fn dropped(&self, path: Path, x: &[f32], cols: usize) -> Option<Buffer> {
        path.dropout.map(|draw| {
            let mut dropped = self.buffers.take(x.len());
            draw.apply(&self.pool, x, cols, &mut dropped);
            dropped
        })
    }

    /// `t [n, R] = s x A^T`.
    fn inner(&self, adapter: &AdapterOf, x: &[f32], cols: usize) -> Buffer {
        let (n, rank) = (x.len() / cols, self.rank);
        let mut t = self.buffers.take(n * rank);
        let a = View::new(self.values(adapter.a), rank, cols);
        self.products.multiply(View::new(x, n, cols), a.t(), self.scale, Into::Set, Target::new(&mut t, n, rank));
        t
    }

    /// Adds `s (x A^T) B^T` to a part's columns of `y [n, stride]`.
    fn adapt(&self, adapter: &AdapterOf, part: &Part, x: &[f32], cols: usize, y: &mut [f32], stride: usize) {
        let (n, rank) = (x.len() / cols, self.rank);
        let t = self.inner(adapter, x, cols);
        let b = View::new(self.values(adapter.b), part.rows, rank);
        let target = Target::columns(y, n, part.first, part.rows, stride);
        self.products.multiply(View::new(&t, n, rank), b.t(), 1.0, Into::Add, target);
    }

    /// DoRA's `m / |W + sBA|`.
    fn dora_scales(&self, adapter: &AdapterOf) -> Option<Vec<f32>> {
        let magnitude = self.values(adapter.magnitude?);
        Some(magnitude.iter().zip(&adapter.norms).map(|(m, norm)| m / norm).collect())
    }

    /// DoRA: the magnitudes' gradients, and `dy` of their parts times `m / |W + sBA|`. What the magnitudes multiply is
    /// computed again.
    fn magnitudes_back(&self, matrices: &Matrices, path: Path, x: &[f32], dy: &mut [f32], gradients: &mut Gradients) {
        let (rows, cols) = (matrices.rows, matrices.cols);
        let n = x.len() / cols;
        for part in &matrices.parts {
            let Some(adapter) = self.adapter(part) else { continue };
            let (Some(magnitude), Some(scales)) = (adapter.magnitude, self.dora_scales(adapter)) else { continue };
            let weight = self.weight(matrices);
            let weight = View::new(&weight[part.first * cols..][..part.rows * cols], part.rows, cols);
            let mut z = self.buffers.take(n * part.rows);
            self.products.multiply(
                View::new(x, n, cols),
                weight.t(),
                1.0,
                Into::Set,
                Target::new(&mut z, n, part.rows),
            );
            let dropped = self.dropped(path, x, cols);
            let whole = Part { name: part.name, first: 0, ..*part };
            self.adapt(adapter, &whole, dropped.as_deref().unwrap_or(x), cols, &mut z, part.rows);
            multiply_columns(&self.pool, &mut z, part.rows, dy, rows, part.first);
            let mut sums = vec![0.0; part.rows];
            add_column_sums(&self.pool, &z, part.rows, 0, &mut sums);
            let sums = sums.iter().zip(&adapter.norms).map(|(sum, norm)| sum / norm);
            gradients.get_mut(magnitude).iter_mut().zip(sums).for_each(|(d, sum)| *d += sum);
            scale_columns(&self.pool, dy, rows, part.first, &scales);
        }
    }

    fn adapters_back(
        &self,
        matrices: &Matrices,
        path: Path,
        x: &[f32],
        dy: &[f32],
        dx: Option<&mut [f32]>,
        gradients: &mut Gradients,
    ) {
        let (rows, cols, rank) = (matrices.rows, matrices.cols, self.rank);
        let n = x.len() / cols;
        let dropped = self.dropped(path, x, cols);
        let input = dropped.as_deref().unwrap_or(x);
        // Through dropout the adapters' part of dx is masked: it is summed apart.
        let mut apart = dropped.as_ref().and(dx.as_ref()).map(|dx| self.buffers.zeros(dx.len()));
        let mut dx = dx;
        for part in &matrices.parts {
            let Some(adapter) = self.adapter(part) else { continue };
            let d_part = View::strided(&dy[part.first..], n, part.rows, rows);
            let t = self.inner(adapter, input, cols);
            let target = Target::new(gradients.get_mut(adapter.b), part.rows, rank);
            self.products.multiply(d_part.t(), View::new(&t, n, rank), 1.0, Into::Add, target);
            let mut dt = t;
            let b = View::new(self.values(adapter.b), part.rows, rank);
            self.products.multiply(d_part, b, self.scale, Into::Set, Target::new(&mut dt, n, rank));
            let target = Target::new(gradients.get_mut(adapter.a), rank, cols);
            self.products.multiply(View::new(&dt, n, rank).t(), View::new(input, n, cols), 1.0, Into::Add, target);
            if let Some(dx) = apart.as_deref_mut().or(dx.as_deref_mut()) {
                let a = View::new(self.values(adapter.a), rank, cols);
                self.products.multiply(View::new(&dt, n, rank), a, 1.0, Into::Add, Target::new(dx, n, cols));
            }
        }
        if let (Some(apart), Some(dx), Some(draw)) = (apart, dx, path.dropout) {
            draw.add(&self.pool, &apart, cols, dx);
        }
    }

    /// Computes `|W + sBA|` of every DoRA adapter anew.
    pub(super) fn update_norms(&mut self) {
        let mut adapters = std::mem::take(&mut self.adapters);
        for layer in &self.layout.layers {
            for matrices in [&layer.qkv, &layer.o, &layer.gate_up, &layer.down] {
                for part in &matrices.parts {
                    let Some(adapter) = part.adapter.map(|i| &mut adapters[i]) else { continue };
                    if adapter.magnitude.is_some() {
                        let weight = self.weight(matrices);
                        let weight = &weight[part.first * matrices.cols..][..part.rows * matrices.cols];
                        let mut sum = self.buffers.take(weight.len());
                        sum.copy_from_slice(weight);
                        let b = View::new(self.values(adapter.b), part.rows, self.rank);
                        let a = View::new(self.values(adapter.a), self.rank, matrices.cols);
                        let target = Target::new(&mut sum, part.rows, matrices.cols);
                        self.products.multiply(b, a, self.scale, Into::Add, target);
                        adapter.norms.clear();
                        adapter.norms.extend(sum.chunks_exact(matrices.cols).map(row_norm));
                    }
                }
            }
        }
        self.adapters = adapters;
    }
}

simd! {
fn row_norm(row: &[f32]) -> f32 {
    super::simd::dot(row, row).sqrt()
}
}

/// Columns `first..` of each row of `y [n, stride]` plus `bias`.
fn add_bias(pool: &stockade_kernels::Pool, y: &mut [f32], stride: usize, first: usize, bias: &[f32]) {
    each(pool, y.chunks_mut(ROWS * stride), |_, rows| {
        for row in rows.chunks_exact_mut(stride) {
            row[first..][..bias.len()].iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
        }
    });
}

/// Columns `first..` of each row of `y [n, stride]` times `scales`.
fn scale_columns(pool: &stockade_kernels::Pool, y: &mut [f32], stride: usize, first: usize, scales: &[f32]) {
    each(pool, y.chunks_mut(ROWS * stride), |_, rows| {
        for row in rows.chunks_exact_mut(stride) {
            row[first..][..scales.len()].iter_mut().zip(scales).for_each(|(y, scale)| *y *= scale);
        }
    });
}

/// `z [n, width]` times columns `first..` of `y [n, stride]`.
fn multiply_columns(
    pool: &stockade_kernels::Pool,
    z: &mut [f32],
    width: usize,
    y: &[f32],
    stride: usize,
    first: usize,
) {
    each(pool, z.chunks_mut(ROWS * width).zip(y.chunks(ROWS * stride)), |_, (z, y)| {
        for (z, y) in z.chunks_exact_mut(width).zip(y.chunks_exact(stride)) {
            z.iter_mut().zip(&y[first..]).for_each(|(z, y)| *z *= y);
        }
    });
}

/// Adds the sums of the columns `first..` of `y [n, stride]` to `sums`: by runs of rows, then in order.
fn add_column_sums(pool: &stockade_kernels::Pool, y: &[f32], stride: usize, first: usize, sums: &mut [f32]) {
    let width = sums.len();
    let mut partial = vec![0.0; y.len().div_ceil(ROWS * stride) * width];
    each(pool, y.chunks(ROWS * stride).zip(partial.chunks_mut(width)), |_, (rows, partial)| {
        for row in rows.chunks_exact(stride) {
            partial.iter_mut().zip(&row[first..]).for_each(|(sum, y)| *sum += y);
        }
    });
    for partial in partial.chunks_exact(width) {
        sums.iter_mut().zip(partial).for_each(|(sum, x)| *sum += x);
    }
}
