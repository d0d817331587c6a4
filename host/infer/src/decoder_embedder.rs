//! A decoder without a head as a sentence embedder: states after the final norm, pooled to one vector a text.

use crate::batcher::TextNetwork;
use std::sync::{Mutex, PoisonError};
use stockade_model::config::{Pooling, SentenceSettings};
use stockade_model::{Decoder, LogitRows, ModelError, PAGE_TOKENS, Segment};

/// Tokens of a text that go through the network at once.
const STEP_TOKENS: usize = 512;

/// Texts go through one after the other; pages hold one of them.
pub(crate) struct DecoderEmbedder {
    decoder: Mutex<Box<dyn Decoder>>,
    pages: Vec<u32>,
    settings: SentenceSettings,
}

impl DecoderEmbedder {
    /// `decoder` gives states in place of logits, and has storage for `settings.max_tokens`.
    ///
    /// # Errors
    /// No memory for the pages.
    pub fn new(mut decoder: Box<dyn Decoder>, settings: SentenceSettings) -> Result<Self, ModelError> {
        let pages = settings.max_tokens.div_ceil(PAGE_TOKENS);
        decoder.allocate_pages(pages)?;
        Ok(Self { decoder: Mutex::new(decoder), pages: (0..pages as u32).collect(), settings })
    }

    /// Channels of an embedding.
    pub fn dimensions(&self) -> usize {
        self.decoder.lock().unwrap_or_else(PoisonError::into_inner).spec().vocab
    }

    fn embed(&self, decoder: &mut dyn Decoder, text: &[u32]) -> Result<Vec<f32>, ModelError> {
        let width = decoder.spec().vocab;
        let mut pool = Pool { pooling: self.settings.pooling, sum: vec![0.0; width], rows: 0 };
        let mut states = Vec::new();
        for (i, tokens) in text.chunks(STEP_TOKENS).enumerate() {
            let start = i * STEP_TOKENS;
            let segment = Segment { tokens, start, pages: &self.pages, logits: LogitRows::All, adapter: None };
            decoder.step(&[segment], &mut states, &|| false)?;
            states.chunks_exact(width).for_each(|state| pool.add(state));
        }
        Ok(pool.finish(self.settings.normalize))
    }
}

impl TextNetwork for DecoderEmbedder {
    fn rows(&self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, ModelError> {
        let mut decoder = self.decoder.lock().unwrap_or_else(PoisonError::into_inner);
        let spec = decoder.spec();
        let (longest, rows) = (self.settings.max_tokens, spec.context_tokens);
        if texts.iter().any(|text| text.is_empty() || text.len() > longest.min(rows)) {
            return Err(ModelError::Input(format!("a text has no token, or more than {longest}")));
        }
        texts.iter().map(|text| self.embed(&mut **decoder, text)).collect()
    }
}

/// States on their way to one vector.
struct Pool {
    pooling: Pooling,
    sum: Vec<f64>,
    rows: usize,
}

impl Pool {
    fn add(&mut self, state: &[f32]) {
        match self.pooling {
            Pooling::First if self.rows > 0 => {}
            Pooling::First | Pooling::Last => {
                self.sum.iter_mut().zip(state).for_each(|(sum, &x)| *sum = f64::from(x));
                self.rows = 1;
            }
            Pooling::Mean => {
                self.sum.iter_mut().zip(state).for_each(|(sum, &x)| *sum += f64::from(x));
                self.rows += 1;
            }
        }
    }

    fn finish(self, normalize: bool) -> Vec<f32> {
        let mean = self.sum.iter().map(|x| x / self.rows.max(1) as f64);
        let length = if normalize { mean.clone().map(|x| x * x).sum::<f64>().sqrt().max(1e-12) } else { 1.0 };
        mean.map(|x| (x / length) as f32).collect()
    }
}
