//! AdamW as PyTorch has it (Loshchilov and Hutter, arXiv:1711.05101).

use super::OptimizerSettings;
use std::sync::Mutex;
use stockade_kernels::Pool;

/// Elements that one task moves: 256 KiB of each array, so that a chunk stays in a core's cache.
const CHUNK: usize = 1 << 16;

/// The constants of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Step {
    keep: f32,
    betas: (f32, f32),
    /// `1 - beta`, rounded once.
    news: (f32, f32),
    eps: f32,
    /// `rate / (1 - beta1^t)`.
    size: f32,
    /// `sqrt(1 - beta2^t)`, by which roots are divided.
    root: f32,
    scale: f32,
}

impl Step {
    /// For the `applied`-th step, from 1. Constants are computed in f64, as PyTorch does.
    pub fn new(settings: &OptimizerSettings, rate: f64, decay: f64, applied: u64, scale: f32) -> Self {
        let (beta1, beta2) = settings.betas;
        let t = applied.min(i32::MAX as u64) as i32;
        Self {
            keep: (1.0 - rate * decay) as f32,
            betas: (beta1 as f32, beta2 as f32),
            news: ((1.0 - beta1) as f32, (1.0 - beta2) as f32),
            eps: settings.eps as f32,
            size: (rate / (1.0 - beta1.powi(t))) as f32,
            root: (1.0 - beta2.powi(t)).sqrt() as f32,
            scale,
        }
    }
}

/// `p *= 1 - lr wd; m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;
/// p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)`
///
/// All slices have the same length.
pub(super) fn update(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], step: &Step, pool: &Pool) {
    type Chunk<'a> = (&'a mut [f32], &'a [f32], &'a mut [f32], &'a mut [f32]);
    let chunks = p.chunks_mut(CHUNK).zip(g.chunks(CHUNK)).zip(m.chunks_mut(CHUNK)).zip(v.chunks_mut(CHUNK));
    let tasks: Vec<Mutex<Chunk<'_>>> = chunks.map(|(((p, g), m), v)| Mutex::new((p, g, m, v))).collect();
    pool.run(tasks.len(), &|i| {
        let mut chunk = tasks[i].lock().expect("each task takes its own chunk");
        let (p, g, m, v) = &mut *chunk;
        for (((p, &g), m), v) in p.iter_mut().zip(g.iter()).zip(m.iter_mut()).zip(v.iter_mut()) {
            let g = g * step.scale;
            *m = step.betas.0 * *m + step.news.0 * g;
            *v = step.betas.1 * *v + step.news.1 * g * g;
            *p = *p * step.keep - step.size * (*m / (v.sqrt() / step.root + step.eps));
        }
    });
}
