//! GGUF files of a real model's shape with random weights.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use half::f16;
use stockade_kernels::WeightType;

use super::Result;

struct Shape {
    layers: usize,
    hidden: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    ffn: usize,
    vocab: usize,
}

struct Tensor {
    name: String,
    ty: WeightType,
    rows: usize,
    cols: usize,
}

impl Tensor {
    fn bytes(&self) -> usize {
        self.rows * self.ty.row_bytes(self.cols).expect("the shapes fit the types")
    }
}

/// Writes `shape` (`1b`: Llama 3.2 1B, `135m`: SmolLM2) with weights of `kind`, mixed as llama.cpp's quantizer does.
pub fn write(path: &Path, shape: &str, kind: &str) -> Result<()> {
    let shape = match shape {
        "1b" => Shape { layers: 16, hidden: 2048, heads: 32, kv_heads: 8, head_dim: 64, ffn: 8192, vocab: 128_256 },
        "135m" => Shape { layers: 30, hidden: 576, heads: 9, kv_heads: 3, head_dim: 64, ffn: 1536, vocab: 49_152 },
        other => return Err(format!("no shape `{other}`: 1b or 135m").into()),
    };
    let (ty, embedding, finer) = match kind {
        "Q4_0" => (WeightType::Q4_0, WeightType::Q4_0, WeightType::Q4_0),
        "Q4_1" => (WeightType::Q4_1, WeightType::Q8_0, WeightType::Q4_1),
        "Q8_0" => (WeightType::Q8_0, WeightType::Q8_0, WeightType::Q8_0),
        "Q4_K_M" => (WeightType::Q4_K, WeightType::Q6_K, WeightType::Q6_K),
        other => return Err(format!("no type `{other}`: Q4_0, Q4_1, Q8_0 or Q4_K_M").into()),
    };
    let tensors = tensors(&shape, ty, embedding, finer);
    let beside = path.with_extension("part");
    let mut out = BufWriter::new(File::create(&beside)?);
    let header = header(&shape, &tensors);
    out.write_all(&header)?;
    pad(&mut out, header.len())?;
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for tensor in &tensors {
        for _ in 0..tensor.rows {
            let row = row(tensor.ty, tensor.cols, &mut random);
            out.write_all(&row)?;
        }
        pad(&mut out, tensor.bytes())?;
    }
    out.into_inner()?.sync_all()?;
    std::fs::rename(beside, path)?;
    Ok(())
}

fn tensors(shape: &Shape, ty: WeightType, embedding: WeightType, finer: WeightType) -> Vec<Tensor> {
    let Shape { layers, hidden, heads, kv_heads, head_dim, ffn, vocab } = *shape;
    let tensor = |name: String, ty, rows, cols| Tensor { name, ty, rows, cols };
    let norm = |name: String| tensor(name, WeightType::F32, 1, hidden);
    let mut all = vec![tensor("token_embd.weight".into(), embedding, vocab, hidden), norm("output_norm.weight".into())];
    for i in 0..layers {
        let more_bits = i < layers / 8 || i >= 7 * layers / 8 || (i - layers / 8) % 3 == 2;
        let mixed = if more_bits { finer } else { ty };
        let name = |part: &str| format!("blk.{i}.{part}.weight");
        all.extend([
            norm(name("attn_norm")),
            tensor(name("attn_q"), ty, heads * head_dim, hidden),
            tensor(name("attn_k"), ty, kv_heads * head_dim, hidden),
            tensor(name("attn_v"), mixed, kv_heads * head_dim, hidden),
            tensor(name("attn_output"), ty, hidden, heads * head_dim),
            norm(name("ffn_norm")),
            tensor(name("ffn_gate"), ty, ffn, hidden),
            tensor(name("ffn_up"), ty, ffn, hidden),
            tensor(name("ffn_down"), mixed, hidden, ffn),
        ]);
    }
    all
}

fn header(shape: &Shape, tensors: &[Tensor]) -> Vec<u8> {
    const U32: u32 = 4;
    const F32: u32 = 6;
    const STRING: u32 = 8;
    let mut pairs: Vec<(String, u32, Vec<u8>)> = vec![
        ("general.architecture".into(), STRING, string("llama")),
        ("tokenizer.ggml.model".into(), STRING, string("no_vocab")),
        ("llama.attention.layer_norm_rms_epsilon".into(), F32, 1e-5f32.to_le_bytes().into()),
        ("llama.rope.freq_base".into(), F32, 500_000f32.to_le_bytes().into()),
    ];
    for (key, value) in [
        ("context_length", 8192),
        ("embedding_length", shape.hidden),
        ("block_count", shape.layers),
        ("feed_forward_length", shape.ffn),
        ("attention.head_count", shape.heads),
        ("attention.head_count_kv", shape.kv_heads),
        ("rope.dimension_count", shape.head_dim),
        ("vocab_size", shape.vocab),
    ] {
        pairs.push((format!("llama.{key}"), U32, (value as u32).to_le_bytes().into()));
    }
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((pairs.len() as u64).to_le_bytes());
    for (key, ty, value) in pairs {
        out.extend(string(&key));
        out.extend(ty.to_le_bytes());
        out.extend(value);
    }
    let mut offset = 0u64;
    for tensor in tensors {
        out.extend(string(&tensor.name));
        let dims: &[usize] = if tensor.rows == 1 { &[tensor.cols] } else { &[tensor.cols, tensor.rows] };
        out.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|&d| out.extend((d as u64).to_le_bytes()));
        out.extend(gguf_id(tensor.ty).to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset += tensor.bytes().next_multiple_of(32) as u64;
    }
    out
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn gguf_id(ty: WeightType) -> u32 {
    (0..64).find(|&id| WeightType::from_gguf(id) == Some(ty)).expect("every type has an id")
}

fn pad(out: &mut impl Write, written: usize) -> std::io::Result<()> {
    out.write_all(&vec![0; written.next_multiple_of(32) - written])
}

/// Random codes under scales that keep activations near 1.
fn row(ty: WeightType, cols: usize, random: &mut Random) -> Vec<u8> {
    let mut row = vec![0; ty.row_bytes(cols).expect("the shapes fit the types")];
    if ty == WeightType::F32 {
        row.chunks_exact_mut(4).for_each(|out| out.copy_from_slice(&1f32.to_le_bytes()));
        return row;
    }
    row.chunks_mut(8).for_each(|out| out.copy_from_slice(&random.next().to_le_bytes()[..out.len()]));
    let put = |at: &mut [u8], value: f32| at.copy_from_slice(&f16::from_f32(value).to_le_bytes());
    let spread = 0.7 / (cols as f32).sqrt();
    for block in row.chunks_exact_mut(ty.row_bytes(ty.block_weights()).expect("one block")) {
        match ty {
            WeightType::Q4_0 => put(&mut block[..2], spread / 4.6),
            WeightType::Q4_1 => {
                put(&mut block[..2], spread / 4.6);
                put(&mut block[2..4], -7.5 * spread / 4.6);
            }
            WeightType::Q8_0 => put(&mut block[..2], spread / 74.0),
            WeightType::Q4_K => {
                put(&mut block[..2], spread / 170.0);
                put(&mut block[2..4], spread / 23.0);
            }
            WeightType::Q6_K => put(&mut block[208..210], spread / 1360.0),
            other => unreachable!("{other} is not written"),
        }
    }
    row
}

struct Random(u64);

impl Random {
    /// Xorshift; Marsaglia 2003.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
