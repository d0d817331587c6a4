//! The int8 tile kernels for AVX-512 with VNNI; same bits as `portable`.
//!
//! Two neighbouring tiles are multiplied at once, a lane for each of their 16 rows, so that an activation is broadcast
//! once for both. `vpdpbusd` takes unsigned weights: codes are that already but for Q8_0, which is moved up by 128;
//! what an offset adds is taken off by the activations' sums. All sums are exact in i32, however they are ordered.

use std::arch::x86_64::*;

use crate::activation::Int8Block;
use crate::format::WeightType;
use crate::isa::{Int8Kernels, per_type};
use crate::layout::{TILE, TileLayout};

/// The int8 kernels of a type for two tiles; those of the float types are never run.
pub(crate) fn int8_pair(ty: WeightType) -> Int8Kernels {
    Int8Kernels { tile: per_type!(ty, pair_tile), unit: per_type!(ty, pair_unit) }
}

/// Bytes ahead of the current unit to fetch in each tile, as in `avx2`.
const AHEAD: usize = 3072;

/// # Safety
/// As [`crate::isa::TileKernel`] demands of two tiles.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,fma,f16c")]
unsafe fn pair_tile<const TY: usize>(tiles: &[u8], activations: &[Int8Block], sums: &mut [[f32; TILE]]) {
    let n = sums.len() / 2;
    let layout = const { TileLayout::of(WeightType::ALL[TY]) };
    let (first, second) = tiles.split_at(tiles.len() / 2);
    debug_assert_eq!(activations.len(), first.len() / layout.block_bytes() * layout.units * n);
    let mut x = activations.as_ptr();
    let sums = sums.as_mut_ptr().cast::<f32>();
    let blocks = first.chunks_exact(layout.block_bytes()).zip(second.chunks_exact(layout.block_bytes()));
    // SAFETY: loads stay inside a block by the layout, there are `n` activations for every unit and 16 sums for every
    // activation. The helpers are inlined here, where the features are on.
    unsafe {
        if n == 1 {
            let mut total = _mm512_setzero_ps();
            for (a, b) in blocks {
                let header = Header::load::<TY>(a.as_ptr(), b.as_ptr());
                for j in 0..layout.units {
                    let [a, b] = [a, b].map(|block| block.as_ptr().add(layout.unit_offset(j)));
                    prefetch(a, layout.scales + layout.planes);
                    prefetch(b, layout.scales + layout.planes);
                    total = Unit::load::<TY>(&header, a, b).add_product::<TY>(&*x, total);
                    x = x.add(1);
                }
            }
            _mm512_storeu_ps(sums, total);
            return;
        }
        for m in 0..n {
            _mm512_storeu_ps(sums.add(16 * m), _mm512_setzero_ps());
        }
        for (a, b) in blocks {
            let header = Header::load::<TY>(a.as_ptr(), b.as_ptr());
            for j in 0..layout.units {
                let [a, b] = [a, b].map(|block| block.as_ptr().add(layout.unit_offset(j)));
                let weights = Unit::load::<TY>(&header, a, b);
                for m in 0..n {
                    let sum = sums.add(16 * m);
                    _mm512_storeu_ps(sum, weights.add_product::<TY>(&*x, _mm512_loadu_ps(sum)));
                    x = x.add(1);
                }
            }
        }
    }
}

/// # Safety
/// As [`crate::isa::UnitKernel`] demands of two tiles.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,fma,f16c")]
unsafe fn pair_unit<const TY: usize>(
    tiles: &[u8],
    unit: usize,
    activations: &[Int8Block],
    rows: &[usize],
    sums: &mut [[f32; TILE]],
) {
    let layout = const { TileLayout::of(WeightType::ALL[TY]) };
    let (first, second) = tiles.split_at(tiles.len() / 2);
    let [a, b] =
        [first, second].map(|tile| &tile[unit / layout.units * layout.block_bytes()..][..layout.block_bytes()]);
    let offset = layout.unit_offset(unit % layout.units);
    let sums = sums.as_chunks_mut::<2>().0;
    // SAFETY: loads stay inside the blocks by the layout.
    unsafe {
        let header = Header::load::<TY>(a.as_ptr(), b.as_ptr());
        let weights = Unit::load::<TY>(&header, a.as_ptr().add(offset), b.as_ptr().add(offset));
        for (x, &m) in activations.iter().zip(rows) {
            let sum = sums[m].as_mut_ptr().cast::<f32>();
            _mm512_storeu_ps(sum, weights.add_product::<TY>(x, _mm512_loadu_ps(sum)));
        }
    }
}

/// Scales of a block of the K types; `zero` in the others.
struct Header {
    scale: __m512,
    /// Negated, so that minima are added.
    min: __m512,
}

impl Header {
    #[inline(always)]
    unsafe fn load<const TY: usize>(a: *const u8, b: *const u8) -> Self {
        // SAFETY: the caller gives whole blocks; blocks with a header begin with these halves.
        unsafe {
            let zero = _mm512_setzero_ps();
            match WeightType::ALL[TY] {
                WeightType::Q4_K | WeightType::Q5_K => {
                    Self { scale: halves16(a, b), min: _mm512_sub_ps(zero, halves16(a.add(16), b.add(16))) }
                }
                WeightType::Q6_K => Self { scale: halves16(a, b), min: zero },
                _ => Self { scale: zero, min: zero },
            }
        }
    }
}

/// A unit of 32 columns of quantized weights of two tiles in registers.
struct Unit {
    /// Codes of 4 columns of 16 rows each, unsigned.
    groups: [__m512i; 8],
    scale: __m512,
    min: __m512,
    /// Q6_K: the scale of each half of the columns.
    halves: [__m512; 2],
}

impl Unit {
    #[inline(always)]
    unsafe fn load<const TY: usize>(header: &Header, a: *const u8, b: *const u8) -> Self {
        let layout = const { TileLayout::of(WeightType::ALL[TY]) };
        // SAFETY: the caller gives whole units of this type.
        unsafe {
            let (mut scale, mut min) = (header.scale, header.min);
            let mut halves = [_mm512_setzero_ps(); 2];
            match WeightType::ALL[TY] {
                WeightType::Q4_1 | WeightType::Q5_1 => {
                    (scale, min) = (halves16(a, b), halves16(a.add(16), b.add(16)));
                }
                WeightType::Q4_K | WeightType::Q5_K => {
                    scale = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes16(a, b))));
                    min = _mm512_mul_ps(min, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes16(a.add(8), b.add(8)))));
                }
                WeightType::Q6_K => {
                    let signed = |at| _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes16(a.add(at), b.add(at))));
                    halves = [signed(0), signed(8)];
                }
                _ => scale = halves16(a, b),
            }
            let vector = |i: usize| {
                let [a, b] = [a, b].map(|unit| _mm256_loadu_si256(unit.add(layout.scales + 32 * i).cast()));
                _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b)
            };
            let mut groups = [_mm512_setzero_si512(); 8];
            if TY == WeightType::Q8_0 as usize {
                let up = _mm512_set1_epi8(-128);
                for (g, group) in groups.iter_mut().enumerate() {
                    *group = _mm512_xor_si512(vector(g), up);
                }
                return Self { groups, scale, min, halves };
            }
            let nibble = _mm512_set1_epi8(15);
            for v in 0..4 {
                let both = vector(v);
                groups[2 * v] = _mm512_and_si512(both, nibble);
                groups[2 * v + 1] = _mm512_and_si512(_mm512_srli_epi16::<4>(both), nibble);
            }
            match WeightType::ALL[TY] {
                WeightType::Q5_0 | WeightType::Q5_1 | WeightType::Q5_K => {
                    let bits = vector(4);
                    let moved = [
                        _mm512_slli_epi16::<4>(bits),
                        _mm512_slli_epi16::<3>(bits),
                        _mm512_slli_epi16::<2>(bits),
                        _mm512_slli_epi16::<1>(bits),
                        bits,
                        _mm512_srli_epi16::<1>(bits),
                        _mm512_srli_epi16::<2>(bits),
                        _mm512_srli_epi16::<3>(bits),
                    ];
                    let fifth = _mm512_set1_epi8(0x10);
                    for g in 0..8 {
                        groups[g] = _mm512_or_si512(groups[g], _mm512_and_si512(moved[g], fifth));
                    }
                }
                WeightType::Q6_K => {
                    let high = _mm512_set1_epi8(0x30);
                    for v in 0..2 {
                        let bits = vector(4 + v);
                        let moved = [
                            _mm512_slli_epi16::<4>(bits),
                            _mm512_slli_epi16::<2>(bits),
                            bits,
                            _mm512_srli_epi16::<2>(bits),
                        ];
                        for i in 0..4 {
                            let group = &mut groups[4 * v + i];
                            *group = _mm512_or_si512(*group, _mm512_and_si512(moved[i], high));
                        }
                    }
                }
                _ => {}
            }
            Self { groups, scale, min, halves }
        }
    }

    /// `total` plus the product of these weights with one row of activations.
    #[inline(always)]
    unsafe fn add_product<const TY: usize>(&self, x: &Int8Block, total: __m512) -> __m512 {
        // SAFETY: only registers and `x` are touched, whose 32 codes are read as eight words; the caller has the
        // features.
        unsafe {
            let word = |g: usize| _mm512_set1_epi32(x.codes.as_ptr().add(4 * g).cast::<i32>().read_unaligned());
            // Two short chains: the instruction takes five cycles.
            let half = |from: usize, start: __m512i| {
                (from..from + 4).fold(start, |sum, g| _mm512_dpbusd_epi32(sum, self.groups[g], word(g)))
            };
            let zero = _mm512_setzero_si512();
            let sum = || _mm512_add_epi32(half(0, zero), half(4, zero));
            let sum_8 = || _mm512_set1_epi32(x.sum_8);
            let dots = match WeightType::ALL[TY] {
                WeightType::Q6_K => {
                    let sums = _mm512_set1_epi32(x.sums.as_ptr().cast::<i32>().read_unaligned());
                    // The codes are 32 too high: -32 times the sum of either half.
                    let low = half(0, _mm512_dpwssd_epi32(zero, sums, _mm512_set1_epi32(0x0000_ffe0)));
                    let high = half(4, _mm512_dpwssd_epi32(zero, sums, _mm512_set1_epi32(0xffe0_0000u32 as i32)));
                    let [low_scale, high_scale] = self.halves;
                    // At most 32 * 127 * 16 * 128 each, and their sum: below 2^24, thus exact in f32.
                    let high = _mm512_mul_ps(_mm512_cvtepi32_ps(high), high_scale);
                    _mm512_fmadd_ps(_mm512_cvtepi32_ps(low), low_scale, high)
                }
                WeightType::Q4_0 => _mm512_cvtepi32_ps(_mm512_sub_epi32(sum(), sum_8())),
                WeightType::Q5_0 => _mm512_cvtepi32_ps(_mm512_sub_epi32(sum(), _mm512_slli_epi32::<1>(sum_8()))),
                WeightType::Q8_0 => _mm512_cvtepi32_ps(_mm512_sub_epi32(sum(), _mm512_slli_epi32::<4>(sum_8()))),
                _ => _mm512_cvtepi32_ps(sum()),
            };
            let scale = _mm512_mul_ps(self.scale, _mm512_set1_ps(x.scale));
            let total = _mm512_fmadd_ps(dots, scale, total);
            match WeightType::ALL[TY] {
                WeightType::Q4_1 | WeightType::Q5_1 | WeightType::Q4_K | WeightType::Q5_K => {
                    _mm512_fmadd_ps(self.min, _mm512_set1_ps(x.scaled_sum), total)
                }
                _ => total,
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

/// 8 halves of each tile as f32.
#[inline(always)]
unsafe fn halves16(a: *const u8, b: *const u8) -> __m512 {
    // SAFETY: the caller gives 16 readable bytes twice and has the features.
    unsafe {
        let [a, b] = [a, b].map(|at| _mm_loadu_si128(at.cast()));
        _mm512_cvtph_ps(_mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b))
    }
}

/// 8 bytes of each tile, side by side.
#[inline(always)]
unsafe fn bytes16(a: *const u8, b: *const u8) -> __m128i {
    // SAFETY: the caller gives 8 readable bytes twice and has the features.
    unsafe { _mm_unpacklo_epi64(_mm_loadl_epi64(a.cast()), _mm_loadl_epi64(b.cast())) }
}
