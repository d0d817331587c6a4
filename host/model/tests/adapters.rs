//! PEFT adapters: against recorded values, against merged weights, beside each other in one batch, and hostile ones.

mod support;

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use stockade_kernels::MatmulPrecision::{self, F32, Int8};
use stockade_model::adapter::AdapterConfig;
use stockade_model::llama::LlamaDecoder;
use stockade_model::{Checkpoint, Decoder, LogitRows};
use support::*;

/// Tensors of f32 by name.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn write(file: &Path, tensors: &Tensors) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, (shape, values)) in tensors {
        let begin = data.len();
        values.iter().for_each(|x| data.extend(x.to_le_bytes()));
        header.insert(name.clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()]}));
    }
    let header = Value::Object(header).to_string();
    std::fs::write(file, [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()).unwrap();
}

fn noise(seed: usize, shape: &[usize], size: f32) -> (Vec<usize>, Vec<f32>) {
    let value = |i: usize| ((i.wrapping_mul(2_654_435_761).wrapping_add(seed * 97_003)) >> 7) % 2003;
    let values = (0..shape.iter().product()).map(|i| (value(i) as f32 / 1001.0 - 1.0) * size).collect();
    (shape.to_vec(), values)
}

/// The products that the made-up adapters change in llama-micro, with outputs and inputs.
const CHANGED: [(&str, usize, usize); 4] = [
    ("self_attn.q_proj", 64, 64),
    ("self_attn.k_proj", 32, 64),
    ("self_attn.o_proj", 64, 64),
    ("mlp.down_proj", 64, 160),
];

fn settings(more: Value) -> Value {
    let mut settings = json!({"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 6, "bias": "none",
        "base_model_name_or_path": "llama-micro"});
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    settings
}

/// An adapter of llama-micro's two layers with `rank_of(module)`, as files in `folder`.
fn made_up(folder: &Path, settings: &Value, rank_of: impl Fn(&str) -> usize) -> Tensors {
    let mut tensors = Tensors::new();
    for layer in 0..2 {
        for (i, (part, outputs, inputs)) in CHANGED.into_iter().enumerate() {
            let (module, r) = (format!("model.layers.{layer}.{part}"), rank_of(part));
            let name = |kind: &str| format!("base_model.model.{module}.{kind}");
            tensors.insert(name("lora_A.weight"), noise(10 * layer + i, &[r, inputs], 0.2));
            tensors.insert(name("lora_B.weight"), noise(50 + 10 * layer + i, &[outputs, r], 0.2));
            if settings["use_dora"] == true {
                let (shape, values) = noise(90 + 10 * layer + i, &[outputs], 0.5);
                tensors.insert(name("lora_magnitude_vector"), (shape, values.iter().map(|x| x + 1.0).collect()));
            }
        }
    }
    write(&folder.join("adapter_model.safetensors"), &tensors);
    std::fs::write(folder.join("adapter_config.json"), settings.to_string()).unwrap();
    tensors
}

/// llama-micro with an adapter merged into its weights, computed in f64, as a folder of its own.
fn merged(adapter: &Tensors, scale_of: impl Fn(&str) -> f64) -> tempfile::TempDir {
    let micro = Checkpoint::open(&fixture("llama-micro")).unwrap();
    let mut tensors: Tensors =
        micro.tensors().map(|t| (t.name.clone(), (t.shape.clone(), micro.read_f32(t).unwrap()))).collect();
    for layer in 0..2 {
        for (part, outputs, inputs) in CHANGED {
            let module = format!("model.layers.{layer}.{part}");
            let of = |kind: &str| adapter.get(&format!("base_model.model.{module}.{kind}"));
            let (a, b) = (&of("lora_A.weight").unwrap().1, &of("lora_B.weight").unwrap().1);
            let r = a.len() / inputs;
            let weight = &mut tensors.get_mut(&format!("{module}.weight")).unwrap().1;
            for (row, weight) in weight.chunks_exact_mut(inputs).enumerate().take(outputs) {
                let changed: Vec<f64> = (0..inputs)
                    .map(|c| {
                        let sum: f64 = (0..r).map(|k| f64::from(b[row * r + k]) * f64::from(a[k * inputs + c])).sum();
                        f64::from(weight[c]) + scale_of(part) * sum
                    })
                    .collect();
                let norm = changed.iter().map(|w| w * w).sum::<f64>().sqrt();
                let factor = of("lora_magnitude_vector").map_or(1.0, |(_, m)| f64::from(m[row]) / norm);
                weight.iter_mut().zip(changed).for_each(|(w, changed)| *w = (changed * factor) as f32);
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("model.safetensors"), &tensors);
    std::fs::copy(fixture("llama-micro").join("config.json"), folder.path().join("config.json")).unwrap();
    folder
}

fn prompt(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| 20 + i * 37 % 900).collect()
}

fn logits_with(decoder: &mut LlamaDecoder, adapter: &Path, tokens: &[u32]) -> Vec<f32> {
    let adapter = load_adapter(adapter, decoder).unwrap();
    let mut sequence = Sequence { adapter: Some(adapter), ..Sequence::new(tokens, 0) };
    sequence.run(decoder, tokens.len(), LogitRows::All)
}

#[test]
fn recorded_adapters_agree_in_logits_and_greedy_ids() {
    let mut decoder = load(&fixture("llama32-tiny"), F32, 2);
    for name in ["llama32-tiny-lora-a", "llama32-tiny-lora-b"] {
        let case = expected(name);
        let ids = ids(&case["input_ids"]);
        let want = &recorded(name)["logits"];
        let got = logits_with(&mut decoder, &fixture(name), &ids);
        assert_close(name, &got[got.len() - want.len()..], want, 5e-4);
        let base = logits(&mut decoder, &ids);
        assert!(difference(&base[got.len() - want.len()..], want).0 > 1.0, "the adapter changes something");
        let adapter = load_adapter(&fixture(name), &decoder).unwrap();
        let sequence = Sequence { adapter: Some(adapter), ..Sequence::new(&ids, 0) };
        assert_eq!(greedy_of(&mut decoder, sequence, 16).0, support::ids(&case["greedy_16"]), "{name}");
    }
}

#[test]
fn every_kind_equals_its_weights_merged_into_the_base() {
    let rank = |part: &str| if part == "mlp.down_proj" { 2 } else { 4 };
    for (name, more, root) in [
        ("LoRA", json!({}), false),
        ("rank-stabilised", json!({"use_rslora": true}), true),
        ("DoRA", json!({"use_dora": true}), false),
        ("DoRA, rank-stabilised", json!({"use_dora": true, "use_rslora": true}), true),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings(more);
        settings["rank_pattern"] = json!({"down_proj": 2});
        settings["alpha_pattern"] = json!({"self_attn.k_proj": 3});
        let tensors = made_up(folder.path(), &settings, rank);
        let scale = |part: &str| {
            let alpha = if part == "self_attn.k_proj" { 3.0 } else { 6.0 };
            let r = rank(part) as f64;
            alpha / if root { r.sqrt() } else { r }
        };
        let tokens = prompt(40);
        let want = logits(&mut load(merged(&tensors, scale).path(), F32, 1), &tokens);
        let mut decoder = load(&fixture("llama-micro"), F32, 1);
        let got = logits_with(&mut decoder, folder.path(), &tokens);
        assert_close(name, &got, &want, 1e-4);
        assert!(difference(&got, &logits(&mut decoder, &tokens)).0 > 0.1, "{name} changes something");
    }
}

#[test]
fn an_adapter_over_gguf_computes_what_it_computes_over_the_checkpoint_it_was_made_from() {
    let folder = tempfile::tempdir().unwrap();
    made_up(folder.path(), &settings(json!({"use_dora": true})), |_| 4);
    let tokens = prompt(40);
    let want = logits_with(&mut load(&fixture("llama-micro"), F32, 1), folder.path(), &tokens);
    // The same bf16 weights with the rows of q and k in another order.
    let gguf = fixture("llama-micro").join("llama-micro-BF16.gguf");
    assert_eq!(logits_with(&mut load(&gguf, F32, 1), folder.path(), &tokens), want);
    // Quantized bases: as far from the adapter over the whole weights as the base is from the whole base.
    let lora = fixture("llama32-tiny-lora-b");
    let mut whole = load(&fixture("llama32-tiny"), F32, 1);
    let (want, base) = (logits_with(&mut whole, &lora, &tokens), logits(&mut whole, &tokens));
    for (file, precision) in [("Q8_0", F32), ("Q8_0", Int8), ("Q4_K_M", F32), ("Q4_K_M", Int8)] {
        let path = fixture("llama32-tiny-gguf").join(format!("llama32-tiny-{file}.gguf"));
        let mut decoder = load(&path, precision, 1);
        let of_base = difference(&logits(&mut decoder, &tokens), &base).1;
        let of_adapter = difference(&logits_with(&mut decoder, &lora, &tokens), &want).1;
        eprintln!("{file} {precision:?}: base {of_base:.4}, with the adapter {of_adapter:.4}");
        assert!(of_adapter < 3.0 * of_base + 1e-3, "{file}: {of_adapter} against {of_base}");
    }
}

/// Rows of `sequences` in one batch, each run up to its end in chunks of `chunk`.
fn batch(decoder: &mut LlamaDecoder, sequences: &mut [Sequence], chunk: usize) -> Vec<Vec<f32>> {
    let vocab = decoder.spec().vocab;
    let mut rows = vec![Vec::new(); sequences.len()];
    while sequences.iter().any(|s| s.done < s.tokens.len()) {
        let running: Vec<usize> =
            (0..sequences.len()).filter(|&i| sequences[i].done < sequences[i].tokens.len()).collect();
        let end = |s: &Sequence| s.tokens.len().min(s.done + chunk);
        let segments: Vec<_> =
            running.iter().map(|&i| sequences[i].segment(end(&sequences[i]), LogitRows::All)).collect();
        let mut logits = Vec::new();
        decoder.step(&segments, &mut logits, &|| false).unwrap();
        let mut rest = &logits[..];
        for i in running {
            let end = end(&sequences[i]);
            let (own, others) = rest.split_at((end - sequences[i].done) * vocab);
            rows[i].extend_from_slice(own);
            (sequences[i].done, rest) = (end, others);
        }
    }
    rows
}

fn bits_do_not_depend_on_the_batch(path: &Path, precision: MatmulPrecision, adapters: [&Path; 2]) {
    let lengths = [1, 33, 7, 40, 12, 8, 21];
    let owners = [None, Some(0), Some(1), None, Some(0), Some(1), Some(0)];
    let alone: Vec<Vec<f32>> = (0..lengths.len())
        .map(|i| {
            let mut decoder = load(path, precision, 1);
            let adapter = owners[i].map(|a: usize| load_adapter(adapters[a], &decoder).unwrap());
            let tokens = &prompt(60)[i..i + lengths[i]];
            Sequence { adapter, ..Sequence::new(tokens, 0) }.run(&mut decoder, tokens.len(), LogitRows::All)
        })
        .collect();
    for (threads, chunk) in [(1, 64), (3, 64), (2, 5), (1, 1)] {
        let mut decoder = load(path, precision, threads);
        let loaded = adapters.map(|folder| load_adapter(folder, &decoder).unwrap());
        for order in [[0, 1, 2, 3, 4, 5, 6], [0, 3, 1, 4, 6, 2, 5], [6, 5, 4, 3, 2, 1, 0]] {
            let mut sequences: Vec<Sequence> = order
                .iter()
                .map(|&i| Sequence {
                    adapter: owners[i].map(|a: usize| loaded[a].clone()),
                    ..Sequence::new(&prompt(60)[i..i + lengths[i]], 8 * i as u32)
                })
                .collect();
            let rows = batch(&mut decoder, &mut sequences, chunk);
            for (&i, row) in order.iter().zip(&rows) {
                assert!(*row == alone[i], "{}, {threads} threads, chunks of {chunk}, sequence {i}", path.display());
            }
        }
    }
}

#[test]
fn rows_of_adapters_and_of_the_base_in_one_batch_equal_single_runs_bit_for_bit() {
    let recorded = ["llama32-tiny-lora-a", "llama32-tiny-lora-b"].map(fixture);
    let [a, b] = &recorded;
    bits_do_not_depend_on_the_batch(&fixture("llama32-tiny"), F32, [a, b]);
    bits_do_not_depend_on_the_batch(&fixture("llama32-tiny-gguf").join("llama32-tiny-Q4_K_M.gguf"), Int8, [a, b]);
    let folder = tempfile::tempdir().unwrap();
    let made: Vec<PathBuf> = ["lora", "dora"].iter().map(|name| folder.path().join(name)).collect();
    made.iter().for_each(|path| std::fs::create_dir(path).unwrap());
    made_up(&made[0], &settings(json!({})), |_| 4);
    made_up(&made[1], &settings(json!({"use_dora": true, "r": 5})), |_| 5);
    bits_do_not_depend_on_the_batch(&fixture("llama-micro"), F32, [&made[0], &made[1]]);
}

#[test]
fn an_adapter_runs_on_the_base_it_was_loaded_onto_alone_and_its_digest_knows_its_settings() {
    let (mut one, other) = (load(&fixture("llama-micro"), F32, 1), load(&fixture("llama-micro"), F32, 1));
    let folder = tempfile::tempdir().unwrap();
    made_up(folder.path(), &settings(json!({})), |_| 4);
    let adapter = load_adapter(folder.path(), &other).unwrap();
    let mut sequence = Sequence { adapter: Some(adapter.clone()), ..Sequence::new(&prompt(3), 0) };
    let error = one.step(&[sequence.segment(3, LogitRows::Last)], &mut Vec::new(), &|| false).unwrap_err();
    assert!(error.to_string().contains("another base"), "{error}");
    sequence.adapter = Some(load_adapter(folder.path(), &one).unwrap());
    assert_eq!(sequence.adapter.as_ref().unwrap().digest(), adapter.digest());
    sequence.run(&mut one, 3, LogitRows::Last);
    made_up(folder.path(), &settings(json!({"lora_alpha": 7})), |_| 4);
    assert_ne!(load_adapter(folder.path(), &one).unwrap().digest(), adapter.digest());
}

#[test]
fn hostile_adapters_are_refused_with_file_and_reason() {
    let decoder = load(&fixture("llama-micro"), F32, 1);
    let refused = |settings: &Value, change: &dyn Fn(&mut Tensors), want: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let mut tensors = made_up(folder.path(), settings, |_| 4);
        change(&mut tensors);
        write(&folder.path().join("adapter_model.safetensors"), &tensors);
        let error = load_adapter(folder.path(), &decoder).map(|_| ()).unwrap_err().to_string();
        assert!(want.iter().all(|want| error.contains(want)), "{want:?} in {error}");
    };
    for (more, want) in [
        (json!({"peft_type": "IA3"}), "IA3"),
        (json!({"r": 0}), "`r` is 0"),
        (json!({"r": 100_000}), "`r` is 100000"),
        (json!({"r": -4}), "`r` is -4"),
        (json!({"lora_alpha": "x"}), "lora_alpha"),
        (json!({"bias": "all"}), "bias"),
        (json!({"use_dora": 1}), "use_dora"),
        (json!({"fan_in_fan_out": true}), "fan_in_fan_out"),
        (json!({"lora_bias": true}), "lora_bias"),
        (json!({"modules_to_save": ["lm_head"]}), "modules_to_save"),
        (json!({"layer_replication": [[0, 2]]}), "layer_replication"),
        (json!({"alora_invocation_tokens": [1]}), "alora_invocation_tokens"),
        (json!({"kasa_config": {"beta": 1}}), "kasa_config"),
        (json!({"a_setting_of_2031": 3}), "a_setting_of_2031"),
        (json!({"init_lora_weights": "pissa_niter_4"}), "pissa"),
        (json!({"rank_pattern": {".*q_proj": 4}}), "expression"),
        (json!({"rank_pattern": {"q_proj": 1e9}}), "rank 1000000000"),
        (json!({"rank_pattern": {"q_proj": 3.5}}), "rank 3.5"),
        (json!({"rank_pattern": {"q_proj": 4, "self_attn.q_proj": 5}}), "more than one value"),
    ] {
        refused(&settings(more), &|_| {}, &["adapter_config.json", want]);
    }
    let q = |kind: &str| format!("base_model.model.model.layers.0.self_attn.q_proj.{kind}");
    let (a, b) = (q("lora_A.weight"), q("lora_B.weight"));
    let (plain, dora) = (settings(json!({})), settings(json!({"use_dora": true})));
    refused(&plain, &|t| drop(t.remove(&a)), &["adapter_model.safetensors", &a, "missing"]);
    refused(&plain, &|t| drop(t.remove(&b)), &["adapter_model.safetensors", &b, "missing"]);
    refused(&dora, &|t| drop(t.remove(&q("lora_magnitude_vector"))), &["lora_magnitude_vector", "missing"]);
    refused(&plain, &|t| drop(t.insert(q("lora_magnitude_vector"), noise(1, &[64], 1.0))), &["use_dora"]);
    refused(&dora, &|t| drop(t.insert(q("lora_magnitude_vector.weight"), noise(1, &[64], 1.0))), &["second"]);
    refused(&dora, &|t| t.get_mut(&q("lora_magnitude_vector")).unwrap().1[3] = f32::NAN, &["output 3", "finite"]);
    for (name, shape, want) in [
        (&a, &[5, 64][..], "[4, 64]"),
        (&a, &[4, 63], "[4, 64]"),
        (&a, &[256], "[4, 64]"),
        (&b, &[65, 4], "[64, 4]"),
        (&b, &[4, 64], "[64, 4]"),
    ] {
        refused(&plain, &|t| drop(t.insert(name.clone(), noise(1, shape, 1.0))), &[name, want]);
    }
    for name in [
        "base_model.model.lm_head.lora_A.weight",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.00.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias",
        "model.layers.0.self_attn.q_proj.lora_A.weight",
    ] {
        refused(&plain, &|t| drop(t.insert(name.into(), noise(1, &[4, 64], 1.0))), &[name, "nothing else"]);
    }
    refused(&plain, &Tensors::clear, &["no tensors"]);

    let folder = tempfile::tempdir().unwrap();
    let error = || load_adapter(folder.path(), &decoder).map(|_| ()).unwrap_err().to_string();
    std::fs::write(folder.path().join("adapter_config.json"), "[]").unwrap();
    assert!(error().contains("object"), "{}", error());
    std::fs::write(folder.path().join("adapter_config.json"), settings(json!({})).to_string()).unwrap();
    std::fs::write(folder.path().join("adapter_model.bin"), "pickle").unwrap();
    assert!(error().contains("no adapter_model.safetensors"), "{}", error());
    assert_eq!(AdapterConfig::from_folder(folder.path()).unwrap().base.as_deref(), Some("llama-micro"));
    assert!(AdapterConfig::from_folder(&fixture("llama32-tiny-lora-b")).unwrap().rank_stabilised);
}

#[test]
fn flipped_bytes_of_an_adapter_end_in_a_value_or_an_error() {
    let mut decoder = load(&fixture("llama-micro"), F32, 1);
    let folder = tempfile::tempdir().unwrap();
    made_up(folder.path(), &settings(json!({"use_dora": true})), |_| 4);
    let files = ["adapter_model.safetensors", "adapter_config.json"].map(|name| folder.path().join(name));
    let whole = files.each_ref().map(|file| std::fs::read(file).unwrap());
    let header = 8 + u64::from_le_bytes(whole[0][..8].try_into().unwrap()) as usize;
    let mut refused = 0;
    for i in 0..600usize {
        let which = usize::from(i % 3 == 0);
        let mut bytes = whole[which].clone();
        // Headers and settings above all; numbers behind them are anything anyway.
        let end = if which == 0 { header + 64 } else { bytes.len() };
        let at = i.wrapping_mul(2_654_435_761) % end;
        bytes[at] ^= 1 << (i % 8);
        bytes.truncate(if i % 50 == 7 { at } else { bytes.len() });
        std::fs::write(&files[which], &bytes).unwrap();
        match load_adapter(folder.path(), &decoder) {
            Err(_) => refused += 1,
            Ok(adapter) => {
                let mut sequence = Sequence { adapter: Some(adapter), ..Sequence::new(&prompt(3), 0) };
                sequence.run(&mut decoder, 3, LogitRows::Last);
            }
        }
        std::fs::write(&files[which], &whole[which]).unwrap();
    }
    assert!((300..600).contains(&refused), "{refused} of 600 refused");
}
