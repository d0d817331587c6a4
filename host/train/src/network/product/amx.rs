//! bf16 products on AMX: 32 rows against 32 columns in four tiles of f32 sums, 32 values of k at a time.
//!
//! The intrinsics are not stable yet, so the product is assembly. Registers of tiles are configured between `enter` and
//! `leave`; the compiler never uses them.

use std::arch::asm;
use std::arch::x86_64::*;
use std::sync::OnceLock;

use super::panel::{COLS, Kernel, Line, Panel};
use super::transpose::transpose;
use super::{Into, View};

/// Rows of a tile, and columns.
const TILE: usize = 16;
/// Values of k in a row of a tile.
const DEPTH: usize = 32;

pub(super) static BF16: Kernel = Kernel {
    name: "amx",
    rows: 2 * TILE,
    depth: DEPTH,
    block: 512,
    lhs_bytes: 2 * TILE * 2,
    rhs_bytes: 2 * TILE * 2,
    pack_lhs: |view, panel, alpha, out| unsafe { pack_lhs(view, panel, alpha, out) },
    pack_rhs: |view, panel, out| unsafe { pack_rhs(view, panel, out) },
    product,
    enter,
    leave,
};

/// Whether processor and system have AMX for bf16; the first call asks the system for it.
pub(super) fn available() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let has = std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512bf16");
        let leaf = __cpuid_count(7, 0);
        let tiles = leaf.edx >> 22 & 1 == 1 && leaf.edx >> 24 & 1 == 1;
        has && tiles && permitted()
    })
}

/// Linux gives tile registers to those who ask.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and changes nothing but what this process may use.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

#[repr(C, align(64))]
struct Configuration([u8; 64]);

/// Eight tiles of 16 rows of 64 bytes.
static CONFIGURATION: Configuration = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = 64;
        bytes[48 + tile] = TILE as u8;
        tile += 1;
    }
    Configuration(bytes)
};

fn enter() {
    // SAFETY: this kernel is chosen only where AMX is available.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &CONFIGURATION, options(nostack, preserves_flags, readonly)) }
}

fn leave() {
    // SAFETY: as above.
    unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) }
}

/// The first `n` lanes.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    if n >= TILE { !0 } else { (1 << n) - 1 }
}

/// For each 32 values of k: 16 rows of 32, then the other 16 rows.
///
/// # Safety
/// AVX-512 with bf16 is there, the panel lies in the view, and `out` has room for it.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack_lhs(view: View<'_>, panel: Panel, alpha: f32, out: *mut Line) {
    let alpha = _mm512_set1_ps(alpha);
    // SAFETY: as for the caller.
    unsafe { pack(view, panel, view.rows_side(), alpha, false, out) }
}

/// For each 32 values of k: 16 pairs of k for 16 columns, then for the other 16 columns.
///
/// # Safety
/// As [`pack_lhs`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack_rhs(view: View<'_>, panel: Panel, out: *mut Line) {
    let one = _mm512_set1_ps(1.0);
    // SAFETY: as for the caller.
    unsafe { pack(view, panel, view.cols_side(), one, true, out) }
}

/// Blocks of 16 rows (or columns) and 16 pairs of k; `by_pairs`: a register for each pair of k rather than for each
/// row. `side` is the strides along rows (or columns) and along k, one of which is 1.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack(
    view: View<'_>,
    panel: Panel,
    (stride, k_stride): (usize, usize),
    alpha: __m512,
    by_pairs: bool,
    mut out: *mut Line,
) {
    let start = view.values.as_ptr();
    for k in (0..panel.depth).step_by(DEPTH) {
        let depth = DEPTH.min(panel.depth - k);
        for half in 0..2 {
            let (at, count) = (panel.first + half * TILE, panel.count.saturating_sub(half * TILE).min(TILE));
            let mut values = [_mm512_setzero_si512(); TILE];
            // SAFETY: masks keep to the panel, and the caller gave room for its lines.
            unsafe {
                if stride == 1 {
                    let mask = first(count);
                    for (pair, value) in values.iter_mut().enumerate().take(depth.div_ceil(2)) {
                        let from = start.wrapping_add(at + (panel.start + k + 2 * pair) * k_stride);
                        let even = _mm512_maskz_loadu_ps(mask, from);
                        let mask = if 2 * pair + 1 < depth { mask } else { 0 };
                        let odd = _mm512_maskz_loadu_ps(mask, from.wrapping_add(k_stride));
                        *value = interleave(_mm512_mul_ps(even, alpha), _mm512_mul_ps(odd, alpha));
                    }
                } else {
                    let masks = [first(depth), first(depth.saturating_sub(TILE))];
                    for (i, value) in values.iter_mut().enumerate().take(count) {
                        let from = start.wrapping_add((at + i) * stride + panel.start + k);
                        let low = _mm512_maskz_loadu_ps(masks[0], from);
                        let high = _mm512_maskz_loadu_ps(masks[1], from.wrapping_add(TILE));
                        let run = _mm512_cvtne2ps_pbh(_mm512_mul_ps(high, alpha), _mm512_mul_ps(low, alpha));
                        *value = std::mem::transmute::<__m512bh, __m512i>(run);
                    }
                }
                if by_pairs != (stride == 1) {
                    transpose(&mut values);
                }
                for (i, value) in values.iter().enumerate() {
                    _mm512_store_si512(out.add(i).cast(), *value);
                }
                out = out.add(TILE);
            }
        }
    }
}

/// bf16 of both, side by side in 32 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn interleave(even: __m512, odd: __m512) -> __m512i {
    // SAFETY: both are 512 bits.
    let (even, odd) = unsafe {
        let (even, odd) = (_mm512_cvtneps_pbh(even), _mm512_cvtneps_pbh(odd));
        (std::mem::transmute::<__m256bh, __m256i>(even), std::mem::transmute::<__m256bh, __m256i>(odd))
    };
    _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(odd)))
}

/// One tile of 32 x 32.
///
/// # Safety
/// AMX is configured, the panels hold `depth` values, a multiple of 32, and `rows` x `cols` values of c may be used.
unsafe fn product(
    a: *const Line,
    b: *const Line,
    depth: usize,
    c: *mut f32,
    stride: usize,
    (rows, cols): (usize, usize),
    into: Into,
) {
    if rows == 2 * TILE && cols == COLS {
        // SAFETY: the whole tile is the caller's to use.
        return unsafe { square(a, b, depth / DEPTH, c, stride, into) };
    }
    let mut sums = [Line([0.0; 16]); 2 * TILE * 2];
    // SAFETY: 32 rows of two lines.
    unsafe { square(a, b, depth / DEPTH, sums.as_mut_ptr().cast(), COLS, Into::Set) };
    for (i, line) in sums.chunks_exact(2).enumerate().take(rows) {
        for (j, sum) in line.iter().flat_map(|line| line.0).enumerate().take(cols) {
            // SAFETY: inside of what the caller gave.
            let to = unsafe { &mut *c.add(i * stride + j) };
            *to = if into == Into::Add { *to + sum } else { sum };
        }
    }
}

/// Four tiles: tmm0 to tmm3.
///
/// # Safety
/// As [`product`], of the whole square.
unsafe fn square(a: *const Line, b: *const Line, steps: usize, c: *mut f32, stride: usize, into: Into) {
    let row = stride * 4;
    // SAFETY: 32 rows of 128 bytes, `stride` values apart, and panels of `steps` times 32 lines.
    unsafe {
        let below = c.byte_add(TILE * row);
        for i in 0..2 * TILE {
            _mm_prefetch::<_MM_HINT_ET0>(c.byte_add(i * row).cast());
            _mm_prefetch::<_MM_HINT_ET0>(c.byte_add(i * row + 64).cast());
        }
        asm!(
            "test {add}, {add}",
            "jz 2f",
            "tileloadd tmm0, [{c} + {row}]",
            "tileloadd tmm1, [{c} + {row} + 64]",
            "tileloadd tmm2, [{below} + {row}]",
            "tileloadd tmm3, [{below} + {row} + 64]",
            "jmp 3f",
            "2:",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "3:",
            "tileloadd tmm4, [{a} + {line}]",
            "tileloadd tmm6, [{b} + {line}]",
            "tileloadd tmm7, [{b} + {line} + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a} + {line} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, 2048",
            "add {b}, 2048",
            "sub {steps}, 1",
            "jnz 3b",
            "tilestored [{c} + {row}], tmm0",
            "tilestored [{c} + {row} + 64], tmm1",
            "tilestored [{below} + {row}], tmm2",
            "tilestored [{below} + {row} + 64], tmm3",
            add = in(reg) usize::from(into == Into::Add),
            a = inout(reg) a => _, b = inout(reg) b => _, steps = inout(reg) steps => _,
            c = in(reg) c, below = in(reg) below, row = in(reg) row, line = in(reg) 64usize,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
