//! How close two vectors are, larger being closer: one loop over sixteen sums at once, compiled for AVX2 as well.
//!
//! Both forms add in the same order and do not fuse, so an answer has the same bits on every machine.

use stockade_core::vectors::Metric;

/// Sums that run beside each other: two registers of eight lanes.
const LANES: usize = 16;

/// The measure that search orders by. Finite: sums that overflow are the largest number, and what is then no number is far.
///
/// # Shapes
/// `a`, `b`: `[D]`. For [`Metric::Cosine`] both of length 1 already.
pub(crate) fn closeness(metric: Metric, a: &[f32], b: &[f32]) -> f32 {
    let closeness = match metric {
        Metric::Cosine | Metric::Dot => dot(a, b),
        Metric::Euclidean => -squared(a, b),
    };
    if closeness.is_nan() { f32::MIN } else { closeness.clamp(f32::MIN, f32::MAX) }
}

/// The score that callers see, in the same order as the closeness.
pub(crate) fn score(metric: Metric, closeness: f32) -> f32 {
    match metric {
        Metric::Cosine => closeness.clamp(-1.0, 1.0),
        Metric::Dot => closeness,
        Metric::Euclidean => -(-closeness).max(0.0).sqrt(),
    }
}

/// Scales to length 1; the zero vector stays.
pub(crate) fn normalise(v: &mut [f32]) {
    // In f64: the squares of large finite components overflow f32.
    let length = v.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    if length > 0.0 {
        v.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

macro_rules! dispatched {
    ($name:ident, $avx2:ident, $term:expr) => {
        fn $name(a: &[f32], b: &[f32]) -> f32 {
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") {
                // SAFETY: the processor has AVX2.
                return unsafe { $avx2(a, b) };
            }
            sum(a, b, $term)
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2")]
        fn $avx2(a: &[f32], b: &[f32]) -> f32 {
            sum(a, b, $term)
        }
    };
}
dispatched!(dot, dot_avx2, |x, y| x * y);
dispatched!(squared, squared_avx2, |x, y| (x - y) * (x - y));

#[inline(always)]
fn sum(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0f32; LANES];
    let (a_lanes, b_lanes) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a_lanes.remainder().iter().zip(b_lanes.remainder()).map(|(x, y)| term(*x, *y)).sum::<f32>();
    for (x, y) in a_lanes.zip(b_lanes) {
        for lane in 0..LANES {
            sums[lane] += term(x[lane], y[lane]);
        }
    }
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_agree_with_the_definition_at_every_length() {
        for d in [1, 2, 15, 16, 17, 31, 32, 33, 384] {
            let a: Vec<f32> = (0..d).map(|i| (i as f32 * 0.37).sin()).collect();
            let b: Vec<f32> = (0..d).map(|i| (i as f32 * 0.73).cos()).collect();
            let pairs = || a.iter().zip(&b).map(|(x, y)| (f64::from(*x), f64::from(*y)));
            let want = pairs().map(|(x, y)| x * y).sum::<f64>() as f32;
            assert!((closeness(Metric::Dot, &a, &b) - want).abs() < 1e-4, "{d}");
            let want = -(pairs().map(|(x, y)| (x - y).powi(2)).sum::<f64>().sqrt() as f32);
            let got = score(Metric::Euclidean, closeness(Metric::Euclidean, &a, &b));
            assert!((got - want).abs() < 1e-4, "{d}");
            let portable = sum(&a, &b, |x, y| x * y);
            assert_eq!(portable.to_bits(), dot(&a, &b).to_bits(), "{d}");
        }
    }

    #[test]
    fn sums_that_overflow_are_finite() {
        let (huge, mixed) =
            ([f32::MAX; 32], std::array::from_fn::<_, 32, _>(|i| if i < 16 { f32::MAX } else { -f32::MAX }));
        assert_eq!(closeness(Metric::Dot, &huge, &huge), f32::MAX);
        assert_eq!(closeness(Metric::Dot, &huge, &mixed), f32::MIN);
        assert_eq!(closeness(Metric::Euclidean, &huge, &mixed), f32::MIN);
        assert!(score(Metric::Euclidean, f32::MIN).is_finite());
    }

    #[test]
    fn normalising_bears_huge_and_zero_vectors() {
        let mut huge = vec![f32::MAX, f32::MAX];
        normalise(&mut huge);
        assert!((dot(&huge, &huge) - 1.0).abs() < 1e-5);
        let mut zero = vec![0.0; 3];
        normalise(&mut zero);
        assert_eq!(zero, [0.0; 3]);
    }
}
