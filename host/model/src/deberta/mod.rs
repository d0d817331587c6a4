//! DeBERTa-v2 sequence classifiers on candle's CPU tensors, in f32: Prompt Guard and its relatives.
//!
//! Post-LayerNorm, no absolute positions: attention adds how a query's content meets a key's distance and how a key's
//! content meets a query's ([`attention`]). The first token's state goes through the context pooler to one score for
//! each label. Source: He et al. 2021, "DeBERTaV3", arXiv:2111.09543, as transformers computes it.
//!
//! Invariant: texts of a call are padded on the right and masked, so that padding changes a score by rounding at most.

mod attention;
mod layers;
mod positions;

use candle_core::{Device, Tensor};

use crate::ModelError;
use crate::checkpoint::Checkpoint;
use crate::config::{Architecture, Head, ModelConfig};
use crate::encoder::{self, LayerNorm, Linear, Loader, Threads, loading};
use attention::Distances;
use layers::Layer;
use positions::Buckets;

/// Most attention scores of one layer that are in memory at once, 64 MiB: 5 texts of 512 tokens under 12 heads.
const MAX_BATCH_SCORES: usize = 1 << 24;
/// A text whose scores alone exceed four times that is refused, whatever context a configuration claims.
const MAX_TEXT_SCORES: usize = 1 << 26;
/// Most tokens, padding included, that go through the network at once.
const MAX_BATCH_TOKENS: usize = 1 << 12;

/// A loaded classifier. Calls may come from any thread, one computes at a time per call.
pub struct DebertaClassifier {
    /// `[V, C]`
    words: Tensor,
    words_norm: LayerNorm,
    layers: Vec<Layer>,
    buckets: Buckets,
    pooler: Linear,
    head: Linear,
    vocab: usize,
    heads: usize,
    max_tokens: usize,
    weight_bytes: usize,
    threads: Threads,
}

/// Loads a classifier whose products run on `threads` threads of their own (the calling thread waits), at least 1.
///
/// # Errors
/// Another network than a DeBERTa-v2 classifier, a tensor that is missing or of another shape, or no thread.
pub fn load(checkpoint: &Checkpoint, config: &ModelConfig, threads: usize) -> Result<DebertaClassifier, ModelError> {
    let unsupported = |what, found: String| ModelError::unsupported(checkpoint.path(), what, found);
    let (Architecture::DebertaV2, Head::Classifier { labels }) = (config.architecture, &config.head) else {
        let found = format!("{:?} with {:?}", config.architecture, config.head);
        return Err(unsupported("as a DeBERTa classifier, network", found));
    };
    let Some(relative) = config.encoder.as_ref().and_then(|encoder| encoder.relative) else {
        return Err(unsupported("attention", "no relative positions".into()));
    };
    if let Some(found) = encoder::uneven_heads(config) {
        return Err(unsupported("attention", found));
    }
    let c = config.hidden_size;
    let buckets = Buckets::new(relative);
    let loader = Loader::new(checkpoint, "deberta.");
    let words = loader.tensor("embeddings.word_embeddings.weight", &[config.vocab_size, c])?;
    let words_norm = LayerNorm::load(&loader, config, "embeddings.LayerNorm")?;
    let distances = loader.tensor("encoder.rel_embeddings.weight", &[buckets.rows(), c])?;
    let distances = LayerNorm::load(&loader, config, "encoder.LayerNorm")?.forward(&distances).map_err(loading)?;
    let layers = (0..config.layers).map(|i| Layer::load(&loader, config, i, &distances)).collect::<Result<_, _>>()?;
    let outer = Loader::new(checkpoint, "");
    Ok(DebertaClassifier {
        words,
        words_norm,
        layers,
        buckets,
        pooler: Linear::load(&outer, "pooler.dense", c, c)?,
        head: Linear::load(&outer, "classifier", labels.len(), c)?,
        vocab: config.vocab_size,
        heads: config.heads,
        max_tokens: config.context_tokens.min((MAX_TEXT_SCORES / config.heads).isqrt()),
        weight_bytes: loader.bytes() + outer.bytes(),
        threads: Threads::start(threads, "classify")?,
    })
}

impl DebertaClassifier {
    /// Most tokens of a text, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Bytes of the weights in memory.
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// A score (logit) for each label of each text, in order. Texts are token ids with their special tokens.
    ///
    /// # Errors
    /// [`ModelError::Input`] if a text is empty, longer than [`Self::max_tokens`], or holds an unknown id.
    pub fn scores(&self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, ModelError> {
        encoder::check_texts(texts, self.max_tokens, self.vocab)?;
        let fits = |n: usize, longest: usize| {
            n * longest <= MAX_BATCH_TOKENS && n * longest * longest * self.heads <= MAX_BATCH_SCORES
        };
        encoder::by_length(texts, fits, |batch| self.threads.install(|| self.run(batch)))
    }

    /// The states of the last layer, `[T, C]` row by row, of one text.
    ///
    /// # Errors
    /// As [`Self::scores`].
    pub fn states(&self, text: &[u32]) -> Result<Vec<f32>, ModelError> {
        encoder::check_texts(&[text.to_vec()], self.max_tokens, self.vocab)?;
        let states = self.threads.install(|| self.encode(&[text])?.flatten_all()?.to_vec1());
        states.map_err(|source| ModelError::Tensors { stage: "its forward pass", source })
    }

    fn run(&self, texts: &[&[u32]]) -> candle_core::Result<Vec<Vec<f32>>> {
        let first = self.encode(texts)?.narrow(1, 0, 1)?.squeeze(1)?; // [B, T, C] -> [B, C]
        self.head.forward(&self.pooler.forward(&first)?.gelu_erf()?)?.to_vec2()
    }

    /// Texts to `[B, T, C]`, `T` the longest text's.
    fn encode(&self, texts: &[&[u32]]) -> candle_core::Result<Tensor> {
        let lengths: Vec<usize> = texts.iter().map(|text| text.len()).collect();
        let (b, t) = (texts.len(), lengths.iter().copied().max().unwrap_or(0));
        let padded = |text: &&[u32], i: usize| text.get(i).copied().unwrap_or(0);
        let ids: Vec<u32> = texts.iter().flat_map(|text| (0..t).map(move |i| padded(text, i))).collect();
        let words = self.words.index_select(&Tensor::from_vec(ids, b * t, &Device::Cpu)?, 0)?;
        let mut x = self.words_norm.forward(&words.reshape((b, t, ()))?)?;
        let distances = Distances::new(&self.buckets, t);
        for layer in &self.layers {
            x = layer.forward(&x, &distances, &lengths)?;
        }
        Ok(x)
    }
}
