//! Plain loops, compiled again for wider registers.

/// Compiles a function three times and calls the widest that the processor has. Bodies state their sums lane by lane
/// and their products with `mul_add`, so that all give the same bits.
macro_rules! simd {
    ($(#[$meta:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$meta])*
        $visibility fn $name($($argument: $type),*) $(-> $result)? {
            #[inline(always)]
            fn plain($($argument: $type),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
                fn avx512($($argument: $type),*) $(-> $result)? {
                    plain($($argument),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($argument: $type),*) $(-> $result)? {
                    plain($($argument),*)
                }
                match $crate::network::simd::level() {
                    // SAFETY: the features were found on this processor.
                    $crate::network::simd::Level::Avx512 => return unsafe { avx512($($argument),*) },
                    // SAFETY: the features were found on this processor.
                    $crate::network::simd::Level::Avx2 => return unsafe { avx2($($argument),*) },
                    $crate::network::simd::Level::Plain => {}
                }
            }
            plain($($argument),*)
        }
    };
}
pub(crate) use simd;

/// Instruction sets that loops are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Plain,
    Avx2,
    Avx512,
}

/// The widest that this processor has; the standard library caches the answer.
#[cfg(target_arch = "x86_64")]
pub(crate) fn level() -> Level {
    use std::arch::is_x86_feature_detected as has;
    if !(has!("avx2") && has!("fma")) {
        Level::Plain
    } else if has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq") {
        Level::Avx512
    } else {
        Level::Avx2
    }
}

/// Lanes of a sum: one register of AVX-512.
pub(crate) const LANES: usize = 16;

/// Sum of the lanes, pairwise.
#[inline(always)]
pub(crate) fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// `sum over i of a[i] b[i]`, by lanes.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a_parts, a_tail) = a.as_chunks::<LANES>();
    let (b_parts, b_tail) = b.as_chunks::<LANES>();
    for (a, b) in a_parts.iter().zip(b_parts) {
        for i in 0..LANES {
            lanes[i] = a[i].mul_add(b[i], lanes[i]);
        }
    }
    for ((lane, a), b) in lanes.iter_mut().zip(a_tail).zip(b_tail) {
        *lane = a.mul_add(*b, *lane);
    }
    fold(lanes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_covers_every_length() {
        for n in 0..70 {
            let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
            assert_eq!(dot(&a, &vec![2.0; n]), (0..n).map(|i| 2.0 * i as f32).sum::<f32>(), "{n}");
        }
    }
}
