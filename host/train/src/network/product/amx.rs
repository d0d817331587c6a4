//! bf16 products on AMX: 32 rows against 32 columns in four tiles of f32 sums, 32 values of k at a time.
//! Operands are packed by [`super::bf16`].
//!
//! The intrinsics are not stable yet, so the product is assembly. Registers of tiles are configured between `enter` and
//! `leave`; the compiler never uses them.

use std::arch::asm;
use std::arch::x86_64::*;
use std::sync::OnceLock;

use super::Into;
use super::bf16::{DEPTH, TILE, partial};
use super::panel::{COLS, Kernel, Line};

pub(super) static BF16: Kernel = Kernel {
    name: "amx",
    rows: 2 * TILE,
    depth: DEPTH,
    block: 512,
    lhs_bytes: 2 * TILE * 2,
    rhs_bytes: 2 * TILE * 2,
    pack_lhs: super::bf16::pack_lhs,
    pack_rhs: super::bf16::pack_rhs,
    product,
    enter,
    leave,
};

/// Whether processor and system have AMX for bf16; the first call asks the system for it.
pub(super) fn available() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let leaf = __cpuid_count(7, 0);
        let tiles = leaf.edx >> 22 & 1 == 1 && leaf.edx >> 24 & 1 == 1;
        super::bf16::available() && tiles && permitted()
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
    // SAFETY: 32 rows of two lines, and what the caller gave.
    unsafe {
        square(a, b, depth / DEPTH, sums.as_mut_ptr().cast(), COLS, Into::Set);
        partial(&sums, c, stride, (rows, cols), into);
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
