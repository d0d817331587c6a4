//! One decoder layer, there and back.

use candle_core::{Result, Tensor};

use super::course::{Input, Site};
use super::linear::Linear;
use super::rows::{norm, norm_back, swiglu, swiglu_back};
use super::{Products, add_to, base};
use crate::network::attention::Heads;
use crate::network::layout;
use crate::network::{Gradients, Network};

#[derive(Debug)]
pub(super) struct Layer {
    attention_norm: Tensor,
    qkv: Linear,
    /// Gains over each head of q and of k, before rope.
    head_norms: Option<[Tensor; 2]>,
    o: Linear,
    mlp_norm: Tensor,
    gate_up: Linear,
    down: Linear,
}

/// What a layer's backward needs besides its input.
#[derive(Debug)]
pub(super) struct Inner {
    /// `[N, (H + 2 Hk) D]`, rotated.
    qkv: Tensor,
    /// q and k before their norms, `[N, H, D]` and `[N, Hk, D]`.
    raw: Option<[Tensor; 2]>,
    /// `[N, H D]`
    attended: Tensor,
    /// The residual stream between the halves `[N, C]`.
    middle: Tensor,
    /// `[N, 2 F]`
    gate_up: Tensor,
}

impl Layer {
    pub(super) fn new(network: &Network, layer: &layout::Layer, products: &Products) -> Result<Self> {
        let linear = |matrices| Linear::new(network, matrices, products);
        let gains = |[q, k]: [usize; 2]| Result::Ok([base(network, q, products)?, base(network, k, products)?]);
        Ok(Self {
            attention_norm: base(network, layer.attention_norm, products)?,
            qkv: linear(&layer.qkv)?,
            head_norms: layer.head_norms.map(gains).transpose()?,
            o: linear(&layer.o)?,
            mlp_norm: base(network, layer.mlp_norm, products)?,
            gate_up: linear(&layer.gate_up)?,
            down: linear(&layer.down)?,
        })
    }

    /// Takes over the adapters.
    pub(super) fn adapt(&mut self, network: &Network, layer: &layout::Layer, products: &Products) -> Result<()> {
        self.qkv.adapt(network, &layer.qkv, products)?;
        self.o.adapt(network, &layer.o, products)?;
        self.gate_up.adapt(network, &layer.gate_up, products)?;
        self.down.adapt(network, &layer.down, products)
    }

    /// All that the layer computes of its input `x [N, C]`, but for its output.
    pub(super) fn inner(&self, site: Site<'_>, x: &Tensor) -> Result<Inner> {
        let (layout, heads, eps) = (site.layout(), site.heads(), site.eps());
        let normed = norm(x, &self.attention_norm, eps)?;
        let qkv = self.qkv.forward(site, &layout.qkv, Input::Attention, &normed)?;
        let [q, k, v] = split(&qkv, heads)?;
        let (q, k, raw) = match &self.head_norms {
            Some([q_gain, k_gain]) => (norm(&q, q_gain, eps)?, norm(&k, k_gain, eps)?, Some([q, k])),
            None => (q, k, None),
        };
        let angles = &site.course.angles;
        let qkv = Tensor::cat(&[angles.turn(&q)?, angles.turn(&k)?, v], 1)?.flatten_from(1)?;
        let attended = site.course.documents.forward(heads, &qkv)?;
        let middle = (self.o.forward(site, &layout.o, Input::Attended, &attended)? + x)?;
        let normed = norm(&middle, &self.mlp_norm, eps)?;
        let gate_up = self.gate_up.forward(site, &layout.gate_up, Input::Mlp, &normed)?;
        Ok(Inner { qkv, raw, attended, middle, gate_up })
    }

    /// The layer's output `[N, C]`.
    pub(super) fn output(&self, site: Site<'_>, inner: &Inner) -> Result<Tensor> {
        let gated = swiglu(&inner.gate_up)?;
        self.down.forward(site, &site.layout().down, Input::Gated, &gated)? + &inner.middle
    }

    /// From the gradient of the layer's output to that of its input; adds the parameters' gradients.
    pub(super) fn backward(
        &self,
        site: Site<'_>,
        x: &Tensor,
        inner: Inner,
        dx: Tensor,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let (layout, heads, eps) = (site.layout(), site.heads(), site.eps());
        let Inner { qkv, raw, attended, middle, gate_up } = inner;

        // Feed-forward.
        let gated = swiglu(&gate_up)?;
        let d_gated = self.down.backward(site, &layout.down, Input::Gated, &gated, &dx, gradients)?;
        let d_gate_up = swiglu_back(&gate_up, &d_gated)?;
        drop((gated, d_gated, gate_up));
        let normed = norm(&middle, &self.mlp_norm, eps)?;
        let d_normed = self.gate_up.backward(site, &layout.gate_up, Input::Mlp, &normed, &d_gate_up, gradients)?;
        drop(d_gate_up);
        let (d_middle, d_gain) = norm_back(&middle, &self.mlp_norm, eps, &d_normed)?;
        add_gain(site, layout.mlp_norm, &d_gain, gradients)?;
        let dx = (dx + d_middle)?;

        // Attention.
        let d_attended = self.o.backward(site, &layout.o, Input::Attended, &attended, &dx, gradients)?;
        let d_qkv = site.course.documents.backward(heads, &qkv, &d_attended)?;
        let [d_q, d_k, d_v] = split(&d_qkv, heads)?;
        let angles = &site.course.angles;
        let (mut d_q, mut d_k) = (angles.turn_back(&d_q)?, angles.turn_back(&d_k)?);
        if let (Some([q_gain, k_gain]), Some([q, k]), Some(gains)) = (&self.head_norms, raw, layout.head_norms) {
            let (d_raw_q, d_q_gain) = norm_back(&q, q_gain, eps, &d_q)?;
            let (d_raw_k, d_k_gain) = norm_back(&k, k_gain, eps, &d_k)?;
            add_gain(site, gains[0], &d_q_gain, gradients)?;
            add_gain(site, gains[1], &d_k_gain, gradients)?;
            (d_q, d_k) = (d_raw_q, d_raw_k);
        }
        let d_qkv = Tensor::cat(&[d_q, d_k, d_v], 1)?.flatten_from(1)?;
        let normed = norm(x, &self.attention_norm, eps)?;
        let d_normed = self.qkv.backward(site, &layout.qkv, Input::Attention, &normed, &d_qkv, gradients)?;
        let (d_x, d_gain) = norm_back(x, &self.attention_norm, eps, &d_normed)?;
        add_gain(site, layout.attention_norm, &d_gain, gradients)?;
        dx + d_x
    }
}

/// Adds to the gradient of a gain, where it is trained.
fn add_gain(site: Site<'_>, gain: usize, d_gain: &Tensor, gradients: &mut Gradients) -> Result<()> {
    match site.network.master(gain) {
        Some(parameter) => add_to(gradients.get_mut(parameter), d_gain),
        None => Ok(()),
    }
}

/// q `[N, H, D]`, k and v `[N, Hk, D]` of `[N, (H + 2 Hk) D]`.
fn split(qkv: &Tensor, heads: Heads) -> Result<[Tensor; 3]> {
    let (h, kv) = (heads.heads, heads.kv_heads);
    let all = qkv.reshape(((), h + 2 * kv, heads.head_dim))?;
    Ok([all.narrow(1, 0, h)?, all.narrow(1, h, kv)?, all.narrow(1, h + kv, kv)?])
}
