use super::*;
use crate::checkpoint::Checkpoint;
use serde_json::{Value, json};

fn of(model: &str) -> Option<ModelConfig> {
    Some(Checkpoint::open(&crate::reference_file(model)?).unwrap().config().unwrap())
}

/// A Llama configuration with `changes` made to it.
fn written(changes: Value) -> Result<ModelConfig, ModelError> {
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 5e5, "eos_token_id": [3, 1],
    });
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    std::fs::write(dir.path().join("generation_config.json"), json!({"eos_token_id": 2}).to_string()).unwrap();
    ModelConfig::from_folder(dir.path())
}

#[test]
fn both_spellings_of_a_configuration_load_alike() {
    let old = json!({
        "rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64},
        "torch_dtype": "bfloat16",
    });
    let new = json!({
        "rope_theta": null, "dtype": "bfloat16",
        "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 32.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
    });
    let (old, new) = (written(old).unwrap(), written(new).unwrap());
    assert_eq!(old, new);
    assert_eq!((old.rope.unwrap().theta, old.dtype), (5e5, Some(WeightType::BF16)));
    assert_eq!(old.eos_ids, [1, 2, 3], "generation_config.json adds to them");

    let Some(folder) = crate::reference_file("fixtures/llama32-tiny") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(folder.join("config.transformers-5.json"), dir.path().join("config.json")).unwrap();
    assert_eq!(ModelConfig::from_folder(dir.path()).unwrap(), ModelConfig::from_folder(&folder).unwrap());
}

#[test]
fn inverse_frequencies_are_the_recorded_ones_from_json_and_from_gguf() {
    let Some(expected) = crate::reference_file("fixtures/llama32-tiny/expected.json") else {
        return;
    };
    let expected: Value = serde_json::from_slice(&std::fs::read(expected).unwrap()).unwrap();
    let want: Vec<f64> = serde_json::from_value(expected["inv_freq"].clone()).unwrap();
    for model in ["fixtures/llama32-tiny", "fixtures/llama32-tiny-gguf/llama32-tiny-Q4_K_M.gguf"] {
        let config = of(model).unwrap();
        let got = config.rope.as_ref().unwrap().inverse_frequencies(config.head_dim);
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(&want) {
            assert!((f64::from(*got) - want).abs() <= 1e-6 * want, "{model}: {got} where {want} was recorded");
        }
    }
}

#[test]
fn gguf_metadata_says_what_config_json_says() {
    let (Some(json), Some(gguf)) =
        (of("fixtures/llama32-tiny"), of("fixtures/llama32-tiny-gguf/llama32-tiny-Q8_0.gguf"))
    else {
        return;
    };
    assert!(matches!(gguf.rope.as_ref().unwrap().scaling, RopeScaling::Divisors(_)));
    assert_eq!(
        ModelConfig { rope: None, dtype: None, pad_id: None, ..gguf },
        ModelConfig { rope: None, dtype: None, pad_id: None, ..json }
    );
}

#[test]
fn every_family_of_the_fixtures_is_read() {
    let Some(mistral) = of("fixtures/mistral-tiny") else {
        return;
    };
    assert_eq!((mistral.architecture, &mistral.windows[..]), (Architecture::Mistral, &[Some(24); 2][..]));
    let qwen2 = of("fixtures/qwen2-tiny").unwrap();
    assert_eq!(
        (qwen2.architecture, qwen2.qkv_bias, qwen2.output_bias, qwen2.qk_norm),
        (Architecture::Qwen2, true, false, false)
    );
    assert_eq!((qwen2.head_dim, qwen2.windows[1], qwen2.tied_embeddings), (16, None, true));
    let qwen3 = of("fixtures/qwen3-tiny").unwrap();
    assert_eq!(
        (qwen3.architecture, qwen3.qkv_bias, qwen3.qk_norm, qwen3.head_dim),
        (Architecture::Qwen3, false, true, 32)
    );
    let reward = of("fixtures/reward-tiny").unwrap();
    assert_eq!(reward.head, Head::Classifier { labels: vec!["LABEL_0".into()] });
    let bert = of("fixtures/bert-tiny").unwrap();
    assert_eq!((bert.architecture, bert.rope, bert.head), (Architecture::Bert, None, Head::Embedding));
    assert_eq!(bert.encoder.map(|e| (e.token_types, e.pooling, e.normalize)), Some((2, Pooling::Mean, true)));
    let deberta = of("fixtures/deberta-tiny-3").unwrap();
    assert_eq!((deberta.architecture, deberta.rope, deberta.norm_eps), (Architecture::DebertaV2, None, 1e-7));
    assert_eq!(
        deberta.head,
        Head::Classifier { labels: ["BENIGN", "INJECTION", "JAILBREAK"].map(String::from).into() }
    );
    let distances = deberta.encoder.and_then(|encoder| encoder.relative);
    assert_eq!(distances, Some(RelativePositions { buckets: 32, max_distance: 512 }));
    if let Some(minilm) = crate::pulled_model("all-MiniLM-L6-v2") {
        let config = ModelConfig::from_folder(&minilm).unwrap();
        assert_eq!((config.layers, config.hidden_size, config.encoder.unwrap().max_tokens), (6, 384, 256));
    }
    if let Some(smollm) = crate::pulled_model("SmolLM2-135M-Instruct.Q4_1.gguf") {
        let config = Checkpoint::open(&smollm).unwrap().config().unwrap();
        assert_eq!((config.layers, config.heads, config.kv_heads, config.head_dim), (30, 9, 3, 64));
        assert_eq!(
            (config.eos_ids, config.dtype, config.rope.unwrap().theta),
            (vec![0, 2], Some(WeightType::Q8_0), 1e5)
        );
    }
}

#[test]
fn qwen_windows_start_after_the_full_layers() {
    let config = written(
        json!({"model_type": "qwen2", "use_sliding_window": true, "sliding_window": 8, "max_window_layers": 1}),
    );
    assert_eq!(config.unwrap().windows, [None, Some(8)]);
    let config = written(
        json!({"model_type": "qwen2", "use_sliding_window": false, "sliding_window": 8, "max_window_layers": 0}),
    );
    assert_eq!(config.unwrap().windows, [None, None]);
}

#[test]
fn what_no_network_here_computes_is_refused_by_name() {
    for (changes, want) in [
        (json!({"model_type": "gemma"}), "gemma"),
        (json!({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}), "yarn"),
        (json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}}), "dynamic"),
        (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor"),
        (json!({"hidden_act": "gelu_new"}), "gelu_new"),
        (json!({"rope_scaling": {"rope_type": "llama3"}}), "factor"),
        (json!({"num_hidden_layers": 0}), "layers"),
        (json!({"num_hidden_layers": 1025}), "layers"),
        (json!({"hidden_size": 1u64 << 40}), "hidden size"),
        (json!({"num_attention_heads": 3}), "heads"),
        (json!({"num_attention_heads": 0}), "heads"),
        (json!({"head_dim": 3}), "odd"),
        (json!({"vocab_size": -1}), "vocab_size"),
        (json!({"rms_norm_eps": 0.0}), "epsilon"),
        (json!({"rope_theta": -1.0}), "rope"),
        (json!({"eos_token_id": 100}), "100"),
        (json!({"max_position_embeddings": null}), "max_position_embeddings"),
    ] {
        let error = written(changes.clone()).expect_err(&changes.to_string()).to_string();
        let named = error.contains(want) || (want == "vocab_size" && error.contains("-1"));
        assert!(named && error.contains("config.json"), "{changes}: {error}");
    }
}

#[test]
fn of_deberta_one_layout_is_computed_and_every_other_is_refused_by_name() {
    let layout = json!({
        "model_type": "deberta-v2", "hidden_act": "gelu", "relative_attention": true, "position_biased_input": false,
        "share_att_key": true, "norm_rel_ebd": "layer_norm", "pos_att_type": "p2c|c2p", "position_buckets": 32,
        "max_relative_positions": -1, "type_vocab_size": 0, "layer_norm_eps": 1e-7,
    });
    let changed = |changes: serde_json::Value| {
        let mut all = layout.clone();
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        written(all)
    };
    let config = changed(json!({})).unwrap();
    assert_eq!(config.encoder.unwrap().relative.unwrap().buckets, 32);
    for (changes, want) in [
        (json!({"relative_attention": false}), "relative_attention"),
        (json!({"position_biased_input": true}), "position_biased_input"),
        (json!({"share_att_key": false}), "share_att_key"),
        (json!({"norm_rel_ebd": "none"}), "norm_rel_ebd"),
        (json!({"pos_att_type": ["c2p"]}), "pos_att_type"),
        (json!({"pos_att_type": ["c2p", "p2c", "p2p"]}), "pos_att_type"),
        (json!({"type_vocab_size": 2}), "type_vocab_size"),
        (json!({"conv_kernel_size": 3}), "conv_kernel_size"),
        (json!({"embedding_size": 7}), "embedding_size"),
        (json!({"pooler_hidden_size": 7}), "pooler_hidden_size"),
        (json!({"pooler_hidden_act": "tanh"}), "pooler_hidden_act"),
        (json!({"hidden_act": "gelu_new"}), "gelu_new"),
        (json!({"position_buckets": -1}), "position_buckets"),
        (json!({"position_buckets": 1u64 << 40}), "position_buckets"),
        (json!({"position_buckets": 32, "max_relative_positions": 8}), "position_buckets"),
    ] {
        let error = changed(changes.clone()).expect_err(&changes.to_string()).to_string();
        assert!(error.contains(want) && error.contains("config.json"), "{changes}: {error}");
    }
}
