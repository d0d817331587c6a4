//! BERT sentence embedders on candle's CPU tensors, in f32: all-MiniLM and its relatives.
//!
//! Post-LayerNorm, absolute positions, token type 0, erf GELU, no causality. Texts of a call are padded on the
//! right to the longest of them and masked, so that padding changes an embedding by rounding at most.

mod layers;

use candle_core::{D, DType, Device, Tensor};

use crate::ModelError;
use crate::checkpoint::Checkpoint;
use crate::config::{Architecture, ModelConfig, Pooling};
use crate::encoder::{self, Loader, Threads};
use layers::{Embeddings, Layer};

/// Most tokens, padding included, that go through the network at once. It bounds the memory of a call: 16 texts of
/// 256 tokens take about 200 MiB of all-MiniLM's scores and states.
const MAX_BATCH_TOKENS: usize = 1 << 12;

/// A loaded embedder. Calls may come from any thread, one computes at a time per call.
pub struct BertEmbedder {
    embeddings: Embeddings,
    layers: Vec<Layer>,
    pooling: Pooling,
    normalize: bool,
    vocab: usize,
    hidden: usize,
    max_tokens: usize,
    weight_bytes: usize,
    threads: Threads,
}

/// Loads an embedder whose products run on `threads` threads of their own (the calling thread waits), at least 1.
///
/// # Errors
/// Another architecture than BERT, a tensor that is missing or of another shape, or no thread.
pub fn load(checkpoint: &Checkpoint, config: &ModelConfig, threads: usize) -> Result<BertEmbedder, ModelError> {
    let unsupported = |what, found: String| ModelError::unsupported(checkpoint.path(), what, found);
    let Some(encoder) = config.encoder.as_ref().filter(|_| config.architecture == Architecture::Bert) else {
        return Err(unsupported("as an embedder, architecture", format!("{:?}", config.architecture)));
    };
    if let Some(found) = encoder::uneven_heads(config) {
        return Err(unsupported("attention", found));
    }
    let loader = Loader::new(checkpoint, encoder::prefix_of(checkpoint, "bert."));
    let embeddings = Embeddings::load(&loader, config, encoder.token_types)?;
    let layers = (0..config.layers).map(|i| Layer::load(&loader, config, i)).collect::<Result<_, _>>()?;
    let threads = Threads::start(threads, "embed")?;
    Ok(BertEmbedder {
        embeddings,
        layers,
        pooling: encoder.pooling,
        normalize: encoder.normalize,
        vocab: config.vocab_size,
        hidden: config.hidden_size,
        max_tokens: encoder.max_tokens.min(config.context_tokens),
        weight_bytes: loader.bytes(),
        threads,
    })
}

impl BertEmbedder {
    /// Most tokens of a text, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Channels of an embedding.
    pub fn dimensions(&self) -> usize {
        self.hidden
    }

    /// Bytes of the weights in memory.
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// One embedding for each text, in order. Texts are token ids with their special tokens.
    ///
    /// # Errors
    /// [`ModelError::Input`] if a text is empty, longer than [`Self::max_tokens`], or holds an unknown id.
    pub fn embed(&self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, ModelError> {
        encoder::check_texts(texts, self.max_tokens, self.vocab)?;
        let fits = |n, longest| n * longest <= MAX_BATCH_TOKENS;
        encoder::by_length(texts, fits, |batch| self.threads.install(|| self.run(batch)))
    }

    fn run(&self, texts: &[&[u32]]) -> candle_core::Result<Vec<Vec<f32>>> {
        let (b, t) = (texts.len(), texts.iter().map(|text| text.len()).max().unwrap_or(0));
        let padded = |text: &&[u32], i: usize| text.get(i).copied().unwrap_or(0);
        let ids: Vec<u32> = texts.iter().flat_map(|text| (0..t).map(move |i| padded(text, i))).collect();
        let real: Vec<f32> =
            texts.iter().flat_map(|text| (0..t).map(|i| f32::from(u8::from(i < text.len())))).collect();
        let ids = Tensor::from_vec(ids, (b, t), &Device::Cpu)?;
        let real = Tensor::from_vec(real, (b, t), &Device::Cpu)?;
        // 0 for real keys, far below any score for padding: [B, 1, 1, T]
        let mask = ((&real - 1.0)? * 1e9)?.reshape((b, 1, 1, t))?;

        let mut x = self.embeddings.forward(&ids)?; // [B, T, C]
        for layer in &self.layers {
            x = layer.forward(&x, &mask)?;
        }
        let pooled = match self.pooling {
            Pooling::Mean => {
                let sum = x.broadcast_mul(&real.unsqueeze(2)?)?.sum(1)?;
                sum.broadcast_div(&real.sum_keepdim(1)?)?
            }
            Pooling::First => x.narrow(1, 0, 1)?.squeeze(1)?,
            Pooling::Last => {
                let last = texts.iter().enumerate().map(|(i, text)| (i * t + text.len() - 1) as u32);
                let last = Tensor::from_iter(last, &Device::Cpu)?;
                x.reshape((b * t, self.hidden))?.index_select(&last, 0)?
            }
        }; // [B, C]
        let scaled = if self.normalize {
            let length = pooled.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?.maximum(1e-12)?;
            pooled.broadcast_div(&length)?
        } else {
            pooled
        };
        scaled.to_dtype(DType::F32)?.to_vec2()
    }
}
