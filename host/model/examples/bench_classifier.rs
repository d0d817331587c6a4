//! Milliseconds per window of a text classifier of Prompt Guard's shapes. The weights are random: time does not depend on
//! them. The vocabulary is small, for the same reason.
//!
//! ```text
//! cargo run --release -p stockade-model --example bench_classifier -- 22m|86m [--threads 2] [--tokens 512] [--texts 4] [--repeat 5]
//! ```

use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;
use stockade_model::{Checkpoint, deberta};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const VOCABULARY: usize = 1000;
const BUCKETS: usize = 256;

struct Shape {
    layers: usize,
    hidden: usize,
    heads: usize,
    ffn: usize,
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let shape = match args.first().map(String::as_str) {
        Some("22m") => Shape { layers: 12, hidden: 384, heads: 6, ffn: 1536 },
        Some("86m") => Shape { layers: 12, hidden: 768, heads: 12, ffn: 3072 },
        _ => return Err("say 22m (DeBERTa-v3-xsmall) or 86m (mDeBERTa-v3-base)".into()),
    };
    let number = |name: &str, default: usize| -> Result<usize> {
        let at = args.iter().position(|arg| arg == name);
        Ok(at.and_then(|at| args.get(at + 1)).map(|value| value.parse()).transpose()?.unwrap_or(default))
    };
    let (threads, tokens) = (number("--threads", 2)?, number("--tokens", 512)?);
    let (texts, repeat) = (number("--texts", 4)?, number("--repeat", 5)?);
    let folder = tempfile::tempdir()?;
    write(folder.path(), &shape)?;
    let checkpoint = Checkpoint::open(folder.path())?;
    let classifier = deberta::load(&checkpoint, &checkpoint.config()?, threads)?;
    let ids: Vec<u32> = (0..tokens).map(|i| (i * 7919 % VOCABULARY) as u32).collect();
    for texts in [1, texts] {
        let batch = vec![ids.clone(); texts];
        classifier.scores(&batch)?;
        let mut times = Vec::with_capacity(repeat);
        for _ in 0..repeat {
            let start = Instant::now();
            classifier.scores(&batch)?;
            times.push(start.elapsed().as_secs_f64() * 1e3 / texts as f64);
        }
        times.sort_by(f64::total_cmp);
        let (fastest, median) = (times[0], times[times.len() / 2]);
        println!("{threads} threads, {texts} texts of {tokens} tokens: {median:.0} ms a text (fastest {fastest:.0})");
    }
    Ok(())
}

fn write(folder: &Path, shape: &Shape) -> Result<()> {
    let Shape { layers, hidden, heads, ffn } = *shape;
    let config = json!({
        "architectures": ["DebertaV2ForSequenceClassification"], "model_type": "deberta-v2", "hidden_act": "gelu",
        "hidden_size": hidden, "intermediate_size": ffn, "num_hidden_layers": layers, "num_attention_heads": heads,
        "vocab_size": VOCABULARY, "max_position_embeddings": 512, "position_buckets": BUCKETS, "relative_attention": true,
        "position_biased_input": false, "share_att_key": true, "norm_rel_ebd": "layer_norm", "type_vocab_size": 0,
        "pos_att_type": ["p2c", "c2p"], "max_relative_positions": -1, "id2label": {"0": "BENIGN", "1": "MALICIOUS"},
    });
    std::fs::write(folder.join("config.json"), config.to_string())?;
    let mut tensors: Vec<(String, Vec<usize>)> = Vec::new();
    let mut linear = |name: String, outputs: usize, inputs: usize| {
        tensors.push((format!("{name}.weight"), vec![outputs, inputs]));
        tensors.push((format!("{name}.bias"), vec![outputs]));
    };
    for i in 0..layers {
        let layer = |part: &str| format!("deberta.encoder.layer.{i}.{part}");
        for part in ["self.query_proj", "self.key_proj", "self.value_proj", "output.dense"] {
            linear(layer(&format!("attention.{part}")), hidden, hidden);
        }
        linear(layer("intermediate.dense"), ffn, hidden);
        linear(layer("output.dense"), hidden, ffn);
    }
    linear("pooler.dense".into(), hidden, hidden);
    linear("classifier".into(), 2, hidden);
    let mut norms = vec!["deberta.embeddings.LayerNorm".to_string(), "deberta.encoder.LayerNorm".into()];
    for i in 0..layers {
        norms.extend(["attention.output", "output"].map(|part| format!("deberta.encoder.layer.{i}.{part}.LayerNorm")));
    }
    for norm in norms {
        tensors.extend(["weight", "bias"].map(|part| (format!("{norm}.{part}"), vec![hidden])));
    }
    tensors.push(("deberta.embeddings.word_embeddings.weight".into(), vec![VOCABULARY, hidden]));
    tensors.push(("deberta.encoder.rel_embeddings.weight".into(), vec![2 * BUCKETS, hidden]));

    let mut header = Map::new();
    let mut end = 0;
    for (name, shape) in &tensors {
        let start = end;
        end += 4 * shape.iter().product::<usize>();
        header.insert(name.clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]}));
    }
    let header = Value::Object(header).to_string();
    let mut out = BufWriter::new(File::create(folder.join("model.safetensors"))?);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    let mut state = 0x9E37_79B9u32;
    for _ in 0..end / 4 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let value = (f64::from(state) / f64::from(u32::MAX) - 0.5) as f32 * 0.07;
        out.write_all(&value.to_le_bytes())?;
    }
    out.into_inner()?.sync_all()?;
    Ok(())
}
