//! AdamW, Muon, clipping and schedules.
//!
//! An [`Optimizer`] owns the moments of every parameter and moves one parameter at a time; the loop decides
//! the share of its rate. Invariant: an update is a function of values, gradient, moments and rate, bit for bit, for any number of
//! threads: work is cut by the shape of a parameter and each number is computed by one of them.

mod adamw;
mod clip;
mod muon;
mod schedule;

pub use clip::clip_scale;
pub use muon::{MuonScale, Orthogonalisation};
pub use schedule::{Schedule, Shape};

use crate::network::{Kind, Parameter};
use stockade_kernels::Pool;

/// How parameters move.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerSettings {
    /// At the schedule's height.
    pub rate: f64,
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled, in units of the rate; never on norms, biases and magnitudes.
    pub weight_decay: f64,
    /// Set: hidden matrices are moved by Muon, everything else by AdamW.
    pub muon: Option<Muon>,
}

/// Settings of Muon (Jordan 2024).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Muon {
    /// 0.95 in the source.
    pub momentum: f64,
    pub orthogonalisation: Orthogonalisation,
    pub scale: MuonScale,
    pub rate: f64,
    pub weight_decay: f64,
}

/// Moments of all parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Optimizer {
    settings: OptimizerSettings,
    /// In the order of the network's parameters.
    states: Vec<State>,
    applied: u64,
    /// The schedule's share of the rates in this step.
    share: f64,
}

#[derive(Debug, Clone, PartialEq)]
struct State {
    name: String,
    decays: bool,
    moments: Moments,
}

#[derive(Debug, Clone, PartialEq)]
enum Moments {
    Adamw { first: Vec<f32>, second: Vec<f32> },
    Muon { momentum: Vec<f32>, rows: usize },
}

impl Optimizer {
    /// Moments of zero for each parameter.
    pub fn new(parameters: &[Parameter], settings: OptimizerSettings) -> Self {
        let states = parameters.iter().map(|parameter| {
            let len: usize = parameter.shape.iter().product();
            let moments = match settings.muon {
                Some(_) if parameter.kind == Kind::Matrix && parameter.shape.len() == 2 => {
                    Moments::Muon { momentum: vec![0.0; len], rows: parameter.shape[0] }
                }
                _ => Moments::Adamw { first: vec![0.0; len], second: vec![0.0; len] },
            };
            let decays = !matches!(parameter.kind, Kind::Norm | Kind::Bias | Kind::Magnitude);
            State { name: parameter.name.clone(), decays, moments }
        });
        Self { settings, states: states.collect(), applied: 0, share: 0.0 }
    }

    /// Steps that have moved the parameters; skipped ones do not count.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Begins a step at a share of the learning rates; each parameter is to be updated once.
    pub fn begin(&mut self, share: f64) {
        self.applied += 1;
        self.share = share;
    }

    /// Moves a parameter along `scale * gradient`.
    pub fn update(&mut self, index: usize, values: &mut [f32], gradient: &[f32], scale: f32, pool: &Pool) {
        let Self { settings, states, applied, share } = self;
        let state = &mut states[index];
        match (&mut state.moments, settings.muon) {
            (Moments::Muon { momentum, rows }, Some(muon)) => {
                muon::update(values, gradient, scale, momentum, *rows, &muon, *share, pool);
            }
            (Moments::Adamw { first, second }, _) => {
                let decay = if state.decays { settings.weight_decay } else { 0.0 };
                let step = adamw::Step::new(settings, *share * settings.rate, decay, *applied, scale);
                adamw::update(values, gradient, first, second, &step, pool);
            }
            (Moments::Muon { .. }, None) => unreachable!("`new` makes these moments for Muon only"),
        }
    }

    /// Every moment by name, as a checkpoint keeps them.
    pub fn moments(&self) -> impl Iterator<Item = (String, &[f32])> {
        self.states.iter().flat_map(|State { name, moments, .. }| {
            let pair: [Option<(String, &[f32])>; 2] = match moments {
                Moments::Adamw { first, second } => {
                    [Some((format!("first.{name}"), first)), Some((format!("second.{name}"), second))]
                }
                Moments::Muon { momentum, .. } => [Some((format!("momentum.{name}"), momentum)), None],
            };
            pair.into_iter().flatten()
        })
    }

    /// The same, to be filled from a checkpoint; `applied` steps had been taken.
    pub fn restore(&mut self, applied: u64) -> impl Iterator<Item = (String, &mut [f32])> {
        self.applied = applied;
        self.states.iter_mut().flat_map(|State { name, moments, .. }| {
            let pair: [Option<(String, &mut [f32])>; 2] = match moments {
                Moments::Adamw { first, second } => {
                    [Some((format!("first.{name}"), first)), Some((format!("second.{name}"), second))]
                }
                Moments::Muon { momentum, .. } => [Some((format!("momentum.{name}"), momentum)), None],
            };
            pair.into_iter().flatten()
        })
    }
}

#[cfg(test)]
mod tests;
