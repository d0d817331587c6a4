//! Model files: whatever they hold, opening ends in a value or an error.

use super::scratch;
use crate::Target;
use crate::fixtures::{file, files};
use serde_json::json;
use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;
use std::time::SystemTime;
use stockade_model::template::{ChatInput, ChatTemplate, TemplateTokens};
use stockade_model::{Checkpoint, ModelConfig, Tokenizer};

const JSON_WORDS: &[&str] = &[
    "{", "}", "[", "]", "\"", ":", ",", "null", "true", "-1", "1e999", "0.5", "\\ud800", "\\u0000", "{\"a\":", "[[[[",
];

pub const GGUF: Target = Target {
    name: "gguf",
    run: |bytes| with_folder(&[("model.gguf", bytes)], read_all),
    seeds: || {
        let mut seeds = files(&["llama-micro/llama-micro-F16.gguf", "llama-micro/llama-micro-BF16.gguf"]);
        // Magic, version 3, no tensor, one entry: `general.architecture` = "llama".
        let mut small = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x14\0\0\0\0\0\0\0".to_vec();
        small.extend(b"general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0llama");
        seeds.push(small);
        seeds
    },
    words: &["GGUF", "general.alignment", "tokenizer.ggml.tokens", "rope_freqs.weight", "llama.block_count"],
};

pub const SAFETENSORS: Target = Target {
    name: "safetensors",
    run: |bytes| {
        let config = file("llama-micro/config.json").unwrap_or_else(|| b"{}".to_vec());
        with_folder(&[("model.safetensors", bytes), ("config.json", &config)], read_all);
    },
    seeds: || {
        let mut seeds = files(&["bert-tiny/expected.safetensors", "deberta-tiny-3/expected.safetensors"]);
        seeds.push(tensors(r#"{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#, 16));
        seeds
    },
    words: &["\"dtype\"", "\"shape\"", "\"data_offsets\"", "\"F32\"", "\"BF16\"", "[0,0]", "__metadata__", "-1", "1e3"],
};

pub const SHARDS: Target = Target {
    name: "shards",
    run: |bytes| {
        let weights = tensors(r#"{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#, 16);
        with_folder(
            &[("model.safetensors.index.json", bytes), ("model-00001-of-00001.safetensors", &weights)],
            read_all,
        );
    },
    seeds: || {
        let mut seeds = files(&["llama32-tiny-bf16/model.safetensors.index.json"]);
        let index = json!({"metadata": {"total_size": 16}, "weight_map": {"w": "model-00001-of-00001.safetensors"}});
        seeds.push(index.to_string().into_bytes());
        seeds
    },
    words: &["../", "/etc/passwd", "model-00001-of-00001.safetensors", "weight_map", "{", "}", "\"", "\\u0000", "null"],
};

pub const CONFIG: Target = Target {
    name: "config",
    run: |bytes| {
        with_folder(&[("config.json", bytes)], |folder| {
            if let Ok(config) = ModelConfig::from_folder(folder) {
                let _ = format!("{config:?}");
            }
        });
    },
    seeds: || {
        let mut seeds = files(&[
            "llama-micro/config.json",
            "llama32-tiny/config.json",
            "llama32-tiny/config.transformers-5.json",
            "mistral-tiny/config.json",
            "qwen2-tiny/config.json",
            "qwen3-tiny/config.json",
            "bert-tiny/config.json",
            "deberta-tiny-2/config.json",
            "mllama-tiny/config.json",
            "reward-tiny/config.json",
        ]);
        let config = json!({"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2,
            "intermediate_size": 128, "vocab_size": 100, "max_position_embeddings": 64, "rms_norm_eps": 1e-5});
        seeds.push(config.to_string().into_bytes());
        seeds
    },
    words: JSON_WORDS,
};

pub const TOKENIZER: Target = Target {
    name: "tokenizer",
    run: |bytes| {
        with_folder(&[("tokenizer.json", bytes)], |folder| {
            let Ok(tokenizer) = Tokenizer::from_folder(folder) else { return };
            for text in ["", "a b", "Zoë <s> \u{1f600}\0 \n\n <|eot_id|>"] {
                if let Ok(ids) = tokenizer.encode(text, Default::default()) {
                    let _ = (tokenizer.decode(&ids, true), tokenizer.decode(&ids, false));
                    ids.iter().for_each(|id| {
                        let _ = (tokenizer.token_bytes(*id), tokenizer.text(*id));
                    });
                }
            }
            let _ = tokenizer.decode(&[u32::MAX, 0], false);
        });
    },
    seeds: || {
        let mut seeds =
            files(&["bert-tiny/tokenizer.json", "llama-micro/tokenizer.json", "deberta-tiny-2/tokenizer.json"]);
        let tokenizer = json!({"version": "1.0", "added_tokens": [{"id": 2, "content": "<s>", "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}], "normalizer": null,
            "pre_tokenizer": null, "post_processor": null, "decoder": null,
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "<s>": 2, "ab": 3}, "merges": [["a", "b"]]}});
        seeds.push(tokenizer.to_string().into_bytes());
        seeds
    },
    words: &[
        "{",
        "}",
        "[",
        "]",
        "\"",
        "null",
        "-1",
        "4294967295",
        "\"type\":\"BPE\"",
        "\"type\":\"WordPiece\"",
        "\"Unigram\"",
        "\"Regex\":\"(a+)+$\"",
        "\"Regex\":\"(\"",
        "\"special\":true",
        "\"merges\":[]",
        "\"vocab\":{}",
        "\\ud800",
    ],
};

pub const TEMPLATE: Target = Target {
    name: "template",
    run: |bytes| {
        let Ok(source) = std::str::from_utf8(bytes) else { return };
        let tokens = TemplateTokens { control: vec!["<|im_start|>".into(), "<|im_end|>".into()], ..Default::default() };
        let Ok(template) = ChatTemplate::new(source, tokens) else { return };
        let messages = [
            json!({"role": "system", "content": "Be brief. <|im_end|>"}),
            json!({"role": "user", "content": [{"type": "text", "text": "Hello <|im_"}]}),
            json!({"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}),
        ];
        let tools = [json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}})];
        for tools in [None, Some(&tools[..])] {
            let input = ChatInput {
                messages: &messages,
                tools,
                add_generation_prompt: true,
                variables: None,
                now: SystemTime::UNIX_EPOCH,
            };
            if let Ok(rendered) = template.render(&input) {
                let _ = rendered.text();
            }
        }
    },
    seeds: || {
        let mut seeds: Vec<Vec<u8>> = ["llama-micro", "qwen2-tiny", "qwen3-tiny", "mistral-tiny"]
            .iter()
            .filter_map(|name| file(&format!("{name}/tokenizer_config.json")))
            .filter_map(|json| serde_json::from_slice::<serde_json::Value>(&json).ok())
            .filter_map(|json| Some(json["chat_template"].as_str()?.as_bytes().to_vec()))
            .collect();
        seeds.push(
            b"{%- for m in messages %}<|im_start|>{{ m['role'] + '\\n' + m.content|trim }}<|im_end|>{% if loop.last %}{{ 1 }}{% endif %}{% endfor -%}"
                .to_vec(),
        );
        seeds
    },
    words: &[
        "{{",
        "}}",
        "{%",
        "%}",
        "{%-",
        "-%}",
        "{#",
        "#}",
        "for m in messages",
        "endfor",
        "if",
        "endif",
        "macro",
        "set",
        "|tojson",
        "|trim",
        "range(999999999)",
        "raise_exception('x')",
        "strftime_now('%Y')",
        "namespace()",
        "'a' * 99999999",
        ".split('')",
        "[::-1]",
        "recursive",
        "loop(messages)",
        "1/0",
        "9999999999999999999999",
    ],
};

pub const ARCHIVE: Target = Target {
    name: "archive",
    run: |bytes| {
        let folder = scratch();
        let path = folder.path().join("model.zip");
        fs::write(&path, bytes).expect("scratch files can be written");
        let models = folder.path().join("models");
        if let Ok(found) = stockade_model::hub::resolve(&path, &models) {
            assert!(found.starts_with(&models), "an archive chose where it is written: {}", found.display());
        }
        let beside = fs::read_dir(folder.path()).expect("it is here").count();
        assert!(beside <= 2, "an archive wrote beside its folder");
    },
    seeds: || {
        let config = br#"{"model_type":"llama"}"#;
        let weights = tensors(r#"{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#, 16);
        vec![
            archive(&[("model/config.json", &config[..]), ("model/model.safetensors", &weights)]),
            archive(&[("a/b/model.gguf", b"GGUF")]),
            archive(&[("../config.json", &config[..]), ("../model.safetensors", &weights), ("/etc/x", b"x")]),
        ]
    },
    words: &["PK\x03\x04", "PK\x01\x02", "PK\x05\x06", "PK\x06\x06", "../", "/", "config.json", "model.safetensors"],
};

/// A folder with these files, while `look` runs.
pub(super) fn with_folder(files: &[(&str, &[u8])], look: impl FnOnce(&Path)) {
    let folder = scratch();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).expect("scratch files can be written");
    }
    look(folder.path());
}

/// Opens a model and reads all that can be read of it.
fn read_all(folder: &Path) {
    let Ok(checkpoint) = Checkpoint::open(folder) else { return };
    for tensor in checkpoint.tensors() {
        let _ = checkpoint.read_f32(tensor);
    }
    let _ = checkpoint.config();
    if let Ok(tokenizer) = Tokenizer::open(&checkpoint) {
        if let Ok(ids) = tokenizer.encode("a b <s>", Default::default()) {
            let _ = tokenizer.decode(&ids, true);
        }
        let _ = ChatTemplate::open(&checkpoint, &tokenizer);
    }
}

/// A safetensors file with this header and so many bytes of data.
fn tensors(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.extend(vec![1; data]);
    file
}

fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).expect("a member");
        writer.write_all(bytes).expect("its bytes");
    }
    writer.finish().expect("an archive").into_inner()
}
