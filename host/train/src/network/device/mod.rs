//! The network on candle's tensors: on a CUDA device, or on the processor for tests.
//!
//! Forward and backward are those of the host's kernels, written out with tensors in place of slices. candle's own
//! autograd would compute gradients of frozen weights too, keep every intermediate of every layer, and lose gradients in
//! its fused operations without a word. Parameters and gradients stay the host's: what is trained goes up after each
//! update, gradients come down after each pass, so that optimizer, checkpoints and exports are one code for all devices.
//!
//! With bf16, results of products are rounded to bf16 too, as under PyTorch's autocast; the host's kernels keep them.

mod attention;
mod course;
mod head;
mod layer;
mod linear;
mod pass;
mod rows;

use candle_core::{DType, Result, Tensor};
use stockade_core::train::TrainError;

use super::{Device, Network, Precision};
use layer::Layer;

pub(super) use pass::DevicePass;

/// Values that logits, or scores of attention, have at once: 512 MiB.
const PIECE: usize = 1 << 27;

/// The tensors of a network on a device.
#[derive(Debug)]
pub(super) struct DeviceNetwork {
    name: String,
    products: Products,
    /// `[V, C]`
    embedding: Tensor,
    layers: Vec<Layer>,
    /// `[C]`
    norm: Tensor,
    /// The language head `[V, C]`.
    head: Option<Tensor>,
    /// The head of scores `[labels, C]`.
    score: Option<Tensor>,
    /// [`PIECE`], but in tests.
    pub(super) piece: usize,
}

/// A device, and how it multiplies.
#[derive(Debug, Clone)]
struct Products {
    device: candle_core::Device,
    precision: Precision,
}

impl Products {
    /// `a b` in f32 of f32 or, with bf16, of bf16 operands.
    fn multiply(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        match self.precision {
            Precision::F32 => a.matmul(b),
            Precision::Bf16 => a.to_dtype(DType::BF16)?.matmul(&b.to_dtype(DType::BF16)?)?.to_dtype(DType::F32),
        }
    }

    fn upload(&self, values: &[f32], shape: &[usize]) -> Result<Tensor> {
        Tensor::from_slice(values, shape, &self.device)
    }

    fn indices(&self, values: &[u32]) -> Result<Tensor> {
        Tensor::from_slice(values, values.len(), &self.device)
    }

    /// Operands of products, in the type that they are multiplied in.
    fn operand(&self, tensor: Tensor) -> Result<Tensor> {
        match self.precision {
            Precision::F32 => Ok(tensor),
            Precision::Bf16 => tensor.to_dtype(DType::BF16),
        }
    }
}

impl Device {
    /// # Errors
    /// A kind of device that this program was built without.
    pub fn check(self) -> std::result::Result<(), TrainError> {
        match self {
            Self::Cuda(_) if !candle_core::utils::cuda_is_available() => {
                Err(TrainError::spec("optim.device", "this program was built without the feature `cuda`"))
            }
            _ => Ok(()),
        }
    }
}

impl DeviceNetwork {
    /// `None` where the host's kernels compute.
    ///
    /// # Errors
    /// A device that is not there, or without the memory for the network.
    pub(super) fn open(
        network: &Network,
        device: Device,
        precision: Precision,
    ) -> std::result::Result<Option<Self>, TrainError> {
        device.check()?;
        let (name, device) = match device {
            Device::Cpu => return Ok(None),
            Device::Tensors => ("tensors".to_owned(), Ok(candle_core::Device::Cpu)),
            Device::Cuda(index) => (format!("cuda:{index}"), candle_core::Device::new_cuda(index)),
        };
        let device = device.map_err(|error| failed(&name, &error))?;
        let products = Products { device, precision };
        Self::build(network, name.clone(), products).map(Some).map_err(|error| failed(&name, &error))
    }

    fn build(network: &Network, name: String, products: Products) -> Result<Self> {
        let layout = &network.layout;
        let layers = layout.layers.iter().map(|layer| Layer::new(network, layer, &products));
        let embedding = base(network, layout.embedding, &products)?;
        Ok(Self {
            name,
            head: head(network, &embedding, &products)?,
            embedding,
            layers: layers.collect::<Result<_>>()?,
            norm: base(network, layout.norm, &products)?,
            score: network.score.map(|score| parameter(network, score, &products)).transpose()?,
            products,
            piece: PIECE,
        })
    }

    /// Takes over what has changed on the host.
    pub(super) fn update(&mut self, network: &Network) -> std::result::Result<(), TrainError> {
        self.take(network).map_err(|error| self.failed(&error))
    }

    fn take(&mut self, network: &Network) -> Result<()> {
        let (layout, products) = (&network.layout, &self.products);
        if network.master(layout.embedding).is_some() {
            // One by one, so that no tensor but the one at hand is there twice.
            self.embedding = base(network, layout.embedding, products)?;
            for (layer, of) in self.layers.iter_mut().zip(&layout.layers) {
                *layer = Layer::new(network, of, products)?;
            }
            self.norm = base(network, layout.norm, products)?;
            self.head = head(network, &self.embedding, products)?;
        } else {
            for (layer, of) in self.layers.iter_mut().zip(&layout.layers) {
                layer.adapt(network, of, products)?;
            }
        }
        if let (Some(score), Some(index)) = (&mut self.score, network.score) {
            *score = parameter(network, index, products)?;
        }
        Ok(())
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn failed(&self, error: &candle_core::Error) -> TrainError {
        failed(&self.name, error)
    }
}

fn failed(name: &str, error: &candle_core::Error) -> TrainError {
    // The first line: the rest is a backtrace where one was asked for.
    let reason = error.to_string().lines().next().unwrap_or_default().to_owned();
    TrainError::Device { name: name.to_owned(), reason }
}

/// A tensor of the base that is not quantized, f32.
fn base(network: &Network, tensor: usize, products: &Products) -> Result<Tensor> {
    products.upload(network.base(tensor), &network.layout.tensors[tensor].shape)
}

/// The language head, the embedding if tied, in the type of products.
fn head(network: &Network, embedding: &Tensor, products: &Products) -> Result<Option<Tensor>> {
    let head = network.layout.head.map(|head| {
        let own = head != network.layout.embedding;
        products.operand(if own { base(network, head, products)? } else { embedding.clone() })
    });
    head.transpose()
}

fn parameter(network: &Network, index: usize, products: &Products) -> Result<Tensor> {
    products.upload(network.values(index), &network.parameters[index].shape)
}

/// Adds a tensor to a gradient of the host.
fn add_to(gradient: &mut [f32], tensor: &Tensor) -> Result<()> {
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    assert_eq!(values.len(), gradient.len(), "a gradient for each value");
    gradient.iter_mut().zip(values).for_each(|(sum, x)| *sum += x);
    Ok(())
}
