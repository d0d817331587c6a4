//! One forward pass over a flat list of rows.
//!
//! Products and norms see rows and nothing else; only attention and the key-value pages know which rows belong to
//! one sequence, and only adapters which rows are theirs. That, and the kernels' rule on the order of additions, makes
//! a row's result independent of the batch and of how a prompt was cut.

use std::time::{Duration, Instant};

use std::ops::Range;
use stockade_kernels::{
    AttentionSegment, KvCache, MatmulPrecision, PAGE_TOKENS, PackedMatrix, Pool, add_assign, add_bias, attention,
    matmul, rms_norm, rope, silu_mul,
};

use super::rope::Angles;
use super::shape::{Part, Shape};
use super::weights::{Layer, OutputHead, Weights};
use crate::ModelError;
use crate::adapter::{Adapter, Scratch};
use crate::decoder::{LogitRows, Segment};

/// What a step computes with.
pub(super) struct Network<'a> {
    pub(super) shape: &'a Shape,
    pub(super) weights: &'a Weights,
    pub(super) pool: &'a Pool,
    pub(super) precision: MatmulPrecision,
}

/// Activations of a step, kept between steps so that none allocates. All `[n, ..]`, row-major.
#[derive(Default)]
pub(super) struct Rows {
    /// Row numbers 0..n: the rows of `angles`.
    numbers: Vec<u32>,
    angles: Angles,
    /// The residual stream `[n, C]`.
    x: Vec<f32>,
    /// Input of a product, or its output on the way to `x`: `[n, C]`.
    inner: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// `[n, H D]`
    attended: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    adapters: Scratch,
}

/// Consecutive rows of one adapter.
struct AdapterRun<'a> {
    rows: Range<usize>,
    adapter: &'a Adapter,
}

/// The rows of adapters, neighbours of the same adapter in one run.
fn adapter_runs<'a>(segments: &[Segment<'a>]) -> Vec<AdapterRun<'a>> {
    let mut runs: Vec<AdapterRun<'a>> = Vec::new();
    let mut first = 0;
    for segment in segments {
        let rows = first..first + segment.tokens.len();
        first = rows.end;
        match (segment.adapter, runs.last_mut()) {
            (Some(adapter), Some(run)) if std::ptr::eq(adapter, run.adapter) && run.rows.end == rows.start => {
                run.rows.end = rows.end;
            }
            (Some(adapter), _) => runs.push(AdapterRun { rows, adapter }),
            (None, _) => {}
        }
    }
    runs
}

impl Rows {
    /// Bytes a row takes.
    pub(super) fn bytes(shape: &Shape) -> usize {
        let (q, kv) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        4 * (1 + shape.head_dim + 2 * shape.hidden + 2 * q + 2 * kv + 2 * shape.ffn)
    }

    fn resize(&mut self, shape: &Shape, n: usize) {
        let (q, kv) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        self.numbers.clear();
        self.numbers.extend(0..n as u32);
        for (rows, width) in [
            (&mut self.x, shape.hidden),
            (&mut self.inner, shape.hidden),
            (&mut self.q, q),
            (&mut self.k, kv),
            (&mut self.v, kv),
            (&mut self.attended, q),
            (&mut self.gate, shape.ffn),
            (&mut self.up, shape.ffn),
        ] {
            rows.resize(n * width, 0.0);
        }
    }
}

impl Network<'_> {
    /// Runs the rows of all segments; `segments` must have been checked.
    pub(super) fn step(
        &self,
        segments: &[Segment<'_>],
        cache: &mut KvCache,
        rows: &mut Rows,
        clock: &mut Clock,
        logits: &mut Vec<f32>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), ModelError> {
        let shape = self.shape;
        clock.start();
        rows.resize(shape, segments.iter().map(|s| s.tokens.len()).sum());
        let positions = segments.iter().flat_map(|s| s.start..s.start + s.tokens.len());
        rows.angles.fill(&shape.frequencies, positions);
        let tokens = segments.iter().flat_map(|s| s.tokens);
        for (x, &token) in rows.x.chunks_exact_mut(shape.hidden).zip(tokens) {
            self.weights.embedding.row(token as usize, x);
        }
        clock.lap(Op::Embed);
        let adapted = adapter_runs(segments);
        for (i, layer) in self.weights.layers.iter().enumerate() {
            if cancelled() {
                return Err(ModelError::Cancelled);
            }
            self.attention_block(i, layer, segments, &adapted, cache, rows, clock);
            self.mlp_block(i, layer, &adapted, rows, clock);
        }
        self.head(segments, rows, logits);
        clock.lap(Op::Head);
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "what a layer computes on")]
    fn attention_block(
        &self,
        i: usize,
        layer: &Layer,
        segments: &[Segment<'_>],
        adapted: &[AdapterRun<'_>],
        cache: &mut KvCache,
        rows: &mut Rows,
        clock: &mut Clock,
    ) {
        let Shape { eps, head_dim, kv_heads, .. } = *self.shape;
        let Rows { numbers, angles, x, inner, q, k, v, attended, adapters, .. } = rows;
        let mut products = Products { network: self, i, layer, adapted, scratch: adapters };
        rms_norm(self.pool, x, &layer.attention_norm, eps, inner);
        clock.lap(Op::Norm);
        products.run(inner, &mut [(Part::Query, q), (Part::Key, k), (Part::Value, v)]);
        clock.lap(Op::Qkv);
        for (heads, norm) in [(&mut *q, &layer.q_norm), (&mut *k, &layer.k_norm)] {
            if let Some(norm) = norm {
                head_norm(self.pool, heads, norm, eps, attended);
            }
            rope(self.pool, heads, numbers, head_dim / 2, &angles.cos, &angles.sin);
        }
        clock.lap(Op::Rope);
        let mut new = k.chunks_exact(kv_heads * head_dim).zip(v.chunks_exact(kv_heads * head_dim));
        for segment in segments {
            for (position, (k, v)) in (segment.start..segment.start + segment.tokens.len()).zip(&mut new) {
                cache.write(i, segment.pages[position / PAGE_TOKENS], position % PAGE_TOKENS, k, v);
            }
        }
        clock.lap(Op::Store);
        let mut first_row = 0;
        let runs: Vec<_> = segments
            .iter()
            .map(|s| {
                let run = AttentionSegment {
                    first_row,
                    rows: s.tokens.len(),
                    start_position: s.start,
                    pages: s.pages,
                    window: self.shape.windows[i],
                };
                first_row += s.tokens.len();
                run
            })
            .collect();
        attention(self.pool, cache, i, q, &runs, attended);
        clock.lap(Op::Attention);
        products.run(attended, &mut [(Part::Output, inner)]);
        clock.lap(Op::Output);
        add_assign(x, inner);
        clock.lap(Op::Add);
    }

    fn mlp_block(&self, i: usize, layer: &Layer, adapted: &[AdapterRun<'_>], rows: &mut Rows, clock: &mut Clock) {
        let Rows { x, inner, gate, up, adapters, .. } = rows;
        let mut products = Products { network: self, i, layer, adapted, scratch: adapters };
        rms_norm(self.pool, x, &layer.mlp_norm, self.shape.eps, inner);
        clock.lap(Op::Norm);
        products.run(inner, &mut [(Part::Gate, gate), (Part::Up, up)]);
        clock.lap(Op::GateUp);
        silu_mul(self.pool, gate, up);
        clock.lap(Op::Silu);
        products.run(gate, &mut [(Part::Down, inner)]);
        clock.lap(Op::Down);
        add_assign(x, inner);
        clock.lap(Op::Add);
    }

    /// Logits of the rows asked for, gathered so that the head sees no others.
    fn head(&self, segments: &[Segment<'_>], rows: &mut Rows, logits: &mut Vec<f32>) {
        let hidden = self.shape.hidden;
        let mut asked = 0;
        let mut first = 0;
        for segment in segments {
            let end = first + segment.tokens.len();
            let wanted = match segment.logits {
                LogitRows::None => end..end,
                LogitRows::Last => end - 1..end,
                LogitRows::All => first..end,
            };
            let to = asked * hidden;
            asked += wanted.len();
            rows.x.copy_within(wanted.start * hidden..wanted.end * hidden, to);
            first = end;
        }
        let head = match &self.weights.head {
            OutputHead::Own(head) => Some(head),
            OutputHead::Embedding => Some(&self.weights.embedding),
            OutputHead::States => None,
        };
        logits.resize(asked * head.map_or(hidden, PackedMatrix::rows), 0.0);
        if asked > 0 {
            let (x, inner) = (&rows.x[..asked * hidden], &mut rows.inner[..asked * hidden]);
            rms_norm(self.pool, x, &self.weights.norm, self.shape.eps, inner);
            match head {
                Some(head) => matmul(self.pool, self.precision, inner, &mut [(head, logits)]),
                None => logits.copy_from_slice(inner),
            }
        }
    }
}

/// The products of one layer: the base's weights for all rows, then each adapter's for its own.
struct Products<'a> {
    network: &'a Network<'a>,
    i: usize,
    layer: &'a Layer,
    adapted: &'a [AdapterRun<'a>],
    scratch: &'a mut Scratch,
}

impl Products<'_> {
    /// Products of parts that share the input `x`.
    fn run<const N: usize>(&mut self, x: &[f32], outputs: &mut [(Part, &mut Vec<f32>); N]) {
        let Network { pool, precision, .. } = *self.network;
        let mut regions: [(&PackedMatrix, &mut [f32]); N] =
            outputs.each_mut().map(|(part, out)| (&self.layer.linear(*part).weight, &mut out[..]));
        let cols = regions.first().map_or(1, |(matrix, _)| matrix.cols());
        matmul(pool, precision, x, &mut regions);
        for AdapterRun { rows, adapter } in self.adapted {
            let x = &x[rows.start * cols..rows.end * cols];
            let mut own = outputs.each_mut().map(|(part, out)| {
                let width = self.layer.linear(*part).weight.rows();
                (*part, &mut out[rows.start * width..rows.end * width])
            });
            adapter.apply(pool, self.i, x, &mut own, self.scratch);
        }
        for (part, out) in outputs {
            if let Some(bias) = &self.layer.linear(*part).bias {
                add_bias(out, bias);
            }
        }
    }
}

/// RMS norm of every head; `spare` has room for all of `heads`.
fn head_norm(pool: &Pool, heads: &mut [f32], weight: &[f32], eps: f32, spare: &mut [f32]) {
    let out = &mut spare[..heads.len()];
    rms_norm(pool, heads, weight, eps, out);
    heads.copy_from_slice(out);
}

/// The parts of a step, for measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Embed,
    Norm,
    Qkv,
    Rope,
    Store,
    Attention,
    Output,
    GateUp,
    Silu,
    Down,
    Add,
    Head,
}

impl Op {
    pub const ALL: [Self; 12] = [
        Self::Embed,
        Self::Norm,
        Self::Qkv,
        Self::Rope,
        Self::Store,
        Self::Attention,
        Self::Output,
        Self::GateUp,
        Self::Silu,
        Self::Down,
        Self::Add,
        Self::Head,
    ];
}

/// Adds up the time of each part of the steps when it is switched on.
#[derive(Debug, Default)]
pub(super) struct Clock {
    on: bool,
    last: Option<Instant>,
    pub(super) spent: [Duration; Op::ALL.len()],
}

impl Clock {
    pub(super) fn new(on: bool) -> Self {
        Self { on, ..Self::default() }
    }

    fn start(&mut self) {
        self.last = self.on.then(Instant::now);
    }

    fn lap(&mut self, op: Op) {
        if let Some(last) = &mut self.last {
            let now = Instant::now();
            self.spent[op as usize] += now - *last;
            *last = now;
        }
    }
}
