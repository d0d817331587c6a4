//! The bytes of a packed tile: 8 output rows side by side, so that one SIMD lane is one row.
//!
//! A tile is a run of *blocks* along the columns; a block is a header and a few *units* of 32 columns; a unit
//! is its scales and its code planes. In a plane, 32 bytes are a *group*: 4 columns of each of the 8 rows,
//! row-major (byte `4 row + i` is column `4 group + i`), which is what an i8 dot instruction wants.
//!
//! | type | header | unit scales | planes |
//! |---|---|---|---|
//! | Q4_0 | | d f16 x 8 | nibbles |
//! | Q4_1 | | d, m f16 x 8 | nibbles |
//! | Q5_0 / Q5_1 | | as Q4_0 / Q4_1 | nibbles, fifth bits |
//! | Q8_0 | | d f16 x 8 | bytes |
//! | Q4_K / Q5_K | d, dmin f16 x 8 | sc, m u8 x 8 | as Q4_0 / Q5_0 |
//! | Q6_K | d f16 x 8 | sc i8 x 8 of columns 0..16, then of 16..32 | nibbles, two-bit codes |
//! | floats | | | 32 columns x 8 rows, row fastest |
//!
//! - nibbles, 128 bytes: byte p of 32-byte vector v holds group 2v (low) and 2v + 1 (high)
//! - fifth bits, 32 bytes: bit g of byte p belongs to group g
//! - two-bit codes, 64 bytes: bits 2(g % 4).. of byte p of vector g / 4 belong to group g
//!
//! The size is that of the file (Q4_K and Q5_K: 4 bytes more a block of 256 for unpacked scales), so the
//! packed copy replaces the original. Float rows are padded with zeros to whole units.

use half::{bf16, f16};

use crate::format::{Block, WeightType};

/// Output rows of a tile.
pub(crate) const TILE: usize = 8;
/// Columns of a unit, and weights behind one activation scale.
pub(crate) const UNIT: usize = 32;

/// Sizes of the parts of a packed block, in bytes, and its number of units.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TileLayout {
    pub header: usize,
    pub units: usize,
    pub scales: usize,
    pub planes: usize,
}

impl TileLayout {
    #[inline(always)]
    pub const fn of(ty: WeightType) -> Self {
        let (header, units, scales, planes) = match ty {
            WeightType::F32 => (0, 1, 0, 1024),
            WeightType::F16 | WeightType::BF16 => (0, 1, 0, 512),
            WeightType::Q4_0 => (0, 1, 16, 128),
            WeightType::Q4_1 => (0, 1, 32, 128),
            WeightType::Q5_0 => (0, 1, 16, 160),
            WeightType::Q5_1 => (0, 1, 32, 160),
            WeightType::Q8_0 => (0, 1, 16, 256),
            WeightType::Q4_K => (32, 8, 16, 128),
            WeightType::Q5_K => (32, 8, 16, 160),
            WeightType::Q6_K => (16, 8, 16, 192),
        };
        Self { header, units, scales, planes }
    }

    #[inline(always)]
    pub const fn block_bytes(self) -> usize {
        self.header + self.units * (self.scales + self.planes)
    }

    /// Bytes before unit `j` of a block.
    #[inline(always)]
    pub const fn unit_offset(self, j: usize) -> usize {
        self.header + j * (self.scales + self.planes)
    }

    /// Blocks along a row of `cols` columns.
    #[inline(always)]
    pub const fn blocks(self, cols: usize) -> usize {
        cols.div_ceil(self.units * UNIT)
    }

    /// Bytes of a tile of `cols` columns; `None` on overflow.
    pub fn tile_bytes(self, cols: usize) -> Option<usize> {
        self.blocks(cols).checked_mul(self.block_bytes())
    }
}

/// Packs up to 8 rows in file layout, `rows[r]` having the bytes of a whole row, into a zeroed tile.
pub(crate) fn pack_tile(ty: WeightType, cols: usize, rows: &[&[u8]], tile: &mut [u8]) {
    let layout = TileLayout::of(ty);
    for (b, block) in tile.chunks_exact_mut(layout.block_bytes()).enumerate() {
        for (r, row) in rows.iter().enumerate() {
            if ty.is_float() {
                pack_floats(
                    ty.block_bytes(),
                    cols - (b * UNIT).min(cols),
                    r,
                    &row[b * UNIT * ty.block_bytes()..],
                    block,
                );
            } else {
                let bytes = &row[b * ty.block_bytes()..][..ty.block_bytes()];
                pack_block(ty, layout, &Block::parse(ty, bytes), r, block);
            }
        }
    }
}

fn pack_floats(size: usize, cols: usize, r: usize, row: &[u8], block: &mut [u8]) {
    for (k, value) in row.chunks_exact(size).take(cols.min(UNIT)).enumerate() {
        block[(k * TILE + r) * size..][..size].copy_from_slice(value);
    }
}

fn pack_block(ty: WeightType, layout: TileLayout, source: &Block, r: usize, block: &mut [u8]) {
    let mut put_half = |at: usize, bits: u16| block[at + 2 * r..][..2].copy_from_slice(&bits.to_le_bytes());
    match ty {
        WeightType::Q4_0 | WeightType::Q5_0 | WeightType::Q8_0 | WeightType::Q6_K => put_half(0, source.d),
        _ => {
            put_half(0, source.d);
            put_half(16, source.m);
        }
    }
    for j in 0..layout.units {
        let unit = &mut block[layout.unit_offset(j)..][..layout.scales + layout.planes];
        let (scales, planes) = unit.split_at_mut(layout.scales);
        match ty {
            WeightType::Q4_K | WeightType::Q5_K => {
                scales[r] = source.scales[j];
                scales[8 + r] = source.mins[j];
            }
            WeightType::Q6_K => {
                scales[r] = source.scales[2 * j];
                scales[8 + r] = source.scales[2 * j + 1];
            }
            _ => {}
        }
        for (k, &code) in source.codes[j * UNIT..][..UNIT].iter().enumerate() {
            let (g, p) = (k / 4, 4 * r + k % 4);
            if ty == WeightType::Q8_0 {
                planes[32 * g + p] = code;
                continue;
            }
            planes[32 * (g / 2) + p] |= (code & 15) << (4 * (g % 2));
            match ty {
                WeightType::Q5_0 | WeightType::Q5_1 | WeightType::Q5_K => planes[128 + p] |= (code >> 4) << g,
                WeightType::Q6_K => planes[128 + 32 * (g / 4) + p] |= (code >> 4) << (2 * (g % 4)),
                _ => {}
            }
        }
    }
}

/// One unit of a quantized tile read back: weight (k, row) is `scale * half * code + min`, `half` being the
/// integer scale of its 16 columns (1 except for Q6_K).
pub(crate) struct UnitCodes {
    pub codes: [[i16; TILE]; UNIT],
    pub halves: [[i16; TILE]; 2],
    pub scale: [f32; TILE],
    /// Added to every weight of the row; absent in the symmetric types.
    pub min: Option<[f32; TILE]>,
}

impl UnitCodes {
    /// Reads unit `j` of a packed block of a quantized type.
    pub fn read(ty: WeightType, block: &[u8], j: usize) -> Self {
        let layout = TileLayout::of(ty);
        let (scales, planes) = block[layout.unit_offset(j)..][..layout.scales + layout.planes].split_at(layout.scales);
        let half = |at: usize| -> [f32; TILE] {
            std::array::from_fn(|r| f16::from_le_bytes([block[at + 2 * r], block[at + 2 * r + 1]]).to_f32())
        };
        let offset = match ty {
            WeightType::Q4_0 => 8,
            WeightType::Q5_0 => 16,
            WeightType::Q6_K => 32,
            _ => 0,
        };
        let codes = std::array::from_fn(|k| {
            std::array::from_fn(|r| {
                let (g, p) = (k / 4, 4 * r + k % 4);
                if ty == WeightType::Q8_0 {
                    return i16::from(planes[32 * g + p] as i8);
                }
                let nibble = planes[32 * (g / 2) + p] >> (4 * (g % 2)) & 15;
                let high = match ty {
                    WeightType::Q5_0 | WeightType::Q5_1 | WeightType::Q5_K => planes[128 + p] >> g & 1,
                    WeightType::Q6_K => planes[128 + 32 * (g / 4) + p] >> (2 * (g % 4)) & 3,
                    _ => 0,
                };
                i16::from(nibble | high << 4) - offset
            })
        });
        let (mut halves, mut scale, mut min) = ([[1; TILE]; 2], half(0), None);
        match ty {
            WeightType::Q4_1 | WeightType::Q5_1 => min = Some(half(16)),
            WeightType::Q4_K | WeightType::Q5_K => {
                let dmin = half(16);
                min = Some(std::array::from_fn(|r| -(dmin[r] * f32::from(scales[8 + r]))));
                scale = std::array::from_fn(|r| scale[r] * f32::from(scales[r]));
            }
            WeightType::Q6_K => {
                halves = std::array::from_fn(|h| std::array::from_fn(|r| i16::from(scales[8 * h + r] as i8)));
            }
            _ => {}
        }
        Self { codes, halves, scale, min }
    }
}

/// The 32 x 8 weights of unit `j` of a packed block as f32, exactly as [`crate::dequantize`] gives them.
pub(crate) fn decode_unit(ty: WeightType, block: &[u8], j: usize, out: &mut [[f32; TILE]; UNIT]) {
    match ty {
        WeightType::F32 => decode_floats(block, out, f32::from_le_bytes),
        WeightType::F16 => decode_floats(block, out, |b| f16::from_le_bytes(b).to_f32()),
        WeightType::BF16 => decode_floats(block, out, |b| bf16::from_le_bytes(b).to_f32()),
        _ => {
            let unit = UnitCodes::read(ty, block, j);
            for (k, row) in out.iter_mut().enumerate() {
                for (r, value) in row.iter_mut().enumerate() {
                    let scale = unit.scale[r] * f32::from(unit.halves[k / 16][r]);
                    *value = scale * f32::from(unit.codes[k][r]);
                    if let Some(min) = unit.min {
                        *value += min[r];
                    }
                }
            }
        }
    }
}

fn decode_floats<const N: usize>(block: &[u8], out: &mut [[f32; TILE]; UNIT], decode: impl Fn([u8; N]) -> f32) {
    for (value, bytes) in out.as_flattened_mut().iter_mut().zip(block.as_chunks::<N>().0) {
        *value = decode(*bytes);
    }
}
