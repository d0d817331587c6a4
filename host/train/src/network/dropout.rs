//! Dropout of adapters' inputs: a share of the values is 0, the others grow so that the mean stays.

use stockade_kernels::Pool;

use super::parallel::{ROWS, each};
use crate::random::{Purpose, bits};

/// One input's draw. The same draw gives the same mask, forwards, backwards and computed again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draw {
    key: u64,
    /// Of 65536.
    threshold: u16,
    scale: f32,
}

impl Draw {
    /// Of input `input` of layer `layer` in the pass (seed, step, row). `None` where nothing is dropped.
    pub(super) fn new(share: f32, (seed, step, row): (u64, u64, u64), layer: usize, input: u64) -> Option<Self> {
        let threshold = (share * 65536.0) as u16;
        let pass = bits(seed, Purpose::Dropout, step, row);
        let key = bits(pass, Purpose::Dropout, layer as u64, input);
        // What 16 bits can say of the share decides the scale, so that the mean is exact.
        (threshold > 0).then(|| Self { key, threshold, scale: 65536.0 / (65536.0 - f32::from(threshold)) })
    }

    /// `to = x` with the mask, rows of `width`.
    pub(super) fn apply(self, pool: &Pool, x: &[f32], width: usize, to: &mut [f32]) {
        self.walk(pool, x, width, to, |x, kept, to| *to = if kept { x * self.scale } else { 0.0 });
    }

    /// `to += x` with the mask.
    pub(super) fn add(self, pool: &Pool, x: &[f32], width: usize, to: &mut [f32]) {
        self.walk(pool, x, width, to, |x, kept, to| *to += if kept { x * self.scale } else { 0.0 });
    }

    fn walk(self, pool: &Pool, x: &[f32], width: usize, to: &mut [f32], put: impl Fn(f32, bool, &mut f32) + Sync) {
        let run = ROWS * width;
        each(pool, x.chunks(run).zip(to.chunks_mut(run)), |piece, (x, to)| {
            for (row, (x, to)) in x.chunks_exact(width).zip(to.chunks_exact_mut(width)).enumerate() {
                let row = (piece * ROWS + row) as u64;
                // One hash serves four values.
                for (i, (x, to)) in x.chunks(4).zip(to.chunks_mut(4)).enumerate() {
                    let mut draw = bits(self.key, Purpose::Dropout, row, i as u64);
                    for (x, to) in x.iter().zip(to) {
                        put(*x, draw as u16 >= self.threshold, to);
                        draw >>= 16;
                    }
                }
            }
        });
    }
}
