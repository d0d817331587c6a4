//! A pass through all layers, there and back.

use candle_core::{Result, Tensor};
use stockade_core::train::TrainError;

use super::attention::Documents;
use super::course::{Course, Site};
use super::layer::Inner;
use super::rows::{Angles, norm, norm_back};
use super::{DeviceNetwork, add_to};
use crate::network::{Gradients, LogProbs, Mode, Network, Packed};

/// Packed documents on their way through a network.
#[derive(Debug)]
pub(in crate::network) struct DevicePass {
    pub(super) packed: Packed,
    course: Course,
    layers: Vec<Saved>,
    /// The residual stream after the last layer `[N, C]`; `None` for evaluation.
    last: Option<Tensor>,
    /// The same after the final norm.
    pub(super) states: Tensor,
    /// Of the language head.
    pub(in crate::network) temperature: f32,
    /// Log-sum-exps of the logits, once they have been asked for.
    pub(super) sums: Option<Vec<f32>>,
}

#[derive(Debug)]
struct Saved {
    /// `[N, C]`
    input: Tensor,
    /// `None`: to be computed again.
    inner: Option<Inner>,
}

impl DevicePass {
    /// Backward is possible.
    pub(super) fn keeps(&self) -> bool {
        matches!(self.course.mode, Mode::Train { .. })
    }
}

/// What the seam asks for; errors of tensors become the device's.
impl DeviceNetwork {
    pub(in crate::network) fn forward(
        &self,
        network: &Network,
        packed: &Packed,
        mode: Mode,
        adapter: bool,
    ) -> std::result::Result<DevicePass, TrainError> {
        self.run(network, packed, mode, adapter).map_err(|error| self.failed(&error))
    }

    pub(in crate::network) fn log_probs(&self, pass: &mut DevicePass) -> std::result::Result<LogProbs, TrainError> {
        self.log_probs_of(pass).map_err(|error| self.failed(&error))
    }

    pub(in crate::network) fn backward(
        &self,
        network: &Network,
        pass: DevicePass,
        d_log_probs: &[f32],
        d_log_sum_exp: Option<&[f32]>,
        gradients: &mut Gradients,
    ) -> std::result::Result<(), TrainError> {
        let d_states = self.log_probs_back(network, &pass, d_log_probs, d_log_sum_exp, gradients);
        self.back(network, pass, d_states, gradients)
    }

    pub(in crate::network) fn states(&self, pass: &DevicePass) -> std::result::Result<Vec<f32>, TrainError> {
        let states = pass.states.flatten_all().and_then(|states| states.to_vec1());
        states.map_err(|error| self.failed(&error))
    }

    pub(in crate::network) fn backward_states(
        &self,
        network: &Network,
        pass: DevicePass,
        d_states: &[f32],
        gradients: &mut Gradients,
    ) -> std::result::Result<(), TrainError> {
        let d_states = self.products.upload(d_states, pass.states.dims());
        self.back(network, pass, d_states, gradients)
    }

    pub(in crate::network) fn scores(
        &self,
        pass: &DevicePass,
        positions: &[usize],
    ) -> std::result::Result<Vec<f32>, TrainError> {
        self.scores_at(pass, positions).map_err(|error| self.failed(&error))
    }

    pub(in crate::network) fn backward_scores(
        &self,
        network: &Network,
        pass: DevicePass,
        positions: &[usize],
        d_scores: &[f32],
        gradients: &mut Gradients,
    ) -> std::result::Result<(), TrainError> {
        let d_states = self.scores_back(network, &pass, positions, d_scores, gradients);
        self.back(network, pass, d_states, gradients)
    }

    pub(in crate::network) fn logits(
        &self,
        pass: &DevicePass,
        positions: &[usize],
    ) -> std::result::Result<Vec<f32>, TrainError> {
        self.logits_at(pass, positions).map_err(|error| self.failed(&error))
    }
}

impl DeviceNetwork {
    /// On from what a head gave.
    fn back(
        &self,
        network: &Network,
        pass: DevicePass,
        d_states: Result<Tensor>,
        gradients: &mut Gradients,
    ) -> std::result::Result<(), TrainError> {
        let back = d_states.and_then(|d_states| self.layers_back(network, pass, &d_states, gradients));
        back.map_err(|error| self.failed(&error))
    }

    fn run(&self, network: &Network, packed: &Packed, mode: Mode, adapter: bool) -> Result<DevicePass> {
        let (config, products) = (&network.config, &self.products);
        let longest = packed.longest();
        let table = network.rope.angles(longest);
        let table = products.upload(&table.values()[..longest * config.head_dim], &[longest, config.head_dim])?;
        let course = Course {
            documents: Documents::new(packed, config.heads, products, self.piece)?,
            angles: Angles::new(&table, &products.indices(&packed.positions())?)?,
            mode,
            adapter,
        };
        let mut x = self.embedding.index_select(&products.indices(&packed.tokens)?, 0)?;
        let mut layers = Vec::new();
        let keeps = matches!(mode, Mode::Train { .. });
        for (index, layer) in self.layers.iter().enumerate() {
            let site = Site { network, products, course: &course, index };
            let inner = layer.inner(site, &x)?;
            let out = layer.output(site, &inner)?;
            if keeps {
                layers.push(Saved { input: x, inner: (!network.checkpointing).then_some(inner) });
            }
            x = out;
        }
        let states = norm(&x, &self.norm, config.norm_eps)?;
        let last = keeps.then_some(x);
        Ok(DevicePass { packed: packed.clone(), course, layers, last, states, temperature: 1.0, sums: None })
    }

    /// From the gradient of the states `[N, C]` down to the embedding.
    fn layers_back(
        &self,
        network: &Network,
        pass: DevicePass,
        d_states: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<()> {
        let DevicePass { packed, course, mut layers, last, states, .. } = pass;
        let last = last.expect("a pass for evaluation has no way back");
        if network.adapters.is_empty() && network.master(network.layout.norm).is_none() {
            return Ok(()); // Only the head is trained.
        }
        drop(states);
        let (mut dx, d_gain) = norm_back(&last, &self.norm, network.config.norm_eps, d_states)?;
        if let Some(norm) = network.master(network.layout.norm) {
            add_to(gradients.get_mut(norm), &d_gain)?;
        }
        for (index, layer) in self.layers.iter().enumerate().rev() {
            let Some(Saved { input, inner }) = layers.pop() else { break };
            let site = Site { network, products: &self.products, course: &course, index };
            let inner = inner.map_or_else(|| layer.inner(site, &input), Ok)?;
            dx = layer.backward(site, &input, inner, dx, gradients)?;
        }
        if let Some(embedding) = network.master(network.layout.embedding) {
            let dx = dx.flatten_all()?.to_vec1::<f32>()?;
            network.embedding_back(&packed.tokens, &dx, gradients.get_mut(embedding));
        }
        Ok(())
    }
}
