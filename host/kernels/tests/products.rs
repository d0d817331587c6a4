//! Products against f64 sums, and the rule that a batch of n equals n single calls bit for bit.

use proptest::prelude::*;
use stockade_kernels::{MatmulPrecision, PackedMatrix, Pool, WeightType, dequantize, matmul};

/// Numbers in (-1, 1) from a counter; a few are large, since mild noise proves little.
pub fn noise(seed: u64, len: usize) -> Vec<f32> {
    (0..len as u64)
        .map(|i| {
            let mut x = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed.wrapping_mul(0xd134_2543_de82_ef95);
            x = (x ^ x >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x ^= x >> 29;
            let value = (x >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
            if x.is_multiple_of(97) { value * 20.0 } else { value }
        })
        .collect()
}

/// Random bytes of a matrix in file layout with sane scales.
fn weights(ty: WeightType, rows: usize, cols: usize, seed: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        noise(seed, rows * ty.row_bytes(cols).unwrap()).iter().map(|v| (v.fract() * 128.0) as i8 as u8).collect();
    let halves: &[usize] = match ty {
        WeightType::F32 | WeightType::F16 | WeightType::BF16 => {
            let values = noise(seed, rows * cols);
            return values.iter().flat_map(|&v| float_bytes(ty, v)).collect();
        }
        WeightType::Q4_0 | WeightType::Q5_0 | WeightType::Q8_0 => &[0],
        WeightType::Q4_1 | WeightType::Q5_1 | WeightType::Q4_K | WeightType::Q5_K => &[0, 2],
        WeightType::Q6_K => &[208],
    };
    for (i, block) in bytes.chunks_exact_mut(ty.block_bytes()).enumerate() {
        for &at in halves {
            let scale = ((i * 7 + at) % 13) as f32 * 0.003 - 0.02;
            block[at..at + 2].copy_from_slice(&half::f16::from_f32(scale).to_le_bytes());
        }
    }
    bytes
}

fn float_bytes(ty: WeightType, value: f32) -> Vec<u8> {
    match ty {
        WeightType::F16 => half::f16::from_f32(value).to_le_bytes().to_vec(),
        WeightType::BF16 => half::bf16::from_f32(value).to_le_bytes().to_vec(),
        _ => value.to_le_bytes().to_vec(),
    }
}

struct Case {
    matrix: PackedMatrix,
    plain: Vec<f32>,
}

fn case(pool: &Pool, ty: WeightType, rows: usize, cols: usize, seed: u64) -> Case {
    let bytes = weights(ty, rows, cols, seed);
    let mut plain = vec![0.0; rows * cols];
    dequantize(ty, &bytes, &mut plain).unwrap();
    Case { matrix: PackedMatrix::pack(pool, ty, rows, cols, &bytes).unwrap(), plain }
}

fn product(pool: &Pool, precision: MatmulPrecision, x: &[f32], matrix: &PackedMatrix) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.len() / matrix.cols() * matrix.rows()];
    matmul(pool, precision, x, &mut [(matrix, &mut out)]);
    out
}

#[test]
fn products_agree_with_plain_sums() {
    let pool = Pool::new(2);
    for ty in WeightType::ALL {
        for (rows, cols, n) in [(1, 256, 1), (8, 512, 3), (13, 1024, 2), (33, 2048, 5)] {
            let Case { matrix, plain } = case(&pool, ty, rows, cols, 3);
            let x = noise(5, n * cols);
            let exact = product(&pool, MatmulPrecision::F32, &x, &matrix);
            let int8 = product(&pool, MatmulPrecision::Int8, &x, &matrix);
            for m in 0..n {
                for r in 0..rows {
                    let terms = || x[m * cols..][..cols].iter().zip(&plain[r * cols..][..cols]);
                    let want: f64 = terms().map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
                    let size: f64 = terms().map(|(&x, &w)| (f64::from(x) * f64::from(w)).abs()).sum();
                    // Rounding an activation is off by at most 1/254 of the largest of its 32.
                    let coarse: f64 = terms()
                        .collect::<Vec<_>>()
                        .chunks(32)
                        .map(|unit| {
                            let largest = unit.iter().map(|(x, _)| x.abs()).fold(0.0, f32::max);
                            unit.iter().map(|(_, w)| f64::from(w.abs() * largest)).sum::<f64>() / 254.0
                        })
                        .sum();
                    let at = m * rows + r;
                    let error = (f64::from(exact[at]) - want).abs();
                    assert!(error <= 1e-5 * size + 1e-9, "{ty} [{rows}, {cols}] f32 is off by {error} of {size}");
                    let error = (f64::from(int8[at]) - want).abs();
                    assert!(error <= coarse + 1e-5 * size, "{ty} [{rows}, {cols}] int8 is off by {error} of {size}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn batch_of_n_equals_n_singles_for_any_threads(
        ty in 0..WeightType::ALL.len(), rows in 1..40usize, blocks in 1..6usize, n in 1..80usize, seed: u64,
    ) {
        let ty = WeightType::ALL[ty];
        let cols = if ty.is_float() { blocks * 29 } else { blocks * ty.block_weights() };
        let pools = [Pool::new(1), Pool::new(2), Pool::new(3)];
        let Case { matrix, .. } = case(&pools[1], ty, rows, cols, seed);
        let other = case(&pools[0], WeightType::F16, rows + 3, cols, seed).matrix;
        let x = noise(seed ^ 1, n * cols);
        for precision in [MatmulPrecision::Int8, MatmulPrecision::F32] {
            let singles: Vec<f32> =
                x.chunks_exact(cols).flat_map(|x| product(&pools[0], precision, x, &matrix)).collect();
            for pool in &pools {
                prop_assert_eq!(&product(pool, precision, &x, &matrix), &singles);
                let (mut a, mut b) = (vec![f32::NAN; n * rows], vec![f32::NAN; n * (rows + 3)]);
                matmul(pool, precision, &x, &mut [(&other, &mut b), (&matrix, &mut a)]);
                prop_assert_eq!(&a, &singles, "beside another matrix");
                prop_assert_eq!(&b, &product(&pools[0], precision, &x, &other));
            }
        }
    }
}

#[test]
fn one_bad_activation_spoils_its_own_row_only() {
    let pool = Pool::new(2);
    for ty in WeightType::ALL {
        let Case { matrix, .. } = case(&pool, ty, 9, 256, 1);
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = noise(2, 3 * 256);
            let clean = product(&pool, MatmulPrecision::Int8, &x, &matrix);
            x[256 + 40] = bad;
            let spoilt = product(&pool, MatmulPrecision::Int8, &x, &matrix);
            assert_eq!(spoilt[..9], clean[..9], "{ty}");
            assert!(spoilt[9..18].iter().all(|v| !v.is_finite()), "{ty}");
            assert_eq!(spoilt[18..], clean[18..], "{ty}");
        }
    }
}

#[test]
fn zero_rows_and_tiny_activations_are_fine() {
    let pool = Pool::new(2);
    let Case { matrix, .. } = case(&pool, WeightType::Q4_0, 9, 64, 1);
    matmul(&pool, MatmulPrecision::Int8, &[], &mut [(&matrix, &mut [])]);
    let out = product(&pool, MatmulPrecision::Int8, &[1e-40; 64], &matrix);
    assert!(out.iter().all(|v| v.abs() < 1e-30));
    assert_eq!(product(&pool, MatmulPrecision::Int8, &[0.0; 64], &matrix), vec![0.0; 9]);
}
