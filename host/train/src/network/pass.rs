//! What losses ask of a network, whatever computes it.

use std::borrow::Cow;

use stockade_core::train::TrainError;

use super::device::DevicePass;
use super::host::HostPass;
use super::{Gradients, LogProbs, Mode, Network, Packed};

/// Packed documents on their way through a network.
#[derive(Debug)]
pub struct Pass(Work);

#[derive(Debug)]
enum Work {
    Host(HostPass),
    Device(DevicePass),
}

impl Pass {
    /// Divides the logits before their softmax, so that log-probabilities are those of the distribution that answers were
    /// sampled from. Over 0.
    pub fn at_temperature(mut self, temperature: f32) -> Self {
        match &mut self.0 {
            Work::Host(pass) => pass.temperature = temperature,
            Work::Device(pass) => pass.temperature = temperature,
        }
        self
    }
}

impl Network {
    /// Runs documents through the network; `adapter` false: through its base.
    ///
    /// # Errors
    /// A device that fails.
    ///
    /// # Panics
    /// If [`Packed::check`] would refuse them.
    pub fn forward(&self, packed: &Packed, mode: Mode, adapter: bool) -> Result<Pass, TrainError> {
        Ok(Pass(match &self.device {
            None => Work::Host(self.host_forward(packed, mode, adapter)),
            Some(device) => Work::Device(device.forward(self, packed, mode, adapter)?),
        }))
    }

    /// Log-probability, log-sum-exp and entropy at each target.
    ///
    /// # Errors
    /// A device that fails.
    ///
    /// # Panics
    /// If the network has no language head.
    pub fn log_probs(&self, pass: &mut Pass) -> Result<LogProbs, TrainError> {
        match &mut pass.0 {
            Work::Host(pass) => Ok(self.host_log_probs(pass)),
            Work::Device(pass) => self.on_device().log_probs(pass),
        }
    }

    /// Adds the gradients of a loss of which `d_log_probs` (and `d_log_sum_exp`) are the derivatives, one for each target.
    ///
    /// # Errors
    /// A device that fails; the gradients are no longer of use then.
    ///
    /// # Panics
    /// If the pass was for evaluation, if its log-probabilities were never asked for, or if there are not as many
    /// derivatives as targets.
    pub fn backward(
        &self,
        pass: Pass,
        d_log_probs: &[f32],
        d_log_sum_exp: Option<&[f32]>,
        gradients: &mut Gradients,
    ) -> Result<(), TrainError> {
        match pass.0 {
            Work::Host(pass) => self.host_backward(pass, d_log_probs, d_log_sum_exp, gradients),
            Work::Device(pass) => self.on_device().backward(self, pass, d_log_probs, d_log_sum_exp, gradients)?,
        }
        Ok(())
    }

    /// States after the final norm, `[N, C]`.
    ///
    /// # Errors
    /// A device that fails.
    pub fn states<'a>(&self, pass: &'a Pass) -> Result<Cow<'a, [f32]>, TrainError> {
        match &pass.0 {
            Work::Host(pass) => Ok(Cow::Borrowed(&pass.states)),
            Work::Device(pass) => Ok(Cow::Owned(self.on_device().states(pass)?)),
        }
    }

    /// Adds the gradients of a loss of which `d_states [N, C]` is the derivative.
    ///
    /// # Errors
    /// As [`Self::backward`].
    ///
    /// # Panics
    /// If the pass was for evaluation, or if the shapes do not agree.
    pub fn backward_states(&self, pass: Pass, d_states: &[f32], gradients: &mut Gradients) -> Result<(), TrainError> {
        match pass.0 {
            Work::Host(pass) => self.host_backward_states(pass, d_states, gradients),
            Work::Device(pass) => self.on_device().backward_states(self, pass, d_states, gradients)?,
        }
        Ok(())
    }

    /// Scores of the head at `positions`: `[positions, labels]`.
    ///
    /// # Errors
    /// A device that fails.
    ///
    /// # Panics
    /// If the network has no score head, or a position is outside the pass.
    pub fn scores(&self, pass: &Pass, positions: &[usize]) -> Result<Vec<f32>, TrainError> {
        match &pass.0 {
            Work::Host(pass) => Ok(self.host_scores(pass, positions)),
            Work::Device(pass) => self.on_device().scores(pass, positions),
        }
    }

    /// Adds the gradients of a loss of which `d_scores [positions, labels]` is the derivative.
    ///
    /// # Errors
    /// As [`Self::backward`].
    ///
    /// # Panics
    /// As [`Self::scores`], and if the pass was for evaluation.
    pub fn backward_scores(
        &self,
        pass: Pass,
        positions: &[usize],
        d_scores: &[f32],
        gradients: &mut Gradients,
    ) -> Result<(), TrainError> {
        match pass.0 {
            Work::Host(pass) => self.host_backward_scores(pass, positions, d_scores, gradients),
            Work::Device(pass) => self.on_device().backward_scores(self, pass, positions, d_scores, gradients)?,
        }
        Ok(())
    }

    /// Logits at these positions, `[positions, V]`; nothing is dropped, adapters are on. For checks.
    ///
    /// # Errors
    /// A device that fails.
    pub fn logits(&self, packed: &Packed, positions: &[usize]) -> Result<Vec<f32>, TrainError> {
        match self.forward(packed, Mode::Eval, true)?.0 {
            Work::Host(pass) => Ok(self.host_logits(&pass, positions)),
            Work::Device(pass) => self.on_device().logits(&pass, positions),
        }
    }

    fn on_device(&self) -> &super::DeviceNetwork {
        self.device.as_ref().expect("the pass is of a network on a device")
    }
}
