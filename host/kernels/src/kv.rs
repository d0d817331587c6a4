//! Keys and values of all sequences, in fixed pages that a block table of page numbers strings together.
//!
//! Which sequence owns a page, how often it is shared and when it is free is the scheduler's business; here
//! a page is a number below the pool's size. Inside a page, keys are stored `[kv head][D][token]`, so that
//! scores of 32 keys are 32 lanes, and values `[kv head][token][D]`. Slots not written yet hold anything.

use half::f16;

use crate::KernelError;
use crate::memory::Buffer;

/// Tokens of a page, and keys of one step of the attention's online softmax.
pub const PAGE_TOKENS: usize = 32;

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KvType {
    #[default]
    F16,
    /// Twice the memory; for parity with f32 references.
    F32,
}

impl KvType {
    fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

/// Sizes of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    pub layers: usize,
    /// Query heads, a multiple of `kv_heads`.
    pub heads: usize,
    pub kv_heads: usize,
    /// Channels of a head, a multiple of 8, at most 256.
    pub head_dim: usize,
    pub kv_type: KvType,
}

impl KvShape {
    /// Bytes one page takes over all layers; `None` on overflow.
    pub fn page_bytes(&self) -> Option<usize> {
        self.layer_page_bytes()?.checked_mul(self.layers)
    }

    fn layer_page_bytes(&self) -> Option<usize> {
        self.kv_heads.checked_mul(self.head_dim)?.checked_mul(2 * PAGE_TOKENS * self.kv_type.bytes())
    }

    fn check(&self) -> Result<(), KernelError> {
        let refuse = |why| Err(KernelError::KvShape(why));
        if self.layers == 0 || self.kv_heads == 0 || self.heads == 0 {
            return refuse("layers and heads must not be zero");
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return refuse("query heads must be a multiple of kv heads");
        }
        if self.head_dim == 0 || !self.head_dim.is_multiple_of(8) || self.head_dim > 256 {
            return refuse("the head width must be a multiple of 8, at most 256");
        }
        Ok(())
    }
}

/// A pool of pages for every layer of one model.
pub struct KvCache {
    shape: KvShape,
    pages: usize,
    data: Buffer,
}

impl KvCache {
    /// Reserves `pages` pages. The system gives memory at the first write of a page.
    ///
    /// # Errors
    /// [`KernelError::KvShape`] or [`KernelError::Memory`].
    pub fn new(shape: KvShape, pages: usize) -> Result<Self, KernelError> {
        shape.check()?;
        let bytes = shape.page_bytes().and_then(|bytes| bytes.checked_mul(pages));
        let bytes = bytes.ok_or(KernelError::KvShape("the size overflows"))?;
        Ok(Self { shape, pages, data: Buffer::zeroed(bytes)? })
    }

    pub fn shape(&self) -> &KvShape {
        &self.shape
    }

    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Bytes reserved.
    pub fn size_bytes(&self) -> usize {
        self.data.len()
    }

    /// Stores keys and values `[kv_heads, head_dim]` of one token.
    ///
    /// # Panics
    /// If the layer, page or slot is outside the cache or the lengths are wrong.
    pub fn write(&mut self, layer: usize, page: u32, slot: usize, keys: &[f32], values: &[f32]) {
        let KvShape { kv_heads, head_dim, kv_type, .. } = self.shape;
        assert_eq!((keys.len(), values.len()), (kv_heads * head_dim, kv_heads * head_dim), "[kv heads, D]");
        assert!(slot < PAGE_TOKENS, "slot {slot}");
        let size = kv_type.bytes();
        let range = self.page_range(layer, page);
        let page = &mut self.data[range];
        let plane = head_dim * PAGE_TOKENS * size;
        for (head, (keys, values)) in keys.chunks_exact(head_dim).zip(values.chunks_exact(head_dim)).enumerate() {
            let (key_plane, value_plane) = page[2 * head * plane..][..2 * plane].split_at_mut(plane);
            for (d, &key) in keys.iter().enumerate() {
                store(kv_type, &mut key_plane[(d * PAGE_TOKENS + slot) * size..], key);
            }
            for (d, &value) in values.iter().enumerate() {
                store(kv_type, &mut value_plane[(slot * head_dim + d) * size..], value);
            }
        }
    }

    /// Copies a page in all layers: copy on write of a shared, partly filled page.
    ///
    /// # Panics
    /// If a page is outside the cache.
    pub fn copy_page(&mut self, from: u32, to: u32) {
        for layer in 0..self.shape.layers {
            let (from, to) = (self.page_range(layer, from), self.page_range(layer, to));
            self.data.copy_within(from, to.start);
        }
    }

    /// Keys and values of one page and head, as stored.
    pub(crate) fn planes(&self, layer: usize, page: u32, kv_head: usize) -> (&[u8], &[u8]) {
        let plane = self.shape.head_dim * PAGE_TOKENS * self.shape.kv_type.bytes();
        let range = self.page_range(layer, page);
        self.data[range][2 * kv_head * plane..][..2 * plane].split_at(plane)
    }

    fn page_range(&self, layer: usize, page: u32) -> std::ops::Range<usize> {
        let page = page as usize;
        assert!(layer < self.shape.layers && page < self.pages, "layer {layer}, page {page}");
        let bytes = self.data.len() / (self.pages * self.shape.layers);
        let first = (layer * self.pages + page) * bytes;
        first..first + bytes
    }
}

impl std::fmt::Debug for KvCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KvCache({} pages, {:?})", self.pages, self.shape)
    }
}

fn store(ty: KvType, at: &mut [u8], value: f32) {
    match ty {
        KvType::F16 => at[..2].copy_from_slice(&f16::from_f32(value).to_le_bytes()),
        KvType::F32 => at[..4].copy_from_slice(&value.to_le_bytes()),
    }
}
