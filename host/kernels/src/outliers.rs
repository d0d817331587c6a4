//! A second look at activations that stand out.
//!
//! One channel far above its row costs the other 31 of its unit their precision: the unit's int8 scale follows
//! the largest. Trained networks have such channels in every norm's output, and nearly all rounding noise of int8
//! products comes from them. What rounding lost in such units is therefore multiplied as well, again in int8.
//!
//! Which units of a row are looked at again depends on that row alone, and rows without any are left alone.

use std::ops::Range;

use crate::activation::{Int8Block, Prepared};
use crate::isa::Isa;
use crate::layout::UNIT;
use crate::pool::{Pool, Shards};

/// A unit stands out when its largest magnitude exceeds the row's root mean square by this factor. Gaussian rows
/// have next to none. SmolLM2's log-probabilities are off from f32 by 0.15 (RMS over 120) without this, and by
/// 0.08 at 8, 0.075 at 6, 0.05 at 4, 0.04 at 3.
const FACTOR: f32 = 4.0;

/// Corrections of all chunks.
pub(crate) struct Outliers {
    chunks: Vec<Corrections>,
}

/// Corrections of one chunk of rows.
#[derive(Default)]
struct Corrections {
    /// Units of columns, ascending, each with its part of `rows` and `residuals`.
    units: Vec<(usize, Range<usize>)>,
    /// Rows of the chunk, unit after unit.
    rows: Vec<usize>,
    /// What rounding lost of these rows in these units.
    residuals: Vec<Int8Block>,
}

/// A unit of weights that some rows of a chunk are to be multiplied with once more.
pub(crate) struct Correction<'a> {
    pub unit: usize,
    /// Rows of the chunk.
    pub rows: &'a [usize],
    /// One for each of `rows`.
    pub activations: &'a [Int8Block],
}

impl Outliers {
    /// Finds what rounding lost of `x [n, cols]`, prepared as `rounded`.
    pub fn find(isa: &Isa, pool: &Pool, x: &[f32], cols: usize, rounded: &Prepared<Int8Block>) -> Self {
        let chunks: Vec<_> = rounded.chunks().collect();
        let mut found: Vec<Corrections> = chunks.iter().map(|_| Corrections::default()).collect();
        let shards = Shards::new(&mut found);
        pool.run(chunks.len(), &|c| {
            let (first, rows, blocks) = chunks[c];
            // SAFETY: every chunk belongs to one task.
            let out = unsafe { &mut shards.range(c, 1)[0] };
            out.find(isa, &x[first * cols..][..rows * cols], rows, blocks);
        });
        Self { chunks: found }
    }

    /// The corrections of a chunk, by ascending units.
    pub fn of_chunk(&self, chunk: usize) -> impl Iterator<Item = Correction<'_>> {
        let Corrections { units, rows, residuals } = &self.chunks[chunk];
        units.iter().map(move |(unit, range)| Correction {
            unit: *unit,
            rows: &rows[range.clone()],
            activations: &residuals[range.clone()],
        })
    }
}

impl Corrections {
    /// `x [rows, cols]`, `rounded [unit][row]`
    fn find(&mut self, isa: &Isa, x: &[f32], rows: usize, rounded: &[Int8Block]) {
        let cols = x.len() / rows;
        // The scale is the largest magnitude / 127; not finite ones compare false and spoil the row anyway.
        let limit = |x| FACTOR / 127.0 * root_mean_square(x);
        let limits: Vec<f32> = x.chunks_exact(cols).map(limit).collect();
        for (unit, rounded) in rounded.chunks_exact(rows).enumerate() {
            let first = self.rows.len();
            for (m, rounded) in rounded.iter().enumerate().filter(|(m, rounded)| rounded.scale > limits[*m]) {
                self.rows.push(m);
                self.residuals.push(lost(isa, &x[m * cols + unit * UNIT..][..UNIT], rounded));
            }
            if self.rows.len() > first {
                self.units.push((unit, first..self.rows.len()));
            }
        }
    }
}

/// What `rounded` lost of `values`, rounded itself.
fn lost(isa: &Isa, values: &[f32], rounded: &Int8Block) -> Int8Block {
    let mut lost = [0.0; UNIT];
    for ((lost, value), code) in lost.iter_mut().zip(values).zip(rounded.codes) {
        *lost = (-f32::from(code)).mul_add(rounded.scale, *value);
    }
    // SAFETY: the table is that of this processor.
    unsafe { (isa.quantize)(&lost) }
}

fn root_mean_square(x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; UNIT];
    for part in x.as_chunks::<UNIT>().0 {
        for (lane, x) in lanes.iter_mut().zip(part) {
            *lane += x * x;
        }
    }
    (lanes.iter().sum::<f32>() / x.len() as f32).sqrt()
}

#[cfg(test)]
mod tests {
    use crate::{MatmulPrecision, PackedMatrix, Pool, WeightType, matmul};

    const COLS: usize = 512;
    const ROWS: usize = 11;

    fn matrix(pool: &Pool, ty: WeightType) -> PackedMatrix {
        let mut bytes: Vec<u8> =
            (0..ROWS * ty.row_bytes(COLS).unwrap()).map(|i| (i.wrapping_mul(0x9e37_79b1) >> 13) as u8).collect();
        // Scales near 1: the high bytes of their f16.
        let scales = match ty {
            WeightType::Q4_1 | WeightType::Q4_K => &[1, 3][..],
            WeightType::Q6_K => &[209],
            _ => &[1],
        };
        for block in bytes.chunks_exact_mut(ty.block_bytes()) {
            scales.iter().for_each(|&at| block[at] = 0x3c);
        }
        PackedMatrix::pack(pool, ty, ROWS, COLS, &bytes).unwrap()
    }

    /// Rows near 1; every second one has channels that stand out by `factor`.
    fn rows(n: usize, factor: f32) -> Vec<f32> {
        let value = |i: usize| ((i * 7919 % 1009) as f32 - 504.0) / 300.0;
        let scaled = |i: usize| {
            let stands_out = (i / COLS).is_multiple_of(2) && matches!(i % COLS, 40 | 300);
            if stands_out { factor } else { value(i) }
        };
        (0..n * COLS).map(scaled).collect()
    }

    fn product(pool: &Pool, precision: MatmulPrecision, matrix: &PackedMatrix, x: &[f32]) -> Vec<f32> {
        let mut out = vec![f32::NAN; x.len() / COLS * ROWS];
        matmul(pool, precision, x, &mut [(matrix, &mut out)]);
        out
    }

    #[test]
    fn channels_that_stand_out_cost_their_neighbours_no_precision() {
        let pool = Pool::new(1);
        for ty in [WeightType::Q4_0, WeightType::Q4_1, WeightType::Q8_0, WeightType::Q4_K, WeightType::Q6_K] {
            let matrix = matrix(&pool, ty);
            let noise = |factor| {
                let x = rows(1, factor);
                let got = product(&pool, MatmulPrecision::Int8, &matrix, &x);
                let want = product(&pool, MatmulPrecision::F32, &matrix, &x);
                got.iter().zip(&want).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt()
            };
            // 100 times above the others: one scale for all would make the noise of two units 60 times as large.
            assert!(noise(170.0) < 2.0 * noise(1.7), "{ty}: {} after {}", noise(170.0), noise(1.7));
        }
    }

    #[test]
    fn rows_that_stand_out_change_no_bit_of_the_others() {
        let pool = Pool::new(2);
        for ty in [WeightType::Q4_1, WeightType::Q4_K] {
            let matrix = matrix(&pool, ty);
            let x = rows(70, 90.0);
            let batch = product(&pool, MatmulPrecision::Int8, &matrix, &x);
            let single: Vec<f32> =
                x.chunks_exact(COLS).flat_map(|x| product(&pool, MatmulPrecision::Int8, &matrix, x)).collect();
            assert!(batch.iter().map(|v| v.to_bits()).eq(single.iter().map(|v| v.to_bits())), "{ty}");
        }
    }
}
