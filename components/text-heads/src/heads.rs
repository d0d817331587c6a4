//! The trained heads of a component, a file that is compiled in. `training/headfile.py` writes it.

use crate::grams::{self, BUCKETS};
use serde::Deserialize;
use stockade_guest::{Error, Result};

const MAGIC: &[u8] = b"STKHEAD1";
const F32: usize = size_of::<f32>();

#[derive(Deserialize)]
struct Header {
    /// Length of the embeddings.
    dimensions: usize,
    buckets: usize,
    heads: Vec<Head>,
}

#[derive(Deserialize)]
struct Head {
    label: String,
    bias: f32,
    gram_scale: f32,
}

/// Logistic heads over one embedder's vectors and [`grams`].
pub struct Heads {
    header: Header,
    /// For each head its weights of the embedding, f32, and of the grams, i8.
    weights: &'static [u8],
}

/// A probability for each head, in the heads' order.
pub type Scores = Vec<f32>;

impl Heads {
    /// Reads a file of heads.
    ///
    /// # Panics
    /// When it is no such file: it is compiled in, so a test of the component has seen it.
    pub fn new(file: &'static [u8]) -> Self {
        Self::parse(file).expect("the compiled-in file is one of heads")
    }

    fn parse(file: &'static [u8]) -> Option<Self> {
        let (length, rest) = file.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
        let (header, weights) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        let header: Header = serde_json::from_slice(header).ok()?;
        let each = header.dimensions.checked_mul(F32)?.checked_add(header.buckets)?;
        let whole = header.buckets == BUCKETS && each.checked_mul(header.heads.len()) == Some(weights.len());
        whole.then_some(Self { header, weights })
    }

    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.header.heads.iter().map(|head| head.label.as_str())
    }

    /// # Errors
    /// [`Error::Invalid`] for a vector of another length: the configured model is not the one of the training.
    pub fn scores(&self, window: &str, embedding: &[f32]) -> Result<Scores> {
        let Header { dimensions, buckets, heads } = &self.header;
        if embedding.len() != *dimensions {
            let found = embedding.len();
            return Err(Error::Invalid(format!(
                "model: its vectors have {found} numbers, the heads need {dimensions}"
            )));
        }
        let grams = grams::buckets(window);
        // Rows of length one, as in the training.
        let length = (grams.len() as f32).sqrt().max(1.0);
        let score = |(head, weights): (&Head, &[u8])| {
            let (of_embedding, of_grams) = weights.split_at(dimensions * F32);
            let (of_embedding, _) = of_embedding.as_chunks::<F32>();
            let embedded: f32 = of_embedding.iter().zip(embedding).map(|(w, x)| f32::from_le_bytes(*w) * x).sum();
            let worded: i32 = grams.iter().map(|&bucket| i32::from(of_grams[bucket].cast_signed())).sum();
            let logit = head.bias + embedded + worded as f32 * head.gram_scale / length;
            1.0 / (1.0 + (-logit).exp())
        };
        Ok(heads.iter().zip(self.weights.chunks_exact(dimensions * F32 + buckets)).map(score).collect())
    }
}
