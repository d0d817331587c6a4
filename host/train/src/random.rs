//! Random draws without a generator's state: each is a hash of seed, purpose and position.
//!
//! A run that resumes has nothing to restore, and a draw does not depend on the order in which others were made.

/// What a draw is for; draws of different purposes are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    Initialisation = 1,
    Shuffle = 2,
    Dropout = 3,
    Sampling = 4,
    Split = 5,
    Asking = 6,
}

/// 64 uniform bits for position `(a, b)` of a purpose.
pub fn bits(seed: u64, purpose: Purpose, a: u64, b: u64) -> u64 {
    let mut x = mix(seed ^ 0x9e37_79b9_7f4a_7c15);
    x = mix(x ^ (purpose as u64));
    x = mix(x.wrapping_add(a));
    mix(x.wrapping_add(b).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Uniform in [0, 1), 53 bits.
pub fn uniform(seed: u64, purpose: Purpose, a: u64, b: u64) -> f64 {
    (bits(seed, purpose, a, b) >> 11) as f64 / (1u64 << 53) as f64
}

/// A standard normal draw (Box-Muller).
pub fn normal(seed: u64, purpose: Purpose, a: u64, b: u64) -> f64 {
    let u = 1.0 - uniform(seed, purpose, a, b.wrapping_mul(2));
    let v = uniform(seed, purpose, a, b.wrapping_mul(2).wrapping_add(1));
    (-2.0 * u.ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()
}

/// The permutation of `0..n` for an epoch (Fisher-Yates).
pub fn permutation(seed: u64, epoch: u64, n: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n as u32).collect();
    for i in (1..n).rev() {
        let draw = bits(seed, Purpose::Shuffle, epoch, i as u64);
        let j = ((u128::from(draw) * (i as u128 + 1)) >> 64) as usize;
        order.swap(i, j);
    }
    order
}

/// SplitMix64's finaliser (Steele et al. 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
