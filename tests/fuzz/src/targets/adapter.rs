//! PEFT folders: whatever settings and weights say, loading them onto a base ends in an adapter or an error.
//!
//! An input is `adapter_config.json`, a zero byte, and `adapter_model.safetensors`.

use super::model::with_folder;
use crate::Target;
use crate::fixtures::file;
use serde_json::{Map, Value, json};
use std::sync::{Arc, OnceLock};
use stockade_kernels::Pool;
use stockade_model::Checkpoint;
use stockade_model::adapter::{AdapterConfig, AdapterPlan};
use stockade_model::llama::{self, Base, LoadOptions};

pub const ADAPTER: Target = Target {
    name: "adapter",
    run: |bytes| {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        let (config, weights) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
        with_folder(&[("adapter_config.json", config), ("adapter_model.safetensors", weights)], |folder| {
            if let Ok(config) = AdapterConfig::from_folder(folder) {
                let _ = config.scale_of("model.layers.0.self_attn.q_proj");
            }
            let Ok(plan) = AdapterPlan::new(folder, base()) else { return };
            // Shapes are the base's and ranks have a bound, whatever the file says.
            assert!(plan.weight_bytes() < 1 << 24 && plan.row_bytes() < 1 << 20);
            if let Ok(adapter) = plan.load(&|_, _| ()) {
                assert!(adapter.is_of(base()) && adapter.parameters() > 0);
            }
        });
    },
    seeds: || {
        let plain = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"],
            "base_model_name_or_path": "base", "bias": "none", "lora_dropout": 0.0});
        let pattern = json!({"peft_type": "LORA", "r": 4, "lora_alpha": 4, "use_rslora": true,
            "rank_pattern": {"v_proj": 2, "layers.0.self_attn.q_proj": 2}, "alpha_pattern": {"q_proj": 8}});
        let decomposed = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_dora": true});
        let mut seeds = vec![
            input(&plain, &changes("q_proj", 2, false)),
            input(&pattern, &[changes("q_proj", 2, false), changes("v_proj", 2, false)].concat()),
            input(&decomposed, &changes("q_proj", 2, true)),
            input(&plain, &[]),
        ];
        // One of another base: refused by its shapes, and a rich header to mutate.
        let config = file("llama32-tiny-lora-a/adapter_config.json");
        let weights = file("llama32-tiny-lora-a/adapter_model.safetensors");
        seeds.extend(config.zip(weights).map(|(config, weights)| [&config[..], b"\0", &weights].concat()));
        seeds
    },
    words: &[
        "\"peft_type\":\"LORA\"",
        "\"use_dora\":true",
        "\"use_rslora\":true",
        "\"rank_pattern\":{\"q_proj\":1}",
        "\"r\":1025",
        "\"lora_alpha\":1e308",
        "\"bias\":\"all\"",
        "\"init_lora_weights\":\"pissa\"",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
        "lora_B.weight",
        "lora_magnitude_vector",
        "layers.18446744073709551615.",
        "\"F16\"",
        "\"BF16\"",
        "[0,0]",
        "-1",
        "null",
        "\\u0000",
    ],
};

const WIDTH: usize = 32;

/// A network of one layer, made here.
fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| {
        let config = json!({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH, "num_attention_heads": 2, "num_key_value_heads": 2, "num_hidden_layers": 1,
            "vocab_size": WIDTH, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
            "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": 2});
        let mut tensors =
            vec![named("model.embed_tokens.weight", &[WIDTH, WIDTH]), named("model.norm.weight", &[WIDTH])];
        for (name, shape) in [
            ("input_layernorm", &[WIDTH][..]),
            ("post_attention_layernorm", &[WIDTH]),
            ("self_attn.q_proj", &[WIDTH, WIDTH]),
            ("self_attn.k_proj", &[WIDTH, WIDTH]),
            ("self_attn.v_proj", &[WIDTH, WIDTH]),
            ("self_attn.o_proj", &[WIDTH, WIDTH]),
            ("mlp.gate_proj", &[2 * WIDTH, WIDTH]),
            ("mlp.up_proj", &[2 * WIDTH, WIDTH]),
            ("mlp.down_proj", &[WIDTH, 2 * WIDTH]),
        ] {
            tensors.push(named(&format!("model.layers.0.{name}.weight"), shape));
        }
        let config = config.to_string();
        let mut base = None;
        with_folder(&[("config.json", config.as_bytes()), ("model.safetensors", &safetensors(&tensors))], |folder| {
            let checkpoint = Checkpoint::open(folder).expect("the base is sound");
            let config = checkpoint.config().expect("its configuration is");
            let (pool, options) = (Arc::new(Pool::new(1)), LoadOptions::default());
            let decoder = llama::load(&checkpoint, &config, pool, &options, &|_, _| ()).expect("it loads");
            base = Some(decoder.base());
        });
        base.expect("it was loaded")
    })
}

type Named = (String, Vec<usize>);

fn named(name: &str, shape: &[usize]) -> Named {
    (name.into(), shape.to_vec())
}

/// The tensors that change a projection of the layer.
fn changes(part: &str, rank: usize, magnitude: bool) -> Vec<Named> {
    let name = |kind: &str| format!("base_model.model.model.layers.0.self_attn.{part}.{kind}");
    let mut tensors = vec![(name("lora_A.weight"), vec![rank, WIDTH]), (name("lora_B.weight"), vec![WIDTH, rank])];
    if magnitude {
        tensors.push((name("lora_magnitude_vector"), vec![WIDTH]));
    }
    tensors
}

fn input(config: &Value, tensors: &[Named]) -> Vec<u8> {
    [config.to_string().as_bytes(), b"\0", &safetensors(tensors)].concat()
}

/// A file of f32 tensors whose values are all 0.0115.
fn safetensors(tensors: &[Named]) -> Vec<u8> {
    let (mut header, mut end) = (Map::new(), 0);
    for (name, shape) in tensors {
        let begin = end;
        end += 4 * shape.iter().product::<usize>();
        header.insert(name.clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}));
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.extend(vec![0x3c; end]);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A target that refuses all of its seeds would try nothing.
    #[test]
    fn the_sound_seeds_load() {
        let seeds = (ADAPTER.seeds)();
        for (at, sound) in [true, true, true, false].into_iter().enumerate() {
            let end = seeds[at].iter().position(|byte| *byte == 0).expect("a zero byte");
            let files =
                [("adapter_config.json", &seeds[at][..end]), ("adapter_model.safetensors", &seeds[at][end + 1..])];
            with_folder(&files, |folder| {
                let loaded = AdapterPlan::new(folder, base()).and_then(|plan| plan.load(&|_, _| ()));
                assert_eq!(loaded.is_ok(), sound, "seed {at}: {:?}", loaded.err());
            });
        }
    }
}
