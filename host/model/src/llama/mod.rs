//! The Llama family on the CPU kernels: Llama 3.x, Mistral, Qwen2, Qwen3.
//!
//! Owns the weights and the page storage of one model and computes steps; what runs when is the scheduler's
//! business. One network code serves all families: they differ in biases, norms of heads, windows and rope
//! frequencies, all of which are data here.

mod rope;
mod shape;
mod step;
mod weights;

use std::sync::Arc;
use std::time::Duration;

use stockade_kernels::{KvCache, KvShape, KvType, MatmulPrecision, Pool};

use crate::ModelError;
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::decoder::{Decoder, DecoderSpec, PAGE_TOKENS, Segment};
use step::{Clock, Network, Rows};
use weights::Plan;

pub(crate) use shape::{Part, Shape};
pub use step::Op;
pub use weights::Progress;
pub(crate) use weights::Weights;

const _: () = assert!(PAGE_TOKENS == stockade_kernels::PAGE_TOKENS, "the seam and the kernels agree on pages");

/// How to load a decoder.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Storage of keys and values; f32 is for parity with f32 references.
    pub kv_type: KvType,
    /// Arithmetic of products with quantized weights.
    pub precision: MatmulPrecision,
    /// What the model may take; `None` does not ask.
    pub budget: Option<MemoryBudget>,
}

/// Memory that must suffice for the weights, the scratch rows and some pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryBudget {
    pub bytes: u64,
    /// Rows of the largest step.
    pub rows: usize,
    /// Pages without which serving makes no sense.
    pub pages: usize,
}

/// What a checkpoint would take in memory. Reads headers only.
///
/// # Errors
/// As [`load`], except for what only reading the weights shows.
pub fn spec(checkpoint: &Checkpoint, config: &ModelConfig, kv_type: KvType) -> Result<DecoderSpec, ModelError> {
    let shape = Shape::new(checkpoint, config)?;
    Ok(spec_of(&shape, &Plan::new(checkpoint, &shape, &config.head)?, kv_type))
}

/// Loads a causal language model or, where the configuration says so, a sequence classifier: its steps give
/// `[rows, labels]` scores in place of logits, [`DecoderSpec::vocab`] is the number of labels, and a sequence's
/// score is that of its last token.
///
/// Rows are read and packed on `pool`, which later steps use as well; it may be shared with other models.
///
/// # Errors
/// A tensor that is missing, unknown or of another shape than the configuration says, a budget that is too
/// small, or no memory.
pub fn load(
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    pool: Arc<Pool>,
    options: &LoadOptions,
    progress: Progress<'_>,
) -> Result<LlamaDecoder, ModelError> {
    let shape = Shape::new(checkpoint, config)?;
    let plan = Plan::new(checkpoint, &shape, &config.head)?;
    let spec = spec_of(&shape, &plan, options.kv_type);
    if let Some(budget) = options.budget {
        check_budget(&spec, budget).map_err(|sum| ModelError::TooLarge { path: checkpoint.path().to_owned(), sum })?;
    }
    let weights = plan.load(&pool, progress)?;
    let precision = options.precision;
    let kv_shape = kv_shape(&shape, options.kv_type);
    Ok(LlamaDecoder {
        spec,
        base: Base { shape: Arc::new(shape), weights: Arc::new(weights), pool },
        precision,
        kv_shape,
        cache: None,
        rows: Rows::default(),
        clock: Clock::default(),
    })
}

/// The weights of a loaded network, which never change. What an adapter is checked against and made for.
#[derive(Clone)]
pub struct Base {
    pub(crate) shape: Arc<Shape>,
    pub(crate) weights: Arc<Weights>,
    pub(crate) pool: Arc<Pool>,
}

/// A loaded network of the Llama family.
pub struct LlamaDecoder {
    spec: DecoderSpec,
    base: Base,
    precision: MatmulPrecision,
    kv_shape: KvShape,
    cache: Option<KvCache>,
    rows: Rows,
    clock: Clock,
}

impl LlamaDecoder {
    /// Starts (from zero) or stops adding up the time of each part of the steps.
    pub fn measure(&mut self, on: bool) {
        self.clock = Clock::new(on);
    }

    /// Time spent in each part since [`Self::measure`].
    pub fn measured(&self) -> impl Iterator<Item = (Op, Duration)> {
        Op::ALL.into_iter().zip(self.clock.spent)
    }

    /// What adapters are loaded onto; shares the weights.
    pub fn base(&self) -> Base {
        self.base.clone()
    }

    fn check(&self, segments: &[Segment<'_>], pages: usize) -> Result<(), ModelError> {
        let refuse = |reason: String| Err(ModelError::Input(reason));
        for Segment { tokens, start, pages: table, adapter, .. } in segments {
            if adapter.is_some_and(|adapter| !adapter.is_of(&self.base)) {
                return refuse("an adapter was loaded onto another base".into());
            }
            let end = start.saturating_add(tokens.len());
            if tokens.is_empty() {
                return refuse("a segment has no tokens".into());
            }
            if end > self.spec.context_tokens {
                return refuse(format!("{end} tokens exceed the context of {}", self.spec.context_tokens));
            }
            if let Some(token) = tokens.iter().find(|&&t| t as usize >= self.base.shape.vocab) {
                return refuse(format!("token {token} is not below the vocabulary of {}", self.base.shape.vocab));
            }
            if end > table.len().saturating_mul(PAGE_TOKENS) {
                return refuse(format!("{end} tokens exceed {} pages of {PAGE_TOKENS}", table.len()));
            }
            if let Some(page) = table.iter().find(|&&p| p as usize >= pages) {
                return refuse(format!("page {page} is not below {pages}"));
            }
        }
        Ok(())
    }
}

impl Decoder for LlamaDecoder {
    fn spec(&self) -> &DecoderSpec {
        &self.spec
    }

    fn allocate_pages(&mut self, pages: usize) -> Result<(), ModelError> {
        self.cache = None; // before the new one is taken
        let what = || format!("a cache of {pages} pages");
        let cache = KvCache::new(self.kv_shape, pages).map_err(|source| ModelError::Kernel { what: what(), source })?;
        self.cache = Some(cache);
        Ok(())
    }

    fn step(
        &mut self,
        segments: &[Segment<'_>],
        logits: &mut Vec<f32>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), ModelError> {
        self.check(segments, self.cache.as_ref().map_or(0, KvCache::pages))?;
        let Some(cache) = self.cache.as_mut().filter(|_| !segments.is_empty()) else {
            logits.clear();
            return Ok(());
        };
        let Self { base: Base { shape, weights, pool }, precision, rows, clock, .. } = self;
        let network = Network { shape, weights, pool, precision: *precision };
        network.step(segments, cache, rows, clock, logits, cancelled)
    }

    fn copy_page(&mut self, from: u32, to: u32) {
        if let Some(cache) = &mut self.cache {
            cache.copy_page(from, to);
        }
    }
}

fn kv_shape(shape: &Shape, kv_type: KvType) -> KvShape {
    KvShape { layers: shape.layers(), heads: shape.heads, kv_heads: shape.kv_heads, head_dim: shape.head_dim, kv_type }
}

fn spec_of(shape: &Shape, plan: &Plan<'_>, kv_type: KvType) -> DecoderSpec {
    DecoderSpec {
        vocab: plan.outputs,
        context_tokens: shape.context_tokens,
        page_bytes: kv_shape(shape, kv_type).page_bytes().unwrap_or(usize::MAX),
        weight_bytes: plan.packed_bytes,
        row_bytes: Rows::bytes(shape),
    }
}

/// `Err` with the sum in words when it exceeds the budget.
fn check_budget(spec: &DecoderSpec, budget: MemoryBudget) -> Result<(), String> {
    let (weights, rows) = (spec.weight_bytes as u128, budget.rows as u128 * spec.row_bytes as u128);
    let logits = 4 * budget.rows.min(64) as u128 * spec.vocab as u128;
    let pages = budget.pages as u128 * spec.page_bytes as u128;
    let sum = weights + rows + logits + pages;
    if sum <= u128::from(budget.bytes) {
        return Ok(());
    }
    let mib = |bytes: u128| format!("{:.1} MiB", bytes as f64 / 1_048_576.0);
    Err(format!(
        "{} of weights + {} for {} rows + {} of logits + {} for {} pages of {PAGE_TOKENS} tokens = {}, the budget is {}",
        mib(weights),
        mib(rows),
        budget.rows,
        mib(logits),
        mib(pages),
        budget.pages,
        mib(sum),
        mib(u128::from(budget.bytes)),
    ))
}
