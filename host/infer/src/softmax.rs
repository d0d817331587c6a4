//! Sums and exponentials over a row of logits.
//!
//! A row has 50,000 to 130,000 columns and every token needs it, so the loops run over lanes that the compiler turns into
//! vectors. Invariant: the order of additions depends on the row's length alone.

const LANES: usize = 8;

/// The largest value; `None` where one is not a number.
pub(crate) fn largest(row: &[f32]) -> Option<f32> {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut broken = [false; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            let x = chunk[lane];
            lanes[lane] = if x > lanes[lane] { x } else { lanes[lane] };
            broken[lane] |= x.is_nan();
        }
    }
    let any = broken.contains(&true) || rest.iter().any(|x| x.is_nan());
    let max = rest.iter().chain(&lanes).copied().fold(f32::NEG_INFINITY, f32::max);
    (!any).then_some(max)
}

/// Replaces each `x` of `row` by `exp((x - max) * scale)`; what is too small to matter becomes exactly 0.
pub(crate) fn exponentials(row: &mut [f32], max: f32, scale: f32) {
    for x in row {
        *x = exp_of_negative((*x - max) * scale);
    }
}

/// `sum of exp(x - max)`.
pub(crate) fn sum_of_exponentials(row: &[f32], max: f32) -> f64 {
    sum_by(row, |x| exp_of_negative(x - max))
}

pub(crate) fn sum(row: &[f32]) -> f64 {
    sum_by(row, |x| x)
}

fn sum_by(row: &[f32], value: impl Fn(f32) -> f32) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] += f64::from(value(chunk[lane]));
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|&x| f64::from(value(x))).sum::<f64>()
}

/// `exp(x)` for `x <= 0`, within 2e-7 of its value; 0 below -87.
///
/// Source: the polynomial of Cephes' `expf` (Moshier). Ours rounds by adding a large number, which needs no
/// instruction beyond the baseline's.
#[inline(always)]
fn exp_of_negative(x: f32) -> f32 {
    /// 1.5 * 2^23: added to a small number, its last bits hold the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let kept = 0u32.wrapping_sub(u32::from(x >= -87.0));
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    f32::from_bits((p * f32::from_bits(exponent)).to_bits() & kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_close_and_vanish_exactly() {
        for i in 0..=870_000u32 {
            let x = -(i as f32) * 1e-4;
            let (have, want) = (f64::from(exp_of_negative(x)), f64::from(x).exp());
            assert!((have / want - 1.0).abs() < 2e-7, "{x}: {have} {want}");
        }
        assert_eq!(exp_of_negative(0.0), 1.0);
        for x in [-87.5, -1e10, f32::MIN, f32::NEG_INFINITY] {
            assert_eq!(exp_of_negative(x).to_bits(), 0, "{x}");
        }
    }

    #[test]
    fn largest_sees_every_place_and_every_nan() {
        for length in 1..40 {
            for at in 0..length {
                let mut row = vec![-1.0; length];
                row[at] = 2.0;
                assert_eq!(largest(&row), Some(2.0));
                row[at] = f32::NAN;
                assert_eq!(largest(&row), None);
            }
        }
        assert_eq!(largest(&[f32::NEG_INFINITY; 9]), Some(f32::NEG_INFINITY));
    }
}
