//! The language head: log-probabilities of labels and their way back.
//!
//! Only rows that carry a label see the head, and the vocabulary is taken in pieces: no `[N, V]` ever exists unless it
//! is small, and then backward uses it instead of computing it again.

use std::ops::Range;

use stockade_kernels::exp;

use super::buffer::Buffer;
use super::host::HostPass;
use super::parallel::{ROWS, each};
use super::product::{Into, Target, View};
use super::simd::simd;
use super::{Gradients, Network};

/// Logits that exist at once: whole rows if they fit, else pieces of the vocabulary of a quarter of this.
pub(super) const LOGITS: usize = 1 << 24;

/// One value for each of [`super::Packed::targets`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogProbs {
    /// Of the label, in nats.
    pub log_probs: Vec<f32>,
    /// Of the logits.
    pub log_sum_exp: Vec<f32>,
    /// Of the distribution, in nats.
    pub entropy: Vec<f32>,
}

/// What backward needs of the head.
#[derive(Debug)]
pub(super) struct Seen {
    log_sum_exp: Vec<f32>,
    /// `[M, V]` where they fit.
    logits: Option<Buffer>,
}

/// A row's sums over the vocabulary so far.
#[derive(Debug, Clone, Copy)]
struct Running {
    largest: f32,
    /// Of `e^(l - largest)`.
    sum: f32,
    /// Of `e^(l - largest) l`.
    weighted: f32,
    label: f32,
}

impl Network {
    pub(super) fn host_log_probs(&self, pass: &mut HostPass) -> LogProbs {
        let (vocab, width) = (self.config.vocab_size, self.config.hidden_size);
        let head = self.language_head();
        let states = self.label_states(pass);
        let labels = labels(pass);
        let m = labels.len();
        let mut running =
            vec![Running { largest: f32::NEG_INFINITY, sum: 0.0, weighted: 0.0, label: f32::NEG_INFINITY }; m];
        let mut kept = None;
        for piece in pieces(m, vocab) {
            let mut logits = self.buffers.take(m * piece.len());
            self.logits_of(&states, head, width, piece.clone(), &mut logits);
            let rows = logits.chunks(ROWS * piece.len()).zip(running.chunks_mut(ROWS)).zip(labels.chunks(ROWS));
            each(&self.pool, rows, |_, ((logits, running), labels)| {
                for ((logits, running), &label) in logits.chunks_exact(piece.len()).zip(running).zip(labels) {
                    *running = merge(*running, logits);
                    if piece.contains(&label) {
                        running.label = logits[label - piece.start];
                    }
                }
            });
            kept = (piece.len() == vocab && pass.keeps()).then_some(logits);
        }
        let log_sum_exp: Vec<f32> = running.iter().map(|r| r.largest + r.sum.ln()).collect();
        let log_probs = running.iter().zip(&log_sum_exp).map(|(r, sum)| r.label - sum).collect();
        let entropy = running.iter().zip(&log_sum_exp).map(|(r, sum)| sum - r.weighted / r.sum).collect();
        if pass.keeps() {
            pass.seen = Some(Seen { log_sum_exp: log_sum_exp.clone(), logits: kept });
        }
        LogProbs { log_probs, log_sum_exp, entropy }
    }

    pub(super) fn host_backward(
        &self,
        mut pass: HostPass,
        d_log_probs: &[f32],
        d_log_sum_exp: Option<&[f32]>,
        gradients: &mut Gradients,
    ) {
        let (vocab, width) = (self.config.vocab_size, self.config.hidden_size);
        let seen = pass.seen.take().expect("log-probabilities of a training pass come before its backward");
        let labels = labels(&pass);
        let m = labels.len();
        assert_eq!(d_log_probs.len(), m, "a derivative for each target");
        assert!(d_log_sum_exp.is_none_or(|d| d.len() == m), "a derivative for each target");
        let head = self.language_head();
        let head_parameter = self.layout.head.and_then(|tensor| self.master(tensor));
        let states = self.label_states(&pass);
        let mut d_states = self.buffers.zeros(m * width);
        let mut kept = seen.logits;
        for piece in pieces(m, vocab) {
            let mut logits = match kept.take() {
                Some(logits) => logits,
                None => {
                    let mut logits = self.buffers.take(m * piece.len());
                    self.logits_of(&states, head, width, piece.clone(), &mut logits);
                    logits
                }
            };
            each(&self.pool, logits.chunks_mut(ROWS * piece.len()).enumerate(), |_, (run, logits)| {
                for (row, logits) in logits.chunks_exact_mut(piece.len()).enumerate() {
                    let row = run * ROWS + row;
                    let d_sum = d_log_sum_exp.map_or(0.0, |d| d[row]);
                    to_gradient(logits, seen.log_sum_exp[row], d_sum - d_log_probs[row]);
                    if piece.contains(&labels[row]) {
                        logits[labels[row] - piece.start] += d_log_probs[row];
                    }
                }
            });
            let rows = &head[piece.start * width..piece.end * width];
            let d_logits = View::new(&logits, m, piece.len());
            let target = Target::new(&mut d_states, m, width);
            self.products.multiply(d_logits, View::new(rows, piece.len(), width), 1.0, Into::Add, target);
            if let Some(parameter) = head_parameter {
                let gradient = &mut gradients.get_mut(parameter)[piece.start * width..piece.end * width];
                let target = Target::new(gradient, piece.len(), width);
                self.products.multiply(d_logits.t(), View::new(&states, m, width), 1.0, Into::Add, target);
            }
        }
        drop(states);
        let mut all = self.buffers.zeros(pass.states.len());
        for (&target, row) in pass.packed.targets.iter().zip(d_states.chunks_exact(width)) {
            let d_seen = &mut all[(target - 1) * width..target * width];
            d_seen.iter_mut().zip(row).for_each(|(d_seen, d)| *d_seen = d / pass.temperature);
        }
        drop(d_states);
        self.backward_all(pass, all, gradients);
    }

    pub(super) fn host_logits(&self, pass: &HostPass, positions: &[usize]) -> Vec<f32> {
        let (vocab, width) = (self.config.vocab_size, self.config.hidden_size);
        let states = self.states_at(pass, positions);
        let mut logits = vec![0.0; positions.len() * vocab];
        self.logits_of(&states, self.language_head(), width, 0..vocab, &mut logits);
        logits
    }

    /// `[V, C]`
    fn language_head(&self) -> &[f32] {
        self.base(self.layout.head.expect("the network has a language head"))
    }

    /// `[m, piece]`
    fn logits_of(&self, states: &[f32], head: &[f32], width: usize, piece: Range<usize>, logits: &mut [f32]) {
        let (m, rows) = (states.len() / width, &head[piece.start * width..piece.end * width]);
        let target = Target::new(logits, m, piece.len());
        self.products.multiply(
            View::new(states, m, width),
            View::new(rows, piece.len(), width).t(),
            1.0,
            Into::Set,
            target,
        );
    }

    /// The states that predict labels over the temperature, `[M, C]`: dividing these divides the logits.
    fn label_states(&self, pass: &HostPass) -> Buffer {
        let width = self.config.hidden_size;
        let mut states = self.buffers.take(pass.packed.targets.len() * width);
        for (&target, row) in pass.packed.targets.iter().zip(states.chunks_exact_mut(width)) {
            let seen = &pass.states[(target - 1) * width..target * width];
            row.iter_mut().zip(seen).for_each(|(state, seen)| *state = seen / pass.temperature);
        }
        states
    }
}

fn labels(pass: &HostPass) -> Vec<usize> {
    pass.packed.targets.iter().map(|&target| pass.packed.tokens[target] as usize).collect()
}

/// The vocabulary in pieces, for `m` rows.
fn pieces(m: usize, vocab: usize) -> impl Iterator<Item = Range<usize>> {
    let piece = if m.saturating_mul(vocab) <= LOGITS { vocab } else { (LOGITS / 4 / m).clamp(256, vocab.max(256)) };
    (0..vocab).step_by(piece.max(1)).map(move |start| start..vocab.min(start + piece))
}

simd! {
fn merge(running: Running, logits: &[f32]) -> Running {
    use super::simd::{LANES, fold};
    let mut lanes = [running.largest; LANES];
    let (parts, tail) = logits.as_chunks::<LANES>();
    for part in parts {
        for i in 0..LANES {
            lanes[i] = if part[i] > lanes[i] { part[i] } else { lanes[i] };
        }
    }
    let largest = lanes.iter().chain(tail).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
    let (mut sums, mut weighted) = ([0.0f32; LANES], [0.0f32; LANES]);
    for part in parts {
        for i in 0..LANES {
            let e = exp(part[i] - largest);
            sums[i] += e;
            weighted[i] = e.mul_add(part[i], weighted[i]);
        }
    }
    for ((sum, weighted), x) in sums.iter_mut().zip(&mut weighted).zip(tail) {
        let e = exp(x - largest);
        *sum += e;
        *weighted = e.mul_add(*x, *weighted);
    }
    let old = exp(running.largest - largest);
    Running {
        largest,
        sum: running.sum.mul_add(old, fold(sums)),
        weighted: running.weighted.mul_add(old, fold(weighted)),
        label: running.label,
    }
}
}

simd! {
/// Logits to their gradients, the label's own part left out: `e^(l - log_sum_exp) d`.
fn to_gradient(logits: &mut [f32], log_sum_exp: f32, d: f32) {
    for l in logits {
        *l = exp(*l - log_sum_exp) * d;
    }
}
}
