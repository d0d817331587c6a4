//! Angles of rotary positions.
//!
//! Computed in f32 from f32 frequencies, as the reference implementation does; cosines and sines are never rounded
//! further. They are made for the rows of a step, not for the whole context: a table of 131,072 positions would
//! take 32 MiB.
//!
//! Source: Su et al. 2021, "RoFormer", arXiv:2104.09864.

/// Cosines and sines `[n, half]` of the rows of a step.
#[derive(Debug, Default)]
pub(super) struct Angles {
    pub(super) cos: Vec<f32>,
    pub(super) sin: Vec<f32>,
}

impl Angles {
    pub(super) fn fill(&mut self, frequencies: &[f32], positions: impl Iterator<Item = usize>) {
        self.cos.clear();
        self.sin.clear();
        for position in positions {
            for f in frequencies {
                let (sin, cos) = (position as f32 * f).sin_cos();
                self.cos.push(cos);
                self.sin.push(sin);
            }
        }
    }
}
