//! NF4 with double quantisation, as bitsandbytes stores it: 4 bits for each weight, 0.127 bit for the scales.
//!
//! Source: Dettmers et al. 2023, "QLoRA", arXiv:2305.14314. A block of 64 weights is divided by its largest magnitude
//! and rounded to the nearest of 16 quantiles of a normal distribution; the first weight is a byte's high half. The
//! blocks' scales, less their mean, are rounded in runs of 256 to 8-bit floats of a dynamic exponent.

use stockade_kernels::Pool;

use super::parallel::each;

/// Weights of a block.
pub(super) const BLOCK: usize = 64;
/// Blocks whose scales share a scale.
const RUN: usize = 256;

/// Values of the codes.
const TABLE: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// A quantized tensor; its shape is its owner's business.
#[derive(Debug, Clone)]
pub(super) struct Nf4 {
    len: usize,
    codes: Vec<u8>,
    /// 8-bit code of each block's scale.
    scale_codes: Vec<u8>,
    /// Of each run of blocks.
    run_scales: Vec<f32>,
    mean: f32,
    /// The 8-bit codes' values, ascending.
    scale_table: Vec<f32>,
}

impl Nf4 {
    pub(super) fn quantize(values: &[f32]) -> Self {
        let scale_table = scale_table();
        let scales: Vec<f32> =
            values.chunks(BLOCK).map(|block| block.iter().fold(0.0f32, |largest, x| largest.max(x.abs()))).collect();
        let mean = (scales.iter().map(|&x| f64::from(x)).sum::<f64>() / scales.len().max(1) as f64) as f32;
        let mut codes = vec![0; values.len().div_ceil(2)];
        for (i, block) in values.chunks(BLOCK).enumerate() {
            let inverse = if scales[i] > 0.0 { 1.0 / scales[i] } else { 0.0 };
            for (j, x) in block.iter().enumerate() {
                let at = i * BLOCK + j;
                let code = nearest(&TABLE, x * inverse) as u8;
                codes[at / 2] |= if at.is_multiple_of(2) { code << 4 } else { code };
            }
        }
        let run_scales: Vec<f32> =
            scales.chunks(RUN).map(|run| run.iter().fold(0.0f32, |largest, x| largest.max((x - mean).abs()))).collect();
        let scale_codes = scales.iter().enumerate().map(|(i, scale)| {
            let run = run_scales[i / RUN];
            nearest(&scale_table, if run > 0.0 { (scale - mean) / run } else { 0.0 }) as u8
        });
        Self { len: values.len(), codes, scale_codes: scale_codes.collect(), run_scales, mean, scale_table }
    }

    /// Writes all values to `to`.
    pub(super) fn dequantize(&self, pool: &Pool, to: &mut [f32]) {
        assert_eq!(to.len(), self.len, "room for every value");
        const PIECE: usize = RUN * BLOCK;
        each(pool, to.chunks_mut(PIECE).zip(self.codes.chunks(PIECE / 2)), |run, (to, codes)| {
            for (i, (block, codes)) in to.chunks_mut(BLOCK).zip(codes.chunks(BLOCK / 2)).enumerate() {
                let scale = self.scale(run * RUN + i);
                let values = TABLE.map(|x| x * scale);
                for (pair, code) in block.chunks_mut(2).zip(codes) {
                    for (value, code) in pair.iter_mut().zip([code >> 4, code & 15]) {
                        *value = values[code as usize];
                    }
                }
            }
        });
    }

    /// The codes, two a byte, and the scale of each block.
    pub(super) fn parts(&self) -> (&[u8], Vec<f32>) {
        (&self.codes, (0..self.scale_codes.len()).map(|block| self.scale(block)).collect())
    }

    /// Values of all bytes' codes before their scale, `[256]`.
    pub(super) fn halves(code: impl Fn(u8) -> u8) -> Vec<f32> {
        (0..=255).map(|byte| TABLE[code(byte) as usize]).collect()
    }

    fn scale(&self, block: usize) -> f32 {
        self.scale_table[self.scale_codes[block] as usize] * self.run_scales[block / RUN] + self.mean
    }
}

/// Index of the nearest of ascending values, the lower one of two as near.
fn nearest(table: &[f32], x: f32) -> usize {
    let above = table.partition_point(|&y| y < x);
    match above {
        0 => 0,
        _ if above == table.len() => above - 1,
        _ if x - table[above - 1] <= table[above] - x => above - 1,
        _ => above,
    }
}

/// bitsandbytes' dynamic map of 8 bits: for each of 7 decades twice as many values as for the one below, both signs,
/// 0 and 1.
fn scale_table() -> Vec<f32> {
    let mut table = vec![0.0, 1.0];
    for decade in 0..7 {
        let items = 1u32 << decade;
        for i in 0..items {
            let middle = 0.1 + 0.9 * (f64::from(i) + 0.5) / f64::from(items);
            let value = (10f64.powi(decade - 6) * middle) as f32;
            table.extend([value, -value]);
        }
    }
    table.sort_by(f32::total_cmp);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_table_has_a_value_for_every_code() {
        let table = scale_table();
        assert_eq!(table.len(), 256);
        assert!(table.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!((table[0], table[255]), (-0.992_968_74, 1.0));
    }

    #[test]
    fn codes_and_values_are_those_of_the_golden_file() {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/train-golden/golden.json");
        let golden: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let golden = &golden["nf4"];
        let floats = |name: &str| -> Vec<f32> {
            golden[name].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
        };
        let (values, table) = (floats("values"), floats("table"));
        assert!(TABLE.iter().zip(table).all(|(a, b)| (a - b).abs() < 1e-7));
        let quantized = Nf4::quantize(&values);
        let codes: Vec<u64> = quantized.codes.iter().flat_map(|&b| [u64::from(b >> 4), u64::from(b & 15)]).collect();
        assert_eq!(codes, golden["codes"].as_array().unwrap().iter().map(|c| c.as_u64().unwrap()).collect::<Vec<_>>());
        // The golden values keep the scales exact; two scales are each other's mean plus and minus the run's scale, of
        // which the lower rounds to -0.993.
        let mut got = vec![0.0; values.len()];
        quantized.dequantize(&Pool::new(1), &mut got);
        for (i, want) in floats("dequantized").iter().enumerate() {
            assert!((got[i] - want).abs() <= 0.002 * want.abs() + 1e-7, "{i}: {} for {want}", got[i]);
        }
    }

    #[test]
    fn odd_lengths_and_zeros_survive() {
        for n in [1, 63, 64, 65, 127, 64 * 256 + 3] {
            let values: Vec<f32> = (0..n).map(|i| if i % 3 == 0 { 0.0 } else { (i as f32).sin() }).collect();
            let mut got = vec![9.0; n];
            Nf4::quantize(&values).dequantize(&Pool::new(2), &mut got);
            assert!(values.iter().zip(&got).all(|(a, b)| (a - b).abs() < 0.2), "{n}");
        }
        let mut got = vec![9.0; 70];
        Nf4::quantize(&[0.0; 70]).dequantize(&Pool::new(1), &mut got);
        assert_eq!(got, vec![0.0; 70]);
    }
}
