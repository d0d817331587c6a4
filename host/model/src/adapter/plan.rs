//! Fits an adapter's file to its base: names, shapes and sizes, before the first weight is read.

use super::delta::Delta;
use super::{Adapter, AdapterConfig, CONFIG_FILE, WEIGHTS_FILE};
use crate::ModelError;
use crate::checkpoint::{Checkpoint, Tensor, exists, read_small};
use crate::llama::{Base, Part};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use stockade_core::Digest;
use stockade_kernels::{KernelError, PackedMatrix};

/// What PEFT puts before the base's own names.
const PREFIX: &str = "base_model.model.";
/// Rows of a product whose norms one task takes.
const NORM_ROWS: usize = 64;

/// An adapter that fits its base and is not loaded yet.
pub struct AdapterPlan<'a> {
    base: &'a Base,
    checkpoint: Checkpoint,
    config: AdapterConfig,
    /// By layer and [`Part`]; in a valid plan each is complete.
    changes: BTreeMap<(usize, usize), Change>,
    weight_bytes: usize,
    row_bytes: usize,
    parameters: u64,
}

/// The tensors that change one product.
#[derive(Default)]
struct Change {
    down: Option<Tensor>,
    up: Option<Tensor>,
    magnitude: Option<Tensor>,
}

impl<'a> AdapterPlan<'a> {
    /// Opens a PEFT folder and checks it against `base`. Reads headers only.
    ///
    /// # Errors
    /// A setting that is not supported, a tensor of another shape or type than the base or the configuration says, one
    /// without its partner, and every tensor that would change something not changed here; each by its name.
    pub fn new(folder: &Path, base: &'a Base) -> Result<Self, ModelError> {
        let config = AdapterConfig::from_folder(folder)?;
        if config.has_head {
            let found = "`score`; merged into its base it is a classifier".to_owned();
            return Err(ModelError::unsupported(
                &folder.join(CONFIG_FILE),
                "beside a base, an adapter's own head",
                found,
            ));
        }
        if !exists(&folder.join(WEIGHTS_FILE)) {
            let reason = format!("the folder holds a {CONFIG_FILE} and no {WEIGHTS_FILE}; other formats are not read");
            return Err(ModelError::NoModel { path: folder.to_owned(), reason });
        }
        let checkpoint = Checkpoint::open_safetensors(folder, WEIGHTS_FILE)?;
        let mut plan =
            Self { base, checkpoint, config, changes: BTreeMap::new(), weight_bytes: 0, row_bytes: 0, parameters: 0 };
        if let Some((name, ty)) = plan.checkpoint.unreadable().next() {
            return Err(plan.refuse(name, &format!("type {ty} is not supported")));
        }
        let tensors: Vec<Tensor> = plan.checkpoint.tensors().cloned().collect();
        tensors.into_iter().try_for_each(|tensor| plan.place(tensor))?;
        plan.check()?;
        Ok(plan)
    }

    /// Bytes that the weights take in memory.
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// Scratch bytes for each row of a batch.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Finds the product that a tensor belongs to.
    fn place(&mut self, tensor: Tensor) -> Result<(), ModelError> {
        let found = part_of(&tensor.name).filter(|&(layer, ..)| layer < self.base.shape.layers());
        let Some((layer, part, kind)) = found else {
            let reason = "an adapter may change the projections of the base's layers and nothing else";
            return Err(self.refuse(&tensor.name, reason));
        };
        let change = self.changes.entry((layer, part as usize)).or_default();
        let slot = match kind {
            Kind::Down => &mut change.down,
            Kind::Up => &mut change.up,
            Kind::Magnitude => &mut change.magnitude,
        };
        match slot.replace(tensor) {
            Some(twice) => Err(self.refuse(&twice.name, "a second tensor says the same")),
            None => Ok(()),
        }
    }

    /// Every change is whole and has the shapes that base and configuration demand.
    fn check(&mut self) -> Result<(), ModelError> {
        if self.changes.is_empty() {
            return Err(ModelError::NoModel {
                path: self.checkpoint.path().to_owned(),
                reason: format!("{WEIGHTS_FILE} holds no tensors"),
            });
        }
        let (mut widest, mut ranks) = (0, 0);
        for (&(layer, part), change) in &self.changes {
            let part = Part::ALL[part];
            let module = module(layer, part);
            let (outputs, inputs) = self.base.shape.dims(part);
            let rank = self.config.rank_of(&module)?;
            let down = self.shaped(&module, "lora_A.weight", &change.down, &[rank, inputs])?;
            let up = self.shaped(&module, "lora_B.weight", &change.up, &[outputs, rank])?;
            match &change.magnitude {
                Some(tensor) if !self.config.decomposed => {
                    return Err(self.refuse(&tensor.name, &format!("{CONFIG_FILE} does not say `use_dora`")));
                }
                None if !self.config.decomposed => {}
                magnitude => {
                    let magnitude = self.shaped(&module, "lora_magnitude_vector", magnitude, &[outputs])?;
                    self.weight_bytes += magnitude.cols * 4;
                    self.parameters += magnitude.cols as u64;
                }
            }
            for tensor in [down, up] {
                let bytes = PackedMatrix::packed_bytes(tensor.ty, tensor.rows, tensor.cols);
                let sum = bytes.and_then(|bytes| self.weight_bytes.checked_add(bytes));
                self.weight_bytes = sum.ok_or_else(|| self.refuse(&tensor.name, "its size overflows"))?;
                self.parameters += (tensor.rows * tensor.cols) as u64;
            }
            (widest, ranks) = (outputs.max(widest), rank.max(ranks));
        }
        // At most three products share an input.
        self.row_bytes = 4 * (widest + 3 * ranks);
        Ok(())
    }

    fn shaped<'t>(
        &self,
        module: &str,
        kind: &str,
        tensor: &'t Option<Tensor>,
        shape: &[usize],
    ) -> Result<&'t Tensor, ModelError> {
        let Some(tensor) = tensor else {
            let tensor = format!("{PREFIX}{module}.{kind}");
            return Err(ModelError::NoTensor { file: self.file(), tensor });
        };
        if tensor.shape != shape {
            let reason = format!("shape {:?} where base and {CONFIG_FILE} demand {shape:?}", tensor.shape);
            return Err(self.refuse(&tensor.name, &reason));
        }
        Ok(tensor)
    }

    /// Reads everything onto the base's threads. `progress` gets the bytes read so far and in all.
    ///
    /// # Errors
    /// A file that cannot be read, no memory, or a DoRA row whose norm or magnitude is zero or not finite.
    pub fn load(&self, progress: crate::llama::Progress<'_>) -> Result<Adapter, ModelError> {
        let total = self.checkpoint.tensors().map(|t| t.size_bytes() as u64).sum();
        let mut done = 0;
        let mut layers = Vec::new();
        layers.resize_with(self.base.shape.layers(), || [const { None }; Part::ALL.len()]);
        for (&(layer, part), change) in &self.changes {
            progress(done, total);
            // `check` found every change whole.
            let (Some(down), Some(up)) = (&change.down, &change.up) else { continue };
            let scale = self.config.scale_of(&module(layer, Part::ALL[part]))?;
            let ratio = match &change.magnitude {
                Some(magnitude) => Some(self.ratio(layer, Part::ALL[part], [down, up, magnitude], scale)?),
                None => None,
            };
            layers[layer][part] = Some(Delta { down: self.packed(down)?, up: self.packed(up)?, scale, ratio });
            done += [Some(down), Some(up), change.magnitude.as_ref()]
                .into_iter()
                .flatten()
                .map(|t| t.size_bytes() as u64)
                .sum::<u64>();
        }
        progress(total, total);
        Ok(Adapter { shape: Arc::clone(&self.base.shape), digest: self.digest()?, parameters: self.parameters, layers })
    }

    /// Sha256 over the digest of the weights' file and the configuration's bytes.
    fn digest(&self) -> Result<Digest, ModelError> {
        let mut hasher = Sha256::new();
        hasher.update(self.checkpoint.digest()?.0);
        hasher.update(read_small(&self.checkpoint.path().join(CONFIG_FILE))?);
        Ok(Digest(hasher.finalize().into()))
    }

    fn packed(&self, tensor: &Tensor) -> Result<PackedMatrix, ModelError> {
        let bytes = self.checkpoint.read(tensor)?;
        PackedMatrix::pack(&self.base.pool, tensor.ty, tensor.rows, tensor.cols, &bytes)
            .map_err(|source: KernelError| ModelError::Kernel { what: tensor.name.clone(), source })
    }

    /// DoRA's factor of each output: its magnitude over the norm of its row of `W + scale B A`.
    fn ratio(
        &self,
        layer: usize,
        part: Part,
        [down, up, magnitude]: [&Tensor; 3],
        scale: f32,
    ) -> Result<Vec<f32>, ModelError> {
        let [a, b, magnitudes] =
            [self.checkpoint.read_f32(down)?, self.checkpoint.read_f32(up)?, self.checkpoint.read_f32(magnitude)?];
        let weight = &self.base.weights.layers[layer].linear(part).weight;
        let (rank, inputs) = (down.rows, down.cols);
        let ratios = Mutex::new(vec![0.0; magnitudes.len()]);
        self.base.pool.run(magnitudes.len().div_ceil(NORM_ROWS), &|task| {
            let mut row = vec![0.0; inputs];
            let rows = task * NORM_ROWS..magnitudes.len().min((task + 1) * NORM_ROWS);
            let norms: Vec<f32> = rows
                .clone()
                .map(|r| {
                    weight.row(r, &mut row);
                    for (b, a) in b[r * rank..(r + 1) * rank].iter().zip(a.chunks_exact(inputs)) {
                        row.iter_mut().zip(a).for_each(|(w, a)| *w += scale * b * a);
                    }
                    row.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt() as f32
                })
                .collect();
            let mut ratios = ratios.lock().unwrap_or_else(|e| e.into_inner());
            for (r, norm) in rows.zip(norms) {
                ratios[r] = magnitudes[r] / norm;
            }
        });
        let ratios = ratios.into_inner().unwrap_or_else(|e| e.into_inner());
        match ratios.iter().position(|ratio| !ratio.is_finite()) {
            Some(r) => Err(self.refuse(&magnitude.name, &format!("output {r} has no finite magnitude over its norm"))),
            None => Ok(ratios),
        }
    }

    fn file(&self) -> std::path::PathBuf {
        self.checkpoint.path().join(WEIGHTS_FILE)
    }

    fn refuse(&self, tensor: &str, reason: &str) -> ModelError {
        ModelError::tensor(&self.file(), tensor, reason)
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Down,
    Up,
    Magnitude,
}

fn module(layer: usize, part: Part) -> String {
    format!("model.layers.{layer}.{}", part.name())
}

/// Layer and product of a tensor's name.
fn part_of(name: &str) -> Option<(usize, Part, Kind)> {
    let (layer, rest) = name.strip_prefix(PREFIX)?.strip_prefix("model.layers.")?.split_once('.')?;
    // One spelling of each number, so that no two names mean one tensor.
    let layer = layer.parse::<usize>().ok().filter(|n| n.to_string() == layer)?;
    let part = Part::ALL.into_iter().find(|part| rest.strip_prefix(part.name()).is_some_and(|r| r.starts_with('.')))?;
    let kind = match rest.strip_prefix(part.name())? {
        ".lora_A.weight" => Kind::Down,
        ".lora_B.weight" => Kind::Up,
        ".lora_magnitude_vector" | ".lora_magnitude_vector.weight" => Kind::Magnitude,
        _ => return None,
    };
    Some((layer, part, kind))
}
