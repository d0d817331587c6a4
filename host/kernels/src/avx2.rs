//! The tile kernels for AVX2 with FMA and F16C; same bits as `portable`.
//!
//! A unit of weights is unpacked into eight registers once and multiplied with every row. Codes of at most
//! 6 bits are unsigned bytes for `vpmaddubsw`, whose 16-bit sums hold 8, 4 or 2 groups of 4-, 5- or 6-bit
//! codes (15, 31, 63 times 127 times two a group) before they must be widened; offsets are taken off by the
//! activations' sum. Q8_0 moves the weight's sign to the activation and widens each group.

mod float;
mod rows;

use std::arch::x86_64::*;

pub(crate) use float::float;
pub(crate) use rows::{attend, quantize, widen};

use crate::activation::Int8Block;
use crate::format::WeightType;
use crate::isa::{Int8Kernels, per_type};
use crate::layout::{TILE, TileLayout};

/// The int8 kernel of a type; those of the float types are never run.
pub(crate) fn int8(ty: WeightType) -> Int8Kernels {
    Int8Kernels { tile: per_type!(ty, int8_tile), unit: per_type!(ty, int8_unit) }
}

/// Bytes ahead of the current unit to fetch; weights are read once, from memory. Decode of Q4_0, Q4_K and Q8_0 on
/// one thread of a busy Zen 1, two rounds: 512 was 2-10 % slower, 1536 1-11 %, 6144 within 3 % either way.
const AHEAD: usize = 3072;

/// # Safety
/// As [`crate::isa::TileKernel`] demands.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn int8_tile<const TY: usize>(tile: &[u8], activations: &[Int8Block], sums: &mut [[f32; TILE]]) {
    let n = sums.len();
    let layout = const { TileLayout::of(WeightType::ALL[TY]) };
    debug_assert_eq!(activations.len(), tile.len() / layout.block_bytes() * layout.units * n);
    let mut x = activations.as_ptr();
    let blocks = tile.chunks_exact(layout.block_bytes());
    // SAFETY: loads stay inside a block by the layout, and there are `n` activations for every unit. The
    // helpers are inlined here, where the features are on.
    unsafe {
        if let [sum] = sums {
            let mut total = _mm256_setzero_ps();
            for block in blocks {
                let header = Header::load::<TY>(block.as_ptr());
                for j in 0..layout.units {
                    let unit = block.as_ptr().add(layout.unit_offset(j));
                    prefetch(unit, layout.scales + layout.planes);
                    let weights = Unit::load::<TY>(&header, unit);
                    total = weights.add_product::<TY>(&*x, total);
                    x = x.add(1);
                }
            }
            _mm256_storeu_ps(sum.as_mut_ptr(), total);
            return;
        }
        sums.fill([0.0; TILE]);
        for block in blocks {
            let header = Header::load::<TY>(block.as_ptr());
            for j in 0..layout.units {
                let weights = Unit::load::<TY>(&header, block.as_ptr().add(layout.unit_offset(j)));
                for sum in sums.iter_mut() {
                    let total = weights.add_product::<TY>(&*x, _mm256_loadu_ps(sum.as_ptr()));
                    _mm256_storeu_ps(sum.as_mut_ptr(), total);
                    x = x.add(1);
                }
            }
        }
    }
}

/// # Safety
/// As [`crate::isa::UnitKernel`] demands.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn int8_unit<const TY: usize>(
    tile: &[u8],
    unit: usize,
    activations: &[Int8Block],
    rows: &[usize],
    sums: &mut [[f32; TILE]],
) {
    let layout = const { TileLayout::of(WeightType::ALL[TY]) };
    let block = &tile[unit / layout.units * layout.block_bytes()..][..layout.block_bytes()];
    // SAFETY: loads stay inside the block by the layout.
    unsafe {
        let header = Header::load::<TY>(block.as_ptr());
        let weights = Unit::load::<TY>(&header, block.as_ptr().add(layout.unit_offset(unit % layout.units)));
        for (x, &m) in activations.iter().zip(rows) {
            let sum = &mut sums[m];
            let total = weights.add_product::<TY>(x, _mm256_loadu_ps(sum.as_ptr()));
            _mm256_storeu_ps(sum.as_mut_ptr(), total);
        }
    }
}

/// Scales of a block of the K types; `zero` in the others.
struct Header {
    scale: __m256,
    /// Negated, so that minima are added.
    min: __m256,
}

impl Header {
    #[inline(always)]
    unsafe fn load<const TY: usize>(block: *const u8) -> Self {
        // SAFETY: the caller gives a whole block; blocks with a header begin with these halves.
        unsafe {
            let zero = _mm256_setzero_ps();
            match WeightType::ALL[TY] {
                WeightType::Q4_K | WeightType::Q5_K => {
                    Self { scale: halves8(block), min: _mm256_xor_ps(halves8(block.add(16)), _mm256_set1_ps(-0.0)) }
                }
                WeightType::Q6_K => Self { scale: halves8(block), min: zero },
                _ => Self { scale: zero, min: zero },
            }
        }
    }
}

/// A unit of 32 columns of quantized weights in registers.
struct Unit {
    /// Codes of 4 columns of 8 rows each, unsigned but for Q8_0.
    groups: [__m256i; 8],
    scale: __m256,
    min: __m256,
    /// Q6_K: the i16 scale of each half, twice in every lane, and both halves' side by side.
    halves: [__m256i; 2],
    pair: __m256i,
}

impl Unit {
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller has the features.
        unsafe {
            let (floats, words) = (_mm256_setzero_ps(), _mm256_setzero_si256());
            Self { groups: [words; 8], scale: floats, min: floats, halves: [words; 2], pair: words }
        }
    }

    #[inline(always)]
    unsafe fn load<const TY: usize>(header: &Header, unit: *const u8) -> Self {
        let layout = const { TileLayout::of(WeightType::ALL[TY]) };
        // SAFETY: the caller gives a whole unit of this type.
        unsafe {
            let zero = _mm256_setzero_si256();
            let (mut scale, mut min) = (header.scale, header.min);
            let (mut halves, mut pair) = ([zero; 2], zero);
            match WeightType::ALL[TY] {
                WeightType::Q4_1 | WeightType::Q5_1 => (scale, min) = (halves8(unit), halves8(unit.add(16))),
                WeightType::Q4_K | WeightType::Q5_K => {
                    scale = _mm256_mul_ps(scale, bytes8(unit));
                    min = _mm256_mul_ps(min, bytes8(unit.add(8)));
                }
                WeightType::Q6_K => {
                    let low = _mm256_cvtepi8_epi32(_mm_loadl_epi64(unit.cast()));
                    let high = _mm256_cvtepi8_epi32(_mm_loadl_epi64(unit.add(8).cast()));
                    halves = [twice(low), twice(high)];
                    pair = _mm256_blend_epi16::<0b1010_1010>(low, _mm256_slli_epi32::<16>(high));
                }
                _ => scale = halves8(unit),
            }
            let planes = unit.add(layout.scales);
            let vector = |i: usize| _mm256_loadu_si256(planes.add(32 * i).cast());
            let mut groups = [zero; 8];
            if TY == WeightType::Q8_0 as usize {
                for (g, group) in groups.iter_mut().enumerate() {
                    *group = vector(g);
                }
                return Self { groups, scale, min, halves, pair };
            }
            let nibble = _mm256_set1_epi8(15);
            for v in 0..4 {
                let both = vector(v);
                groups[2 * v] = _mm256_and_si256(both, nibble);
                groups[2 * v + 1] = _mm256_and_si256(_mm256_srli_epi16::<4>(both), nibble);
            }
            match WeightType::ALL[TY] {
                WeightType::Q5_0 | WeightType::Q5_1 | WeightType::Q5_K => {
                    let bits = vector(4);
                    let moved = [
                        _mm256_slli_epi16::<4>(bits),
                        _mm256_slli_epi16::<3>(bits),
                        _mm256_slli_epi16::<2>(bits),
                        _mm256_slli_epi16::<1>(bits),
                        bits,
                        _mm256_srli_epi16::<1>(bits),
                        _mm256_srli_epi16::<2>(bits),
                        _mm256_srli_epi16::<3>(bits),
                    ];
                    let fifth = _mm256_set1_epi8(0x10);
                    for g in 0..8 {
                        groups[g] = _mm256_or_si256(groups[g], _mm256_and_si256(moved[g], fifth));
                    }
                }
                WeightType::Q6_K => {
                    let high = _mm256_set1_epi8(0x30);
                    for v in 0..2 {
                        let bits = vector(4 + v);
                        let moved = [
                            _mm256_slli_epi16::<4>(bits),
                            _mm256_slli_epi16::<2>(bits),
                            bits,
                            _mm256_srli_epi16::<2>(bits),
                        ];
                        for i in 0..4 {
                            let group = &mut groups[4 * v + i];
                            *group = _mm256_or_si256(*group, _mm256_and_si256(moved[i], high));
                        }
                    }
                }
                _ => {}
            }
            Self { groups, scale, min, halves, pair }
        }
    }

    /// `total` plus the product of these weights with one row of activations.
    #[inline(always)]
    unsafe fn add_product<const TY: usize>(&self, x: &Int8Block, total: __m256) -> __m256 {
        // SAFETY: only registers and `x` are touched; the caller has the features.
        unsafe {
            let dots = _mm256_cvtepi32_ps(self.dots::<TY>(x));
            let scale = _mm256_mul_ps(self.scale, _mm256_set1_ps(x.scale));
            let total = _mm256_fmadd_ps(dots, scale, total);
            match WeightType::ALL[TY] {
                WeightType::Q4_1 | WeightType::Q5_1 | WeightType::Q4_K | WeightType::Q5_K => {
                    _mm256_fmadd_ps(self.min, _mm256_set1_ps(x.scaled_sum), total)
                }
                _ => total,
            }
        }
    }

    /// The integer products of 8 rows, offsets taken off.
    #[inline(always)]
    unsafe fn dots<const TY: usize>(&self, x: &Int8Block) -> __m256i {
        // SAFETY: as `add_product`; the 32 codes of `x` are read as eight words.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            let word = |g: usize| _mm256_set1_epi32(x.codes.as_ptr().add(4 * g).cast::<i32>().read_unaligned());
            let product = |g: usize| _mm256_maddubs_epi16(self.groups[g], word(g));
            let two = |g: usize| _mm256_add_epi16(product(g), product(g + 1));
            let four = |g: usize| _mm256_add_epi16(two(g), two(g + 2));
            let sum_8 = || _mm256_set1_epi32(x.sum_8);
            match WeightType::ALL[TY] {
                WeightType::Q8_0 => {
                    let signed = |g: usize| {
                        let weights = self.groups[g];
                        let x = _mm256_sign_epi8(word(g), weights);
                        _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(weights), x), ones)
                    };
                    let mut dots = signed(0);
                    for g in 1..8 {
                        dots = _mm256_add_epi32(dots, signed(g));
                    }
                    dots
                }
                WeightType::Q5_0 | WeightType::Q5_1 | WeightType::Q5_K => {
                    let dots = _mm256_add_epi32(_mm256_madd_epi16(four(0), ones), _mm256_madd_epi16(four(4), ones));
                    if TY == WeightType::Q5_0 as usize {
                        _mm256_sub_epi32(dots, _mm256_add_epi32(sum_8(), sum_8()))
                    } else {
                        dots
                    }
                }
                WeightType::Q6_K => {
                    let [low, high] = self.halves;
                    let half = |g: usize, scale| {
                        _mm256_add_epi32(_mm256_madd_epi16(two(g), scale), _mm256_madd_epi16(two(g + 2), scale))
                    };
                    let dots = _mm256_add_epi32(half(0, low), half(4, high));
                    let sums = _mm256_set1_epi32(x.sums.as_ptr().cast::<i32>().read_unaligned());
                    _mm256_sub_epi32(dots, _mm256_slli_epi32::<5>(_mm256_madd_epi16(self.pair, sums)))
                }
                _ => {
                    let dots = _mm256_madd_epi16(_mm256_add_epi16(four(0), four(4)), ones);
                    if TY == WeightType::Q4_0 as usize { _mm256_sub_epi32(dots, sum_8()) } else { dots }
                }
            }
        }
    }
}

/// Fetches the lines of the unit that is [`AHEAD`] bytes on; an address behind the matrix does no harm.
#[inline(always)]
unsafe fn prefetch(unit: *const u8, bytes: usize) {
    for line in 0..bytes.div_ceil(64) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(unit.wrapping_add(AHEAD + 64 * line).cast()) };
    }
}

/// 8 halves as f32.
#[inline(always)]
unsafe fn halves8(at: *const u8) -> __m256 {
    // SAFETY: the caller gives 16 readable bytes and has the features.
    unsafe { _mm256_cvtph_ps(_mm_loadu_si128(at.cast())) }
}

/// 8 unsigned bytes as f32.
#[inline(always)]
unsafe fn bytes8(at: *const u8) -> __m256 {
    // SAFETY: the caller gives 8 readable bytes and has the features.
    unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(at.cast()))) }
}

/// The low i16 of every i32 in both halves of it.
#[inline(always)]
unsafe fn twice(words: __m256i) -> __m256i {
    // SAFETY: the caller has the features.
    unsafe { _mm256_blend_epi16::<0b1010_1010>(words, _mm256_slli_epi32::<16>(words)) }
}
