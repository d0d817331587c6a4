//! Compute kernels of the engine on the CPU: block formats, packed weights, products, attention, and the
//! small operations between them.
//!
//! The crate knows arithmetic, memory layout and threads; it knows nothing of networks, files or requests.
//!
//! The invariant every kernel here keeps: **the order of additions behind one output depends on the inner
//! dimension and the position only**, never on how many rows share a call, on the number of threads, or on
//! how a sequence was cut into chunks. A batch of n therefore equals n single calls bit for bit, and so do
//! the portable and the SIMD variants of a kernel.

mod activation;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod elementwise;
mod exp;
mod format;
mod isa;
mod kv;
mod layout;
mod matmul;
mod memory;
mod outliers;
mod packed;
mod pool;
mod portable;
mod quantize;

pub use attention::{AttentionSegment, attention};
pub use elementwise::{add_assign, add_bias, log_softmax, rms_norm, rope, silu_mul, softmax};
pub use exp::exp;
pub use format::{WeightType, dequantize};
pub use isa::isa_name;
pub use kv::{KvCache, KvShape, KvType, PAGE_TOKENS};
pub use matmul::{MatmulPrecision, matmul};
pub use packed::{PackedMatrix, RowSource};
pub use pool::Pool;
pub use quantize::quantize;

/// Why weights or a cache could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A row must hold whole blocks.
    #[error("rows of {cols} weights do not divide into {ty} blocks of {block}")]
    RowLength { ty: WeightType, cols: usize, block: usize },
    /// A matrix needs at least one row and one column, and a byte count that fits the address space.
    #[error("shape [{rows}, {cols}] of a {ty} matrix is empty or too large")]
    Shape { ty: WeightType, rows: usize, cols: usize },
    /// The source has not the bytes its shape asks for.
    #[error("{have} bytes where {want} were expected")]
    Length { have: usize, want: usize },
    /// The sizes of a KV cache are zero, odd or too large.
    #[error("KV cache shape is refused: {0}")]
    KvShape(&'static str),
    /// The system gave no memory.
    #[error("no memory for {bytes} bytes")]
    Memory { bytes: usize },
    /// The caller's row source failed.
    #[error("row {row} could not be read")]
    Source {
        row: usize,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
