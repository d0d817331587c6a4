//! Products with the network's matrices, their adapters included.

use candle_core::{DType, Result, Tensor};

use super::course::{Input, Site};
use super::{Products, add_to, base, parameter};
use crate::network::layout::{Matrices, Part};
use crate::network::nf4::{BLOCK, Nf4};
use crate::network::{Gradients, Network, Place};

/// Matrices with the same input.
#[derive(Debug)]
pub(super) struct Linear {
    weight: Weight,
    /// `[rows]`, 0 where a part has none.
    bias: Option<Tensor>,
    /// By part.
    adapters: Vec<Option<Adapter>>,
}

#[derive(Debug)]
enum Weight {
    /// `[rows, cols]`, in the type of products.
    Held(Tensor),
    /// By part.
    Nf4(Vec<Quantized>),
}

/// 4 bits a weight; dequantized for each product.
#[derive(Debug)]
struct Quantized {
    /// Two weights each, the first in the high half.
    codes: Tensor,
    /// `[blocks, 1]`
    scales: Tensor,
    /// Values of the high and of the low half of each byte, `[256]`.
    halves: [Tensor; 2],
    rows: usize,
    cols: usize,
}

#[derive(Debug)]
struct Adapter {
    /// `[R, cols]`
    a: Tensor,
    /// `[rows, R]`
    b: Tensor,
    dora: Option<Dora>,
}

#[derive(Debug)]
struct Dora {
    /// `|W + sBA|` by rows.
    norms: Tensor,
    /// `m / |W + sBA|`
    scales: Tensor,
}

impl Linear {
    pub(super) fn new(network: &Network, matrices: &Matrices, products: &Products) -> Result<Self> {
        let quantized = |part: &Part| match &network.places[part.tensor] {
            Place::Nf4(values) => Some(Quantized::new(values, part.rows, matrices.cols, products)),
            _ => None,
        };
        let weight = match matrices.parts.iter().filter_map(quantized).collect::<Result<Vec<_>>>()? {
            parts if parts.is_empty() => {
                let weight = products.upload(&network.weight(matrices), &[matrices.rows, matrices.cols])?;
                Weight::Held(products.operand(weight)?)
            }
            parts => Weight::Nf4(parts),
        };
        let bias = matrices.parts.iter().any(|part| part.bias.is_some()).then(|| {
            let parts = matrices.parts.iter().map(|part| match part.bias {
                Some(bias) => base(network, bias, products),
                None => Tensor::zeros(part.rows, DType::F32, &products.device),
            });
            Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)
        });
        let mut linear = Self { weight, bias: bias.transpose()?, adapters: Vec::new() };
        linear.adapt(network, matrices, products)?;
        Ok(linear)
    }

    /// Takes over the adapters.
    pub(super) fn adapt(&mut self, network: &Network, matrices: &Matrices, products: &Products) -> Result<()> {
        let adapters = matrices.parts.iter().map(|part| {
            let Some(of) = part.adapter.map(|i| &network.adapters[i]) else { return Ok(None) };
            let (a, b) = (parameter(network, of.a, products)?, parameter(network, of.b, products)?);
            let dora = of.magnitude.map(|magnitude| {
                let weight = self.weight(products)?.narrow(0, part.first, part.rows)?.to_dtype(DType::F32)?;
                let sum = (weight + (products.multiply(&b, &a)? * f64::from(network.scale))?)?;
                let norms = sum.sqr()?.sum(1)?.sqrt()?;
                Result::Ok(Dora { scales: (parameter(network, magnitude, products)? / &norms)?, norms })
            });
            Ok(Some(Adapter { a, b, dora: dora.transpose()? }))
        });
        self.adapters = adapters.collect::<Result<_>>()?;
        Ok(())
    }

    /// `[rows, cols]`
    fn weight(&self, products: &Products) -> Result<Tensor> {
        match &self.weight {
            Weight::Held(weight) => Ok(weight.clone()),
            Weight::Nf4(parts) => {
                let parts = parts.iter().map(Quantized::values).collect::<Result<Vec<_>>>()?;
                products.operand(Tensor::cat(&parts, 0)?)
            }
        }
    }

    /// `[n, rows]` of `x [n, cols]`.
    pub(super) fn forward(&self, site: Site<'_>, matrices: &Matrices, input: Input, x: &Tensor) -> Result<Tensor> {
        let mut y = site.products.multiply(x, &self.weight(site.products)?.t()?)?;
        if self.is_adapted(site) {
            let (seen, _) = site.dropped(input, x)?;
            let parts = matrices.parts.iter().zip(&self.adapters).map(|(part, adapter)| {
                let y = y.narrow(1, part.first, part.rows)?;
                let Some(adapter) = adapter else { return Ok(y) };
                let y = (y + adapter.forward(site, &seen)?)?;
                adapter.dora.as_ref().map_or(Ok(y.clone()), |dora| y.broadcast_mul(&dora.scales))
            });
            y = Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 1)?;
        }
        self.bias.as_ref().map_or(Ok(y.clone()), |bias| y.broadcast_add(bias))
    }

    /// The gradient of `x [n, cols]`, given that of the output `dy [n, rows]`; adds those of what is trained.
    pub(super) fn backward(
        &self,
        site: Site<'_>,
        matrices: &Matrices,
        input: Input,
        x: &Tensor,
        dy: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let (network, products) = (site.network, site.products);
        for part in &matrices.parts {
            if let Some(bias) = part.bias.and_then(|bias| network.master(bias)) {
                add_to(gradients.get_mut(bias), &dy.narrow(1, part.first, part.rows)?.sum(0)?)?;
            }
        }
        let (first, last) = (&matrices.parts[0], &matrices.parts[matrices.parts.len() - 1]);
        if let (Some(first), Some(last)) = (network.master(first.tensor), network.master(last.tensor)) {
            add_to(gradients.span_mut(first, last), &products.multiply(&dy.t()?, x)?)?;
        }
        if !self.is_adapted(site) {
            return products.multiply(dy, &self.weight(products)?);
        }
        let (seen, mask) = site.dropped(input, x)?;
        let dy = self.magnitudes_back(site, matrices, (x, &seen), dy, gradients)?;
        let mut dx = products.multiply(&dy, &self.weight(products)?)?;
        for (part, adapter) in matrices.parts.iter().zip(&self.adapters) {
            let (Some(adapter), Some(of)) = (adapter, part.adapter.map(|i| &network.adapters[i])) else { continue };
            let dy = dy.narrow(1, part.first, part.rows)?.contiguous()?;
            add_to(gradients.get_mut(of.b), &products.multiply(&dy.t()?, &adapter.inner(site, &seen)?)?)?;
            let d_inner = (products.multiply(&dy, &adapter.b)? * f64::from(network.scale))?;
            add_to(gradients.get_mut(of.a), &products.multiply(&d_inner.t()?, &seen)?)?;
            let d_seen = products.multiply(&d_inner, &adapter.a)?;
            dx = match &mask {
                Some(mask) => (dx + (d_seen * mask)?)?,
                None => (dx + d_seen)?,
            };
        }
        Ok(dx)
    }

    fn is_adapted(&self, site: Site<'_>) -> bool {
        site.course.adapter && self.adapters.iter().any(Option::is_some)
    }

    /// DoRA: adds the magnitudes' gradients; gives `dy` with its parts times `m / |W + sBA|`. `x` is the input, and what
    /// adapters see of it.
    fn magnitudes_back(
        &self,
        site: Site<'_>,
        matrices: &Matrices,
        x: (&Tensor, &Tensor),
        dy: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        if self.adapters.iter().flatten().all(|adapter| adapter.dora.is_none()) {
            return Ok(dy.clone());
        }
        let weight = self.weight(site.products)?;
        let parts = matrices.parts.iter().zip(&self.adapters).map(|(part, adapter)| {
            let dy = dy.narrow(1, part.first, part.rows)?;
            let magnitude = part.adapter.and_then(|i| site.network.adapters[i].magnitude);
            let (Some(adapter), Some(magnitude)) = (adapter, magnitude) else { return Ok(dy) };
            let Some(dora) = &adapter.dora else { return Ok(dy) };
            let z = site.products.multiply(x.0, &weight.narrow(0, part.first, part.rows)?.t()?)?;
            let z = (z + adapter.forward(site, x.1)?)?;
            add_to(gradients.get_mut(magnitude), &((z * &dy)?.sum(0)? / &dora.norms)?)?;
            dy.broadcast_mul(&dora.scales)
        });
        Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 1)
    }
}

impl Adapter {
    /// `s x A^T`, `[n, R]`.
    fn inner(&self, site: Site<'_>, x: &Tensor) -> Result<Tensor> {
        site.products.multiply(x, &self.a.t()?)? * f64::from(site.network.scale)
    }

    /// `s (x A^T) B^T`, `[n, rows]`.
    fn forward(&self, site: Site<'_>, x: &Tensor) -> Result<Tensor> {
        site.products.multiply(&self.inner(site, x)?, &self.b.t()?)
    }
}

impl Quantized {
    fn new(values: &Nf4, rows: usize, cols: usize, products: &Products) -> Result<Self> {
        let (codes, scales) = values.parts();
        Ok(Self {
            codes: Tensor::from_vec(codes.to_vec(), codes.len(), &products.device)?,
            scales: products.upload(&scales, &[scales.len(), 1])?,
            halves: [
                products.upload(&Nf4::halves(|byte| byte >> 4), &[256])?,
                products.upload(&Nf4::halves(|byte| byte & 15), &[256])?,
            ],
            rows,
            cols,
        })
    }

    /// `[rows, cols]`, f32.
    fn values(&self) -> Result<Tensor> {
        let [high, low] = &self.halves;
        // The largest index of a type selects nothing, and 255 is a code.
        let codes = self.codes.to_dtype(DType::U32)?;
        let pairs = [high.index_select(&codes, 0)?, low.index_select(&codes, 0)?];
        let units = Tensor::stack(&pairs, 1)?.flatten_all()?;
        let (n, blocks) = (units.elem_count(), self.scales.dim(0)?);
        let whole = units.pad_with_zeros(0, 0, blocks * BLOCK - n)?.reshape((blocks, BLOCK))?;
        let values = whole.broadcast_mul(&self.scales)?.flatten_all()?;
        values.narrow(0, 0, self.rows * self.cols)?.reshape((self.rows, self.cols))
    }
}
