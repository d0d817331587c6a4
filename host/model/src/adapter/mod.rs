//! PEFT adapters: low-rank changes of a base's weights, computed beside them for the rows that ask for them.
//!
//! LoRA (Hu et al. 2021, arXiv:2106.09685), its rank-stabilised scale (arXiv:2312.03732) and DoRA (arXiv:2402.09353).
//! The base stays as it is, quantized or not, and is in memory once for all adapters and for itself. Adapters speak of
//! rows in Hugging Face order, which is what a [`Checkpoint`] answers with, GGUF included.
//!
//! Invariant: an adapter only runs on the very base it was loaded onto, whose shapes it was checked against before
//! its first weight was read.

mod config;
mod delta;
mod plan;

use crate::llama::{Base, Part, Shape};
use std::path::Path;
use std::sync::Arc;
use stockade_core::Digest;
use stockade_kernels::Pool;

pub use config::AdapterConfig;
pub use plan::AdapterPlan;

use delta::Delta;
pub(crate) use delta::Scratch;

/// The configuration's file, which makes a folder a PEFT folder.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The weights' file.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// Largest rank. Bounds the scratch memory of a row.
pub const MAX_RANK: usize = 1024;

/// Whether `folder` holds an adapter instead of a model.
pub fn is_adapter(folder: &Path) -> bool {
    folder.join(CONFIG_FILE).is_file()
}

/// A loaded adapter.
pub struct Adapter {
    /// The base's, which names the base.
    shape: Arc<Shape>,
    digest: Digest,
    parameters: u64,
    /// For each layer, what is added to each of its products, by [`Part`].
    layers: Vec<[Option<Delta>; Part::ALL.len()]>,
}

impl Adapter {
    /// Sha256 over weights and configuration: two adapters of one digest compute the same.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn parameters(&self) -> u64 {
        self.parameters
    }

    /// Whether it was loaded onto this base.
    pub fn is_of(&self, base: &Base) -> bool {
        Arc::ptr_eq(&self.shape, &base.shape)
    }

    /// Changes the products of layer `layer` of rows `x [n, inputs]`: each of `outputs` holds the base's product
    /// `[n, outputs]`, without bias.
    pub(crate) fn apply(
        &self,
        pool: &Pool,
        layer: usize,
        x: &[f32],
        outputs: &mut [(Part, &mut [f32])],
        scratch: &mut Scratch,
    ) {
        let Some(parts) = self.layers.get(layer) else { return };
        let own = outputs.iter_mut().filter_map(|(part, out)| Some((parts[*part as usize].as_ref()?, &mut **out)));
        delta::add(pool, x, &mut own.collect::<Vec<_>>(), scratch);
    }
}

impl std::fmt::Debug for Adapter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Adapter({})", self.digest)
    }
}
