//! Learning rates over a run, as shares of the highest.

/// How the rate goes down after the warmup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Constant,
    /// Half a cosine (arXiv:1608.03983).
    Cosine,
    Linear,
    /// Constant, then linear over the last `decay` steps (warmup, stable, decay: arXiv:2404.06395). Continued training
    /// branches off the stable part.
    Wsd {
        decay: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    pub shape: Shape,
    /// Steps until the rate is at its highest. A run that continues from a trained model warms up again: its moments
    /// begin at zero.
    pub warmup: u64,
    /// Steps of the run.
    pub steps: u64,
    /// The share that is left at the end, 0 to 1.
    pub floor: f64,
}

impl Schedule {
    /// The share at `step`, from 0.
    pub fn factor(&self, step: u64) -> f64 {
        if step < self.warmup {
            return (step + 1) as f64 / self.warmup as f64;
        }
        let fall = |left: f64| self.floor + (1.0 - self.floor) * left;
        let past = step.saturating_sub(self.warmup) as f64 / self.steps.saturating_sub(self.warmup).max(1) as f64;
        let past = past.min(1.0);
        match self.shape {
            Shape::Constant => 1.0,
            Shape::Cosine => fall(0.5 * (1.0 + (std::f64::consts::PI * past).cos())),
            Shape::Linear => fall(1.0 - past),
            Shape::Wsd { decay } => fall((self.steps.saturating_sub(step) as f64 / decay.max(1) as f64).min(1.0)),
        }
    }
}
