//! Encoders of the block formats: f32 weights become the bytes of a file.
//!
//! They make the choices of ggml's reference encoders (`quantize_row_*_ref`), so that a file made here is as good as one
//! made there: absolute-maximum scales for the 32-weight blocks; for the K formats a search for the scale (and minimum)
//! of each sub-block that leaves the least weighted squared error, then six- or eight-bit scales of the scales.

use crate::{KernelError, WeightType};
use half::{bf16, f16};

/// Encodes whole rows, or any run of whole blocks, onto the end of `out`. Values are finite; a NaN becomes any code.
///
/// # Errors
/// [`KernelError::RowLength`] if `values` are no whole blocks.
pub fn quantize(ty: WeightType, values: &[f32], out: &mut Vec<u8>) -> Result<(), KernelError> {
    let block = ty.block_weights();
    let bytes = ty.row_bytes(values.len()).ok_or(KernelError::RowLength { ty, cols: values.len(), block })?;
    out.reserve(bytes);
    for x in values.chunks_exact(block) {
        match ty {
            WeightType::F32 => out.extend(x[0].to_le_bytes()),
            WeightType::F16 => out.extend(f16::from_f32(x[0]).to_le_bytes()),
            WeightType::BF16 => out.extend(bf16::from_f32(x[0]).to_le_bytes()),
            WeightType::Q4_0 => symmetric(x, 8, out),
            WeightType::Q5_0 => symmetric(x, 16, out),
            WeightType::Q4_1 => with_minimum(x, 15, out),
            WeightType::Q5_1 => with_minimum(x, 31, out),
            WeightType::Q8_0 => q8_0(x, out),
            WeightType::Q4_K => k_with_minima(x, SEARCH_4, out),
            WeightType::Q5_K => k_with_minima(x, SEARCH_5, out),
            WeightType::Q6_K => q6_k(x, out),
        }
    }
    Ok(())
}

/// Q4_0 and Q5_0: codes `0..2 half` around `half`; the largest weight in magnitude is the code 0.
fn symmetric(x: &[f32], half: u8, out: &mut Vec<u8>) {
    let d = largest(x) / -f32::from(half);
    let inverse = inverse(d);
    let code = |x: &f32| ((x * inverse + f32::from(half) + 0.5) as i32).clamp(0, 2 * i32::from(half) - 1) as u8;
    let codes: Vec<u8> = x.iter().map(code).collect();
    out.extend(f16::from_f32(d).to_le_bytes());
    if half == 16 {
        out.extend(fifth_bits(&codes));
    }
    out.extend(nibbles(&codes, 16));
}

/// Q4_1 and Q5_1: codes `0..=max` between the block's extremes.
fn with_minimum(x: &[f32], max: u8, out: &mut Vec<u8>) {
    let low = x.iter().copied().fold(f32::MAX, f32::min);
    let high = x.iter().copied().fold(f32::MIN, f32::max);
    let d = (high - low) / f32::from(max);
    let inverse = inverse(d);
    let codes: Vec<u8> =
        x.iter().map(|x| (((x - low) * inverse + 0.5) as i32).clamp(0, i32::from(max)) as u8).collect();
    out.extend(f16::from_f32(d).to_le_bytes());
    out.extend(f16::from_f32(low).to_le_bytes());
    if max == 31 {
        out.extend(fifth_bits(&codes));
    }
    out.extend(nibbles(&codes, 16));
}

fn q8_0(x: &[f32], out: &mut Vec<u8>) {
    let d = largest(x).abs() / 127.0;
    let inverse = inverse(d);
    out.extend(f16::from_f32(d).to_le_bytes());
    out.extend(x.iter().map(|x| (x * inverse).round() as i8 as u8));
}

/// The scales that are tried for a sub-block: `(first + step i + max) / range` for i in `0..=steps`.
#[derive(Clone, Copy)]
struct Search {
    max: u8,
    first: f32,
    step: f32,
    steps: usize,
}

const SEARCH_4: Search = Search { max: 15, first: -1.0, step: 0.1, steps: 20 };
const SEARCH_5: Search = Search { max: 31, first: -0.5, step: 0.1, steps: 15 };

/// Q4_K and Q5_K: eight sub-blocks of 32 weights, each with a scale and a minimum of six bits.
fn k_with_minima(x: &[f32], search: Search, out: &mut Vec<u8>) {
    let mut codes = [0u8; 256];
    let (mut scales, mut minima) = ([0.0f32; 8], [0.0f32; 8]);
    for (j, x) in x.chunks_exact(32).enumerate() {
        let rms = (x.iter().map(|x| x * x).sum::<f32>() / 32.0).sqrt();
        let weights: Vec<f32> = x.iter().map(|x| rms + x.abs()).collect();
        (scales[j], minima[j]) = best_scale_and_minimum(x, &weights, search, &mut codes[32 * j..][..32]);
    }
    let max_scale = scales.iter().copied().fold(0.0, f32::max);
    let max_minimum = minima.iter().copied().fold(0.0, f32::max);
    let six_bits = |value: f32, max: f32| nearest(inverse(max) * 63.0 * value).clamp(0, 63) as u8;
    let (d, m) = (f16::from_f32(max_scale / 63.0), f16::from_f32(max_minimum / 63.0));
    let mut packed = [0u8; 12];
    for j in 0..8 {
        let (scale, minimum) = (six_bits(scales[j], max_scale), six_bits(minima[j], max_minimum));
        if j < 4 {
            packed[j] = scale;
            packed[j + 4] = minimum;
        } else {
            packed[j + 4] = (scale & 15) | (minimum & 15) << 4;
            packed[j - 4] |= scale >> 4 << 6;
            packed[j] |= minimum >> 4 << 6;
        }
        let (d, m) = (d.to_f32() * f32::from(scale), m.to_f32() * f32::from(minimum));
        if d != 0.0 {
            for (code, x) in codes[32 * j..][..32].iter_mut().zip(&x[32 * j..]) {
                *code = nearest((x + m) / d).clamp(0, i32::from(search.max)) as u8;
            }
        }
    }
    out.extend(d.to_le_bytes());
    out.extend(m.to_le_bytes());
    out.extend(packed);
    if search.max == 31 {
        let bit = |i: usize, j: usize| (codes[32 * j + i] >> 4 & 1) << j;
        out.extend((0..32).map(|i| (0..8).fold(0, |bits, j| bits | bit(i, j))));
    }
    codes.chunks_exact(64).for_each(|codes| out.extend(nibbles(codes, 32)));
}

/// ggml's `make_qkx2_quants`: for each trial scale the codes, then for these the least-squares scale and minimum.
/// The minimum is given back negated and is never below zero.
fn best_scale_and_minimum(x: &[f32], weights: &[f32], search: Search, codes: &mut [u8]) -> (f32, f32) {
    let max = i32::from(search.max);
    let low = x.iter().copied().fold(0.0, f32::min);
    let high = x.iter().copied().fold(x[0], f32::max);
    if high <= low {
        codes.fill(0);
        return (0.0, -low);
    }
    let encode = |inverse: f32, minimum: f32, codes: &mut [u8]| {
        for (code, x) in codes.iter_mut().zip(x) {
            *code = nearest(inverse * (x - minimum)).clamp(0, max) as u8;
        }
    };
    let error = |scale: f32, minimum: f32, codes: &[u8]| -> f32 {
        let terms = codes.iter().zip(x).zip(weights);
        terms.map(|((&code, x), w)| w * (scale * f32::from(code) + minimum - x).powi(2)).sum()
    };
    let sum_w: f32 = weights.iter().sum();
    let sum_x: f32 = weights.iter().zip(x).map(|(w, x)| w * x).sum();
    let (mut scale, mut minimum) = ((high - low) / search.max as f32, low);
    encode(f32::from(search.max) / (high - low), minimum, codes);
    let mut least = error(scale, minimum, codes);
    let mut trial = [0u8; 32];
    for i in 0..=search.steps {
        // A better minimum is where the next trials start from, as in ggml.
        encode((search.first + search.step * i as f32 + f32::from(search.max)) / (high - minimum), minimum, &mut trial);
        let (mut sum_l, mut sum_l2, mut sum_xl) = (0.0, 0.0, 0.0);
        for ((&code, x), w) in trial.iter().zip(x).zip(weights) {
            let l = f32::from(code);
            sum_l += w * l;
            sum_l2 += w * l * l;
            sum_xl += w * l * x;
        }
        let determinant = sum_w * sum_l2 - sum_l * sum_l;
        if determinant > 0.0 {
            let mut this_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
            let mut this_minimum = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
            if this_minimum > 0.0 {
                this_minimum = 0.0;
                this_scale = sum_xl / sum_l2;
            }
            let this_error = error(this_scale, this_minimum, &trial);
            if this_error < least {
                (least, scale, minimum) = (this_error, this_scale, this_minimum);
                codes.copy_from_slice(&trial);
            }
        }
    }
    (scale, -minimum)
}

/// Sixteen sub-blocks of 16 weights, each with a signed scale of eight bits.
fn q6_k(x: &[f32], out: &mut Vec<u8>) {
    let mut scales = [0.0f32; 16];
    for (scale, x) in scales.iter_mut().zip(x.chunks_exact(16)) {
        *scale = best_scale(x);
    }
    let max_scale = largest(&scales);
    if max_scale.abs() < SMALLEST {
        out.extend([0; 210]);
        return;
    }
    let inverse = -128.0 / max_scale;
    let d = f16::from_f32(1.0 / inverse);
    let quantized = scales.map(|scale| nearest(inverse * scale).min(127) as i8);
    let mut codes = [0u8; 256];
    for (j, &scale) in quantized.iter().enumerate() {
        let d = d.to_f32() * f32::from(scale);
        if d != 0.0 {
            for (code, x) in codes[16 * j..][..16].iter_mut().zip(&x[16 * j..]) {
                *code = (nearest(x / d).clamp(-32, 31) + 32) as u8;
            }
        }
    }
    for half in codes.chunks_exact(128) {
        out.extend((0..64).map(|l| half[l] & 15 | half[l + 64] << 4));
    }
    for half in codes.chunks_exact(128) {
        out.extend((0..32).map(|l| (0..4).fold(0, |bits, t| bits | half[l + 32 * t] >> 4 << (2 * t))));
    }
    out.extend(quantized.map(|scale| scale as u8));
    out.extend(d.to_le_bytes());
}

/// Below this a sub-block of Q6_K counts as zero.
const SMALLEST: f32 = 1e-15;

/// ggml's `make_qx_quants` for codes `-32..32`, weighted by the squared weights.
fn best_scale(x: &[f32]) -> f32 {
    let largest = largest(x);
    if largest.abs() < SMALLEST {
        return 0.0;
    }
    let sums = |inverse: f32| {
        x.iter().fold((0.0, 0.0), |(sum_lx, sum_l2), x| {
            let l = nearest(inverse * x).clamp(-32, 31) as f32;
            let w = x * x;
            (sum_lx + w * x * l, sum_l2 + w * l * l)
        })
    };
    let (sum_lx, sum_l2) = sums(-32.0 / largest);
    let mut scale: f32 = if sum_l2 == 0.0 { 0.0 } else { sum_lx / sum_l2 };
    let mut best = scale * sum_lx;
    for i in (-9..=9).filter(|&i| i != 0) {
        let (sum_lx, sum_l2) = sums(-(32.0 + 0.1 * i as f32) / largest);
        if sum_l2 > 0.0 && sum_lx * sum_lx > best * sum_l2 {
            scale = sum_lx / sum_l2;
            best = scale * sum_lx;
        }
    }
    scale
}

/// The value of largest magnitude, with its sign; the first of equals.
fn largest(x: &[f32]) -> f32 {
    x.iter().copied().fold(0.0, |largest: f32, x| if x.abs() > largest.abs() { x } else { largest })
}

fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

fn nearest(x: f32) -> i32 {
    x.round_ties_even() as i32
}

/// Codes i and i + half in one byte.
fn nibbles(codes: &[u8], half: usize) -> impl Iterator<Item = u8> + '_ {
    (0..half).map(move |i| codes[i] & 15 | codes[i + half] << 4)
}

/// 32 bits, little endian: bit i is the fifth bit of code i.
fn fifth_bits(codes: &[u8]) -> [u8; 4] {
    let bits = codes.iter().enumerate().fold(0u32, |bits, (i, code)| bits | u32::from(code >> 4 & 1) << i);
    bits.to_le_bytes()
}
