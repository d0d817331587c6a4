//! GGUF files of any model that this host reads, quantized by the rules of llama.cpp.

use super::{encode, failed, refused};
use crate::job::{Named, OutputFormat, named};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use stockade_core::train::TrainError;
use stockade_kernels::{Pool, WeightType};
use stockade_model::checkpoint::gguf::{Metadata, Value, write_gguf};
use stockade_model::checkpoint::gguf_name;
use stockade_model::checkpoint::write::NewTensor;
use stockade_model::config::{Architecture, Head, RopeScaling};
use stockade_model::template::ChatTemplate;
use stockade_model::{Checkpoint, ModelConfig, ModelError, Tokenizer};

/// Weights that one task encodes.
const TASK_WEIGHTS: usize = 1 << 18;
/// Name of the tensor of frequency divisors, in both formats.
const ROPE_DIVISORS: &str = "rope_freqs.weight";

named! {
    /// What the matrices of a file are stored as.
    pub enum GgufType {
        F32 = "f32",
        F16 = "f16",
        Bf16 = "bf16",
        Q8_0 = "q8_0",
        Q4_0 = "q4_0",
        /// Q4_K with Q6_K where it matters most.
        Q4KM = "q4_k_m",
    }
}

impl GgufType {
    /// `general.file_type`.
    fn file_type(self) -> u64 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 7,
            Self::Q4KM => 15,
            Self::Bf16 => 32,
        }
    }

    fn main(self) -> WeightType {
        match self {
            Self::F32 => WeightType::F32,
            Self::F16 => WeightType::F16,
            Self::Bf16 => WeightType::BF16,
            Self::Q8_0 => WeightType::Q8_0,
            Self::Q4_0 => WeightType::Q4_0,
            Self::Q4KM => WeightType::Q4_K,
        }
    }

    /// `None` for the format that is no GGUF.
    pub fn of(format: OutputFormat) -> Option<Self> {
        let name = format.name().strip_prefix("gguf:")?;
        Self::ALL.iter().copied().find(|ty| ty.name() == name)
    }
}

/// Converts the model at `from` (folder or `.gguf`) to the file `to`.
///
/// # Errors
/// [`TrainError::Model`] for what GGUF cannot say: another head than for next tokens, a tensor or tokenizer without a
/// name there.
pub fn to_gguf(from: &Path, to: &Path, ty: GgufType) -> Result<(), TrainError> {
    let read = |e: ModelError| failed("reading the model", from)(e);
    let checkpoint = Checkpoint::open(from).map_err(read)?;
    let config = checkpoint.config().map_err(read)?;
    if config.head != Head::CausalLm {
        return Err(refused(from, "GGUF files hold models for next tokens only"));
    }
    let metadata = metadata(&checkpoint, &config, ty)?;
    let (sources, tensors) = plan(&checkpoint, &config, ty)?;
    let pool = Pool::new(Pool::default_workers());
    write_gguf(to, &metadata, &tensors, &mut |i| {
        let values = match &sources[i] {
            Contents::Divisors(divisors) => divisors.clone(),
            Contents::Tensor { name, heads } => {
                let values = checkpoint.read_f32(checkpoint.tensor(name)?)?;
                match heads {
                    Some(heads) => interleaved(&values, *heads, config.head_dim),
                    None => values,
                }
            }
        };
        encode_rows(&pool, &tensors[i], &values).map_err(|e| ModelError::Input(e.to_string()))
    })
    .map_err(failed("writing the GGUF file", to))
}

/// Where the values of a tensor are.
enum Contents {
    /// Heads: of a tensor whose rows the format interleaves.
    Tensor {
        name: String,
        heads: Option<usize>,
    },
    Divisors(Vec<f32>),
}

fn plan(
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    ty: GgufType,
) -> Result<(Vec<Contents>, Vec<NewTensor>), TrainError> {
    let mut sources = Vec::new();
    let mut tensors = Vec::new();
    let interleaves = matches!(config.architecture, Architecture::Llama | Architecture::Mistral);
    for tensor in checkpoint.tensors() {
        let tied = config.tied_embeddings && tensor.name == "lm_head.weight";
        // Old checkpoints carry what can be computed.
        if tied || tensor.name == ROPE_DIVISORS || tensor.name.ends_with("rotary_emb.inv_freq") {
            continue;
        }
        let name = gguf_name(&tensor.name);
        let name = name.ok_or_else(|| refused(checkpoint.path(), format!("`{}` has no name in GGUF", tensor.name)))?;
        let heads = [(".q_proj.", config.heads), (".k_proj.", config.kv_heads)]
            .into_iter()
            .find(|(part, _)| interleaves && tensor.name.contains(part))
            .map(|(_, heads)| heads);
        sources.push(Contents::Tensor { name: tensor.name.clone(), heads });
        let ty = weight_type(ty, &tensor.name, &tensor.shape, config);
        tensors.push(NewTensor { name, ty, shape: tensor.shape.clone() });
    }
    let scaling = config.rope.as_ref().map(|rope| &rope.scaling);
    if let Some(scaling @ (RopeScaling::Llama3 { .. } | RopeScaling::Divisors(_))) = scaling {
        let divisors = match scaling {
            RopeScaling::Divisors(divisors) => divisors.clone(),
            other => config.rope_divisors(other),
        };
        tensors.push(NewTensor { name: ROPE_DIVISORS.into(), ty: WeightType::F32, shape: vec![divisors.len()] });
        sources.push(Contents::Divisors(divisors));
    }
    Ok((sources, tensors))
}

/// llama.cpp's choice (`llama_tensor_get_type`): vectors stay f32; the output matrix and, of Q4_K_M, the value and down
/// projections of the first and last eighth of the layers and every third between get Q6_K; rows that hold no whole
/// blocks get the next type that they do hold.
fn weight_type(ty: GgufType, name: &str, shape: &[usize], config: &ModelConfig) -> WeightType {
    let [_, cols] = shape[..] else {
        return WeightType::F32;
    };
    let main = ty.main();
    if main.is_float() {
        return main;
    }
    let fits = |ty: WeightType| cols.is_multiple_of(ty.block_weights());
    let is_output = name == "lm_head.weight" || (config.tied_embeddings && name == "model.embed_tokens.weight");
    let wanted = if is_output {
        match main {
            WeightType::Q8_0 => WeightType::Q8_0,
            main if !fits(main) => WeightType::Q8_0,
            _ => WeightType::Q6_K,
        }
    } else if ty == GgufType::Q4KM && (name.contains(".v_proj.") || name.contains(".down_proj.")) && {
        let layer = name.split('.').find_map(|part| part.parse::<usize>().ok()).unwrap_or(0);
        more_bits(layer, config.layers)
    } {
        WeightType::Q6_K
    } else {
        main
    };
    let next = match wanted {
        _ if fits(wanted) => wanted,
        WeightType::Q4_K => WeightType::Q5_0,
        WeightType::Q6_K => WeightType::Q8_0,
        _ => WeightType::F16,
    };
    if fits(next) { next } else { WeightType::F16 }
}

fn more_bits(layer: usize, layers: usize) -> bool {
    layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2
}

/// Rows (of a matrix) or elements (of a bias) of each head, `h d/2 + i` of it to `2 i + h`.
fn interleaved(values: &[f32], heads: usize, head_dim: usize) -> Vec<f32> {
    let unit = values.len() / (heads * head_dim);
    let half = head_dim / 2;
    let mut out = vec![0.0; values.len()];
    for head in 0..heads {
        for row in 0..head_dim {
            let to = head * head_dim + 2 * (row % half) + row / half;
            let from = head * head_dim + row;
            out[to * unit..(to + 1) * unit].copy_from_slice(&values[from * unit..(from + 1) * unit]);
        }
    }
    out
}

fn encode_rows(pool: &Pool, tensor: &NewTensor, values: &[f32]) -> Result<Vec<u8>, TrainError> {
    // Whole blocks: blocks have 256 weights at most.
    let parts: Vec<&[f32]> = values.chunks(TASK_WEIGHTS).collect();
    let encoded: Vec<Mutex<Result<Vec<u8>, String>>> = parts.iter().map(|_| Mutex::new(Ok(Vec::new()))).collect();
    pool.run(parts.len(), &|i| {
        let bytes = encode(tensor.ty, parts[i], &tensor.name).map_err(|e| e.to_string());
        *encoded[i].lock().unwrap_or_else(PoisonError::into_inner) = bytes;
    });
    let parts = encoded.into_iter().map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner));
    let parts: Result<Vec<Vec<u8>>, String> = parts.collect();
    Ok(parts.map_err(|reason| refused(Path::new(&tensor.name), reason))?.concat())
}

fn metadata(checkpoint: &Checkpoint, config: &ModelConfig, ty: GgufType) -> Result<Metadata, TrainError> {
    let mut pairs: Vec<(String, Value)> = match checkpoint.metadata() {
        Some(own) => own.keys().filter_map(|key| Some((key.to_owned(), own.get(key)?.clone()))).collect(),
        None => described(checkpoint, config)?,
    };
    let ours = ["general.file_type", "general.quantization_version", "general.alignment"];
    pairs.retain(|(key, _)| !ours.contains(&key.as_str()) && !key.starts_with("split."));
    pairs.push(("general.file_type".into(), Value::Unsigned(ty.file_type())));
    if !ty.main().is_float() {
        pairs.push(("general.quantization_version".into(), Value::Unsigned(2)));
    }
    Ok(pairs.into_iter().collect())
}

/// Metadata of a Hugging Face folder.
fn described(checkpoint: &Checkpoint, config: &ModelConfig) -> Result<Vec<(String, Value)>, TrainError> {
    let path = checkpoint.path();
    let architecture = match config.architecture {
        Architecture::Llama | Architecture::Mistral => "llama",
        Architecture::Qwen2 => "qwen2",
        Architecture::Qwen3 => "qwen3",
        Architecture::Bert | Architecture::DebertaV2 => return Err(refused(path, "encoders are not converted")),
    };
    let name = path.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned());
    let mut pairs = vec![
        ("general.architecture".to_owned(), Value::String(architecture.into())),
        ("general.type".to_owned(), Value::String("model".into())),
        ("general.name".to_owned(), Value::String(name)),
    ];
    let mut set = |key: &str, value: Value| pairs.push((format!("{architecture}.{key}"), value));
    let count = |n: usize| Value::Unsigned(n as u64);
    set("context_length", count(config.context_tokens));
    set("embedding_length", count(config.hidden_size));
    set("block_count", count(config.layers));
    set("feed_forward_length", count(config.intermediate_size));
    set("vocab_size", count(config.vocab_size));
    set("attention.head_count", count(config.heads));
    set("attention.head_count_kv", count(config.kv_heads));
    set("attention.key_length", count(config.head_dim));
    set("attention.value_length", count(config.head_dim));
    set("attention.layer_norm_rms_epsilon", Value::Float(config.norm_eps.into()));
    set("rope.dimension_count", count(config.head_dim));
    if let Some(rope) = &config.rope {
        set("rope.freq_base", Value::Float(rope.theta));
        if let RopeScaling::Linear { factor } = rope.scaling {
            set("rope.scaling.type", Value::String("linear".into()));
            set("rope.scaling.factor", Value::Float(factor));
        }
    }
    match (config.windows.iter().flatten().next(), config.windows.iter().all(Option::is_some)) {
        (None, _) => {}
        (Some(&window), true) => set("attention.sliding_window", Value::Unsigned(window.into())),
        (Some(_), false) => return Err(refused(path, "GGUF has no windows in some layers only")),
    }
    let read = |e: ModelError| failed("reading the tokenizer", path)(e);
    let tokenizer = Tokenizer::open(checkpoint).map_err(read)?;
    pairs.extend(tokenizer.gguf_metadata(config.vocab_size).map_err(|e| refused(path, e.to_string()))?);
    if let Some(template) = ChatTemplate::open(checkpoint, &tokenizer).map_err(read)? {
        pairs.push(("tokenizer.chat_template".into(), Value::String(template.default_source())));
    }
    Ok(pairs)
}
