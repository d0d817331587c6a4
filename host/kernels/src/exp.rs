//! The exponential function, in operations that every instruction set rounds alike.
//!
//! Method and coefficients of Cephes `expf`: `exp(x) = 2^n exp(r)` with |r| <= ln 2 / 2 and a polynomial of
//! degree 7. Within 2 ulp of the exact value where the result is a normal number.

pub(crate) const LOW: f32 = -87.3;
pub(crate) const HIGH: f32 = 88.3;
pub(crate) const LN2_HIGH: f32 = 0.693_359_4;
pub(crate) const LN2_LOW: f32 = -2.121_944_4e-4;
/// Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
pub(crate) const ROUND: f32 = 12_582_912.0;
/// From the highest degree down to the second.
pub(crate) const POLYNOMIAL: [f32; 6] =
    [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1];

/// `e^x`; 0 below -87.3, `e^88.3` above 88.3, NaN for NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let clamped = if x < LOW { LOW } else { x };
    let clamped = if clamped > HIGH { HIGH } else { clamped };
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, clamped));
    let mut p = POLYNOMIAL[0];
    for coefficient in &POLYNOMIAL[1..] {
        p = p.mul_add(r, *coefficient);
    }
    p = p.mul_add(r * r, r) + 1.0;
    let power = f32::from_bits(shifted.to_bits().wrapping_shl(23).wrapping_add(0x3f80_0000));
    if x < LOW { 0.0 } else { p * power }
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn exp_is_within_two_ulp() {
        for i in -87_000..=88_000 {
            let x = i as f32 * 1e-3;
            let want = f64::from(x).exp();
            let ulp = f64::from((want as f32).next_up() - want as f32);
            let error = (f64::from(exp(x)) - want).abs() / ulp;
            assert!(error <= 2.0, "exp({x}) is off by {error} ulp");
        }
    }

    #[test]
    fn exp_of_the_edges() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-100.0), 0.0);
        assert!(exp(f32::INFINITY).is_finite());
        assert!(exp(f32::NAN).is_nan());
    }
}
