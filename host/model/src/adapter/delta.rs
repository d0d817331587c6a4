//! What an adapter adds to one product.

use stockade_kernels::{MatmulPrecision, PackedMatrix, Pool, add_assign, matmul};

/// `y = ratio * (x W^T + scale * (x A^T) B^T)`, where the base gives `x W^T`.
pub(super) struct Delta {
    /// `A`, `[r, inputs]`
    pub(super) down: PackedMatrix,
    /// `B`, `[outputs, r]`
    pub(super) up: PackedMatrix,
    pub(super) scale: f32,
    /// DoRA's, for each output: the learned magnitude over the norm of the changed row. `None`: 1.
    pub(super) ratio: Option<Vec<f32>>,
}

/// Memory between the two products, kept between steps.
#[derive(Default)]
pub(crate) struct Scratch {
    /// `x A^T` of each product that shares the input, `[n, r]` one after the other.
    low: Vec<f32>,
    /// `[n, outputs]`
    high: Vec<f32>,
}

/// Adds to products that share the input `x [n, inputs]`.
pub(super) fn add(pool: &Pool, x: &[f32], outputs: &mut [(&Delta, &mut [f32])], scratch: &mut Scratch) {
    let Some(n) = outputs.first().map(|(delta, _)| x.len() / delta.down.cols()) else {
        return;
    };
    let Scratch { low, high } = scratch;
    low.resize(n * outputs.iter().map(|(delta, _)| delta.down.rows()).sum::<usize>(), 0.0);
    let mut rest = &mut low[..];
    let mut regions: Vec<(&PackedMatrix, &mut [f32])> = Vec::with_capacity(outputs.len());
    for (delta, _) in outputs.iter() {
        let (own, others) = rest.split_at_mut(n * delta.down.rows());
        regions.push((&delta.down, own));
        rest = others;
    }
    // An adapter's weights are floats: they multiply in f32 whatever the base does.
    matmul(pool, MatmulPrecision::F32, x, &mut regions);
    for ((delta, out), (_, low)) in outputs.iter_mut().zip(regions) {
        low.iter_mut().for_each(|x| *x *= delta.scale);
        high.resize(out.len(), 0.0);
        matmul(pool, MatmulPrecision::F32, low, &mut [(&delta.up, high)]);
        add_assign(out, high);
        if let Some(ratio) = &delta.ratio {
            for row in out.chunks_exact_mut(ratio.len()) {
                row.iter_mut().zip(ratio).for_each(|(out, ratio)| *out *= ratio);
            }
        }
    }
}
