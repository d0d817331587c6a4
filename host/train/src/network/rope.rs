//! Rotary positions: channel i of a head is paired with i + D/2 and the pair turned by its document's position.
//!
//! Source: Su et al. 2021, "RoFormer", arXiv:2104.09864, which pairs 2i with 2i + 1. Backward turns the other way.

use std::sync::{Arc, Mutex};

use stockade_kernels::Pool;

use super::attention::Heads;
use super::parallel::{ROWS, each};
use super::simd::simd;

/// Cosines and sines of the positions that passes have met so far.
#[derive(Debug)]
pub(super) struct Rope {
    /// `D / 2` radians per token.
    frequencies: Vec<f32>,
    angles: Mutex<Arc<Angles>>,
}

/// `[T, D]`: D/2 cosines, then D/2 sines.
#[derive(Debug, Default)]
pub(super) struct Angles {
    values: Vec<f32>,
}

impl Angles {
    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }
}

/// Which way to turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Forward,
    Back,
}

impl Rope {
    pub(super) fn new(frequencies: Vec<f32>) -> Self {
        Self { frequencies, angles: Mutex::default() }
    }

    /// Angles of at least the positions `0..positions`.
    pub(super) fn angles(&self, positions: usize) -> Arc<Angles> {
        let width = 2 * self.frequencies.len();
        let mut angles = self.angles.lock().unwrap_or_else(|e| e.into_inner());
        let known = angles.values.len() / width;
        if known < positions {
            let mut values = angles.values.clone();
            for position in known..positions {
                // In f32 from f32 frequencies, as the reference computes it.
                let turns = self.frequencies.iter().map(|f| (position as f32 * f).sin_cos());
                let (sin, cos): (Vec<f32>, Vec<f32>) = turns.unzip();
                values.extend(cos);
                values.extend(sin);
            }
            *angles = Arc::new(Angles { values });
        }
        Arc::clone(&angles)
    }
}

/// Turns the heads of q and k in rows of q, k and v, in place; `positions [n]`.
pub(super) fn rotate(pool: &Pool, qkv: &mut [f32], heads: Heads, positions: &[u32], angles: &Angles, turn: Turn) {
    let (stride, d) = (heads.width(), heads.head_dim);
    let turned = (heads.heads + heads.kv_heads) * d;
    let direction = if turn == Turn::Forward { 1.0 } else { -1.0 };
    each(pool, qkv.chunks_mut(ROWS * stride).zip(positions.chunks(ROWS)), |_, (rows, positions)| {
        for (row, &position) in rows.chunks_exact_mut(stride).zip(positions) {
            let (cos, sin) = angles.values[position as usize * d..][..d].split_at(d / 2);
            rotate_row(&mut row[..turned], cos, sin, direction);
        }
    });
}

simd! {
fn rotate_row(x: &mut [f32], cos: &[f32], sin: &[f32], direction: f32) {
    for head in x.chunks_exact_mut(2 * cos.len()) {
        let (low, high) = head.split_at_mut(cos.len());
        for (((a, b), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
            let sin = sin * direction;
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}
}
