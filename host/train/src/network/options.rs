//! What of a network is trained, and how it computes.

/// How to make a network.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NetworkOptions {
    pub train: Trained,
    pub output: Output,
    pub device: Device,
    pub precision: Precision,
    /// Keep each layer's input only and compute the rest again in backward: the same bits, less memory, a third more
    /// work.
    pub checkpointing: bool,
    /// Threads of the network; 0: one for each core.
    pub threads: usize,
    /// Of what is drawn: fresh weights, a new head.
    pub seed: u64,
}

/// Which tensors are parameters; all others are the frozen base.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Trained {
    #[default]
    All,
    /// Adapters, and the head if there is one.
    Adapter(Adapter),
    /// The head alone.
    Head,
}

/// What the network answers with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Output {
    /// Log-probabilities of tokens.
    #[default]
    Language,
    /// Scores of this many labels; 1 for a reward.
    Scores(usize),
    /// States after the final norm.
    States,
}

/// Low-rank updates of matrices: `y = x W^T + s (x A^T) B^T`.
///
/// Source: Hu et al. 2021, arXiv:2106.09685; DoRA: Liu et al. 2024, arXiv:2402.09353; QLoRA: Dettmers et al. 2023,
/// arXiv:2305.14314; scaling: Kalajdzievski 2023, arXiv:2312.03732.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    pub kind: AdapterKind,
    /// R, from 1.
    pub rank: usize,
    pub alpha: f32,
    /// s = alpha / sqrt(R) in place of alpha / R.
    pub rank_stabilised: bool,
    /// Share of the adapter's inputs that a training pass sets to 0, in 0..1. Matrices with the same input (q, k, v;
    /// gate, up) see the same draw.
    pub dropout: f32,
    /// Names of the last part: `q_proj`, `k_proj`, `v_proj`, `o_proj`, `gate_proj`, `up_proj`, `down_proj`.
    pub targets: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdapterKind {
    Lora,
    /// LoRA and a magnitude for each output: `y = m / |W + sBA| (x W^T + s (x A^T) B^T)`, the norm by rows and constant
    /// in backward.
    Dora,
    /// LoRA on a base whose matrices are kept in NF4.
    Qlora,
}

/// Arithmetic of products. Norms, softmax, losses and sums over tokens are f32 in both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Precision {
    #[default]
    F32,
    /// Operands rounded to bf16, sums in f32; parameters stay f32.
    Bf16,
}

/// Where passes are computed. Parameters, gradients and the optimizer are on the host in all cases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Device {
    /// The processor, by this crate's own kernels.
    #[default]
    Cpu,
    /// candle's tensors on the CUDA device of this number; needs the feature `cuda`.
    Cuda(usize),
    /// candle's tensors on the processor: what [`Self::Cuda`] computes, where there is none. For tests and comparisons.
    Tensors,
}

/// What a pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Keeps what backward needs. Dropout draws from (seed, step, row): `row` tells the passes of a step apart.
    Train { seed: u64, step: u64, row: u64 },
    /// No dropout, nothing kept: there is no way back.
    Eval,
}

impl Adapter {
    /// s.
    pub(super) fn scale(&self) -> f32 {
        let rank = self.rank as f32;
        self.alpha / if self.rank_stabilised { rank.sqrt() } else { rank }
    }
}
