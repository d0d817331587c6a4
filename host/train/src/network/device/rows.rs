//! What is computed row by row: norms, rotary positions, the gated activation.

use candle_core::{D, Result, Tensor};

/// RMS norm of `x [.., n]` with `gain [n]`.
pub(super) fn norm(x: &Tensor, gain: &Tensor, eps: f32) -> Result<Tensor> {
    x.broadcast_mul(&inverse_rms(x, eps)?)?.broadcast_mul(gain)
}

/// Gradients of `x [.., n]` and of the gain `[n]`.
pub(super) fn norm_back(x: &Tensor, gain: &Tensor, eps: f32, dy: &Tensor) -> Result<(Tensor, Tensor)> {
    let inverse = inverse_rms(x, eps)?;
    let normed = x.broadcast_mul(&inverse)?;
    let n = gain.elem_count();
    let d_gain = (dy * &normed)?.reshape(((), n))?.sum(0)?;
    let d_normed = dy.broadcast_mul(gain)?;
    let along = (&d_normed * &normed)?.mean_keepdim(D::Minus1)?;
    let dx = (d_normed - normed.broadcast_mul(&along)?)?.broadcast_mul(&inverse)?;
    Ok((dx, d_gain))
}

fn inverse_rms(x: &Tensor, eps: f32) -> Result<Tensor> {
    (x.sqr()?.mean_keepdim(D::Minus1)? + f64::from(eps))?.sqrt()?.recip()
}

/// Cosines and sines of the tokens' positions, `[N, 1, D / 2]` each.
#[derive(Debug)]
pub(super) struct Angles {
    cos: Tensor,
    sin: Tensor,
}

impl Angles {
    /// Of `table [T, D]`, whose rows are D/2 cosines and D/2 sines, at `positions [N]`.
    pub(super) fn new(table: &Tensor, positions: &Tensor) -> Result<Self> {
        let rows = table.index_select(positions, 0)?.unsqueeze(1)?;
        let half = table.dim(1)? / 2;
        Ok(Self { cos: rows.narrow(2, 0, half)?.contiguous()?, sin: rows.narrow(2, half, half)?.contiguous()? })
    }

    /// Turns heads `x [N, heads, D]`.
    pub(super) fn turn(&self, x: &Tensor) -> Result<Tensor> {
        self.turn_by(x, &self.sin)
    }

    /// Turns gradients back.
    pub(super) fn turn_back(&self, dx: &Tensor) -> Result<Tensor> {
        self.turn_by(dx, &self.sin.neg()?)
    }

    fn turn_by(&self, x: &Tensor, sin: &Tensor) -> Result<Tensor> {
        let half = x.dim(2)? / 2;
        let (low, high) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
        let turned_low = (low.broadcast_mul(&self.cos)? - high.broadcast_mul(sin)?)?;
        let turned_high = (high.broadcast_mul(&self.cos)? + low.broadcast_mul(sin)?)?;
        Tensor::cat(&[turned_low, turned_high], 2)
    }
}

/// `silu(gate) up` of `[n, 2 F]`, `[n, F]`.
pub(super) fn swiglu(gate_up: &Tensor) -> Result<Tensor> {
    let (gate, up) = halves(gate_up)?;
    gate.silu()? * up
}

/// The gradient of `[n, 2 F]`.
pub(super) fn swiglu_back(gate_up: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (gate, up) = halves(gate_up)?;
    let sigmoid = ((&gate * 0.5)?.tanh()? * 0.5)?.affine(1.0, 0.5)?;
    let silu = (&gate * &sigmoid)?;
    // silu' = s + silu (1 - s)
    let slope = (&sigmoid + (&silu * sigmoid.affine(-1.0, 1.0)?)?)?;
    Tensor::cat(&[((dy * up)? * slope)?, (dy * silu)?], 1)
}

fn halves(gate_up: &Tensor) -> Result<(Tensor, Tensor)> {
    let f = gate_up.dim(1)? / 2;
    Ok((gate_up.narrow(1, 0, f)?.contiguous()?, gate_up.narrow(1, f, f)?.contiguous()?))
}
