//! The weight formats of GGUF and safetensors files, and the plain decoder every other path is checked against.
//!
//! Owns the meaning of bytes in a *file*; `layout` owns the bytes of a packed tile. Block fields and values
//! follow ggml; Q2_K and Q3_K are absent on purpose and refused by [`WeightType::from_gguf`].

use half::{bf16, f16};

use crate::KernelError;

/// How weights are stored in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types, reason = "the names are those of the GGUF format, which operators know")]
pub enum WeightType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4_K,
    Q5_K,
    Q6_K,
}

impl WeightType {
    /// Every type, in order of declaration: `ALL[ty as usize]` is `ty`.
    pub const ALL: [Self; 11] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
    ];

    /// The type of a GGUF tensor by its id; `None` for those this crate cannot compute with.
    pub fn from_gguf(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4_K,
            13 => Self::Q5_K,
            14 => Self::Q6_K,
            30 => Self::BF16,
            _ => return None,
        })
    }

    /// Its id in GGUF files.
    pub const fn gguf_id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q4_K => 12,
            Self::Q5_K => 13,
            Self::Q6_K => 14,
            Self::BF16 => 30,
        }
    }

    /// The name as GGUF tools print it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q4_K => "Q4_K",
            Self::Q5_K => "Q5_K",
            Self::Q6_K => "Q6_K",
        }
    }

    /// Weights in one block; 1 for the float types.
    pub const fn block_weights(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4_K | Self::Q5_K | Self::Q6_K => 256,
        }
    }

    /// Bytes of one block in a file.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
        }
    }

    /// Bytes of a row of `cols` weights in a file; `None` if `cols` is zero, holds no whole blocks or overflows.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        let block = self.block_weights();
        if cols == 0 || !cols.is_multiple_of(block) {
            return None;
        }
        (cols / block).checked_mul(self.block_bytes())
    }

    /// Whether weights are plain floats, whose products are always computed in f32.
    pub const fn is_float(self) -> bool {
        self.block_weights() == 1
    }
}

impl std::fmt::Display for WeightType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Decodes whole rows or any run of whole blocks: the plain reference.
///
/// # Errors
/// [`KernelError::RowLength`] if `out` holds no whole blocks, [`KernelError::Length`] if `bytes` does not
/// hold exactly those blocks.
pub fn dequantize(ty: WeightType, bytes: &[u8], out: &mut [f32]) -> Result<(), KernelError> {
    let block = ty.block_weights();
    let want = ty.row_bytes(out.len()).ok_or(KernelError::RowLength { ty, cols: out.len(), block })?;
    if bytes.len() != want {
        return Err(KernelError::Length { have: bytes.len(), want });
    }
    for (bytes, out) in bytes.chunks_exact(ty.block_bytes()).zip(out.chunks_exact_mut(block)) {
        match ty {
            WeightType::F32 => out[0] = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            WeightType::F16 => out[0] = f16::from_bits(word(bytes, 0)).to_f32(),
            WeightType::BF16 => out[0] = bf16::from_bits(word(bytes, 0)).to_f32(),
            _ => {
                let parsed = Block::parse(ty, bytes);
                for (i, out) in out.iter_mut().enumerate() {
                    *out = parsed.value(ty, i);
                }
            }
        }
    }
    Ok(())
}

/// One quantized block taken apart: codes as stored (unsigned, Q8_0 as the bits of an i8) and its scales.
pub(crate) struct Block {
    pub codes: [u8; 256],
    /// Bits of the f16 scale.
    pub d: u16,
    /// Bits of the f16 minimum (Q4_1, Q5_1) or of its scale (Q4_K, Q5_K).
    pub m: u16,
    /// Scales of sub-blocks: 8 of 6 bits (Q4_K, Q5_K) or 16 of i8 (Q6_K).
    pub scales: [u8; 16],
    /// Minima of the 8 sub-blocks of Q4_K and Q5_K.
    pub mins: [u8; 8],
}

impl Block {
    /// Takes a quantized block apart; `bytes` holds exactly one.
    pub fn parse(ty: WeightType, bytes: &[u8]) -> Self {
        let mut block = Self { codes: [0; 256], d: word(bytes, 0), m: 0, scales: [0; 16], mins: [0; 8] };
        match ty {
            WeightType::Q4_0 => nibbles(&bytes[2..18], &mut block.codes),
            WeightType::Q4_1 => {
                block.m = word(bytes, 2);
                nibbles(&bytes[4..20], &mut block.codes);
            }
            WeightType::Q5_0 => {
                nibbles(&bytes[6..22], &mut block.codes);
                fifth_bits(&bytes[2..6], &mut block.codes);
            }
            WeightType::Q5_1 => {
                block.m = word(bytes, 2);
                nibbles(&bytes[8..24], &mut block.codes);
                fifth_bits(&bytes[4..8], &mut block.codes);
            }
            WeightType::Q8_0 => block.codes[..32].copy_from_slice(&bytes[2..34]),
            WeightType::Q4_K => {
                block.m = word(bytes, 2);
                block.sub_scales(&bytes[4..16]);
                for j in 0..4 {
                    nibbles_32(&bytes[16 + 32 * j..][..32], &mut block.codes[64 * j..][..64]);
                }
            }
            WeightType::Q5_K => {
                block.m = word(bytes, 2);
                block.sub_scales(&bytes[4..16]);
                for j in 0..4 {
                    nibbles_32(&bytes[48 + 32 * j..][..32], &mut block.codes[64 * j..][..64]);
                }
                for (i, code) in block.codes.iter_mut().enumerate() {
                    *code |= (bytes[16 + i % 32] >> (i / 32) & 1) << 4;
                }
            }
            WeightType::Q6_K => {
                let (low, high) = (&bytes[..128], &bytes[128..192]);
                block.scales.copy_from_slice(&bytes[192..208]);
                block.d = word(bytes, 208);
                for (i, code) in block.codes.iter_mut().enumerate() {
                    let (h, t, l) = (i / 128, i / 32 % 4, i % 32);
                    let byte = low[64 * h + 32 * (t & 1) + l];
                    let nibble = if t < 2 { byte & 15 } else { byte >> 4 };
                    *code = nibble | (high[32 * h + l] >> (2 * t) & 3) << 4;
                }
            }
            WeightType::F32 | WeightType::F16 | WeightType::BF16 => {}
        }
        block
    }

    /// Six-bit scales and minima of Q4_K and Q5_K.
    fn sub_scales(&mut self, s: &[u8]) {
        for j in 0..4 {
            self.scales[j] = s[j] & 63;
            self.mins[j] = s[j + 4] & 63;
            self.scales[j + 4] = (s[j + 8] & 15) | (s[j] >> 6) << 4;
            self.mins[j + 4] = s[j + 8] >> 4 | (s[j + 4] >> 6) << 4;
        }
    }

    /// The weight at `i`, in the order of roundings the format's reference decoder has.
    fn value(&self, ty: WeightType, i: usize) -> f32 {
        let code = f32::from(self.codes[i]);
        let d = f16::from_bits(self.d).to_f32();
        let m = f16::from_bits(self.m).to_f32();
        match ty {
            WeightType::Q4_0 => d * (code - 8.0),
            WeightType::Q5_0 => d * (code - 16.0),
            WeightType::Q4_1 | WeightType::Q5_1 => d * code + m,
            WeightType::Q8_0 => d * f32::from(self.codes[i] as i8),
            WeightType::Q4_K | WeightType::Q5_K => {
                (d * f32::from(self.scales[i / 32])) * code - m * f32::from(self.mins[i / 32])
            }
            WeightType::Q6_K => (d * f32::from(self.scales[i / 16] as i8)) * (code - 32.0),
            WeightType::F32 | WeightType::F16 | WeightType::BF16 => 0.0,
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// 16 bytes: low nibbles are weights 0..16, high ones 16..32.
fn nibbles(bytes: &[u8], codes: &mut [u8]) {
    for (i, byte) in bytes.iter().enumerate() {
        codes[i] = byte & 15;
        codes[i + 16] = byte >> 4;
    }
}

/// 32 bytes: low nibbles are weights 0..32, high ones 32..64.
fn nibbles_32(bytes: &[u8], codes: &mut [u8]) {
    for (i, byte) in bytes.iter().enumerate() {
        codes[i] = byte & 15;
        codes[i + 32] = byte >> 4;
    }
}

/// 32 bits, little endian: bit i is the fifth bit of weight i.
fn fifth_bits(bytes: &[u8], codes: &mut [u8]) {
    for (i, code) in codes[..32].iter_mut().enumerate() {
        *code |= (bytes[i / 8] >> (i % 8) & 1) << 4;
    }
}
