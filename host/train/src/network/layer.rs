//! One decoder layer, there and back.

use super::attention::{self, Heads};
use super::buffer::Buffer;
use super::dropout::Draw;
use super::gradients::Gradients;
use super::linear::Path;
use super::parallel::{ROWS, each};
use super::rope::{Angles, Turn, rotate};
use super::{Mode, Network, Packed, norm, swiglu};

/// What all layers of a pass share.
pub(super) struct Course<'a> {
    pub(super) packed: &'a Packed,
    /// `[N]` in their documents.
    pub(super) positions: &'a [u32],
    pub(super) angles: &'a Angles,
    pub(super) mode: Mode,
    pub(super) adapter: bool,
}

/// What a layer's backward needs besides its input.
#[derive(Debug)]
pub(super) struct Inner {
    /// `[N, (H + 2 Hk) D]`, rotated.
    qkv: Buffer,
    /// q and k before their norms `[N, (H + Hk) D]`.
    raw: Option<Buffer>,
    /// `[H, N]`
    log_sum_exp: Buffer,
    /// `[N, H D]`
    attended: Buffer,
    /// The residual stream between the halves `[N, C]`.
    middle: Buffer,
    /// `[N, 2 F]`
    gate_up: Buffer,
}

/// Inputs that dropout draws for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Input {
    Attention = 0,
    Attended = 1,
    Mlp = 2,
    Gated = 3,
}

impl Network {
    /// All that a layer computes of its input `x [N, C]`, but for its output.
    pub(super) fn layer_inner(&self, index: usize, course: &Course<'_>, x: &[f32]) -> Inner {
        let (layer, heads, eps) = (&self.layout.layers[index], self.heads(index), self.config.norm_eps);
        let (c, f) = (self.config.hidden_size, self.config.intermediate_size);
        let n = x.len() / c;

        let mut normed = self.buffers.take(n * c);
        norm::forward(&self.pool, x, self.base(layer.attention_norm), eps, &mut normed);
        let mut qkv = self.buffers.take(n * heads.width());
        self.project(&layer.qkv, self.path(course, index, Input::Attention), &normed, &mut qkv);
        let raw = layer.head_norms.map(|gains| self.norm_heads(gains, heads, &mut qkv));
        self.turn(heads, course, &mut qkv, Turn::Forward);
        let mut attended = self.buffers.take(n * heads.heads * heads.head_dim);
        let mut log_sum_exp = self.buffers.take(n * heads.heads);
        attention::forward(&self.products, heads, &qkv, &course.packed.ends, &mut attended, &mut log_sum_exp);
        let mut middle = self.buffers.take(n * c);
        self.project(&layer.o, self.path(course, index, Input::Attended), &attended, &mut middle);
        self.add(&mut middle, x);

        norm::forward(&self.pool, &middle, self.base(layer.mlp_norm), eps, &mut normed);
        let mut gate_up = self.buffers.take(n * 2 * f);
        self.project(&layer.gate_up, self.path(course, index, Input::Mlp), &normed, &mut gate_up);
        Inner { qkv, raw, log_sum_exp, attended, middle, gate_up }
    }

    /// The layer's output `[N, C]`.
    pub(super) fn layer_output(&self, index: usize, course: &Course<'_>, inner: &Inner) -> Buffer {
        let (c, f) = (self.config.hidden_size, self.config.intermediate_size);
        let n = inner.middle.len() / c;
        let mut gated = self.buffers.take(n * f);
        swiglu::forward(&self.pool, &inner.gate_up, f, &mut gated);
        let mut out = self.buffers.take(n * c);
        let path = self.path(course, index, Input::Gated);
        self.project(&self.layout.layers[index].down, path, &gated, &mut out);
        self.add(&mut out, &inner.middle);
        out
    }

    /// From the gradient of the layer's output to that of its input, in place; adds the parameters' gradients.
    pub(super) fn layer_backward(
        &self,
        index: usize,
        course: &Course<'_>,
        x: &[f32],
        inner: Inner,
        dx: &mut [f32],
        gradients: &mut Gradients,
    ) {
        let (layer, heads, eps) = (&self.layout.layers[index], self.heads(index), self.config.norm_eps);
        let (c, f) = (self.config.hidden_size, self.config.intermediate_size);
        let n = x.len() / c;
        let Inner { mut qkv, raw, log_sum_exp, attended, middle, mut gate_up } = inner;

        // Feed-forward. `project_back` may change its `dy`, and `dx` goes on as the residual's gradient.
        let mut dy = self.buffers.take(n * c);
        dy.copy_from_slice(dx);
        let mut gated = self.buffers.take(n * f);
        swiglu::forward(&self.pool, &gate_up, f, &mut gated);
        let mut d_gated = self.buffers.take(n * f);
        let path = self.path(course, index, Input::Gated);
        self.project_back(&layer.down, path, &gated, &mut dy, Some(&mut d_gated), gradients);
        drop(gated);
        swiglu::backward(&self.pool, &mut gate_up, f, &d_gated);
        drop(d_gated);
        let mut normed = self.buffers.take(n * c);
        norm::forward(&self.pool, &middle, self.base(layer.mlp_norm), eps, &mut normed);
        let mut d_normed = dy;
        let path = self.path(course, index, Input::Mlp);
        self.project_back(&layer.gate_up, path, &normed, &mut gate_up, Some(&mut d_normed), gradients);
        self.norm_back(layer.mlp_norm, &middle, &d_normed, dx, gradients);
        drop(gate_up);

        // Attention.
        let mut dy = d_normed;
        dy.copy_from_slice(dx);
        let mut d_attended = self.buffers.take(n * heads.heads * heads.head_dim);
        let path = self.path(course, index, Input::Attended);
        self.project_back(&layer.o, path, &attended, &mut dy, Some(&mut d_attended), gradients);
        let mut d_qkv = self.buffers.take(n * heads.width());
        let ends = &course.packed.ends;
        let kept = attention::Kept { qkv: &qkv, out: &attended, log_sum_exp: &log_sum_exp };
        attention::backward(&self.products, heads, kept, ends, &d_attended, &mut d_qkv);
        self.turn(heads, course, &mut d_qkv, Turn::Back);
        if let (Some(gains), Some(raw)) = (layer.head_norms, raw) {
            self.norm_heads_back(gains, heads, &raw, &mut d_qkv, &mut qkv, gradients);
        }
        norm::forward(&self.pool, x, self.base(layer.attention_norm), eps, &mut normed);
        let mut d_normed = dy;
        let below = index > 0 || self.master(self.layout.embedding).is_some();
        let path = self.path(course, index, Input::Attention);
        self.project_back(&layer.qkv, path, &normed, &mut d_qkv, below.then_some(&mut *d_normed), gradients);
        if below {
            self.norm_back(layer.attention_norm, x, &d_normed, dx, gradients);
        }
    }

    fn path(&self, course: &Course<'_>, layer: usize, input: Input) -> Path {
        Path { adapter: course.adapter, dropout: self.draw(course.mode, course.adapter, layer, input) }
    }

    /// What dropout draws for an input of a layer.
    pub(super) fn draw(&self, mode: Mode, adapter: bool, layer: usize, input: Input) -> Option<Draw> {
        match mode {
            Mode::Train { seed, step, row } if adapter => {
                Draw::new(self.dropout, (seed, step, row), layer, input as u64)
            }
            _ => None,
        }
    }

    pub(super) fn heads(&self, layer: usize) -> Heads {
        let config = &self.config;
        Heads {
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            window: config.windows[layer],
        }
    }

    fn turn(&self, heads: Heads, course: &Course<'_>, qkv: &mut [f32], turn: Turn) {
        rotate(&self.pool, qkv, heads, course.positions, course.angles, turn);
    }

    /// `x += y`.
    fn add(&self, x: &mut [f32], y: &[f32]) {
        let run = ROWS * self.config.hidden_size;
        each(&self.pool, x.chunks_mut(run).zip(y.chunks(run)), |_, (x, y)| {
            x.iter_mut().zip(y).for_each(|(x, y)| *x += y)
        });
    }

    /// Adds to `dx` and to the gain's gradient.
    pub(super) fn norm_back(&self, gain: usize, x: &[f32], dy: &[f32], dx: &mut [f32], gradients: &mut Gradients) {
        let d_gain = self.master(gain).map(|i| gradients.get_mut(i));
        norm::backward(&self.pool, x, self.base(gain), self.config.norm_eps, dy, dx, d_gain);
    }

    /// Norms the heads of q and k in place; gives what they were.
    fn norm_heads(&self, gains: [usize; 2], heads: Heads, qkv: &mut [f32]) -> Buffer {
        let (width, d) = (heads.width(), heads.head_dim);
        let (q, both) = (heads.heads * d, (heads.heads + heads.kv_heads) * d);
        let mut raw = self.buffers.take(qkv.len() / width * both);
        let [q_gain, k_gain] = gains.map(|gain| self.base(gain));
        each(&self.pool, qkv.chunks_mut(ROWS * width).zip(raw.chunks_mut(ROWS * both)), |_, (qkv, raw)| {
            for (row, raw) in qkv.chunks_exact_mut(width).zip(raw.chunks_exact_mut(both)) {
                raw.copy_from_slice(&row[..both]);
                norm::forward_rows(&raw[..q], q_gain, self.config.norm_eps, &mut row[..q]);
                norm::forward_rows(&raw[q..], k_gain, self.config.norm_eps, &mut row[q..both]);
            }
        });
        raw
    }

    /// Turns the gradients of normed heads into those of raw ones, in place; `spare` is as large.
    fn norm_heads_back(
        &self,
        gains: [usize; 2],
        heads: Heads,
        raw: &[f32],
        d_qkv: &mut [f32],
        spare: &mut [f32],
        gradients: &mut Gradients,
    ) {
        let (width, d, eps) = (heads.width(), heads.head_dim, self.config.norm_eps);
        let (q, both) = (heads.heads * d, (heads.heads + heads.kv_heads) * d);
        let [q_gain, k_gain] = gains.map(|gain| self.base(gain));
        let mut partial = vec![0.0; d_qkv.len().div_ceil(ROWS * width) * 2 * d];
        let pieces = d_qkv.chunks_mut(ROWS * width).zip(spare.chunks_mut(ROWS * width));
        let pieces = pieces.zip(raw.chunks(ROWS * both)).zip(partial.chunks_mut(2 * d));
        each(&self.pool, pieces, |_, (((d_qkv, spare), raw), partial)| {
            let (q_sum, k_sum) = partial.split_at_mut(d);
            let rows = d_qkv.chunks_exact_mut(width).zip(spare.chunks_exact_mut(width)).zip(raw.chunks_exact(both));
            for ((row, dy), raw) in rows {
                dy[..both].copy_from_slice(&row[..both]);
                row[..both].fill(0.0);
                norm::backward_rows(&raw[..q], q_gain, eps, &dy[..q], &mut row[..q], q_sum);
                norm::backward_rows(&raw[q..], k_gain, eps, &dy[q..both], &mut row[q..both], k_sum);
            }
        });
        for (i, gain) in gains.into_iter().enumerate() {
            if let Some(parameter) = self.master(gain) {
                for partial in partial.chunks_exact(2 * d) {
                    let sums = gradients.get_mut(parameter).iter_mut().zip(&partial[i * d..]);
                    sums.for_each(|(sum, x)| *sum += x);
                }
            }
        }
    }
}
