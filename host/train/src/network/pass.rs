//! A pass through all layers, there and back.

use stockade_core::train::TrainError;
use stockade_model::ModelConfig;

use super::buffer::Buffer;
use super::head::Seen;
use super::layer::{Course, Inner};
use super::parallel::{ROWS, each};
use super::product::{Into, Target, View};
use super::{Gradients, Mode, Network, Packed, norm};

/// Packed documents on their way through a network.
#[derive(Debug)]
pub struct Pass {
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

impl Packed {
    /// Checks what a pass relies on.
    ///
    /// # Errors
    /// A token outside the vocabulary, a document longer than the context, or ends and targets that do not fit.
    pub fn check(&self, config: &ModelConfig) -> Result<(), TrainError> {
        let refuse = |reason: String| Err(TrainError::Data { name: "batch".into(), reason });
        let n = self.tokens.len();
        if n == 0 || self.ends.last() != Some(&n) || self.ends.windows(2).any(|pair| pair[0] >= pair[1]) {
            return refuse(format!("ends of documents do not divide {n} tokens"));
        }
        if let Some(token) = self.tokens.iter().find(|&&token| token as usize >= config.vocab_size) {
            return refuse(format!("token {token} is not in the vocabulary of {}", config.vocab_size));
        }
        let mut start = 0;
        for &end in &self.ends {
            if end - start > config.context_tokens {
                return refuse(format!("a document of {} tokens exceeds the context", end - start));
            }
            start = end;
        }
        let first = |target: usize| target == 0 || self.ends.binary_search(&target).is_ok();
        if self.targets.windows(2).any(|pair| pair[0] >= pair[1])
            || self.targets.iter().any(|&target| target >= n || first(target))
        {
            return refuse("targets are not positions after a document's first".into());
        }
        Ok(())
    }
}

impl Pass {
    /// Divides the logits before their softmax, so that log-probabilities are those of the distribution that answers were
    /// sampled from. Over 0.
    pub fn at_temperature(self, temperature: f32) -> Self {
        Self { temperature, ..self }
    }

    /// Backward is possible.
    pub(super) fn keeps(&self) -> bool {
        matches!(self.mode, Mode::Train { .. })
    }
}

impl Network {
    /// Runs documents through the network; `adapter` false: through its base.
    ///
    /// # Panics
    /// If [`Packed::check`] would refuse them.
    pub fn forward(&self, packed: &Packed, mode: Mode, adapter: bool) -> Pass {
        let (n, c) = (packed.tokens.len(), self.config.hidden_size);
        let mut pass = Pass {
            packed: packed.clone(),
            positions: positions(&packed.ends),
            mode,
            adapter,
            layers: Vec::new(),
            last: self.buffers.take(0),
            states: self.buffers.take(n * c),
            temperature: 1.0,
            seen: None,
        };
        assert_eq!(pass.positions.len(), n, "the last document ends with the tokens");
        let angles = self.rope.angles(longest(&packed.ends));
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

    /// States after the final norm, `[N, C]`.
    pub fn states<'a>(&self, pass: &'a mut Pass) -> &'a [f32] {
        &pass.states
    }

    /// Adds the gradients of a loss of which `d_states [N, C]` is the derivative.
    ///
    /// # Panics
    /// If the pass was for evaluation, or if the shapes do not agree.
    pub fn backward_states(&self, pass: Pass, d_states: &[f32], gradients: &mut Gradients) {
        let mut all = self.buffers.take(pass.states.len());
        all.copy_from_slice(d_states);
        self.backward_all(pass, all, gradients);
    }

    /// Scores of the head at `positions`: `[positions, labels]`.
    ///
    /// # Panics
    /// If the network has no score head, or a position is outside the pass.
    pub fn scores(&self, pass: &mut Pass, positions: &[usize]) -> Vec<f32> {
        let c = self.config.hidden_size;
        let head = self.values(self.score_head());
        let (n, labels) = (positions.len(), head.len() / c);
        let states = self.states_at(pass, positions);
        let mut scores = vec![0.0; n * labels];
        let target = Target::new(&mut scores, n, labels);
        self.products.multiply(View::new(&states, n, c), View::new(head, labels, c).t(), 1.0, Into::Set, target);
        scores
    }

    /// Adds the gradients of a loss of which `d_scores [positions, labels]` is the derivative.
    ///
    /// # Panics
    /// As [`Self::scores`], and if the pass was for evaluation.
    pub fn backward_scores(&self, pass: Pass, positions: &[usize], d_scores: &[f32], gradients: &mut Gradients) {
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
    pub(super) fn backward_all(&self, pass: Pass, d_states: Buffer, gradients: &mut Gradients) {
        assert!(pass.keeps(), "a pass for evaluation has no way back");
        if self.adapters.is_empty() && self.master(self.layout.norm).is_none() {
            return; // Only the head is trained.
        }
        let Pass { packed, positions, mode, adapter, mut layers, last, states, .. } = pass;
        drop(states);
        let angles = self.rope.angles(longest(&packed.ends));
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
            let c = self.config.hidden_size;
            let gradient = gradients.get_mut(embedding);
            for (&token, dx) in packed.tokens.iter().zip(dx.chunks_exact(c)) {
                let row = &mut gradient[token as usize * c..][..c];
                row.iter_mut().zip(dx).for_each(|(sum, d)| *sum += d);
            }
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

    fn states_at(&self, pass: &Pass, positions: &[usize]) -> Buffer {
        let c = self.config.hidden_size;
        let mut states = self.buffers.take(positions.len() * c);
        for (&position, row) in positions.iter().zip(states.chunks_exact_mut(c)) {
            row.copy_from_slice(&pass.states[position * c..][..c]);
        }
        states
    }

    fn score_head(&self) -> usize {
        self.score.expect("the network has a score head")
    }
}

/// Positions of all tokens in their documents.
fn positions(ends: &[usize]) -> Vec<u32> {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(ends).flat_map(|(start, &end)| 0..(end - start) as u32).collect()
}

/// Tokens of the longest document.
fn longest(ends: &[usize]) -> usize {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(ends).map(|(start, &end)| end - start).max().unwrap_or(0)
}
