//! What layers need to know of the pass they are in.

use candle_core::{Result, Tensor};

use super::Products;
use super::attention::Documents;
use super::rows::Angles;
use crate::network::attention::Heads;
pub(super) use crate::network::layer::Input;
use crate::network::{Mode, Network, layout};

/// What all layers of a pass share.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) documents: Documents,
    pub(super) angles: Angles,
    pub(super) mode: Mode,
    /// Adapters are on.
    pub(super) adapter: bool,
}

/// A layer's place in a pass.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    pub(super) network: &'a Network,
    pub(super) products: &'a Products,
    pub(super) course: &'a Course,
    /// Of the layer.
    pub(super) index: usize,
}

impl<'a> Site<'a> {
    pub(super) fn layout(&self) -> &'a layout::Layer {
        &self.network.layout.layers[self.index]
    }

    pub(super) fn heads(&self) -> Heads {
        self.network.heads(self.index)
    }

    pub(super) fn eps(&self) -> f32 {
        self.network.config.norm_eps
    }

    /// What adapters see of an input `x [N, cols]`, and the mask that made it, if there is one.
    pub(super) fn dropped(&self, input: Input, x: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
        let Some(draw) = self.network.draw(self.course.mode, self.course.adapter, self.index, input) else {
            return Ok((x.clone(), None));
        };
        let (n, cols) = x.dims2()?;
        let (ones, mut mask) = (vec![1.0; n * cols], vec![0.0; n * cols]);
        draw.apply(&self.network.pool, &ones, cols, &mut mask);
        let mask = self.products.upload(&mask, &[n, cols])?;
        Ok(((x * &mask)?, Some(mask)))
    }
}
