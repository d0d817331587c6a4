//! Causal attention of packed documents: those of similar lengths side by side, padded to the longest of them.
//!
//! Padding stands after a document, so the causal mask keeps it from every real token, and its own gradients are zero.
//! Scores exist for so many queries at once as fit into a piece, and are made again in backward.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

use candle_core::{D, Result, Tensor};

use super::Products;
use crate::network::Packed;
use crate::network::attention::Heads;

/// The documents of a pass, by length.
#[derive(Debug)]
pub(super) struct Documents {
    products: Products,
    groups: Vec<Group>,
    /// `[N]`: where each token stands in the rows of all groups, one after the other.
    places: Tensor,
    piece: usize,
    masks: Mutex<BTreeMap<Block, Tensor>>,
}

/// `B` documents, padded to `T` tokens.
#[derive(Debug)]
struct Group {
    documents: usize,
    tokens: usize,
    /// `[B T]`: tokens of the pass; N, a row of zeros, is padding.
    rows: Tensor,
}

/// Queries and the keys that they see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Block {
    query: usize,
    queries: usize,
    key: usize,
    keys: usize,
    window: Option<u32>,
}

impl Documents {
    pub(super) fn new(packed: &Packed, heads: usize, products: &Products, piece: usize) -> Result<Self> {
        let mut classes: BTreeMap<usize, Vec<Range<usize>>> = BTreeMap::new();
        for document in packed.documents() {
            classes.entry(document.len().next_power_of_two().max(16)).or_default().push(document);
        }
        let padding = packed.tokens.len() as u32;
        let mut places = vec![0u32; packed.tokens.len()];
        let (mut groups, mut first) = (Vec::new(), 0);
        for documents in classes.values() {
            let tokens = documents.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
            for documents in documents.chunks((piece / (heads * tokens * tokens)).max(1)) {
                let mut rows = vec![padding; documents.len() * tokens];
                for (i, document) in documents.iter().enumerate() {
                    for (t, token) in document.clone().enumerate() {
                        rows[i * tokens + t] = token as u32;
                        places[token] = (first + i * tokens + t) as u32;
                    }
                }
                first += rows.len();
                groups.push(Group { documents: documents.len(), tokens, rows: products.indices(&rows)? });
            }
        }
        let places = products.indices(&places)?;
        Ok(Self { products: products.clone(), groups, places, piece, masks: Mutex::default() })
    }

    /// `[N, H D]` of `qkv [N, (H + 2 Hk) D]`.
    pub(super) fn forward(&self, heads: Heads, qkv: &Tensor) -> Result<Tensor> {
        let qkv = padded(qkv)?;
        let mut rows = Vec::with_capacity(self.groups.len());
        for group in &self.groups {
            let (q, k, v) = group.split(heads, &qkv)?;
            let mut blocks = Vec::new();
            for block in self.blocks(heads, group) {
                let shares = self.shares(heads, block, &block.of_queries(&q)?, &block.of_keys(&k)?)?;
                let out = self.products.multiply(&shares, &block.of_keys(&v)?)?;
                blocks.push(block.by_heads(out, heads)?);
            }
            rows.push(group.join(Tensor::cat(&blocks, 2)?, heads.heads)?);
        }
        Tensor::cat(&rows, 0)?.index_select(&self.places, 0)
    }

    /// The gradient of `qkv`, given that of the output, `[N, H D]`.
    pub(super) fn backward(&self, heads: Heads, qkv: &Tensor, d_out: &Tensor) -> Result<Tensor> {
        let (qkv, d_out) = (padded(qkv)?, padded(d_out)?);
        let scale = f64::from(heads.scale());
        let mut rows = Vec::with_capacity(self.groups.len());
        for group in &self.groups {
            let (q, k, v) = group.split(heads, &qkv)?;
            let d_out = group.heads(&d_out, heads.heads)?.reshape(q.shape())?;
            let (mut d_q, mut d_k, mut d_v) = (Vec::new(), k.zeros_like()?, v.zeros_like()?);
            for block in self.blocks(heads, group) {
                let (q, k, v) = (block.of_queries(&q)?, block.of_keys(&k)?, block.of_keys(&v)?);
                let d_out = block.of_queries(&d_out)?;
                let shares = self.shares(heads, block, &q, &k)?;
                let d_v_block = self.products.multiply(&transposed(&shares)?, &d_out)?;
                let d_shares = self.products.multiply(&d_out, &transposed(&v)?)?;
                let mean = (&shares * &d_shares)?.sum_keepdim(D::Minus1)?;
                let d_scores = ((shares * d_shares.broadcast_sub(&mean)?)? * scale)?;
                d_q.push(block.by_heads(self.products.multiply(&d_scores, &k)?, heads)?);
                let d_k_block = self.products.multiply(&transposed(&d_scores)?, &q)?;
                d_k = (d_k + block.among(d_k_block, group.tokens)?)?;
                d_v = (d_v + block.among(d_v_block, group.tokens)?)?;
            }
            let by_heads = |x: Tensor, n: usize| x.reshape((group.documents, n, group.tokens, heads.head_dim));
            let d_q = by_heads(Tensor::cat(&d_q, 2)?, heads.heads)?;
            let all = [d_q, by_heads(d_k, heads.kv_heads)?, by_heads(d_v, heads.kv_heads)?];
            rows.push(group.join(Tensor::cat(&all, 1)?, heads.heads + 2 * heads.kv_heads)?);
        }
        Tensor::cat(&rows, 0)?.index_select(&self.places, 0)
    }

    /// Softmax of a block's scores, `[B Hk, G queries, keys]`.
    fn shares(&self, heads: Heads, block: Block, q: &Tensor, k: &Tensor) -> Result<Tensor> {
        let scores = (self.products.multiply(q, &transposed(k)?)? * f64::from(heads.scale()))?;
        let (groups, rows, keys) = scores.dims3()?;
        let scores = scores.reshape((groups, rows / block.queries, block.queries, keys))?;
        let scores = scores.broadcast_add(&self.mask(block)?)?;
        let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?.reshape((groups, rows, keys))
    }

    /// 0 where a query sees a key, else minus infinity: `[queries, keys]`.
    fn mask(&self, block: Block) -> Result<Tensor> {
        let mut masks = self.masks.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(mask) = masks.get(&block) {
            return Ok(mask.clone());
        }
        let seen = |q: usize, k: usize| k <= q && block.window.is_none_or(|window| k + window as usize > q);
        let values: Vec<f32> = (block.query..block.query + block.queries)
            .flat_map(|q| (block.key..block.key + block.keys).map(move |k| (q, k)))
            .map(|(q, k)| if seen(q, k) { 0.0 } else { f32::NEG_INFINITY })
            .collect();
        let mask = self.products.upload(&values, &[block.queries, block.keys])?;
        masks.insert(block, mask.clone());
        Ok(mask)
    }

    fn blocks(&self, heads: Heads, group: &Group) -> impl Iterator<Item = Block> + use<> {
        let (tokens, window) = (group.tokens, heads.window);
        let step = (self.piece / (group.documents * heads.heads * tokens)).clamp(1, tokens);
        (0..tokens).step_by(step).map(move |query| {
            let end = tokens.min(query + step);
            let key = heads.first_key(query);
            Block { query, queries: end - query, key, keys: end - key, window }
        })
    }
}

impl Group {
    /// Rows of the pass by document and head: `[B, heads, T, D]`.
    fn heads(&self, padded: &Tensor, heads: usize) -> Result<Tensor> {
        let rows = padded.index_select(&self.rows, 0)?;
        rows.reshape((self.documents, self.tokens, heads, ()))?.transpose(1, 2)?.contiguous()
    }

    /// q `[B Hk, G, T, D]`, k and v `[B Hk, T, D]`.
    fn split(&self, heads: Heads, padded: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
        let (h, kv) = (heads.heads, heads.kv_heads);
        let all = self.heads(padded, h + 2 * kv)?;
        let part = |first, n| all.narrow(1, first, n)?.contiguous();
        let narrow = (self.documents * kv, self.tokens, heads.head_dim);
        let q = part(0, h)?.reshape((self.documents * kv, h / kv, self.tokens, heads.head_dim))?;
        Ok((q, part(h, kv)?.reshape(narrow)?, part(h + kv, kv)?.reshape(narrow)?))
    }

    /// Back to rows, `[B T, heads D]`.
    fn join(&self, by_heads: Tensor, heads: usize) -> Result<Tensor> {
        let rows = by_heads.reshape((self.documents, heads, self.tokens, ()))?.transpose(1, 2)?;
        rows.contiguous()?.reshape((self.documents * self.tokens, ()))
    }
}

impl Block {
    /// `[B Hk, G queries, D]` of `[B Hk, G, T, D]`.
    fn of_queries(self, q: &Tensor) -> Result<Tensor> {
        let (groups, of, _, width) = q.dims4()?;
        q.narrow(2, self.query, self.queries)?.contiguous()?.reshape((groups, of * self.queries, width))
    }

    fn of_keys(self, k: &Tensor) -> Result<Tensor> {
        k.narrow(1, self.key, self.keys)?.contiguous()
    }

    /// `[B Hk, G, queries, D]` of `[B Hk, G queries, D]`.
    fn by_heads(self, out: Tensor, heads: Heads) -> Result<Tensor> {
        let (groups, _, width) = out.dims3()?;
        out.reshape((groups, heads.heads / heads.kv_heads, self.queries, width))
    }

    /// Its keys among all `tokens`, the others 0.
    fn among(self, keys: Tensor, tokens: usize) -> Result<Tensor> {
        keys.pad_with_zeros(1, self.key, tokens - self.key - self.keys)
    }
}

/// With a row of zeros after the last.
fn padded(rows: &Tensor) -> Result<Tensor> {
    rows.pad_with_zeros(0, 0, 1)
}

fn transposed(x: &Tensor) -> Result<Tensor> {
    x.transpose(1, 2)
}
