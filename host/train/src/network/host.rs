//! A pass through all layers on this crate's own kernels, there and back.

use super::buffer::Buffer;
use super::head::Seen;
use super::layer::{Course, Inner};
use super::parallel::{ROWS, each};
use super::product::{Into, Target, View};
use super::{Gradients, Mode, Network, Packed, norm};

/// Packed documents on their way through a network.
#[derive(Debug)]
pub(super) struct HostPass {
    pub(super) packed: Packed,
    /// `[N]` in their documents.
    positions: Vec<u32>,
    mode: Mode,
    adapter: bool,
    layers: Vec<Saved>,
    /// The residual stream after the last layer `[N, C]`; empty for evaluation.
    last: Buffer,
    /// The same after the final norm.
    pub(super) states: Buffer,
    /// Of the language head.
    pub(super) temperature: f32,
    pub(super) seen: Option<Seen>,
}

#[derive(Debug)]
struct Saved {
    /// `[N, C]`
    input: Buffer,
    /// `None`: to be computed again.
    inner: Option<Inner>,
}

impl HostPass {
    /// Backward is possible.
    pub(super) fn keeps(&self) -> bool {
        matches!(self.mode, Mode::Train { .. })
    }
}

impl Network {
    pub(super) fn host_forward(&self, packed: &Packed, mode: Mode, adapter: bool) -> HostPass {
        let (n, c) = (packed.tokens.len(), self.config.hidden_size);
        let mut pass = HostPass {
            packed: packed.clone(),
            positions: packed.positions(),
            mode,
            adapter,
            layers: Vec::new(),
            last: self.buffers.take(0),
            states: self.buffers.take(n * c),
            temperature: 1.0,
            seen: None,
        };
        assert_eq!(pass.positions.len(), n, "the last document ends with the tokens");
        let angles = self.rope.angles(packed.longest());
        let course = Course { packed, positions: &pass.positions, angles: &angles, mode, adapter };
        let mut x = self.embed(&packed.tokens);
        for index in 0..self.config.layers {
            let inner = self.layer_inner(index, &course, &x);
            let out = self.layer_output(index, &course, &inner);
            if pass.keeps() {
                let inner = (!self.checkpointing).then_some(inner);
                pass.layers.push(Saved { input: x, inner });
            }
            x = out;
        }
        norm::forward(&self.pool, &x, self.base(self.layout.norm), self.config.norm_eps, &mut pass.states);
        if pass.keeps() {
            pass.last = x;
        }
        pass
    }

    pub(super) fn host_backward_states(&self, pass: HostPass, d_states: &[f32], gradients: &mut Gradients) {
        let mut all = self.buffers.take(pass.states.len());
        all.copy_from_slice(d_states);
        self.backward_all(pass, all, gradients);
    }

    pub(super) fn host_scores(&self, pass: &HostPass, positions: &[usize]) -> Vec<f32> {
        let c = self.config.hidden_size;
        let head = self.values(self.score_head());
        let (n, labels) = (positions.len(), head.len() / c);
        let states = self.states_at(pass, positions);
        let mut scores = vec![0.0; n * labels];
        let target = Target::new(&mut scores, n, labels);
        self.products.multiply(View::new(&states, n, c), View::new(head, labels, c).t(), 1.0, Into::Set, target);
        scores
    }

    pub(super) fn host_backward_scores(
        &self,
        pass: HostPass,
        positions: &[usize],
        d_scores: &[f32],
        gradients: &mut Gradients,
    ) {
        let c = self.config.hidden_size;
        let index = self.score_head();
        let head = self.values(index);
        let (n, labels) = (positions.len(), head.len() / c);
        assert_eq!(d_scores.len(), n * labels, "a derivative for each score");
        let states = self.states_at(&pass, positions);
        let d = View::new(d_scores, n, labels);
        let target = Target::new(gradients.get_mut(index), labels, c);
        self.products.multiply(d.t(), View::new(&states, n, c), 1.0, Into::Add, target);
        let mut d_rows = self.buffers.take(n * c);
        self.products.multiply(d, View::new(head, labels, c), 1.0, Into::Set, Target::new(&mut d_rows, n, c));
        let mut all = self.buffers.zeros(pass.states.len());
        for (&position, d_row) in positions.iter().zip(d_rows.chunks_exact(c)) {
            let row = &mut all[position * c..][..c];
            row.iter_mut().zip(d_row).for_each(|(sum, d)| *sum += d);
        }
        drop((states, d_rows));
        self.backward_all(pass, all, gradients);
    }

    /// From the gradient of the states down to the embedding.
    pub(super) fn backward_all(&self, pass: HostPass, d_states: Buffer, gradients: &mut Gradients) {
        assert!(pass.keeps(), "a pass for evaluation has no way back");
        if self.adapters.is_empty() && self.master(self.layout.norm).is_none() {
            return; // Only the head is trained.
        }
        let HostPass { packed, positions, mode, adapter, mut layers, last, states, .. } = pass;
        drop(states);
        let angles = self.rope.angles(packed.longest());
        let course = Course { packed: &packed, positions: &positions, angles: &angles, mode, adapter };
        let mut dx = self.buffers.zeros(last.len());
        self.norm_back(self.layout.norm, &last, &d_states, &mut dx, gradients);
        drop((last, d_states));
        for index in (0..self.config.layers).rev() {
            let Some(Saved { input, inner }) = layers.pop() else { break };
            let inner = inner.unwrap_or_else(|| self.layer_inner(index, &course, &input));
            self.layer_backward(index, &course, &input, inner, &mut dx, gradients);
        }
        if let Some(embedding) = self.master(self.layout.embedding) {
            self.embedding_back(&packed.tokens, &dx, gradients.get_mut(embedding));
        }
    }

    /// Adds the gradients `dx [N, C]` of the tokens' rows.
    pub(super) fn embedding_back(&self, tokens: &[u32], dx: &[f32], gradient: &mut [f32]) {
        let c = self.config.hidden_size;
        for (&token, dx) in tokens.iter().zip(dx.chunks_exact(c)) {
            let row = &mut gradient[token as usize * c..][..c];
            row.iter_mut().zip(dx).for_each(|(sum, d)| *sum += d);
        }
    }

    fn embed(&self, tokens: &[u32]) -> Buffer {
        let c = self.config.hidden_size;
        let table = self.base(self.layout.embedding);
        let mut x = self.buffers.take(tokens.len() * c);
        each(&self.pool, x.chunks_mut(ROWS * c).zip(tokens.chunks(ROWS)), |_, (rows, tokens)| {
            for (row, &token) in rows.chunks_exact_mut(c).zip(tokens) {
                row.copy_from_slice(&table[token as usize * c..][..c]);
            }
        });
        x
    }

    pub(super) fn states_at(&self, pass: &HostPass, positions: &[usize]) -> Buffer {
        let c = self.config.hidden_size;
        let mut states = self.buffers.take(positions.len() * c);
        for (&position, row) in positions.iter().zip(states.chunks_exact_mut(c)) {
            row.copy_from_slice(&pass.states[position * c..][..c]);
        }
        states
    }

    pub(super) fn score_head(&self) -> usize {
        self.score.expect("the network has a score head")
    }
}
