//! Which instruction set the kernels use, found once at run time.
//!
//! A new one (NEON) is a module with its tile kernels and one more row here; plain loops marked [`simd!`] follow by
//! themselves. Every variant gives the same bits.

use std::ops::Range;
use std::sync::OnceLock;

use crate::activation::{FloatBlock, Int8Block};
use crate::attention::State;
use crate::format::WeightType;
use crate::layout::{TILE, UNIT};
use crate::portable;
#[cfg(target_arch = "x86_64")]
use crate::{avx2, avx512};

/// Multiplies one tile, or two neighbouring ones, with `n` rows of activations: `sums[m][r] = sum over k of tile[r, k] *
/// x[m, k]`.
///
/// Arguments: the bytes of the tile or tiles, activations `[unit][m]`, and `n` rows of sums, or `[n][2]` of two tiles,
/// which are overwritten.
///
/// # Safety
/// The processor has the instruction set, the tile holds whole blocks of the kernel's type, and there are
/// `n` activations for each of its units.
pub(crate) type TileKernel<A> = unsafe fn(&[u8], &[A], &mut [[f32; TILE]]);

/// Adds the products of one unit with a few rows: `sums[rows[i]]` goes on with the product of activation `i`.
///
/// Arguments: the bytes of the tile or tiles, the unit (counted over the columns), an activation for each of `rows`,
/// `rows`, and all sums as a [`TileKernel`] has them.
///
/// # Safety
/// As for a [`TileKernel`]; the unit is one of the tile's and every row has sums.
pub(crate) type UnitKernel = unsafe fn(&[u8], usize, &[Int8Block], &[usize], &mut [[f32; TILE]]);

/// The kernels of one quantized type with int8 activations.
#[derive(Clone, Copy)]
pub(crate) struct Int8Kernels {
    pub tile: TileKernel<Int8Block>,
    pub unit: UnitKernel,
}

/// The kernels of one instruction set.
pub(crate) struct Isa {
    pub name: &'static str,
    /// Int8 activations; never asked for a float type.
    pub int8: fn(WeightType) -> Int8Kernels,
    /// The same for two tiles at once, where that is faster than one after the other.
    pub int8_pair: Option<fn(WeightType) -> Int8Kernels>,
    /// f32 activations, every type.
    pub float: fn(WeightType) -> TileKernel<FloatBlock>,
    /// f16 to f32, as many of one as of the other.
    ///
    /// # Safety
    /// The processor has the instruction set.
    pub widen: unsafe fn(&[u8], &mut [f32]),
    /// 32 activations to int8.
    ///
    /// # Safety
    /// The processor has the instruction set.
    pub quantize: unsafe fn(&[f32; UNIT]) -> Int8Block,
    /// Merges a range of the 32 keys `[D][32]` and values `[32][D]` of a page into a state.
    ///
    /// # Safety
    /// The processor has the instruction set, and the slices have the sizes that the state's `D` demands.
    pub attend: unsafe fn(&mut State, &[f32], &[f32], Range<usize>),
}

pub(crate) static PORTABLE: Isa = Isa {
    name: "portable",
    int8: portable::int8,
    int8_pair: None,
    float: portable::float,
    widen: portable::widen,
    quantize: portable::quantize,
    attend: portable::attend,
};

#[cfg(target_arch = "x86_64")]
static AVX2: Isa = Isa {
    name: "avx2",
    int8: avx2::int8,
    int8_pair: None,
    float: avx2::float,
    widen: avx2::widen,
    quantize: avx2::quantize,
    attend: avx2::attend,
};

#[cfg(target_arch = "x86_64")]
static AVX512: Isa = Isa { name: "avx512-vnni", int8_pair: Some(avx512::int8_pair), ..AVX2 };

/// Picks `$kernel::<TY>` for a [`WeightType`] known at run time only.
macro_rules! per_type {
    ($ty:expr, $kernel:ident) => {
        match $ty {
            WeightType::F32 => $kernel::<{ WeightType::F32 as usize }>,
            WeightType::F16 => $kernel::<{ WeightType::F16 as usize }>,
            WeightType::BF16 => $kernel::<{ WeightType::BF16 as usize }>,
            WeightType::Q4_0 => $kernel::<{ WeightType::Q4_0 as usize }>,
            WeightType::Q4_1 => $kernel::<{ WeightType::Q4_1 as usize }>,
            WeightType::Q5_0 => $kernel::<{ WeightType::Q5_0 as usize }>,
            WeightType::Q5_1 => $kernel::<{ WeightType::Q5_1 as usize }>,
            WeightType::Q8_0 => $kernel::<{ WeightType::Q8_0 as usize }>,
            WeightType::Q4_K => $kernel::<{ WeightType::Q4_K as usize }>,
            WeightType::Q5_K => $kernel::<{ WeightType::Q5_K as usize }>,
            WeightType::Q6_K => $kernel::<{ WeightType::Q6_K as usize }>,
        }
    };
}
pub(crate) use per_type;

/// The instruction set in use.
pub(crate) fn isa() -> &'static Isa {
    static FOUND: OnceLock<&'static Isa> = OnceLock::new();
    FOUND.get_or_init(|| available().last().copied().unwrap_or(&PORTABLE))
}

/// Every instruction set of this machine, the best last.
pub(crate) fn available() -> Vec<&'static Isa> {
    let mut found = vec![&PORTABLE];
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        found.push(&AVX2);
        if has_avx512() {
            found.push(&AVX512);
        }
    }
    found
}

/// The name of the instruction set the kernels use on this machine, for logs and benchmarks.
pub fn isa_name() -> &'static str {
    isa().name
}

/// Whether AVX2, FMA and F16C are there; the standard library caches the answer.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
        && std::arch::is_x86_feature_detected!("fma")
        && std::arch::is_x86_feature_detected!("f16c")
}

/// Whether AVX-512 with the byte products of VNNI is there.
#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512vnni")
}

/// Compiles a function a second time for wider registers and calls the one that fits the machine. The body
/// states its additions lane by lane, so that both give the same bits.
macro_rules! simd {
    ($(#[$meta:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$meta])*
        $visibility fn $name($($argument: $type),*) $(-> $result)? {
            #[inline(always)]
            fn plain($($argument: $type),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($argument: $type),*) $(-> $result)? {
                    plain($($argument),*)
                }
                if crate::isa::has_avx2() {
                    // SAFETY: the features were found on this processor.
                    return unsafe { avx2($($argument),*) };
                }
            }
            plain($($argument),*)
        }
    };
}
pub(crate) use simd;
